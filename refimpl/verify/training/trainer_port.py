"""This package's own training as a port: refimpl.train's gradients and optimisers, in float32.

Each micro-batch is a call of `gradients` with the normaliser of the whole step; at a stop the
optimiser's state goes through `state` and `restore`, as a checkpoint of Trainer has it. numpy
computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...models.task_model import ModernBERTForTask
from ...reference.config import ModernBertConfig
from ...reference.heads import HEADS
from ...train import AdamW, StableAdamW, gradients
from ...train.losses import IGNORED
from ...train.optimisers import Optimiser
from .cases import STEPS, TASKS, TrainingCase
from .compare import AFTER
from .port import Answer, failed, from_arrays

Array = np.ndarray


@dataclass(frozen=True)
class TrainerPort:
    """dtype: float32 or float64."""

    dtype: str = "float32"
    name: str = "refimpl.train"

    def run(self, case: TrainingCase, shapes: Mapping[str, tuple[int, ...]]) -> Answer:
        try:
            return from_arrays(case, shapes, self._trained(case), self.dtype)
        except (ValueError, FloatingPointError) as error:
            return failed(case, f"refimpl.train raises {type(error).__name__}: {error}")

    def _trained(self, case: TrainingCase) -> dict[str, Array]:
        params = {n: x.astype(self.dtype) for n, x in case.params().items()}
        config = ModernBertConfig.from_dict(case.config)
        model = ModernBERTForTask(config, params, HEADS[case.head], backend="numpy")
        optimiser, batch = optimiser_of(case), case.batch()
        out: dict[str, Array] = {}
        for k in range(STEPS):
            if k == case.stop_after:
                saved = {name: x.copy() for name, x in optimiser.state().items()}
                optimiser = optimiser_of(case)
                optimiser.restore(saved)
            loss, grads = self._step(case, model, batch, k)
            out |= {f"grad_{k + 1}.{name}": x for name, x in grads.items()}
            if k == 0:
                out["loss"] = np.asarray(loss)
            optimiser.update(params, grads, case.rule.lr[k])
            if k + 1 in AFTER:
                out |= {f"after_{k + 1}.{name}": x.copy() for name, x in params.items()}
        return out

    def _step(
        self, case: TrainingCase, model: ModernBERTForTask, batch: Mapping[str, Array], k: int
    ) -> tuple[float, dict[str, Array]]:
        """Loss and gradients of a step, over its micro-batches."""
        micros = range(case.windows[k])
        labels = [batch["labels"][k, m] for m in micros]
        options: dict[str, Any] = {"normaliser": float(sum(counted(case, y) for y in labels))}
        if case.label_smoothing:
            options["label_smoothing"] = case.label_smoothing
        if case.class_weights:
            options["class_weights"] = case.class_weights
        loss, total = 0.0, dict[str, Array]()
        for m in micros:
            inputs = {n: x[k, m] for n, x in batch.items() if n != "labels"}
            if case.choices:
                inputs = {n: x.reshape(-1, case.choices, x.shape[-1]) for n, x in inputs.items()}
            own, grads = gradients(model, inputs, labels[m], task=TASKS[case.head], **options)
            loss += own
            total = {n: x + total[n] if total else x for n, x in grads.items()}
        return loss, total


def counted(case: TrainingCase, labels: Array) -> float:
    """What a micro-batch adds to the normaliser of its step (MODEL.md 14)."""
    if case.class_weights is not None:
        return float(np.array(case.class_weights)[labels].sum())
    return float(labels.size if labels.dtype.kind == "f" else (labels != IGNORED).sum())


def optimiser_of(case: TrainingCase) -> Optimiser:
    rule = case.rule
    if rule.optimiser == "adamw":
        return AdamW(rule.betas, rule.eps, rule.weight_decay)
    return StableAdamW(rule.peak, rule.betas, rule.eps, rule.weight_decay)
