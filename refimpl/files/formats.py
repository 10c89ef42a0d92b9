"""Text, JSONL, CSV and TSV as `Line`s.

    text    a line is a text, a blank one the empty text
    jsonl   a line is an object of fields, or a text in quotes
    csv     RFC 4180: the first row names the columns; quotes hold delimiters, line breaks and
            doubled quotes
    tsv     a line is a row and a tab ends a field; quotes are ordinary characters

Promise: one Line per text or row, in order, none dropped and none read ahead; a blank line is no
row of the last three. Bytes that are no UTF-8, a broken quote or a row that does not fit its header
are errors of that row alone. A Line has the number of the line of the file at which it starts.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from typing import Any

from .lines import Line

FORMATS = ("text", "jsonl", "csv", "tsv")
SUFFIXES = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    ".csv": "csv",
    **dict.fromkeys((".tsv", ".tab"), "tsv"),
}

Raw = Iterator[bytes]
"""Lines as they stand in the stream, with their ends."""


def text_lines(raw: Raw, key: str) -> Iterator[Line]:
    """One text per line, in the field `key`."""
    for index, line in enumerate(raw):
        try:
            fields = {key: line.rstrip(b"\r\n").decode("utf-8")}
            yield Line(index, fields, number=index + 1)
        except UnicodeDecodeError as error:
            yield Line(index, error=f"not UTF-8 at byte {error.start}", number=index + 1)


def json_lines(raw: Raw, key: str) -> Iterator[Line]:
    """One JSON object per line, blank ones left out; a JSON string is that of the field `key`."""
    rows = ((number, line) for number, line in enumerate(raw, start=1) if line.strip())
    for index, (number, line) in enumerate(rows):
        try:
            yield Line(index, _fields(line.rstrip(b"\r\n"), key), number=number)
        except ValueError as error:
            yield Line(index, error=str(error), number=number)


def _fields(raw: bytes, key: str) -> dict[str, Any]:
    """The fields of a JSONL line. ValueError for what is none."""
    try:
        fields = json.loads(raw.decode("utf-8"))
        json.dumps(fields, allow_nan=False)  # refuses NaN and Infinity, which no JSON has
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:  # its own words count this line as the first
        raise ValueError(
            f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if isinstance(fields, str):
        return {key: fields}
    if not isinstance(fields, dict):
        raise ValueError(f"expected a JSON object, got {type(fields).__name__}")
    return fields


# -- rows of columns ------------------------------------------------------------------------------


def table_rows(
    raw: Raw, kind: str, delimiter: str, header: bool
) -> tuple[list[str], Iterator[Line]]:
    """The names of the columns, and one Line per row below them. Without a header the columns are
    called 1, 2, 3, .. after the first row. Raises ValueError for a header that cannot be read."""
    rows = csv_rows(raw, delimiter) if kind == "csv" else tsv_rows(raw, delimiter)
    first = next(rows, None)
    if first is None:
        return [], iter(())
    cells, error, number = first
    if not header:
        names = [str(i + 1) for i in range(len(cells))]
        return names, lines_under(names, _chained(first, rows))
    if error is not None:
        raise ValueError(f"the header, line {number}: {error}")
    names = [name.strip() for name in cells]
    return names, lines_under(names, rows)


Row = tuple[list[str], str | None, int]
"""Cells, or what is wrong with them; and the number, from 1, of the line at which they start."""


def lines_under(names: list[str], rows: Iterator[Row]) -> Iterator[Line]:
    """One Line per row, its cells under the names of the columns."""
    for index, (cells, error, number) in enumerate(rows):
        while len(cells) > len(names) and not cells[-1]:
            cells.pop()  # delimiters that a spreadsheet leaves at the end of a row
        if error is None and len(cells) != len(names):
            columns = "1 column" if len(cells) == 1 else f"{len(cells)} columns"
            error = f"{columns}, but the header has {len(names)}"
        if error is not None:
            yield Line(index, error=error, number=number)
        else:
            yield Line(index, dict(zip(names, cells, strict=True)), number=number)


def _chained(first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rest


def csv_rows(raw: Raw, delimiter: str) -> Iterator[Row]:
    """Rows of CSV, blank lines left out."""
    csv.field_size_limit(sys.maxsize)  # of the process; a long text is no error
    # What is no UTF-8 is carried along as lone surrogates, to be told in its row.
    lines = (line.decode("utf-8", "surrogateescape") for line in raw)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield [], _explained(str(error), reader.line_num + 1 - number), number
            continue
        if cells:
            yield cells, _flaw(cells), number


def tsv_rows(raw: Raw, delimiter: str) -> Iterator[Row]:
    """Rows of TSV: lines cut at the delimiter."""
    for number, line in enumerate(raw, start=1):
        stripped = line.rstrip(b"\r\n")
        if stripped:
            cells = stripped.decode("utf-8", "surrogateescape").split(delimiter)
            yield cells, _flaw(cells), number


def _flaw(cells: list[str]) -> str | None:
    """What keeps cells from being text; what was no UTF-8 came along as lone surrogates."""
    for place, cell in enumerate(cells, start=1):
        if any("\udc80" <= c <= "\udcff" for c in cell):
            before = cell[: next(i for i, c in enumerate(cell) if "\udc80" <= c <= "\udcff")]
            return f"not UTF-8 in column {place}, after {before[-20:]!r}"
        if "\0" in cell:
            return f"a NUL character in column {place}"
    return None


def _explained(error: str, lines: int) -> str:
    """The csv package's words, and what they come from."""
    if error == "unexpected end of data":
        return f"a quote that opens here is never closed ({lines} lines to the end of the file)"
    if "NUL" in error:
        return "a NUL character"
    if "new-line character" in error:
        return "a carriage return outside quotes"
    return f"{error}; a quote within quotes is doubled" if "expected after" in error else error
