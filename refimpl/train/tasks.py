"""What each task learns from: the loss of a head's outputs under its labels (MODEL.md section 14).

    loss_of(head, config, outputs, labels, ..) -> Scored(total, count, {output: gradient of total})

Promise: the losses of transformers' ModernBERT heads; where a model has several sums (start and end
of an answer), one count divides them all. Which loss a classification has is what its config or its
task says; a config that does not say is read as transformers reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..models.model import ModernBERT
from ..models.task_model import ModernBERTForTask
from ..nlp.head import NLPHead
from ..nlp.multi_task import MultiTaskHead
from ..nlp.task_config import POOLED_FAMILIES
from ..reference.config import ModernBertConfig
from ..reference.heads import Head
from . import labels as check
from .batch import Batch, View, rows_with_labels, whole_sequences
from .losses import Loss, binary_cross_entropy, cross_entropy, mean_squared_error

Array = np.ndarray

# Task -> the kind of head that it trains.
TASKS: Mapping[str, str] = {
    "mask": "masked_lm",
    "classify": "sequence_classification",
    "tokens": "token_classification",
    "answer": "question_answering",
    "choice": "multiple_choice",
    "several": "multi_task",
}
# Those whose labels stand at tokens: rows without a label cost nothing.
PER_TOKEN = ("masked_lm", "token_classification")


def head_for(model: ModernBERT, task: str) -> Head | NLPHead | MultiTaskHead:
    """The model's head. ValueError unless it serves the task."""
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; known: {', '.join(TASKS)}")
    head = model.head if isinstance(model, ModernBERTForTask) else None
    if head is None or head.kind != TASKS[task]:
        has = "no head" if head is None else f"a {head.kind} head"
        raise ValueError(f"task is {task!r}, which trains a {TASKS[task]} head; model has {has}")
    assert isinstance(head, (Head, NLPHead, MultiTaskHead))
    return head


def heads_of(
    head: Head | NLPHead | MultiTaskHead, labels: Any
) -> Iterator[tuple[Head | NLPHead, Any, float]]:
    """(head, its labels, the weight of its loss): one, or those of a multi-task head."""
    if not isinstance(head, MultiTaskHead):
        yield head, labels, 1.0
        return
    names = [one.task.name for one in head.heads]
    if not isinstance(labels, Mapping) or set(labels) != set(names):
        raise ValueError(f"labels is {labels!r}; it must map each of {names} to its labels")
    for one in head.heads:
        if one.family == "text_similarity":
            raise ValueError(f"task {one.task.name!r} compares texts, which has no loss here")
        yield one, labels[one.task.name], one.task.loss_weight


def view_of(
    head: Head | NLPHead, config: ModernBertConfig, batch: Batch, hidden: Array, labels: Any
) -> View:
    """What the head takes: labelled tokens, or sequences. Raises ValueError for wrong labels."""
    if head.kind in PER_TOKEN:
        wanted = check.classes("labels", labels, batch.axes, classes_of(head, config))
        check.at_real_tokens("labels", wanted, batch.real())
        return rows_with_labels(batch, hidden, wanted)
    pooled = (head.family if isinstance(head, NLPHead) else head.kind) in POOLED_FAMILIES
    return whole_sequences(batch, hidden, labels, pooled=pooled)


def classes_of(head: Head | NLPHead, config: ModernBertConfig) -> int:
    """How many classes a token can have: the last axis of the head's logits."""
    if isinstance(head, NLPHead):
        return head.width_out
    return config.vocab_size if head.kind == "masked_lm" else config.num_labels


@dataclass(frozen=True)
class Scored:
    """total / count is the loss; gradients: of total, by the head's outputs, under their keys."""

    total: float
    count: float
    gradients: Mapping[str, Array]


def loss_of(
    head: Head | NLPHead,
    config: ModernBertConfig,
    outputs: Mapping[str, Array],
    labels: Any,
    label_smoothing: float,
    class_weights: Any = None,
    real: Array | None = None,
) -> Scored:
    """The loss of one head's outputs. labels as `gradients` takes them; real [batch, seq]: the
    tokens that a packed sequence has. Raises ValueError."""
    smoothing = check.fraction("label_smoothing", label_smoothing)
    if head.kind == "question_answering":
        start, end = outputs["start_logits"], outputs["end_logits"]
        if real is not None:
            start, end = (np.where(real, x, -np.inf).astype(x.dtype) for x in (start, end))
        return _span(start, end, labels, smoothing)
    logits = outputs["logits"]
    options: dict[str, Any] = dict(label_smoothing=smoothing)
    if class_weights is not None:
        options["class_weights"] = check.weights_of_classes(class_weights, logits.shape[-1])
    if head.kind == "sequence_classification":
        loss = _classify(problem(head, config, labels), logits, labels, options)
    else:
        wanted = check.classes("labels", labels, logits.shape[:-1], logits.shape[-1])
        loss = cross_entropy(logits, wanted, **options)
    return Scored(loss.total, loss.count, {"logits": loss.gradient})


def problem(head: Head | NLPHead, config: ModernBertConfig, labels: Any) -> str:
    """regression, single_label_classification or multi_label_classification."""
    if isinstance(head, NLPHead):
        if head.family == "regression":
            return "regression"
        several = head.task.multi_label or head.width_out == 1
        return f"{'multi' if several else 'single'}_label_classification"
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return "regression"
    single = check.array("labels", labels).ndim == 1
    return f"{'single' if single else 'multi'}_label_classification"


def _classify(kind: str, logits: Array, labels: Any, options: Mapping[str, Any]) -> Loss:
    if kind == "single_label_classification":
        wanted = check.classes("labels", labels, logits.shape[:-1], logits.shape[-1])
        return cross_entropy(logits, wanted, **options)
    for name, value in options.items():
        if value is not None and np.any(value):
            raise ValueError(f"{name} is {value!r}; a {kind} has no cross-entropy to use it")
    if kind == "regression":
        wanted = check.numbers("labels", labels, logits.shape, logits.dtype)
        return mean_squared_error(logits, wanted)
    wanted = check.yes_or_no("labels", labels, logits.shape, logits.dtype)
    return binary_cross_entropy(logits, wanted)


def _span(start: Array, end: Array, labels: Any, label_smoothing: float) -> Scored:
    """MODEL.md (48) over the tokens, twice; counted are starts and ends together."""
    wanted = check.classes("labels", labels, (len(start), 2), start.shape[1])
    real = np.isfinite(np.stack([start, end], axis=1))  # -inf at padding, in heads that mask it
    real = np.take_along_axis(real, np.maximum(wanted, 0)[..., None], axis=2)[..., 0]
    check.at_real_tokens("labels", wanted, real)
    first = cross_entropy(start, wanted[:, 0], label_smoothing=label_smoothing)
    last = cross_entropy(end, wanted[:, 1], label_smoothing=label_smoothing)
    found = {"start_logits": first.gradient, "end_logits": last.gradient}
    return Scored(first.total + last.total, first.count + last.count, found)
