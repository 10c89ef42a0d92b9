"""The loss of a head's outputs under its labels, by problem (MODEL.md section 14).

    loss_of(problem, outputs, labels, ..) -> Scored(total, count, {output: gradient of total})

Promise: the losses of transformers' ModernBERT heads; where a model has several sums (start and end
of an answer), one count divides them all. Labels are checked in tasks.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .losses import binary_cross_entropy, cross_entropy, mean_squared_error

Array = np.ndarray

# Which loss: three as config.json names them, and that of two tokens.
SINGLE, MULTI, REGRESSION = (
    "single_label_classification",
    "multi_label_classification",
    "regression",
)
ANSWER = "answer"
# Not a loss by itself: sum of label x logit, whose gradient by the logits is what the labels say.
GIVEN = "given"


@dataclass(frozen=True)
class Scored:
    """total / count is the loss; gradients: of total, by the head's outputs, under their keys."""

    total: float
    count: float
    gradients: Mapping[str, Array]


def loss_of(
    problem: str,
    outputs: Mapping[str, Array],
    labels: Array,
    *,
    label_smoothing: float = 0.0,
    class_weights: Array | None = None,
    real: Array | None = None,
) -> Scored:
    """The loss of one head's outputs (MODEL.md section 14). labels: int [..] for SINGLE, [batch, 2]
    for ANSWER, numbers in the shape of the logits for the others (of GIVEN: d of them); real bool
    [batch, seq]: the tokens that a packed sequence has."""
    if problem == ANSWER:
        losses, gradients = [], {}
        for column, name in enumerate(("start_logits", "end_logits")):
            x = outputs[name]
            if real is not None:
                x = np.where(real, x, -np.inf).astype(x.dtype)
            loss = cross_entropy(x, labels[:, column], label_smoothing=label_smoothing)
            losses.append(loss)
            gradients[name] = loss.gradient
        return Scored(sum(x.total for x in losses), sum(x.count for x in losses), gradients)
    logits = outputs["logits"]
    if problem == GIVEN:
        return Scored(float((labels * logits).sum()), 1.0, {"logits": labels.astype(logits.dtype)})
    if problem == SINGLE:
        options: dict[str, Any] = dict(label_smoothing=label_smoothing, class_weights=class_weights)
        loss = cross_entropy(logits, labels, **options)
    else:
        loss = (mean_squared_error if problem == REGRESSION else binary_cross_entropy)(
            logits, labels
        )
    return Scored(loss.total, loss.count, {"logits": loss.gradient})
