"""A model's outputs for labelled examples, and the figures of a classification (metrics.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..models.task_model import ModernBERTForTask
from ..nlp.head import NLPHead
from ..reference.heads import Head
from . import metrics
from .examples import Unit
from .losses import IGNORED
from .order import chunks
from .task_loss import ANSWER, MULTI, REGRESSION
from .tasks import problem

Array = np.ndarray

TOKENS = 4096  # of texts that are evaluated together

# -- evaluation -----------------------------------------------------------------------------------


def outputs(model: ModernBERTForTask, units: Sequence[Unit]) -> Iterator[dict[str, Array]]:
    """The model's outputs for each unit: tokens of its own length, without a batch axis where the
    task labels tokens ([length, labels]), else with one of 1."""
    choices = model.head.kind == "multiple_choice"
    longest = np.array([max(len(x) for x in unit.sequences) for unit in units])
    width = len(units[0].sequences)
    for some in chunks(longest * width, TOKENS):
        held = units[some]
        sequences = [x for unit in held for x in unit.sequences]
        lengths = np.array([len(x) for x in sequences])
        mask = np.arange(lengths.max())[None, :] < lengths[:, None]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = np.concatenate(sequences)
        shape = (len(held), width, -1) if choices else mask.shape
        out = model(
            {
                "input_ids": ids.reshape(shape),
                "attention_mask": mask.astype(np.int64).reshape(shape),
            }
        )
        for i, length in enumerate(lengths[::width]):
            yield {name: own(model.head.kind, name, out[name], i, length) for name in out}


def own(kind: str, name: str, x: Array, i: int, length: int) -> Array:
    """What belongs to one unit of an output."""
    if kind == "token_classification":
        return x[i, :length]
    return x[i : i + 1, :length] if name in ("start_logits", "end_logits") else x[i : i + 1]


def figures(
    model: ModernBERTForTask, units: Sequence[Unit], found: Sequence[Mapping[str, Array]]
) -> dict[str, float]:
    """The figures of classification, by the problem of the labels."""
    head = model.head
    assert isinstance(head, (Head, NLPHead))
    kind = problem(head, model.config, units[0].labels)
    if kind == ANSWER:
        return {}
    labels = np.concatenate([np.asarray(unit.labels) for unit in units])
    logits = np.concatenate([out["logits"] for out in found])
    if kind == REGRESSION:
        return metrics.values(logits.astype(np.float64), labels.reshape(logits.shape))
    if kind == MULTI:
        wanted = labels.reshape(logits.shape) >= 0.5
        return metrics.several((logits > 0).astype(np.float64), wanted.astype(np.float64))
    rows = labels != IGNORED
    return metrics.classes(logits.argmax(axis=-1)[rows], labels[rows])
