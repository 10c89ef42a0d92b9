"""Learning rates over a run: a factor of the peak for each step (MODEL.md (56)).

    Schedule("trapezoidal", warmup=100, total=1000, decay=200, floor=0.01)(step)

Every kind rises linearly from 0 over `warmup` steps, then
    constant      1
    linear        falls to 0 at `total`
    cosine        falls to 0 at `total` as half a cosine
    trapezoidal   1, and over the last `decay` steps floor + (1 - floor) (1 - sqrt(t)), t in 0 .. 1
Steps count from 0: the first has factor 0 where there is a warm-up, as in transformers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

KINDS = ("constant", "linear", "cosine", "trapezoidal")


@dataclass(frozen=True)
class Schedule:
    """kind: one of KINDS. warmup, total, decay: steps; floor: the factor that a trapezoid ends at.

    Raises ValueError that names the field.
    """

    kind: str
    warmup: int
    total: int
    decay: int = 0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; known: {', '.join(KINDS)}")
        for name in ("warmup", "total", "decay"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} is {value!r}; it must be an integer of at least 0")
        if self.warmup + self.decay > self.total:
            raise ValueError(
                f"total is {self.total}; it must be at least warmup {self.warmup} + decay "
                f"{self.decay}"
            )
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor is {self.floor!r}; it must be in 0 .. 1")
        if self.kind != "trapezoidal" and (self.decay or self.floor):
            raise ValueError(f"decay and floor are of a trapezoidal schedule; kind is {self.kind}")

    def __call__(self, step: int) -> float:
        """The factor at a step, 0 .. 1; past `total` it stays where the schedule ends."""
        if step < self.warmup:
            return step / self.warmup
        if self.kind == "constant":
            return 1.0
        start = self.total - self.decay if self.kind == "trapezoidal" else self.warmup
        if step < start:
            return 1.0
        t = min((step - start) / max(self.total - start, 1), 1.0) if step < self.total else 1.0
        if self.kind == "linear":
            return 1.0 - t
        if self.kind == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * t))
        return self.floor + (1.0 - self.floor) * (1.0 - math.sqrt(t))
