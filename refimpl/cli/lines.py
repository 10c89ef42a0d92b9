"""Input of the verbs: texts of the command line, or lines of stdin as plain text or JSONL.

Promise: one `Line` per text or line, in order, none dropped: a blank line is an empty text, and a
line that cannot be read is a Line with an error. Nothing is read ahead beyond the block asked for.
"""

from __future__ import annotations

import argparse
import codecs
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any


@dataclass
class Line:
    """One input: its number from 0, and its fields or what is wrong with it. `id` is echoed."""

    index: int
    fields: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def head(self) -> dict[str, Any]:
        """How the record of this line begins."""
        given = {"id": self.fields["id"]} if "id" in self.fields else {}
        return {"index": self.index} | given


def read_lines(args: argparse.Namespace, texts: list[str], key: str = "text") -> Iterator[Line]:
    """The texts, or the lines of stdin when there are none or the only one is "-".

    key: the field that a plain text fills. Usage error on a terminal without texts.
    """
    if texts and texts != ["-"]:
        yield from (Line(i, {key: text}) for i, text in enumerate(texts))
        return
    if sys.stdin is None:  # closed by whoever started the command
        args.usage_error(f"give a {key}: standard input is closed")
    if not texts and sys.stdin.isatty():
        args.usage_error(f"give a {key}, or - to read lines from stdin")
    is_json = {"text": False, "jsonl": True}.get(args.input)
    for index, raw in enumerate(sys.stdin.buffer):
        if index == 0:
            raw = raw.removeprefix(codecs.BOM_UTF8)  # a mark of the file, not of its first text
        if is_json is None and raw.strip():  # a blank line is an empty text and decides nothing
            is_json = raw.lstrip().startswith(b"{")
        yield _parsed(index, raw.rstrip(b"\r\n"), key, bool(is_json))


def from_command_line(texts: list[str]) -> bool:
    """Whether the inputs are arguments, where a bad one ends the command."""
    return bool(texts) and texts != ["-"]


def blocks(lines: Iterator[Line], size: int) -> Iterator[list[Line]]:
    """Lists of up to `size` lines."""
    while block := list(islice(lines, size)):
        yield block


def _parsed(index: int, raw: bytes, key: str, is_json: bool) -> Line:
    """The line, or what is wrong with it."""
    try:
        text = raw.decode("utf-8")
        fields = json.loads(text) if is_json else {key: text}
        json.dumps(fields, allow_nan=False)  # refuses NaN and Infinity, which no JSON has
    except UnicodeDecodeError as error:
        return Line(index, error=f"not UTF-8 at byte {error.start}")
    except (ValueError, RecursionError) as error:
        return Line(index, error=f"not JSON: {error}")
    if isinstance(fields, str):
        fields = {key: fields}
    if not isinstance(fields, dict):
        return Line(index, error=f"expected a JSON object, got {type(fields).__name__}")
    return Line(index, fields)


def needed(line: Line, *keys: str) -> list[Any]:
    """The fields of a line. Raises ValueError for a missing one, TypeError for what is no text."""
    for key in keys:
        if key not in line.fields:
            raise ValueError(f'the field "{key}" is missing; this line has {sorted(line.fields)}')
        if not isinstance(line.fields[key], str):
            raise TypeError(f'the field "{key}" is {type(line.fields[key]).__name__}, not text')
    return [line.fields[key] for key in keys]
