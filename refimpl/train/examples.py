"""Labelled texts from files: JSONL, CSV and TSV rows of `text`, `label` and perhaps `text_pair`.

    rows = read_rows("train.jsonl")              one Row per line, checked
    problem, names = problem_of(rows)            what the labels ask for
    examples = encoded(rows, ..., tokenizer)     ids and label arrays

Promise: a bad row stops the reading with file and row named; nothing is dropped or repaired, and
what is cut for its length is counted. A row's number is that of its line for JSONL, and counts from
1 below the header for CSV.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..text.tokenizer import Tokenizer
from .task_loss import MULTI, REGRESSION, SINGLE

Array = np.ndarray
DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Row:
    """One labelled text and where it stands. label: a text, a list of texts, or a number."""

    where: str
    text: str
    pair: str | None
    label: Any


@dataclass(frozen=True)
class Examples:
    """ids: of each text, int64 [length]; labels: one entry per text, as `gradients` takes them;
    truncated: how many texts were cut; where: of each text, for messages."""

    ids: Sequence[Array]
    labels: Array
    truncated: int
    where: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a file: .csv, .tsv, or else JSONL. Raises ValueError, OSError."""
    path = Path(path)
    delimiter = DELIMITERS.get(path.suffix.lower())
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            found = _json_lines(stream) if delimiter is None else _table(stream, delimiter, path)
            rows = [_row(f"{path}, row {number}", fields) for number, fields in found]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}") from None
    if not rows:
        raise ValueError(f"{path} holds no rows")
    return rows


def _json_lines(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, error


def _table(lines: Iterable[str], delimiter: str, path: Path) -> Iterator[tuple[int, Any]]:
    table = csv.DictReader(lines, delimiter=delimiter, strict=True)
    header = table.fieldnames or []
    for name in ("text", "label"):
        if header and name not in header:
            raise ValueError(f"{path} has the columns {list(header)}; it needs {name!r}")
    rows, number = iter(table), 0
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


def _row(where: str, fields: Any) -> Row:
    if isinstance(fields, Exception):
        raise ValueError(f"{where}: cannot be read: {fields}")
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: expected an object, got {type(fields).__name__}")
    for name in ("text", "label"):
        if name not in fields:
            raise ValueError(f"{where}: {name!r} is missing; the row has {sorted(fields)}")
    text, pair, label = fields["text"], fields.get("text_pair"), fields["label"]
    for name, value in (("text", text), ("text_pair", "" if pair is None else pair)):
        if not isinstance(value, str):
            raise ValueError(f"{where}: {name} is {type(value).__name__}, not text")
    return Row(where, text, pair, _label(where, label))


def _label(where: str, label: Any) -> Any:
    """A text, a list of texts, or a finite float; whole numbers and true, false are names."""
    if isinstance(label, list) and all(isinstance(x, (str, int)) for x in label):
        return [_name(x) for x in label]
    if isinstance(label, float) and math.isfinite(label):
        return label
    if isinstance(label, (str, int)) and label != "":
        return _name(label)
    raise ValueError(f"{where}: label is {label!r}; it must be a text, a number or a list of texts")


def _name(label: str | int) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)


def problem_of(rows: Sequence[Row], problem: str | None = None) -> tuple[str, list[str]]:
    """What the labels ask for, and the names of the classes in sorted order (one for a regression).

    problem: one of the three, where the labels shall not decide: text that spells numbers then is
    a regression. ValueError for labels of several kinds, and for one class only.
    """
    kinds = {list: MULTI, float: REGRESSION, str: SINGLE}
    found = {kinds[type(row.label)]: row for row in reversed(rows)}
    if problem is None and len(found) > 1:
        first, second = list(found.values())[:2]
        raise ValueError(
            f"{first.where}: label is {first.label!r}, but {second.where} has {second.label!r}; "
            "labels must be of one kind"
        )
    problem = problem or next(iter(found))
    if problem == REGRESSION:
        return problem, ["value"]
    names = sorted({name for row in rows for name in _names(row, problem)})
    if problem == SINGLE and len(names) < 2:
        raise ValueError(f"every label is {names[0]!r}; a classifier needs two or more")
    if not names:
        raise ValueError("no row has a label: every list is empty")
    return problem, names


def _names(row: Row, problem: str) -> list[str]:
    several = isinstance(row.label, list)
    if several != (problem == MULTI) or isinstance(row.label, float):
        raise ValueError(f"{row.where}: label is {row.label!r}; a {problem} cannot use it")
    return row.label if several else [row.label]


def encoded(
    rows: Sequence[Row], problem: str, names: Sequence[str], tokenizer: Tokenizer, max_length: int
) -> Examples:
    """Ids of at most max_length tokens, and labels: class numbers [n], 0 and 1 [n, classes] for
    several labels a text, values [n, 1] for a regression. ValueError for an unknown label."""
    texts = [row.text if row.pair is None else (row.text, row.pair) for row in rows]
    found = tokenizer.encode_batch(texts, max_length=max_length, truncate="silent")
    number = {name: i for i, name in enumerate(names)}
    labels = [_numbers(row, problem, number) for row in rows]
    return Examples(
        [np.array(e.ids, np.int64) for e in found],
        np.array(labels),
        sum(e.lost > 0 for e in found),
        [row.where for row in rows],
    )


def _numbers(row: Row, problem: str, number: dict[str, int]) -> Any:
    if problem == REGRESSION:
        try:
            value = float(row.label)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{row.where}: label is {row.label!r}, which is no number")
        return [value]
    for name in _names(row, problem):
        if name not in number:
            raise ValueError(f"{row.where}: label is {name!r}; known: {', '.join(number)}")
    if problem == SINGLE:
        return number[row.label]
    return [float(name in row.label) for name in number]
