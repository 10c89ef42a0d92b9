"""Similarities of embeddings, every row of a with every row of b; higher is closer.

a [rows, dimension], b [rows, dimension] -> [rows of a, rows of b]; distances are negated
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..sentence import normalize

Array = np.ndarray


def cosine(a: Array, b: Array) -> Array:
    """a . b / (|a| |b|)"""
    return normalize(a) @ normalize(b).T


def dot(a: Array, b: Array) -> Array:
    """a . b"""
    return a @ b.T


def euclidean(a: Array, b: Array) -> Array:
    """-|a - b|"""
    return np.stack([-np.sqrt(np.square(row - b).sum(axis=1)) for row in a])


def manhattan(a: Array, b: Array) -> Array:
    """-sum |a - b|"""
    return np.stack([-np.abs(row - b).sum(axis=1) for row in a])


SIMILARITIES: Mapping[str, Callable[[Array, Array], Array]] = {
    "cosine": cosine,
    "dot": dot,
    "euclidean": euclidean,
    "manhattan": manhattan,
}
