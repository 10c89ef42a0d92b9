"""A text and several ways to go on, one of them right, for multiple choice.

    {"text": "she opened", "choices": ["the door", "the sky"], "label": 0}

In CSV the choices are columns choice0, choice1, .. The label is the number of the right one, from
0, or its text. Every row has as many choices as the first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..text.tokenizer import Tokenizer
from .examples import Examples, Unit
from .rows import Row, read_rows

COLUMN = re.compile(r"choice_?(\d+)")


@dataclass(frozen=True)
class Choice:
    """A text, its choices, and the number of the right one."""

    where: str
    text: str
    choices: Sequence[str]
    label: int


def choice_rows(path: str | os.PathLike[str]) -> list[Choice]:
    """The rows of a file, checked. Raises ValueError, OSError."""
    return [_choice(row) for row in read_rows(path, ("text", "label"))]


def _choice(row: Row) -> Choice:
    choices = row.fields.get("choices")
    if choices is None:
        columns = [m for name in row.fields if (m := COLUMN.fullmatch(name))]
        choices = [row.fields[m[0]] for m in sorted(columns, key=lambda m: int(m[1]))]
    if not isinstance(choices, list) or not all(isinstance(x, str) for x in choices):
        row.refuse(f"choices is {choices!r}; it must be a list of texts")
    if len(choices) < 2:
        row.refuse(f"it has {len(choices)} choices; it needs two or more")
    label = row.fields["label"]
    if isinstance(label, str) and label in choices:
        label = choices.index(label)
    try:
        label = int(label)
    except (TypeError, ValueError):
        row.refuse(f"label is {label!r}; it must be a number, or the text of a choice")
    if not 0 <= label < len(choices):
        row.refuse(f"label is {label}; it must be in 0 .. {len(choices) - 1}")
    return Choice(row.where, row.text("text"), choices, label)


def encoded(rows: Sequence[Choice], tokenizer: Tokenizer, max_length: int) -> Examples:
    """Units of all choices of a text; labels int [1]. ValueError where their number differs."""
    width, units, cut = len(rows[0].choices), [], 0
    for row in rows:
        if len(row.choices) != width:
            raise ValueError(
                f"{row.where}: it has {len(row.choices)} choices, {rows[0].where} has {width}; "
                "all rows must have the same number"
            )
        pairs = [(row.text, choice) for choice in row.choices]
        found = tokenizer.encode_batch(pairs, max_length=max_length, truncate="silent")
        cut += sum(e.lost > 0 for e in found)
        ids = [np.array(e.ids, np.int64) for e in found]
        units.append(Unit(ids, np.array([row.label], np.int64), row.where))
    return Examples("choice", units, cut)
