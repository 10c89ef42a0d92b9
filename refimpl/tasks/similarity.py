"""Similarities of embeddings, every row of a with every row of b; higher is closer.

a [rows, dimension], b [rows, dimension] -> [rows of a, rows of b]; distances are negated
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..reference.sentence import normalize

Array = np.ndarray


def cosine(a: Array, b: Array) -> Array:
    """a . b / (|a| |b|)"""
    return normalize(a) @ normalize(b).T


def dot(a: Array, b: Array) -> Array:
    """a . b"""
    return a @ b.T


def euclidean(a: Array, b: Array) -> Array:
    """-|a - b|"""
    return _rows(a, b, lambda row: -np.sqrt(np.square(row - b).sum(axis=1)))


def manhattan(a: Array, b: Array) -> Array:
    """-sum |a - b|"""
    return _rows(a, b, lambda row: -np.abs(row - b).sum(axis=1))


def _rows(a: Array, b: Array, one: Callable[[Array], Array]) -> Array:
    """`one` of each row of a: one at a time, for all differences at once would fill the memory."""
    out = np.empty((len(a), len(b)), np.result_type(a, b))
    for i, row in enumerate(a):
        out[i] = one(row)
    return out


SIMILARITIES: Mapping[str, Callable[[Array, Array], Array]] = {
    "cosine": cosine,
    "dot": dot,
    "euclidean": euclidean,
    "manhattan": manhattan,
}
