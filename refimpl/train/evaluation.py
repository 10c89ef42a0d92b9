"""How good a classifier is on examples: its loss and the figures of its problem (metrics.py)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..models.task_model import ModernBERTForTask
from . import metrics
from .examples import Examples
from .order import chunks
from .task_loss import MULTI, REGRESSION, loss_of


def evaluate(
    model: ModernBERTForTask, examples: Examples, most_tokens: int = 2048
) -> Mapping[str, float]:
    """Loss (of the sum over all examples, divided once) and the figures of the problem."""
    lengths = np.array([len(x) for x in examples.ids])
    logits = []
    for some in chunks(lengths, most_tokens):
        seq = lengths[some].max()
        mask = np.arange(seq)[None, :] < lengths[some][:, None]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = np.concatenate(examples.ids[some])
        inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        logits.append(model(inputs)["logits"])
    x = np.concatenate(logits)
    scored = loss_of(str(model.config.problem_type), {"logits": x}, examples.labels)
    loss, labels = {"loss": scored.total / scored.count}, examples.labels
    if model.config.problem_type == REGRESSION:
        return loss | metrics.values(x.astype(np.float64), labels)
    if model.config.problem_type == MULTI:
        return loss | metrics.several((x > 0).astype(np.float64), labels)
    return loss | metrics.classes(x.argmax(axis=-1), labels)
