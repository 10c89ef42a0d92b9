"""What a training run is asked for: `Settings`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Settings:
    """What decides the numbers of a run, as far as model and data do not.

    batch_size: texts a step. chunk_tokens: tokens whose steps are held at once. evaluate_every:
    steps, 0 for once an epoch. patience: evaluations without a lower loss before the run ends, 0
    for never. warmup: share of all steps. The schedule falls linearly to 0 unless it names another.
    """

    epochs: int = 10
    batch_size: int = 16
    chunk_tokens: int = 2048
    learning_rate: float = 8e-5
    weight_decay: float = 1e-5
    warmup: float = 0.06
    schedule: str = "linear"
    evaluate_every: int = 0
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "chunk_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be an integer of at least 1")
        for name in ("evaluate_every", "patience", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} is {value!r}; it must be an integer of at least 0")
        if not (np.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate is {self.learning_rate!r}; it must be positive")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup!r}; it must be in [0, 1)")
