"""Rows of labelled data from files: JSONL, CSV and TSV, one mapping of fields each.

    for row in read_rows("train.jsonl", ("text", "label")): row.text("text")

Promise: a bad row stops the reading with file and row named; nothing is dropped or repaired. A
row's number is that of its line for JSONL, and counts from 1 below the header for CSV. Not here:
what the fields mean (examples.py, tagged.py, questions.py, choices.py, pairs.py), and texts that
are too many to be held (documents.py).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Row:
    """The fields of a row, and where it stands."""

    where: str
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A field that must be a text. Raises ValueError."""
        value = self.fields[name]
        if not isinstance(value, str):
            self.refuse(f"{name} is {type(value).__name__}, not text")
        return value

    def refuse(self, why: str) -> NoReturn:
        raise ValueError(f"{self.where}: {why}")


def read_rows(path: str | os.PathLike[str], needed: Sequence[str]) -> list[Row]:
    """The rows of a file: .csv, .tsv, or else JSONL; each has the needed fields.

    Raises ValueError, OSError.
    """
    path = Path(path)
    delimiter = DELIMITERS.get(path.suffix.lower())
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            lines = (
                _json_lines(stream) if delimiter is None else table(stream, delimiter, path, needed)
            )
            rows = [checked(f"{path}, row {number}", fields, needed) for number, fields in lines]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}") from None
    if not rows:
        raise ValueError(f"{path} holds no rows")
    return rows


def _json_lines(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, parsed(line)


def parsed(line: str) -> Any:
    """A line of JSON, or the error that it is."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return error


def table(
    lines: Iterable[str], delimiter: str, path: Path, needed: Sequence[str]
) -> Iterator[tuple[int, Any]]:
    """Numbered rows under a header that has the needed columns, or the error that a row is."""
    found = csv.DictReader(lines, delimiter=delimiter, strict=True)
    header = found.fieldnames or []
    for name in needed:
        if header and name not in header:
            raise ValueError(f"{path} has the columns {list(header)}; it needs {name!r}")
    rows, number = iter(found), 0
    while True:
        number += 1
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, error
            return
        if None in fields or None in fields.values():
            yield number, ValueError(f"it has not the {len(header)} fields of the header")
        else:
            yield number, fields


def checked(where: str, fields: Any, needed: Sequence[str]) -> Row:
    """A row of what was read. Raises ValueError."""
    if isinstance(fields, Exception):
        raise ValueError(f"{where}: cannot be read: {fields}")
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: expected an object, got {type(fields).__name__}")
    for name in needed:
        if name not in fields:
            raise ValueError(f"{where}: {name!r} is missing; the row has {sorted(fields)}")
    return Row(where, fields)
