"""Exact nearest neighbours: the rows of a matrix that are most similar to each query.

    scores = similarity(queries, vectors), k largest of each row; equal ones in the order of rows

Works through blocks of both, so that memory does not grow with the number of vectors, which may
stand in a file (files/vectors.py). Every row is looked at: nothing is approximate. A row that is
not finite, as `embed` writes for a line that it could not read, is never found.
"""

from __future__ import annotations

import numpy as np

from ..files.safetensors import in_memory
from .similarity import SIMILARITIES

Array = np.ndarray

QUERIES = 256  # at a time
# Values of a block of vectors, and scores of all queries with it: 2**22 float32 are 16 MiB.
MAX_VALUES = MAX_SCORES = 2**22


def nearest(
    queries: Array, vectors: Array, k: int, similarity: str = "cosine"
) -> list[tuple[Array, Array]]:
    """Per query the scores [n] and row numbers [n] of its k nearest, best first; n < k where there
    are no more.

    queries [queries, dimension], vectors [rows, dimension]; similarity: a name in SIMILARITIES. In
    the wider of float32 and the dtype of the queries.
    """
    queries = queries.astype(np.result_type(queries.dtype, np.float32), copy=False)
    out = []
    for start in range(0, len(queries), QUERIES):
        out += _nearest(queries[start : start + QUERIES], vectors, k, similarity)
    return out


def _nearest(queries: Array, vectors: Array, k: int, name: str) -> list[tuple[Array, Array]]:
    none = np.empty(0, queries.dtype), np.empty(0, np.int64)
    best = [none for _ in queries]
    rows = max(1, min(MAX_SCORES // len(queries), MAX_VALUES // max(vectors.shape[1], 1)))
    for start in range(0, len(vectors), rows):
        block = np.asarray(in_memory(vectors[start : start + rows]), queries.dtype)
        at = np.flatnonzero(np.isfinite(block).all(axis=1))
        if len(at) < len(block):
            block = block[at]
        scores = SIMILARITIES[name](queries, block)
        for i, (one, known) in enumerate(zip(scores, best, strict=True)):
            best[i] = _largest(known, (one, start + at), k)
    return best


def _largest(
    first: tuple[Array, Array], second: tuple[Array, Array], k: int
) -> tuple[Array, Array]:
    """The k largest scores of both with their rows; of equal ones those that stand first."""
    scores, rows = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    if len(scores) > k:
        kept = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
        scores, rows = scores[kept], rows[kept]
    order = np.argsort(-scores, kind="stable")[:k]
    return scores[order], rows[order]
