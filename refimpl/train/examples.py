"""Labelled texts: rows of `text`, `label` and perhaps `text_pair` become ids and label arrays.

    rows = labelled("train.jsonl")               one Labelled per row, checked
    problem, names = problem_of(rows)            what the labels ask for
    examples = encoded(rows, ..., tokenizer)     Examples

`Examples` is what every task's data becomes. What is cut for its length is counted.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..text.tokenizer import Tokenizer
from .rows import Row, read_rows
from .task_loss import MULTI, REGRESSION, SINGLE

Array = np.ndarray


@dataclass(frozen=True)
class Labelled:
    """One labelled text and where it stands. label: a text, a list of texts, or a number."""

    where: str
    text: str
    pair: str | None
    label: Any


@dataclass(frozen=True)
class Unit:
    """What is computed at once: the sequences of one example, int64 [length] each, and its labels
    as `gradients` takes them for these sequences, packed."""

    sequences: Sequence[Array]
    labels: Any
    where: str

    @property
    def tokens(self) -> int:
        return sum(len(x) for x in self.sequences)


# A model's outputs for each sequence of an evaluation -> figures by name.
Figures = Callable[[Sequence[Mapping[str, Array]]], Mapping[str, float]]


@dataclass(frozen=True)
class Examples:
    """The data of a task (tasks.TASKS). truncated: how many texts were cut. figures: what an
    evaluation tells beside the loss; None for what the task's labels alone say."""

    task: str
    units: Sequence[Unit]
    truncated: int
    figures: Figures | None = None

    def __len__(self) -> int:
        return len(self.units)

    def digest(self) -> str:
        """Of ids and labels, in order."""
        h = hashlib.sha256(self.task.encode())
        for unit in self.units:
            h.update(np.ascontiguousarray(unit.labels).tobytes())
            for x in unit.sequences:
                h.update(len(x).to_bytes(8, "little") + x.astype("<i8").tobytes())
        return h.hexdigest()


def labelled(path: str | os.PathLike[str]) -> list[Labelled]:
    """The rows of a file, checked. Raises ValueError, OSError."""
    return [_labelled(row) for row in read_rows(path, ("text", "label"))]


def _labelled(row: Row) -> Labelled:
    pair = row.fields.get("text_pair")
    if pair is not None:
        pair = row.text("text_pair")
    return Labelled(row.where, row.text("text"), pair, _label(row))


def _label(row: Row) -> Any:
    """A text, a list of texts, or a finite float; whole numbers and true, false are names."""
    label = row.fields["label"]
    if isinstance(label, list) and all(isinstance(x, (str, int)) for x in label):
        return [_name(x) for x in label]
    if isinstance(label, float) and math.isfinite(label):
        return label
    if isinstance(label, (str, int)) and label != "":
        return _name(label)
    row.refuse(f"label is {label!r}; it must be a text, a number or a list of texts")


def _name(label: str | int) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)


def problem_of(rows: Sequence[Labelled], problem: str | None = None) -> tuple[str, list[str]]:
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


def _names(row: Labelled, problem: str) -> list[str]:
    several = isinstance(row.label, list)
    if several != (problem == MULTI) or isinstance(row.label, float):
        raise ValueError(f"{row.where}: label is {row.label!r}; a {problem} cannot use it")
    return row.label if several else [row.label]


def encoded(
    rows: Sequence[Labelled],
    problem: str,
    names: Sequence[str],
    tokenizer: Tokenizer,
    max_length: int,
) -> Examples:
    """Ids of at most max_length tokens, and labels: a class number [1], 0 and 1 [1, classes] for
    several labels a text, a value [1, 1] for a regression. ValueError for an unknown label."""
    number = {name: i for i, name in enumerate(names)}
    labels = [np.array([_numbers(row, problem, number)]) for row in rows]
    texts = [row.text if row.pair is None else (row.text, row.pair) for row in rows]
    found = tokenizer.encode_batch(texts, max_length=max_length, truncate="silent")
    units = [
        Unit([np.array(e.ids, np.int64)], label, row.where)
        for e, label, row in zip(found, labels, rows, strict=True)
    ]
    return Examples("classify", units, sum(e.lost > 0 for e in found))


def _numbers(row: Labelled, problem: str, number: dict[str, int]) -> Any:
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
