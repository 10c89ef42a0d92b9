"""Losses: what is summed, its gradient, and the number it is divided by (MODEL.md section 14).

    loss = total / count,   d loss / d logits = gradient / count

`total` is a sum over the whole batch and `count` what was counted in it; neither is a mean, so that
micro-batches add up: divide all of them by the count of the whole batch, and never take a mean of
means. Sums are float64; gradients have the dtype of the logits. A label of IGNORED is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..reference import ops

Array = np.ndarray

IGNORED = -100  # as in torch and transformers


@dataclass(frozen=True)
class Loss:
    """total: the sum; count: what it is divided by; gradient: of the total, by the logits."""

    total: float
    count: float
    gradient: Array


def cross_entropy(
    logits: Array,
    labels: Array,
    *,
    class_weights: Array | None = None,
    label_smoothing: float = 0.0,
) -> Loss:
    """MODEL.md (48): -sum_i sum_c t_ic w_c log p_ic, p = softmax(logits); count = sum_i w of label.

    logits [.., classes], labels int [..], IGNORED where nothing is known; class_weights [classes],
    default 1. t is 1 - s at the label, and s / classes more at every class, s = label_smoothing
    (over the classes that are not -inf, where a head masks some). torch's cross_entropy.
    """
    classes = logits.shape[-1]
    flat, wanted = logits.reshape(-1, classes), labels.reshape(-1)
    rows = np.flatnonzero(wanted != IGNORED)
    x, y, out = flat[rows], wanted[rows], np.zeros_like(flat)
    w = np.ones(classes) if class_weights is None else np.asarray(class_weights, np.float64)

    shifted = x - x.max(axis=-1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(axis=-1, keepdims=True, dtype=np.float64)
    log_p = shifted - np.log(total)
    live = np.isfinite(shifted)
    share = label_smoothing / np.maximum(live.sum(axis=-1, keepdims=True), 1)
    target = np.where(live, share, 0.0)
    target[np.arange(len(y)), y] += 1.0 - label_smoothing
    target *= w

    out[rows] = target.sum(axis=-1, keepdims=True) * (e / total) - target
    loss = -(target * np.where(target > 0, log_p, 0.0)).sum()
    return Loss(float(loss), float(w[y].sum()), out.reshape(logits.shape))


def binary_cross_entropy(logits: Array, labels: Array) -> Loss:
    """MODEL.md (49): sum of log(1 + exp(x)) - y x over all entries; count = their number.

    logits x and labels y in [0, 1], one shape: classes that do not exclude each other.
    """
    y = labels.astype(logits.dtype)
    loss = np.maximum(logits, 0) - logits * y + np.log1p(np.exp(-np.abs(logits)))
    total = float(loss.sum(dtype=np.float64))
    return Loss(total, float(logits.size), ops.sigmoid(logits) - y)


def mean_squared_error(values: Array, labels: Array) -> Loss:
    """MODEL.md (50): sum of (x - y)^2 over all entries; count = their number. One shape."""
    gap = values - labels.astype(values.dtype)
    return Loss(float((gap * gap).sum(dtype=np.float64)), float(gap.size), 2 * gap)
