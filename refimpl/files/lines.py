"""One input, whatever it came from: `Line`.

A line that cannot be read is a Line with an error, so that it keeps its place among the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any


@dataclass
class Line:
    """One input: its number from 0, and its fields or what is wrong with it. `id` is echoed.
    number: of the line at which it starts in its file or stream, from 1; None for an argument."""

    index: int
    fields: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    number: int | None = None

    @property
    def head(self) -> dict[str, Any]:
        """How the record of this line begins."""
        given = {"id": self.fields["id"]} if "id" in self.fields else {}
        return {"index": self.index} | given


@dataclass(frozen=True)
class Names:
    """What the fields are called: `key` is the one that is read, which stands in the data
    under `text`; `id` is the one that is echoed."""

    key: str = "text"
    text: str | None = None
    id: str | None = None

    def applied(self, line: Line) -> Line:
        """The line with its fields under the names that its reader knows."""
        given = {self.key: self.text or self.key, "id": self.id or "id"}
        for own, name in given.items():
            if line.error is None and own != name and name not in line.fields:
                line.error = missing(name, line)
        if line.error is None:
            line.fields |= {own: line.fields[n] for own, n in given.items() if n in line.fields}
        return line


def blocks(lines: Iterator[Line], size: int) -> Iterator[list[Line]]:
    """Lists of up to `size` lines."""
    while block := list(islice(lines, size)):
        yield block


def needed(line: Line, *keys: str) -> list[Any]:
    """The fields of a line. Raises ValueError for a missing one, TypeError for what is no text."""
    for key in keys:
        if key not in line.fields:
            raise ValueError(missing(key, line))
        if not isinstance(line.fields[key], str):
            raise TypeError(f'the field "{key}" is {type(line.fields[key]).__name__}, not text')
    return [line.fields[key] for key in keys]


def documents_of(line: Line) -> list[Line]:
    """The field "documents" of a line: texts, or objects with "text" and perhaps "id". Raises
    TypeError, ValueError as `needed`."""
    documents = line.fields.get("documents")
    if not isinstance(documents, list):
        raise TypeError('the field "documents" must be a list of texts')
    out = []
    for i, given in enumerate(documents):
        out.append(Line(i, given if isinstance(given, dict) else {"text": given}))
        try:
            needed(out[-1], "text")
        except (ValueError, TypeError) as error:
            raise type(error)(f"documents[{i}]: {error}") from None
    return out


def missing(key: str, line: Line) -> str:
    return f'the field "{key}" is missing; this line has {sorted(line.fields)}'
