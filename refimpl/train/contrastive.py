"""Losses of embeddings: what is summed, its gradients by each input, and what divides it.

    loss = total / count,   d loss / d inputs[i] = gradients[i] / count      (MODEL.md (59) - (64))

Inputs are embeddings [n, width] of texts in the same row. Sums and gradients are float64 inside and
have the inputs' dtype outside. The formulas are sentence-transformers', under its names: multiple
negatives ranking, CoSENT, cosine similarity, triplet, margin MSE; matryoshka modifies any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from . import sentence
from .losses import cross_entropy

Array = np.ndarray

SCALE = 20.0  # of cosines before a softmax: sentence-transformers' default
MARGIN = 5.0  # of triplets, in Euclidean distance: its default too
FLOOR = 1e-12  # what a length is at least, as in reference/sentence.py


@dataclass(frozen=True)
class PairLoss:
    """total: the sum; count: what it is divided by; gradients: of the total, by each input."""

    total: float
    count: float
    gradients: Sequence[Array]


def multiple_negatives(
    anchors: Array, candidates: Sequence[Array], *, scale: float = SCALE
) -> PairLoss:
    """(59): cross-entropy over scale cos(anchor i, every candidate), the label candidate i of the
    first; the others, and further arrays (hard negatives), are the negatives. Count: anchors."""
    texts = np.concatenate([x.astype(np.float64) for x in candidates])
    a, c = unit(anchors.astype(np.float64)), unit(texts)
    loss = cross_entropy(scale * (a @ c.T), np.arange(len(a)))
    d = scale * loss.gradient
    da = sentence.normalize(d @ c, anchors.astype(np.float64))
    dc = sentence.normalize(d.T @ a, texts)
    cuts = np.cumsum([len(x) for x in candidates])[:-1]
    own = [da, *np.split(dc, cuts)]
    return PairLoss(loss.total, loss.count, as_given(own, [anchors, *candidates]))


def cosent(a: Array, b: Array, labels: Array, *, scale: float = SCALE) -> PairLoss:
    """(60): log(1 + sum exp(scale (cos_i - cos_j))) over all i, j with label i < label j: pairs in
    the wrong order cost. labels [n]. Count: 1, a batch is one sum."""
    x, back = cosines(a, b)
    wrong = labels[:, None] < labels[None, :]
    gaps = np.where(wrong, scale * (x[:, None] - x[None, :]), -np.inf)
    top = max(0.0, float(gaps.max(initial=-np.inf)))
    e = np.exp(gaps - top)
    total = float(np.exp(-top) + e.sum())
    p = e / total
    d = scale * (p.sum(axis=1) - p.sum(axis=0))
    return PairLoss(top + float(np.log(total)), 1.0, as_given(back(d), [a, b]))


def cosine_similarity(a: Array, b: Array, labels: Array) -> PairLoss:
    """(61): (cos - label)^2. labels [n]. Count: pairs."""
    x, back = cosines(a, b)
    gap = x - labels
    return PairLoss(float((gap * gap).sum()), float(len(x)), as_given(back(2.0 * gap), [a, b]))


def triplet(a: Array, p: Array, n: Array, *, margin: float = MARGIN) -> PairLoss:
    """(62): max(0, |a - p| - |a - n| + margin). Count: triplets."""
    near, far = (np.asarray(a, np.float64) - x for x in (p, n))
    one, other = (np.sqrt((x * x).sum(axis=-1, keepdims=True)) for x in (near, far))
    gap = (one - other + margin)[:, 0]
    on = (gap > 0)[:, None]
    u, v = (np.where(on, x / np.maximum(s, FLOOR), 0.0) for x, s in ((near, one), (far, other)))
    total = float(np.maximum(gap, 0.0).sum())
    return PairLoss(total, float(len(gap)), as_given([u - v, -u, v], [a, p, n]))


def margin_mse(query: Array, p: Array, n: Array, labels: Array) -> PairLoss:
    """(63): (query . p - query . n - label)^2; label [n], a teacher's margin. Count: triplets."""
    q, p64, n64 = (x.astype(np.float64) for x in (query, p, n))
    gap = (q * (p64 - n64)).sum(axis=-1) - labels
    d = 2.0 * gap[:, None]
    own = [d * (p64 - n64), d * q, -d * q]
    return PairLoss(float((gap * gap).sum()), float(len(gap)), as_given(own, [query, p, n]))


def matryoshka(
    loss: Callable[..., PairLoss], inputs: Sequence[Array], widths: Sequence[int]
) -> PairLoss:
    """(64): the sum of loss(*inputs) over their first w values, for each w of widths."""
    total, count, sums = 0.0, 1.0, [np.zeros_like(x) for x in inputs]
    for width in widths:
        if not 1 <= width <= inputs[0].shape[-1]:
            raise ValueError(f"widths has {width}; it must be in 1 .. {inputs[0].shape[-1]}")
        one = loss(*(x[:, :width] for x in inputs))
        total, count = total + one.total, one.count
        for whole, part in zip(sums, one.gradients, strict=True):
            whole[:, :width] += part
    return PairLoss(total, count, sums)


# -- cosines --------------------------------------------------------------------------------------


def unit(x: Array) -> Array:
    """x / max(|x|, 1e-12) by rows."""
    return x / np.maximum(np.sqrt((x * x).sum(axis=-1, keepdims=True)), FLOOR)


def cosines(a: Array, b: Array) -> tuple[Array, Callable[[Array], list[Array]]]:
    """cos of rows [n], and the way back: d [n] -> d of a and of b."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    u, v = unit(a64), unit(b64)

    def back(d: Array) -> list[Array]:
        return [
            sentence.normalize(d[:, None] * v, a64),
            sentence.normalize(d[:, None] * u, b64),
        ]

    return (u * v).sum(axis=-1), back


def as_given(gradients: Sequence[Array], inputs: Sequence[Array]) -> list[Array]:
    """Gradients in the dtypes of what they belong to."""
    return [d.astype(x.dtype) for d, x in zip(gradients, inputs, strict=True)]
