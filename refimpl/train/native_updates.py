"""AdamW and StableAdamW by the CPU engine: each tensor in one or two passes over its memory.

    optimiser = NativeUpdates(StableAdamW(peak=8e-4), engine)

The formulas, the state and the words are those of the rule (optimisers.py), and so are the bits of
AdamW; StableAdamW's mean square is summed in another order.
"""

from __future__ import annotations

import numpy as np

from ..backends.training import TrainingEngine
from .optimisers import AdamW, Moments, Optimiser, StableAdamW

Array = np.ndarray


class NativeUpdates(Optimiser):
    """A rule, of float32 tensors, on an engine's threads."""

    def __init__(self, rule: AdamW | StableAdamW, engine: TrainingEngine) -> None:
        super().__init__(rule.betas, rule.eps, rule.weight_decay)
        self.rule, self.engine = rule, engine

    def step(self, p: Array, g: Array, moments: Moments, lr: float, weight_decay: float) -> None:
        rule = {
            "lr": lr, "weight_decay": weight_decay, "eps": self.eps, "beta1": self.betas[0],
            "beta2": self.betas[1], "step": self.steps,
        }  # fmt: skip
        if isinstance(self.rule, StableAdamW):
            rule["peak"] = self.rule.peak
        self.engine.update(p, g, moments.first, moments.second, rule)

    def in_words(self) -> str:
        return self.rule.in_words()
