"""What a training run is asked for: `Settings`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .schedules import KINDS

OPTIMISERS = ("adamw", "stable_adamw")
# Learning rates for a width of 768, that of base: fine-tuning (GLUE), pre-training. The second
# goes with 1 / width, as the recipes of tiny and large models do; the first with its square: at 256
# the task of benchmarks/few_shot.py, on draws apart from its own, wants that.
FINE_TUNING, PRE_TRAINING, WIDTH = 8e-5, 8e-4, 768


@dataclass(frozen=True)
class Settings:
    """What decides the numbers of a run, as far as model and data do not.

    epochs: passes over the data; steps: how many at most, 0 for what the epochs have. batch_size x
    accumulate: texts a step (rows, in pre-training); no sum depends on how the two share it.
    batch_start: rows of the first step, which grow to all over the share batch_warmup of the steps
    (pre-training alone). learning_rate: the peak, None for 8e-5 (768 / hidden size)^2. warmup,
    decay: shares of all steps; decay and floor are of the trapezoid. class_weights: of a
    cross-entropy, one a label, () for 1 each; evaluations have none. layer_decay: the learning rate
    of a layer as a share of that of the layer above it. freeze: beginnings of names of parameters
    that stay as they are. lora_rank: of the adapters, 0 for none; lora_alpha: 0 for twice the rank
    (lora.py). evaluate_every: steps, 0 for once an epoch; save_every: steps, beside evaluations, 0
    for never. patience: evaluations without a lower loss before the run ends, 0 for never.
    """

    epochs: int = 10
    steps: int = 0
    batch_size: int = 16
    accumulate: int = 1
    batch_start: int = 0
    batch_warmup: float = 0.0
    optimiser: str = "adamw"
    learning_rate: float | None = None
    weight_decay: float = 1e-5
    schedule: str = "linear"
    warmup: float = 0.06
    decay: float = 0.0
    floor: float = 0.0
    label_smoothing: float = 0.0
    layer_decay: float = 1.0
    class_weights: tuple[float, ...] = ()
    freeze: tuple[str, ...] = ()
    lora_rank: int = 0
    lora_alpha: float = 0.0
    evaluate_every: int = 0
    save_every: int = 0
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            check_whole(name, getattr(self, name), 1)
        whole = ("steps", "batch_start", "evaluate_every", "save_every", "patience", "seed")
        for name in (*whole, "lora_rank"):
            check_whole(name, getattr(self, name), 0)
        lr = self.learning_rate
        if lr is not None and not (np.isfinite(lr) and lr > 0):
            raise ValueError(f"learning_rate is {lr!r}; it must be positive")
        for name in ("weight_decay", "lora_alpha"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value!r}; it must be finite and at least 0")
        for name in ("warmup", "decay", "batch_warmup", "label_smoothing", "floor"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value!r}; it must be in [0, 1)")
        for i, weight in enumerate(self.class_weights):
            if not (np.isfinite(weight) and weight >= 0):
                raise ValueError(
                    f"class_weights[{i}] is {weight!r}; it must be finite and at least 0"
                )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is {self.layer_decay!r}; it must be in (0, 1]")
        for name, known in (("optimiser", OPTIMISERS), ("schedule", KINDS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; known: {', '.join(known)}")
        if self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup {self.warmup} + decay {self.decay} is more than all steps; at most 1"
            )
        if self.batch_start > self.texts_a_step:
            raise ValueError(
                f"batch_start is {self.batch_start}; it must be at most batch_size x accumulate, "
                f"{self.texts_a_step}"
            )

    def peak(self, hidden: int) -> float:
        """The learning rate, for a model of that width."""
        return self.learning_rate or FINE_TUNING * (WIDTH / hidden) ** 2

    @property
    def texts_a_step(self) -> int:
        """batch_size x accumulate."""
        return self.batch_size * self.accumulate


def check_whole(name: str, value: object, least: int) -> None:
    """ValueError unless value is an integer of at least that."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}")
