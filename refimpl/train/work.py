"""What a trainer needs of a task and its data: the gradient of a step, and figures.

    Supervised(examples)     labels beside texts: tasks.TASKS          Contrastive, Masked, Stream

Promise: the gradient of a step is the sum over its units (a text, a question with its choices),
each computed alone, in the order of the step, divided by what is counted in the whole step. So no
bit depends on how a step is split into batches. Which units a step has depends on its number alone.
With the CPU engine (native.py) batch_size units share a pass, of the same bits. Long because every
way from units to a gradient stands here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..models.task_model import ModernBERTForTask
from ..nlp.head import NLPHead
from ..nlp.multi_task import MultiTaskHead
from ..reference.heads import Head
from .evaluation import figures, outputs
from .examples import Examples, Unit
from .loss_gradients import Draws, Grads, gradients
from .losses import IGNORED
from .native import NativeStep
from .order import batch_at, steps_per_epoch
from .settings import Settings
from .task_loss import MULTI, REGRESSION, loss_of
from .tasks import problem

Array = np.ndarray


@dataclass(frozen=True)
class Stepped:
    """loss and gradients of a step, and how many tokens it had."""

    loss: float
    gradients: Grads
    tokens: int


class Work(ABC):
    """A task on its data. one_pass: whether the gradient of a step of one batch comes from one way
    back, so that an engine may hand it on layer by layer."""

    one_pass = True

    @abstractmethod
    def steps_per_epoch(self, settings: Settings) -> int:
        """Steps of one pass over the data."""

    def steps(self, settings: Settings) -> int:
        """Steps of the whole run."""
        return settings.steps or settings.epochs * self.steps_per_epoch(settings)

    @abstractmethod
    def step(
        self,
        model: ModernBERTForTask,
        step: int,
        settings: Settings,
        wanted: Collection[str],
        engine: NativeStep | None = None,
    ) -> Stepped:
        """Loss and gradients, of the parameters that are wanted, of a step, counted from 0.

        engine: computes in numpy's place; the gradients are then its own arrays.
        Raises FloatingPointError that names step, unit and tensor.
        """

    @abstractmethod
    def evaluate(self, model: ModernBERTForTask) -> dict[str, float]:
        """`loss`, the lower the better, and further figures, over all of the data."""

    @abstractmethod
    def digest(self) -> str:
        """What tells these data from others."""

    def begin(self, model: ModernBERTForTask, settings: Settings) -> None:
        """Before the first step of a run, and before it goes on. Raises ValueError."""
        return None

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """What must be kept beside the number of the step to go on: arrays, and JSON."""
        return {}, {}

    def restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        return None


class Supervised(Work):
    """Labelled examples, a new order each epoch."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def steps_per_epoch(self, settings: Settings) -> int:
        return steps_per_epoch(len(self.examples), settings.texts_a_step)

    def units(self, step: int, settings: Settings) -> list[Unit]:
        n = len(self.examples)
        return [
            self.examples.units[i] for i in batch_at(step, n, settings.texts_a_step, settings.seed)
        ]

    def step(
        self,
        model: ModernBERTForTask,
        step: int,
        settings: Settings,
        wanted: Collection[str],
        engine: NativeStep | None = None,
    ) -> Stepped:
        units, s = self.units(step, settings), settings
        options: dict[str, Any] = {}
        if s.label_smoothing:
            options["label_smoothing"] = s.label_smoothing
        if s.class_weights:
            options["class_weights"] = np.array(s.class_weights)
        task = self.examples.task
        return of_units(model, task, units, settings, step, wanted, engine, **options)

    def evaluate(self, model: ModernBERTForTask) -> dict[str, float]:
        units, head = self.examples.units, model.head
        assert isinstance(head, (Head, NLPHead))
        total, count, found = 0.0, 0.0, []
        for unit, out in zip(units, outputs(model, units), strict=True):
            kind = problem(head, model.config, unit.labels)
            scored = loss_of(kind, out, checked_shape(kind, out, unit.labels))
            total, count = total + scored.total, count + scored.count
            found.append(out)
        own = self.examples.figures or (lambda out: figures(model, units, out))
        return {"loss": total / (count or 1.0), **own(found)}

    def digest(self) -> str:
        return self.examples.digest()


def checked_shape(kind: str, out: Mapping[str, Array], labels: Any) -> Array:
    """Labels in the shape of the logits, where the loss compares them one by one."""
    x = np.asarray(labels)
    return x.reshape(out["logits"].shape) if kind in (MULTI, REGRESSION) else x


def of_units(
    model: ModernBERTForTask,
    task: str,
    units: Sequence[Unit],
    settings: Settings,
    step: int,
    wanted: Collection[str],
    engine: NativeStep | None,
    count: float | None = None,
    **options: Any,
) -> Stepped:
    """The units of a step: one after the other in numpy, or batch_size of them at a time. count:
    what the sum is divided by, None for what the labels count."""
    if count is None:
        weights = options.get("class_weights")
        count = sum(counted(model, u.labels, weights) for u in units) or 1.0
    if engine is None:
        return summed(model, task, units, settings.seed, step, wanted, count, **options)
    loss, grads = engine.of_units(
        task, units, count, batch_size=settings.batch_size, seed=settings.seed, step=step,
        **options,
    )  # fmt: skip
    return Stepped(loss, grads, sum(unit.tokens for unit in units))


def summed(
    model: ModernBERTForTask,
    task: str,
    units: Sequence[Unit],
    seed: int,
    step: int,
    wanted: Collection[str],
    count: float,
    **options: Any,
) -> Stepped:
    """The units of a step, one after the other, divided by count. options: of `gradients`."""
    loss, first, total = 0.0, 0, Sum(wanted)
    for unit in units:
        packed = {
            "input_ids": np.concatenate(unit.sequences),
            "cu_seqlens": np.cumsum([0, *(len(x) for x in unit.sequences)]),
        }
        try:
            own, grads = gradients(
                model, packed, unit.labels, task=task, normaliser=count,
                draws=Draws(seed, step, first), **options,
            )  # fmt: skip
        except FloatingPointError as error:
            raise FloatingPointError(f"step {step + 1}, {unit.where}: {error}") from None
        loss += own
        total.add(grads)
        first += len(unit.sequences)
    return Stepped(loss, total.gradients, sum(unit.tokens for unit in units))


class Sum:
    """Gradients added up in the order in which they come, those of the wanted parameters."""

    def __init__(self, wanted: Collection[str]) -> None:
        self.wanted, self.gradients = wanted, Grads()

    def add(self, grads: Mapping[str, Array]) -> None:
        for name in self.wanted:
            if name in self.gradients:
                self.gradients[name] += grads[name]
            else:
                self.gradients[name] = grads[name]


def counted(model: ModernBERTForTask, labels: Any, class_weights: Array | None = None) -> float:
    """What the loss of these labels is divided by (MODEL.md section 14)."""
    head = model.head
    if isinstance(head, MultiTaskHead):
        raise ValueError("a multi_task head counts for each task; take its step as one unit")
    assert isinstance(head, (Head, NLPHead))
    x = np.asarray(labels)
    kind = problem(head, model.config, labels)
    if kind in (MULTI, REGRESSION):
        return float(x.size)
    known = x[x != IGNORED]
    return float(len(known) if class_weights is None else class_weights[known].sum())
