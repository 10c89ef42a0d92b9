"""This package's own training as a port: refimpl.train's gradients and optimisers.

    TrainerPort(dtype)             in numpy: each micro-batch is a call of `gradients`
    EngineTrainer(tier, dtype)     in the CPU engine: passes, sums over a step, and updates

The normaliser is that of the whole step; at a stop the optimiser's state goes through `state` and
`restore`, as a checkpoint of Trainer has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends.backend import chosen_tier, native
from ...models.task_model import ModernBERTForTask
from ...reference.config import ModernBertConfig
from ...reference.heads import HEADS
from ...train import AdamW, StableAdamW, gradients
from ...train.losses import IGNORED
from ...train.native import NativeStep
from ...train.native_updates import NativeUpdates
from ...train.optimisers import Optimiser
from .cases import STEPS, TASKS, TrainingCase
from .compare import AFTER
from .port import Answer, failed, from_arrays

Array = np.ndarray


@dataclass
class TrainerPort:
    """dtype: float32 or float64."""

    dtype: str = "float32"
    name: str = "refimpl.train"

    def run(self, case: TrainingCase, shapes: Mapping[str, tuple[int, ...]]) -> Answer:
        try:
            return from_arrays(case, shapes, self._trained(case), self.dtype)
        except (ValueError, FloatingPointError) as error:
            return failed(case, f"refimpl.train raises {type(error).__name__}: {error}")

    @property
    def of_params(self) -> str:
        """The dtype that parameters are kept in."""
        return self.dtype

    def _begin(self, model: ModernBERTForTask) -> None:
        """Before the first step of a case."""

    def _optimiser(self, case: TrainingCase) -> Optimiser:
        return optimiser_of(case)

    def _trained(self, case: TrainingCase) -> dict[str, Array]:
        params = {n: x.astype(self.of_params) for n, x in case.params().items()}
        config = ModernBertConfig.from_dict(case.config)
        model = ModernBERTForTask(config, params, HEADS[case.head], backend="numpy")
        self._begin(model)
        optimiser, batch = self._optimiser(case), case.batch()
        out: dict[str, Array] = {}
        for k in range(STEPS):
            if k == case.stop_after:
                saved = {name: x.copy() for name, x in optimiser.state().items()}
                optimiser = self._optimiser(case)
                optimiser.restore(saved)
            loss, grads = self._step(case, model, batch, k)
            out |= {f"grad_{k + 1}.{name}": x.copy() for name, x in grads.items()}
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
        given = []
        for m in micros:
            inputs = {n: x[k, m] for n, x in batch.items() if n != "labels"}
            if case.choices:
                inputs = {n: x.reshape(-1, case.choices, x.shape[-1]) for n, x in inputs.items()}
            given.append((inputs, labels[m]))
        return self._summed(model, given, {"task": TASKS[case.head], **options})

    def _summed(
        self, model: ModernBERTForTask, given: Sequence[tuple[Any, Array]], options: dict[str, Any]
    ) -> tuple[float, dict[str, Array]]:
        """Over (inputs, labels) of the micro-batches."""
        loss, total = 0.0, dict[str, Array]()
        for inputs, labels in given:
            own, grads = gradients(model, inputs, labels, **options)
            loss += own
            total = {n: x + total[n] if total else x for n, x in grads.items()}
        return loss, total


class EngineTrainer(TrainerPort):
    """The CPU engine on one tier (None: the best here). dtype: of its products, float32 or
    bfloat16; parameters are float32. Raises ValueError for a tier that is not here."""

    def __init__(self, tier: str | None = None, dtype: str = "float32", threads: int = 2) -> None:
        tier = tier or chosen_tier()
        if dtype not in ("float32", "bfloat16") or dtype not in native().dtypes(tier):
            raise ValueError(f"--dtype {dtype} is not one that the engine trains in on {tier}")
        super().__init__(dtype, f"refimpl.train on {tier}")
        self.tier, self.threads = tier, threads

    @property
    def of_params(self) -> str:
        return "float32"

    def _begin(self, model: ModernBERTForTask) -> None:
        self.step = NativeStep(
            model, list(model.params), dtype=self.dtype, tier=self.tier, num_threads=self.threads
        )

    def _optimiser(self, case: TrainingCase) -> Optimiser:
        rule = optimiser_of(case)
        assert isinstance(rule, (AdamW, StableAdamW))
        return NativeUpdates(rule, self.step.engine)

    def _summed(
        self, model: ModernBERTForTask, given: Sequence[tuple[Any, Array]], options: dict[str, Any]
    ) -> tuple[float, dict[str, Array]]:
        self.step.begin()
        loss = sum(self.step.add_batch(inputs, labels, **options) for inputs, labels in given)
        return loss, self.step.end()


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
