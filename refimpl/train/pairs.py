"""Texts that belong together, or do not: for embeddings and for rerankers.

    embed    anchor, positive[, negative, ..]   or two texts and `score`: sentence-transformers'
             order of columns, whatever their names
    rerank   query, document, label (0 .. 1)    or query, positive, and negative.. texts or lists;
             with `score`, for the loss that wants it: a teacher's margins, one for each negative,
             or its scores of all documents

The columns of the first row hold for all rows of a file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..text.tokenizer import Tokenizer
from .examples import Examples, Unit
from .metrics import ranked
from .rows import Row, read_rows

SCORES = ("label", "labels", "score", "scores")  # columns that hold no text, as there


@dataclass(frozen=True)
class Together:
    """The texts of a row. score: how alike two texts are, or a teacher's margin of three; None
    where the row has none."""

    where: str
    texts: Sequence[str]
    score: float | None


def together_rows(path: str | os.PathLike[str], *, margins: bool = False) -> list[Together]:
    """The rows of a file for embeddings, checked. margins: three texts and a teacher's margin.
    Raises ValueError, OSError."""
    rows = read_rows(path, ())
    columns = list(rows[0].fields)
    scores = [name for name in columns if name in SCORES]
    texts = [name for name in columns if name not in SCORES]
    if margins and (len(scores), len(texts)) != (1, 3):
        rows[0].refuse(f"it has {columns}; loss margin needs query, positive, negative and score")
    if len(scores) > 1 or len(texts) < 2 or scores and len(texts) != 2 + margins:
        rows[0].refuse(
            f"it has {columns}; it needs anchor, positive and perhaps negatives, or two texts and "
            "score"
        )
    out = []
    for row in rows:
        if list(row.fields) != columns and set(row.fields) != set(columns):
            row.refuse(f"it has {list(row.fields)}, the first row {columns}")
        score = number(row, scores[0]) if scores else None
        out.append(Together(row.where, [filled(row, name) for name in texts], score))
    return out


@dataclass(frozen=True)
class Relevance:
    """A document and how well it answers a query, 0 .. 1."""

    where: str
    query: str
    document: str
    label: float


def relevance_rows(path: str | os.PathLike[str]) -> list[Relevance]:
    """The rows of a file for a reranker, checked; one with a positive becomes several."""
    out: list[Relevance] = []
    for row in read_rows(path, ("query",)):
        query = filled(row, "query")
        if "document" in row.fields:
            if "label" not in row.fields:
                row.refuse(f"'label' is missing; the row has {sorted(row.fields)}")
            label = number(row, "label")
            if not 0 <= label <= 1:
                row.refuse(f"label is {label:g}; it must be in 0 .. 1")
            out.append(Relevance(row.where, query, filled(row, "document"), label))
            continue
        if "positive" not in row.fields:
            row.refuse(f"it has {sorted(row.fields)}; it needs document and label, or positive")
        fits = row.fields["positive"]
        for text in fits if isinstance(fits, list) else [fits]:
            if not isinstance(text, str) or not text.strip():
                row.refuse(f"positive is {fits!r}; it must be a text or a list of texts")
            out.append(Relevance(row.where, query, text, 1.0))
        out += [Relevance(row.where, query, text, 0.0) for text in negatives(row)]
    if len({row.label for row in out}) < 2:
        raise ValueError(
            f"{path}: every label is {out[0].label:g}; a reranker needs documents that fit a query "
            "and documents that do not"
        )
    return out


@dataclass(frozen=True)
class Query:
    """documents: the one that fits, then others. margins: how far above each of these a teacher
    has the first, None without one."""

    where: str
    query: str
    documents: Sequence[str]
    margins: Sequence[float] | None


def query_rows(path: str | os.PathLike[str]) -> list[Query]:
    """The rows of a file for losses over a query's documents, checked. Raises ValueError."""
    out = []
    for row in read_rows(path, ("query", "positive")):
        texts = [filled(row, "positive"), *negatives(row)]
        margins = None
        if "score" in row.fields:
            given = row.fields["score"]
            margins = [
                number(row, "score", x) for x in (given if isinstance(given, list) else [given])
            ]
            if len(margins) == len(texts):  # of all documents, the first's before the others'
                margins = [margins[0] - other for other in margins[1:]]
            if len(margins) != len(texts) - 1:
                row.refuse(f"it has {len(margins)} scores for {len(texts) - 1} negatives")
        out.append(Query(row.where, filled(row, "query"), texts, margins))
    return out


def negatives(row: Row) -> list[str]:
    """The texts of all fields that begin with `negative`, each a text or a list of texts."""
    found: list[str] = []
    for name, value in row.fields.items():
        if name.startswith("negative"):
            for text in value if isinstance(value, list) else [value]:
                if not isinstance(text, str) or not text.strip():
                    row.refuse(f"{name} is {value!r}; it must be a text or a list of texts")
                found.append(text)
    return found


def reranked(rows: Sequence[Relevance], tokenizer: Tokenizer, max_length: int) -> Examples:
    """Pairs with one label each, float [1, 1]."""
    pairs = [(row.query, row.document) for row in rows]
    found = tokenizer.encode_batch(pairs, max_length=max_length, truncate="silent")
    units = [
        Unit([np.array(e.ids, np.int64)], np.array([[row.label]]), row.where)
        for e, row in zip(found, rows, strict=True)
    ]
    queries, labels = [row.query for row in rows], np.array([row.label for row in rows])

    def figures(outputs: Any) -> dict[str, float]:
        return ranked(np.array([out["logits"][0, 0] for out in outputs]), labels, queries)

    return Examples("classify", units, sum(e.lost > 0 for e in found), figures)


def filled(row: Row, name: str) -> str:
    """A text with something in it."""
    if name not in row.fields:
        row.refuse(f"{name!r} is missing; the row has {sorted(row.fields)}")
    text = row.text(name)
    if not text.strip():
        row.refuse(f"{name} is empty")
    return text


def number(row: Row, name: str, given: Any = None) -> float:
    """A finite number, also spelled as text: the field's, or one of its list."""
    given = row.fields[name] if given is None else given
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        row.refuse(f"{name} is {given!r}, which is no number")
    return value
