"""What each task learns from: its head, its labels and its loss, checked before any computation.

    targets(head, config, batch, labels, ..) -> [Target]      one, or one per task of several
    view_of(target, batch, hidden) -> View                    what the head takes

Promise: bad labels and options are a ValueError that names argument, value and place. Which loss a
classification has is what its config or its task says; a config that does not say is read as
transformers reads it.
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
from .task_loss import ANSWER, GIVEN, MULTI, REGRESSION, SINGLE

Array = np.ndarray

# Task -> the kind of head that it trains.
TASKS: Mapping[str, str] = {
    "mask": "masked_lm",
    "classify": "sequence_classification",
    "tokens": "token_classification",
    "answer": "question_answering",
    "choice": "multiple_choice",
    "several": "multi_task",
    "scores": "sequence_classification",
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


@dataclass(frozen=True)
class Target:
    """What a head is to learn, checked: labels as `loss_of` takes them, which loss, its weight, and
    label_smoothing and class_weights of a cross-entropy."""

    head: Head | NLPHead
    labels: Array
    problem: str
    weight: float
    label_smoothing: float
    class_weights: Array | None


def targets(
    head: Head | NLPHead | MultiTaskHead,
    config: ModernBertConfig,
    batch: Batch,
    labels: Any,
    label_smoothing: float | None,
    class_weights: Any,
    task: str,
) -> list[Target]:
    """What each head is to learn, before anything is computed. Raises ValueError."""
    found = []
    for one, given, weight in heads_of(head, labels):
        kind = GIVEN if task == "scores" else problem(one, config, given)
        n = classes_of(one, config, batch)
        own = one.task.label_smoothing if isinstance(one, NLPHead) else 0.0
        smoothing = check.fraction(
            "label_smoothing", own if label_smoothing is None else label_smoothing
        )
        refuse_unused(kind, smoothing, class_weights)
        weights = None
        if class_weights is not None:
            weights = check.weights_of_classes(class_weights, n)
        wanted = checked_labels(one, kind, batch, given, n)
        found.append(Target(one, wanted, kind, weight, smoothing, weights))
    return found


def refuse_unused(kind: str, label_smoothing: float, class_weights: Any) -> None:
    """ValueError for an option that the loss would not read."""
    unused: dict[str, Any] = {}
    if kind in (MULTI, REGRESSION, GIVEN) and label_smoothing:
        unused["label_smoothing"] = label_smoothing
    if kind != SINGLE and class_weights is not None:
        unused["class_weights"] = class_weights
    for name, value in unused.items():
        raise ValueError(f"{name} is {value!r}; the loss of {kind} does not use it")


def checked_labels(head: Head | NLPHead, kind: str, batch: Batch, labels: Any, n: int) -> Array:
    """labels as an array of their shape: one per token, sequence or question. Raises ValueError."""
    *rows, seq = batch.mask.shape
    if head.kind in PER_TOKEN:
        wanted = check.classes("labels", labels, batch.axes, n)
        check.at_real_tokens("labels", wanted, batch.real())
    elif kind == ANSWER:
        wanted = check.classes("labels", labels, (*rows, 2), seq)
        if isinstance(head, NLPHead) or batch.places is not None:  # padding has no score
            at = np.take_along_axis(batch.mask != 0, np.maximum(wanted, 0), axis=1)
            check.at_real_tokens("labels", wanted, at)
    elif head.kind == "multiple_choice":
        wanted = check.classes("labels", labels, tuple(rows[:-1]), n)
    elif kind in (REGRESSION, GIVEN):
        wanted = check.numbers("labels", labels, (*rows, n))
    elif kind == MULTI:
        wanted = check.yes_or_no("labels", labels, (*rows, n))
    else:
        wanted = check.classes("labels", labels, tuple(rows), n)
    return wanted


def problem(head: Head | NLPHead, config: ModernBertConfig, labels: Any) -> str:
    """Which loss: ANSWER, or SINGLE, MULTI, REGRESSION as config.json names them."""
    if head.kind == "question_answering":
        return ANSWER
    if head.kind != "sequence_classification":
        return SINGLE
    if isinstance(head, NLPHead):
        if head.family == "regression":
            return REGRESSION
        return MULTI if head.task.multi_label or head.width_out == 1 else SINGLE
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return REGRESSION
    return SINGLE if check.array("labels", labels).ndim == 1 else MULTI


def classes_of(head: Head | NLPHead, config: ModernBertConfig, batch: Batch) -> int:
    """The last axis of the head's logits; of an answer, its tokens."""
    if head.kind in ("question_answering", "multiple_choice"):
        return batch.mask.shape[-1 if head.kind == "question_answering" else -2]
    if isinstance(head, NLPHead):
        return head.width_out
    return config.vocab_size if head.kind == "masked_lm" else config.num_labels


def view_of(target: Target, batch: Batch, hidden: Array) -> View:
    """What the head takes: labelled tokens, or sequences."""
    head = target.head
    if head.kind in PER_TOKEN:
        return rows_with_labels(batch, hidden, target.labels)
    pooled = (head.family if isinstance(head, NLPHead) else head.kind) in POOLED_FAMILIES
    return whole_sequences(batch, hidden, target.labels, pooled=pooled)
