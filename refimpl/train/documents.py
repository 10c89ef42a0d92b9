"""Documents from files that are too large to be held: read as they are needed, from any place on.

    reader = Reader([DocumentFile("a.jsonl"), DocumentFile("b.txt")])
    reader.next()        the next document;   reader.place() / reader.go_to(place)

JSONL and CSV have a document in the field `text` of each row; in other files one ends at an empty
line. Several files are read in step, each by its share of bytes, so that all end together; then all
start again. Promise: what is no row or no UTF-8 stops the reading with file and row named. A place
is what JSON can hold, and reading from it gives what reading on would have given.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rows import DELIMITERS, checked, parsed

TEXT = "text"
PREFIX = 1 << 16  # bytes of a file that are looked at to know it again
ROWS = (".jsonl", ".json", ".ndjson")


@dataclass(frozen=True)
class Document:
    """A text and where it stands; after: the byte and the row at which the next one starts."""

    where: str
    text: str
    after: tuple[int, int]


class DocumentFile:
    """A file of documents. Raises OSError; ValueError for an empty one, or one without `text`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.size = self.path.stat().st_size
        if next(self.read((0, 0)), None) is None:
            raise ValueError(f"{self.path} holds no documents")

    def read(self, start: tuple[int, int]) -> Iterator[Document]:
        """All documents from a byte and its row on."""
        with open(self.path, "rb") as stream:
            suffix = self.path.suffix.lower()
            if suffix in DELIMITERS:
                yield from self._table(stream, DELIMITERS[suffix], *start)
            elif suffix in ROWS:
                yield from self._json_lines(stream, *start)
            else:
                yield from self._paragraphs(stream, *start)

    def digest(self) -> str:
        """Of name, size and beginning."""
        with open(self.path, "rb") as stream:
            h = hashlib.sha256(stream.read(PREFIX))
        return f"{self.path.name} {self.size} {h.hexdigest()}"

    def _json_lines(self, stream: Any, offset: int, row: int) -> Iterator[Document]:
        stream.seek(offset)
        for line in stream:
            offset, row = offset + len(line), row + 1
            text = self._decoded(line, row)
            if text.strip():
                where = f"{self.path}, row {row}"
                found = checked(where, parsed(text), (TEXT,))
                yield Document(where, found.text(TEXT), (offset, row))

    def _table(self, stream: Any, delimiter: str, offset: int, row: int) -> Iterator[Document]:
        at = 0

        def lines() -> Iterator[str]:
            nonlocal at
            for line in stream:
                at += len(line)
                yield self._decoded(line, row + 1)

        header = next(csv.reader(lines(), delimiter=delimiter, strict=True), [])
        if TEXT not in header:
            raise ValueError(f"{self.path} has the columns {header}; it needs {TEXT!r}")
        column, at = header.index(TEXT), max(at, offset)
        stream.seek(at)
        rows = csv.reader(lines(), delimiter=delimiter, strict=True)
        while True:
            where = f"{self.path}, row {row + 1}"
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                raise ValueError(f"{where}: cannot be read: {error}") from None
            if not cells:
                continue
            if len(cells) != len(header):
                raise ValueError(f"{where}: it has not the {len(header)} fields of the header")
            row += 1
            yield Document(where, cells[column], (at, row))

    def _paragraphs(self, stream: Any, offset: int, row: int) -> Iterator[Document]:
        stream.seek(offset)
        held, first = [], row + 1
        for line in stream:
            offset, row = offset + len(line), row + 1
            text = self._decoded(line, row)
            if text.strip():
                held.append(text)
            elif held:
                yield Document(f"{self.path}, line {first}", "".join(held).strip(), (offset, row))
                held = []
            if not held:
                first = row + 1
        if held:
            yield Document(f"{self.path}, line {first}", "".join(held).strip(), (offset, row))

    def _decoded(self, line: bytes, row: int) -> str:
        try:
            return line.decode("utf-8-sig" if row <= 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.path}, row {row} is not UTF-8 at its byte {error.start}"
            ) from None


class Reader:
    """The documents of several files, again and again."""

    def __init__(self, files: Sequence[DocumentFile]) -> None:
        if not files:
            raise ValueError("data is empty; it needs one file of texts or more")
        self.files, self.epoch = list(files), 0
        self._rewind()

    def next(self) -> Document:
        """The next document: of the file of which the smallest share is read."""
        while True:
            left = [i for i in range(len(self.files)) if i not in self._ended]
            if not left:
                self.epoch += 1
                self._rewind()
                continue
            i = min(left, key=lambda i: self._at[i][0] / max(self.files[i].size, 1))
            found = next(self._open(i), None)
            if found is not None:
                self._at[i] = found.after
                return found
            self._ended.add(i)

    def place(self) -> dict[str, Any]:
        """Where the reader stands."""
        return {
            "epoch": self.epoch,
            "at": [list(x) for x in self._at],
            "ended": sorted(self._ended),
        }

    def go_to(self, place: dict[str, Any]) -> None:
        """Back to where it stood."""
        self._rewind()
        self._ended.update(place["ended"])
        self.epoch = place["epoch"]
        self._at = [(at, row) for at, row in place["at"]]

    def _rewind(self) -> None:
        self._at = [(0, 0)] * len(self.files)
        self._ended: set[int] = set()
        self._streams: dict[int, Iterator[Document]] = {}

    def _open(self, i: int) -> Iterator[Document]:
        if i not in self._streams:
            self._streams[i] = self.files[i].read(self._at[i])
        return self._streams[i]
