"""Logits to scores: none, sigmoid, softmax, or an activation by its name in ACTIVATIONS.

By the engine where a model runs on it, in double and rounded once, so that the C library has the
same bits; by numpy in the dtype of the logits elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..backends import backend
from ..reference.ops import ACTIVATIONS, sigmoid
from .model import ModernBERT

Array = np.ndarray


def scores_of(model: ModernBERT, function: str, logits: Array) -> Array:
    """function of logits [..., labels], of the same shape and dtype."""
    if model.backend == "native":
        rows = logits.reshape(-1, logits.shape[-1])
        return backend.scores(function, rows).reshape(logits.shape)
    known = FUNCTIONS.get(function)
    return known(logits) if known else ACTIVATIONS[function].function(logits)


def softmax(x: Array) -> Array:
    """exp(x) / sum(exp(x)) over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# What a caller of text classification may ask for.
FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "none": lambda logits: logits,
    "sigmoid": sigmoid,
    "softmax": softmax,
}
