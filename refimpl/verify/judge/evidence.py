"""How well a suspect explains what a port gave: the measure under rank.py.

For every step that the port gave, three arrays stand side by side, all computed from the PORT's own
earlier steps: the port's, the reference's, and the broken reference's. The cost of a suspect is

    sum over steps of log(distance(port, broken) / what rounding may do), never below 0 each

so a step that the suspect explains down to rounding costs nothing, one that it leaves wrong costs
what it did before, and one that it breaks though the port has it right costs extra. Distances are
RMS over real tokens of the relative L2 error; what rounding may do comes from noisy passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..truth.compare import real_rows, token_errors
from ..truth.passes import Pass, Taps, forced
from ..truth.rounding import DTYPES, K, noisy

Array = np.ndarray
Change = Callable[[Pass], Pass]
NOISE_SEEDS = 2
# A mistake that is rounding is known by the size of its error, not by its digits; this share of the
# cost stays, so that whoever meets the digits comes first.
SIZE_ONLY = 0.1


@dataclass(eq=False)
class Evidence:
    """What a port gave for one case. culprit: the first wrong step, None when nothing is wrong.

    port: step -> float64 array in the reference's shape, any subset; dtype: what it computes in.
    """

    p: Pass
    port: Taps
    culprit: str | None
    dtype: str

    @cached_property
    def real(self) -> Array:
        return real_rows(self.p)

    @property
    def tokens(self) -> int:
        """Padding included: what a pass costs."""
        return self.real.size

    @cached_property
    def right(self) -> dict[str, Array]:
        """Each given step as the reference makes it of the port's earlier ones."""
        made = forced(self.p, self.port)
        return {name: x for name, x in made.items() if name in self.port}

    @cached_property
    def floor(self) -> dict[str, float]:
        """What rounding may do to each step."""
        u = DTYPES[self.dtype].store
        out = {name: K * u for name in self.right}
        for seed in range(NOISE_SEEDS):
            made = forced(noisy(self.p, self.dtype, seed), self.port)
            for name, x in self.right.items():
                e = token_errors(name, made[name], x, self.real)
                out[name] = max(out[name], K * rms(e[np.isfinite(e)]))
        return out

    @cached_property
    def errors(self) -> dict[str, Array]:
        """The port's error per token of each step."""
        with np.errstate(all="ignore"):
            return {
                name: token_errors(name, self.port[name], x, self.real)
                for name, x in self.right.items()
            }

    @cached_property
    def own(self) -> dict[str, float]:
        """Distance of the port to the reference, per step."""
        return {name: self._size(name, e) for name, e in self.errors.items()}

    def against(self, change: Change | None, noise: bool = False) -> dict[str, tuple[float, float]]:
        """Cost of each step, and the distance of the port to the broken reference there."""
        own = {name: (self._cost(name, d), d) for name, d in self.own.items()}
        if change is None:
            return own
        made = forced(change(self.p), self.port)
        out = {}
        for name, right in self.right.items():
            x = made.get(name, right)
            if x.shape != right.shape or np.array_equal(x, right):
                out[name] = own[name]  # most steps are not what the mistake is about
                continue
            with np.errstate(all="ignore"):
                # ||port - broken|| relative to the right step, whatever the size of the broken one
                e = token_errors(name, right + (self.port[name] - x), right, self.real)
                if not np.isfinite(e).all():
                    e = self._with_lost_tokens(name, e, x)
                distance = self._size(name, e)
                out[name] = self._cost(name, distance), distance
                if noise:
                    size = token_errors(name, x, right, self.real)
                    cost = self._cost_of_size(name, size) + SIZE_ONLY * own[name][0]
                    alike = self._size(name, np.abs(self.errors[name] - size))
                    out[name] = min(out[name][0], cost), min(distance, alike)
        return out

    def _cost(self, name: str, distance: float) -> float:
        return math.log(max(distance / self.floor[name], 1.0))

    def _cost_of_size(self, name: str, size: Array) -> float:
        """Mean of |log(port's error / the suspect's)| over tokens, each weighing as its error."""
        floor, own = self.floor[name], self.errors[name]
        known = np.isfinite(own) & np.isfinite(size)
        a, b = own[known] + floor, size[known] + floor
        if not known.all() or not known.any():
            return math.inf
        return float((np.abs(np.log(a / b)) * (a + b)).sum() / (a + b).sum())

    def _with_lost_tokens(self, name: str, e: Array, x: Array) -> Array:
        """Tokens lost to NaN: explained when the broken reference loses them, too."""
        right = self.right[name]
        lost = ~np.isfinite(self.errors[name])
        broken = ~np.isfinite(token_errors(name, x, right, self.real))
        return np.where(lost & broken, 0.0, np.where(lost | broken, np.inf, e))

    def _size(self, name: str, e: Array) -> float:
        """RMS over tokens; a token lost to NaN counts as far beyond the worst that is finite, and
        one that the reference cannot make of the port's NaN does not count."""
        with np.errstate(all="ignore"):
            kept = np.isfinite(token_errors(name, self.right[name], self.right[name], self.real))
        own = self.errors[name]
        worst = 10.0 * max(1.0, float(own[np.isfinite(own)].max(initial=0.0)))
        return rms(np.where(np.isfinite(e), np.minimum(e, worst), worst)[kept])


@dataclass(frozen=True)
class Score:
    """A suspect on some evidence. cost: see above; distance: of the port to it at the culprits."""

    cost: float
    distance: float


def score(evidence: Iterable[Evidence], change: Change | None, noise: bool = False) -> Score:
    """The suspect `change` (None: nobody) on several cases."""
    total, squares = 0.0, 0.0
    for one in evidence:
        steps = one.against(change, noise)
        total += sum(cost for cost, _ in steps.values())
        if one.culprit is not None and steps:
            at = one.culprit if one.culprit in steps else list(steps)[-1]
            squares += steps[at][1] ** 2
    return Score(total, math.sqrt(squares))


def combined(changes: Sequence[Change]) -> Change:
    """One change after the other."""

    def apply(p: Pass) -> Pass:
        for change in changes:
            p = change(p)
        return p

    return apply


def rms(e: Array) -> float:
    return float(np.sqrt(np.mean(e * e))) if e.size else 0.0
