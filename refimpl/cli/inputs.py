"""Where the lines of a verb come from: the command line, stdin or a file.

    read_lines(args, texts, key) -> Input, with the lines and how far they have been read

The format is said (--input), or told by the file's suffix, or by the first line: JSONL if that
starts with {. Promise: what is wrong with the arguments, the file or its header is told here,
before a model is loaded; a file named as if it were a text is refused, there or not, and so is a
CSV header that would be embedded as one. Nothing is read ahead but the lines up to the first that
is not blank. Long because every such refusal stands here.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from ..files.formats import SUFFIXES, json_lines, table_rows, text_lines
from ..files.lines import Line, Names
from .streams import Source

# First bytes of files that hold no UTF-8 text, what they are, and the way on.
FOREIGN = (
    (b"\xff\xfe", "UTF-16 text", "iconv -f UTF-16 -t UTF-8 makes UTF-8 of it"),
    (b"\xfe\xff", "UTF-16 text", "iconv -f UTF-16 -t UTF-8 makes UTF-8 of it"),
    (b"\x1f\x8b", "gzip", "zcat FILE | modernbert {verb} - reads it"),
    (b"PK\x03\x04", "a zip archive (as .xlsx and .npz are)", "export it as CSV or JSONL"),
    (b"\x93NUMPY", "an array of numpy", "texts come as text, JSONL, CSV or TSV"),
    (b"PAR1", "Parquet", "export it as CSV or JSONL"),
)
# The name of a file of texts: no spaces, and a suffix of one.
DATA_FILE = re.compile(rf"\S+({'|'.join(map(re.escape, (*SUFFIXES, '.txt')))})", re.IGNORECASE)
# What a suggested command keeps of the one that was given: without them the results are others.
DECISIVE = ("model", "index", "context", "context-file")
# Words with a delimiter between them, and no spaces.
HEADER = re.compile(r'"?\w[\w.-]*"?([,;\t]"?\w[\w.-]*"?)+')


@dataclass
class Input:
    """The lines; strict: they are arguments, where a bad one ends the command."""

    lines: Iterator[Line]
    strict: bool = False
    source: Source | None = None

    @property
    def part(self) -> float | None:
        """How much of it has been read, in 0 .. 1; None where nobody knows."""
        return None if self.source is None else self.source.part


def read_lines(
    args: argparse.Namespace, texts: list[str], key: str = "text", *before: str
) -> Input:
    """The texts, or the lines of --file, or of stdin when there are none or the only one is "-".

    key: the field that a plain text fills; before: see refuse_files. Usage error, OSError,
    ValueError: see above.
    """
    if from_command_line(texts):
        refuse_files(args, texts, *before)
        if args.file is not None:
            args.usage_error(f"give {key}s or --file, not both")
        return Input(iter([Line(i, {key: text}) for i, text in enumerate(texts)]), strict=True)
    name, stream = opened(args, texts, key)
    source = Source(stream)
    ahead, lines = first_lines(iter(source))
    refuse_foreign(args, name, ahead[-1] if ahead else b"")
    names = Names(key, args.field, args.id)
    said = SUFFIXES.get(Path(name).suffix.lower()) if args.input == "auto" else args.input
    kind = said or guessed(args, names, ahead)
    if kind == "text":
        if args.field or args.id:
            args.usage_error("--field and --id need fields: --input jsonl, csv or tsv")
        return Input(text_lines(lines, key), source=source)
    if kind == "jsonl":
        return Input(map(names.applied, json_lines(lines, key)), source=source)
    delimiter = args.delimiter or {"csv": ",", "tsv": "\t"}[kind]
    try:
        columns, rows = table_rows(lines, kind, delimiter, not args.no_header)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    names = with_columns(args, names, name, columns)
    return Input(map(names.applied, rows), source=source)


def from_command_line(texts: list[str]) -> bool:
    """Whether the inputs are arguments."""
    return bool(texts) and texts != ["-"]


def opened(args: argparse.Namespace, texts: list[str], key: str) -> tuple[str, BinaryIO]:
    """The name and the stream to read. Usage error on a terminal without texts."""
    if args.file not in (None, "-"):
        if texts == ["-"]:
            args.usage_error("- reads stdin; leave it out, or --file")
        return args.file, open(args.file, "rb")
    if sys.stdin is None:  # closed by whoever started the command
        args.usage_error(f"give a {key}: standard input is closed")
    if not texts and args.file is None and sys.stdin.isatty():
        args.usage_error(f"give a {key}, or - to read lines from stdin, or --file PATH")
    return "stdin", sys.stdin.buffer


def refuse_files(args: argparse.Namespace, texts: list[str], *before: str) -> None:
    """Usage error for files that are named where texts belong, or a sole one that is not there.
    before: what stands between the options and --file in the command that reads one."""
    if all(os.path.isfile(text) for text in texts):
        what = "is a file; this reads what is in it"
    elif len(texts) == 1 and DATA_FILE.fullmatch(texts[0]):
        what = "is no file here, and looks like the name of one; this would read it"
    else:
        return
    given = [(f"--{name}", getattr(args, name.replace("-", "_"), None)) for name in DECISIVE]
    options = [word for name, value in given if value is not None for word in (name, str(value))]
    command = shlex.join(["modernbert", args.verb, *options, *before, "--file", texts[0]])
    args.usage_error(
        f"{texts[0]!r} {what}: {command} (a text that is the name of a file can come on stdin)"
    )


def first_lines(raw: Iterator[bytes]) -> tuple[list[bytes], Iterator[bytes]]:
    """The lines up to the first that is not blank, and all of them."""
    ahead = []
    for line in raw:
        ahead.append(line)
        if line.strip():
            break
    return ahead, chain(ahead, raw)


def refuse_foreign(args: argparse.Namespace, name: str, first: bytes) -> None:
    """ValueError for a stream that is no text at all."""
    for magic, what, way in FOREIGN:
        if first.startswith(magic):
            raise ValueError(f"{name} is {what}, not UTF-8 text; {way.format(verb=args.verb)}")
    if Path(name).suffix == ".json" and first.lstrip().startswith(b"["):
        raise ValueError(
            f"{name} holds one JSON array; jq -c '.[]' makes lines of it, one object a line"
        )


def guessed(args: argparse.Namespace, names: Names, ahead: list[bytes]) -> str:
    """The format, by what else is said and the first line that is not blank. Usage error for what
    looks like the header of a table, where nothing says that it is one."""
    first = ahead[-1] if ahead else b""
    if first.lstrip().startswith(b"{"):
        return "jsonl"
    header = first.decode("utf-8", "replace").strip()
    columns = [cell.strip('"').lower() for cell in re.split("[,;\t]", header)]
    wanted = {name.lower() for name in ("id", names.key, names.text, names.id) if name}
    kind = "tsv" if "\t" in (args.delimiter or header) else "csv"
    if args.delimiter or args.no_header:
        return kind
    if HEADER.fullmatch(header) and wanted & set(columns):
        if names.text and names.text.lower() in columns:
            return kind
        args.usage_error(
            f"the first line, {header[:60]!r}, looks like the header of a table: say --input "
            f"{kind}, or --input text if it is a text"
        )
    return "text"


def with_columns(args: argparse.Namespace, names: Names, source: str, columns: list[str]) -> Names:
    """The names, checked against a table's columns; the only column is the text."""
    several = len(columns) == 1 and re.search("[,;|\t]", columns[0])
    text = columns[0] if names.text is None and len(columns) == 1 and not several else names.text
    for name, option in ((text or names.key, "--column"), (names.id, "--id")):
        if columns and name is not None and name not in columns:
            way = (
                "say with --delimiter what stands between them"
                if several
                else f"say which with {option}"
            )
            args.usage_error(f"{source} has no column {name!r}; its columns: {columns}; {way}")
    for name in (text or names.key, names.id or "id"):
        if columns.count(name) > 1:
            args.usage_error(f"{source} has several columns {name!r}; its columns: {columns}")
    return Names(names.key, text, names.id)
