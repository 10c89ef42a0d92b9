"""Files of texts, cut into fragments that can be read one by one, in any order, by anybody.

    fragments(path, rows, columns) -> Fragment, ...      in the order of the rows
    read(fragment, columns, id) -> Rows

JSONL, CSV, TSV and plain text by bytes, Parquet by row group, Arrow files by record batch; what is
longer than `rows` is cut on. Promise: every row is in one fragment, blank lines are no rows (of
plain text they are); a row that cannot be read is a row with an error. Finding the fragments reads
a text file once and only the end of a Parquet file. Long because every format is cut and read here.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..files.formats import csv_rows, json_lines, lines_under, text_lines, tsv_rows
from ..files.lines import Line, needed
from .batches import arrow

KINDS = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    ".csv": "csv",
    **dict.fromkeys((".tsv", ".tab"), "tsv"),
    ".txt": "text",
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".arrow", ".ipc", ".feather"), "arrow"),
}
DELIMITERS = {"csv": ",", "tsv": "\t"}
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Fragment:
    """Rows of a file that stand together. first: number of the first, from 0, in the file; count:
    how many; place: bytes (start, end), or (row group or record batch, rows of it to leave out)."""

    path: str
    first: int
    count: int
    place: tuple[int, int]


@dataclass(frozen=True)
class Rows:
    """Name -> cells [count], None where there is an error or a null; errors {place: why}; ids
    [count] as an Arrow array, None where none were asked for."""

    cells: dict[str, list[Any]]
    errors: dict[int, str]
    ids: Any = None


def kind_of(path: str) -> str:
    """The format of a file, by its suffix. ValueError."""
    suffix = Path(path).suffix.lower()
    if suffix not in KINDS:
        raise ValueError(f"{path}: its suffix is none of {', '.join(KINDS)}")
    return KINDS[suffix]


def fragments(
    path: str, rows: int, columns: Sequence[str], id: str | None = None
) -> list[Fragment]:
    """See above. Raises OSError; ValueError for a file without these columns, or of another
    format."""
    kind = kind_of(path)
    if kind in ("parquet", "arrow"):
        with opened_table(path, kind) as table:
            _check_columns(path, list(table.names), columns, id)
            out, first = [], 0
            for unit, count in enumerate(table.counts):
                for skipped in range(0, count, rows):
                    some = min(rows, count - skipped)
                    out.append(Fragment(path, first, some, (unit, skipped)))
                    first += some
        return out
    with open(path, "rb") as stream:
        header = _header(path, stream, kind)
        if header is not None:
            _check_columns(path, header, columns, id)
        elif kind == "text" and (others := [*columns[1:], *([] if id is None else [id])]):
            raise ValueError(f"{path} holds plain lines, which have no {others[0]!r}")
        return list(_by_bytes(path, stream, kind, rows))


def read(fragment: Fragment, columns: Sequence[str], id: str | None = None) -> Rows:
    """The rows of a fragment: the first column must be a text in each, others may lack. Raises
    OSError; ValueError where it has not the rows that were found in it before."""
    kind = kind_of(fragment.path)
    if kind in ("parquet", "arrow"):
        with opened_table(fragment.path, kind) as table:
            unit, skipped = fragment.place
            there = [name for name in columns if name in table.names]
            found = table.read(unit, there if id is None else [*there, id])
            found = found.slice(skipped, fragment.count)
            cells = {name: found.column(name).to_pylist() for name in there}
            rows = Rows(cells, {}, None if id is None else found.column(id))
    else:
        rows = _of_lines(fragment, kind, columns, id)
    count = len(rows.cells[columns[0]])
    if count != fragment.count:
        raise ValueError(
            f"{fragment.path}: {count} rows where {fragment.count} were: it was changed"
        )
    return rows


# -- lines ----------------------------------------------------------------------------------------


def _by_bytes(path: str, stream: BinaryIO, kind: str, rows: int) -> Iterator[Fragment]:
    """The fragments of a stream that stands behind its header."""
    start = place = stream.tell()

    def counting() -> Iterator[bytes]:
        nonlocal place
        for line in stream:
            place += len(line)
            yield line

    first = count = 0
    for _ in _rows(kind, counting()):
        count += 1
        if count == rows:
            yield Fragment(path, first, count, (start, place))
            first, count, start = first + count, 0, place
    if count:
        yield Fragment(path, first, count, (start, place))


def _rows(kind: str, raw: Iterator[bytes]) -> Iterator[Any]:
    """One item per row, taking no line more than it needs."""
    if kind in DELIMITERS:
        rows = csv_rows if kind == "csv" else tsv_rows
        return rows(raw, DELIMITERS[kind])
    return raw if kind == "text" else (line for line in raw if line.strip())


def _header(path: str, stream: BinaryIO, kind: str) -> list[str] | None:
    """The names of the columns, where the file says them; the stream stands behind them."""
    if stream.read(len(BOM)) != BOM:
        stream.seek(0)
    if kind not in DELIMITERS:
        return None
    cells, error, _ = next(_rows(kind, iter(stream.readline, b"")), ([], None, 1))
    if error is not None:
        raise ValueError(f"{path}: the header: {error}")
    return [name.strip() for name in cells]


def _of_lines(fragment: Fragment, kind: str, columns: Sequence[str], id: str | None) -> Rows:
    start, end = fragment.place
    with open(fragment.path, "rb") as stream:
        header = _header(fragment.path, stream, kind)
        stream.seek(start)
        content = stream.read(end - start)
    raw = iter(io.BytesIO(content))
    lines: Iterator[Line]
    if kind in DELIMITERS:
        lines = lines_under(header or [], _rows(kind, raw))
    else:
        lines = (json_lines if kind == "jsonl" else text_lines)(raw, columns[0])
    cells: dict[str, list[Any]] = {name: [] for name in columns}
    ids: list[Any] = []
    errors: dict[int, str] = {}
    for number, line in enumerate(lines):
        error = line.error
        try:
            if error is None:
                needed(line, columns[0])
        except (ValueError, TypeError) as why:
            error = str(why)
        if error is not None:
            errors[number] = " ".join(error.split())
        for name, column in cells.items():
            column.append(line.fields.get(name) if error is None else None)
        ids.append(_as_text(line.fields.get(id)) if id is not None else None)
    return Rows(cells, errors, None if id is None else arrow().array(ids, arrow().string()))


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


# -- tables ---------------------------------------------------------------------------------------


class opened_table:
    """A Parquet or Arrow file: names of its columns, rows of each unit, and a unit read."""

    def __init__(self, path: str, kind: str) -> None:
        pa = arrow()
        import pyarrow.parquet  # part of the same package

        self.names: Sequence[str]
        self.counts: list[int]
        self.read: Callable[[int, list[str]], Any]
        try:
            if kind == "parquet":
                file = pyarrow.parquet.ParquetFile(path)
                groups = range(file.metadata.num_row_groups)
                self.counts = [file.metadata.row_group(i).num_rows for i in groups]
                self.names = file.schema_arrow.names
                self.read = lambda unit, names: file.read_row_group(unit, columns=names)
                self._close = file.close
            else:
                source = pa.memory_map(path)
                batches = pa.ipc.open_file(source)
                each = range(batches.num_record_batches)
                self.counts = [batches.get_batch(i).num_rows for i in each]
                self.names = batches.schema.names
                self.read = lambda unit, names: batches.get_batch(unit).select(names)
                self._close = source.close
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path}: no {kind} file: {error}") from None

    def __enter__(self) -> opened_table:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def _check_columns(path: str, names: list[str], columns: Sequence[str], id: str | None) -> None:
    for name in (*columns, id):
        if name is not None and name not in names:
            raise ValueError(f"{path} has no column {name!r}; its columns: {names}")
