"""What a head returns once its last Dense is done, one function per family of tasks.

Each takes x, the output of that Dense, and returns the dict that a user sees. Dimensions: batch seq
choices classes vocab; outputs keep the dtype of x, `predictions` are int64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..reference.encoder import Tap
from .task_config import NLPTaskConfig

Array = np.ndarray
Outputs = dict[str, Any]


def sequence_classification(
    x: Array, mask: Array | None, task: NLPTaskConfig, ops: Any, tap: Tap
) -> Outputs:
    """x [batch, classes] -> logits and probabilities: softmax over the classes, or a sigmoid of
    each where they do not exclude each other (`multi_label`) or there is but one."""
    logits = tap("logits", x)
    if task.multi_label or x.shape[-1] == 1:
        return {"logits": logits, "probabilities": ops.sigmoid(logits)}
    return {"logits": logits, "probabilities": probabilities(logits, ops)}


def regression(x: Array, mask: Array | None, task: NLPTaskConfig, ops: Any, tap: Tap) -> Outputs:
    """x [batch, 1] -> logits [batch, 1], and the same numbers as values [batch]; no softmax."""
    logits = tap("logits", x)
    return {"logits": logits, "values": logits[..., 0]}


def token_classification(
    x: Array, mask: Array | None, task: NLPTaskConfig, ops: Any, tap: Tap
) -> Outputs:
    """x [batch, seq, classes] -> logits, and predictions [batch, seq], the first best class."""
    logits = tap("logits", x)
    return {"logits": logits, "predictions": logits.argmax(axis=-1)}


def question_answering(
    x: Array, mask: Array | None, task: NLPTaskConfig, ops: Any, tap: Tap
) -> Outputs:
    """x [batch, seq, 2] -> start_logits and end_logits [batch, seq], -inf at padding."""
    if mask is not None:
        x = np.where((mask != 0)[..., None], x, x.dtype.type(-np.inf))
    return {
        "start_logits": tap("start_logits", x[..., 0]),
        "end_logits": tap("end_logits", x[..., 1]),
    }


def text_similarity(
    x: Array, mask: Array | None, task: NLPTaskConfig, ops: Any, tap: Tap
) -> Outputs:
    """x [batch, width] -> embeddings, not normalised."""
    return {"embeddings": tap("embeddings", x)}


def masked_lm(x: Array, mask: Array | None, task: NLPTaskConfig, ops: Any, tap: Tap) -> Outputs:
    """x [batch, seq, vocab] -> logits: a score of every vocabulary entry at every position."""
    return {"logits": tap("logits", x)}


def multiple_choice(
    x: Array, mask: Array | None, task: NLPTaskConfig, ops: Any, tap: Tap
) -> Outputs:
    """x [batch, choices, 1] -> logits and probabilities (softmax over the choices), both [batch,
    choices]."""
    logits = tap("logits", x[..., 0])
    return {"logits": logits, "probabilities": probabilities(logits, ops)}


FAMILY_OUTPUTS: Mapping[str, Callable[..., Outputs]] = {
    f.__name__: f
    for f in (
        sequence_classification,
        regression,
        token_classification,
        question_answering,
        text_similarity,
        masked_lm,
        multiple_choice,
    )
}


def probabilities(logits: Array, ops: Any) -> Array:
    """Softmax over the whole last axis."""
    return ops.softmax(logits, np.ones(1, bool))


def compare_embeddings(
    a: Array, b: Array, how: str | None, learned: Callable[[Array], Array]
) -> Array:
    """Similarity of the rows of a and b [batch, width] -> [batch].

    cosine: a . b / (|a| |b|), 0 when one of them is zero; dot: a . b; learned: `learned` of
    [a, b, a * b, |a - b|] [batch, 4 * width].
    """
    if how == "learned":
        return learned(np.concatenate([a, b, a * b, np.abs(a - b)], axis=-1))
    if how == "cosine":
        a, b = unit(a), unit(b)
    return (a * b).sum(axis=-1)


def unit(x: Array) -> Array:
    """x / |x| over the last axis; a zero vector has no direction and stays zero."""
    length = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / np.where(length == 0, x.dtype.type(1), length)
