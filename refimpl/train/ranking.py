"""Losses of a query's documents by their scores: what is summed, its gradient, what divides it.

    loss = total / count,   d loss / d scores = gradients[0] / count      (MODEL.md (66), (67))

scores [documents], the first document's before the others': the logits of a reranker. Sums and
gradients are float64 inside, gradients have the scores' dtype. The formulas are those of
sentence-transformers' cross-encoders: multiple negatives ranking, margin MSE.
"""

from __future__ import annotations

import numpy as np

from ..reference import ops
from .contrastive import PairLoss
from .losses import cross_entropy

Array = np.ndarray

SCALE = 10.0  # of scores in 0 .. 1 before a softmax: sentence-transformers' default


def multiple_negatives(scores: Array, *, scale: float = SCALE) -> PairLoss:
    """(66): cross-entropy over scale sigmoid(scores), the label the first. Count: 1."""
    s = ops.sigmoid(scores.astype(np.float64))
    loss = cross_entropy((scale * s)[None], np.zeros(1, np.int64))
    d = loss.gradient[0] * scale * s * (1.0 - s)
    return PairLoss(loss.total, loss.count, [d.astype(scores.dtype)])


def margin_mse(scores: Array, margins: Array) -> PairLoss:
    """(67): (score of the first - score i - margin i)^2 over the others. margins [documents - 1], a
    teacher's. Count: their number."""
    x = scores.astype(np.float64)
    gap = x[0] - x[1:] - margins
    d = np.concatenate([[2.0 * gap.sum()], -2.0 * gap])
    return PairLoss(float((gap * gap).sum()), float(len(gap)), [d.astype(scores.dtype)])
