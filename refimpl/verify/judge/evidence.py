"""What a port gave for a case, and how far a replay of the reference is from it.

Distances are RMS over real tokens of the relative L2 error of a step; the floor of a step is what
rounding may do to it, from noisy passes that start from the port's own values as they may have been
before they were rounded for the dump. segments.py cuts the pass into parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..truth.errors import lengths, real_rows, scales
from ..truth.passes import Pass, Taps, forced
from ..truth.rounding import K, noisy, precision, unrounded
from ..zoo.mistake import GIVEN

Array = np.ndarray
Change = Callable[[Pass], Pass]
NOISE_SEEDS = 2


@dataclass(eq=False)
class Evidence:
    """What a port gave for one case. culprit: the first wrong step, None when nothing is wrong.

    port: step -> float64 array in the reference's shape, any subset; dtype: what it computes in;
    name: of the case; scales: see `scale`.
    """

    p: Pass
    port: Taps
    culprit: str | None
    dtype: str
    name: str = ""
    scales: dict[str, Array] = field(default_factory=dict)

    @cached_property
    def real(self) -> Array:
        return real_rows(self.p)

    @property
    def tokens(self) -> int:
        """Padding included: what a pass costs."""
        return self.real.size

    @cached_property
    def starts(self) -> dict[str, Array]:
        """The port's steps, also under the names by which a part of a pass starts from them."""
        return with_starts(self.port)

    @cached_property
    def model(self) -> str:
        """The same for cases of one model."""
        return repr(self.p.config)

    @cached_property
    def right(self) -> dict[str, Array]:
        """Each given step as the reference makes it of the port's earlier ones."""
        made = forced(self.p, self.port)
        return {name: x for name, x in made.items() if name in self.port}

    @cached_property
    def floor(self) -> dict[str, float]:
        """What rounding may do to each step."""
        return self.spread(lambda p: p, self.p, self.right)

    def spread(self, change: Change, p: Pass, made: Mapping[str, Array]) -> dict[str, float]:
        """K times the RMS by which honest evaluations under `change` differ from `made`."""
        out = dict.fromkeys(made, K * precision(self.dtype).store)
        for seed in range(NOISE_SEEDS):
            given = with_starts(unrounded(self.port, self.dtype, seed))
            other = forced(change(noisy(p, self.dtype, seed)), given)
            for name, x in made.items():
                e = self.relative(name, other.get(name, x), x)
                out[name] = max(out[name], K * rms(e[np.isfinite(e)]))
        return out

    @cached_property
    def errors(self) -> dict[str, Array]:
        """The port's error per token of each step."""
        return {name: self.relative(name, self.port[name], x) for name, x in self.right.items()}

    @cached_property
    def own(self) -> dict[str, float]:
        """Distance of the port to the reference, per step."""
        return {name: self._size(name, e) for name, e in self.errors.items()}

    def relative(self, name: str, x: Array, y: Array) -> Array:
        """||x - y|| of each token, relative to the right step, whatever the size of x and y."""
        with np.errstate(all="ignore"):
            return lengths(name, x - y, self.real) / self.scale(name)

    def scale(self, name: str) -> Array:
        """What errors of a step are relative to; NaN for a token that the reference cannot make."""
        if name not in self.scales:
            scale = scales(name, self.right[name], self.real)
            self.scales[name] = np.where(np.isfinite(scale), scale, np.nan)
        return self.scales[name]

    def distance(self, name: str, made: Array | None) -> float:
        """Distance of the port's step to what a broken reference made of it."""
        right = self.right[name]
        if made is None or made.shape != right.shape or np.array_equal(made, right):
            return self.own[name]  # most steps are not what a mistake is about
        e = self.relative(name, self.port[name], made)
        if not np.isfinite(e).all():
            e = self._with_lost_tokens(name, e, made)
        return self._size(name, e)

    def _with_lost_tokens(self, name: str, e: Array, made: Array) -> Array:
        """Tokens lost to NaN: explained when the broken reference loses them, too."""
        lost = ~np.isfinite(self.errors[name])
        broken = ~np.isfinite(self.relative(name, made, self.right[name]))
        return np.where(lost & broken, 0.0, np.where(lost | broken, np.inf, e))

    def _size(self, name: str, e: Array) -> float:
        """RMS over tokens; a token lost to NaN counts as far beyond the worst that is finite, and
        one that the reference cannot make of the port's NaN does not count."""
        if np.isfinite(e).all():
            return rms(e)
        own, right = self.errors[name], self.right[name]
        kept = np.isfinite(self.relative(name, right, right))
        worst = 10.0 * max(1.0, float(own[np.isfinite(own)].max(initial=0.0)))
        return rms(np.where(np.isfinite(e), np.minimum(e, worst), worst)[kept])


def with_starts(given: Taps) -> dict[str, Array]:
    """The steps, also under the names by which a part of a pass starts from them."""
    return {**given, **{GIVEN + name: x for name, x in given.items()}}


def combined(changes: Iterable[Change]) -> Change:
    """One change after the other."""

    def apply(p: Pass) -> Pass:
        for change in changes:
            p = change(p)
        return p

    return apply


def rms(e: Array) -> float:
    return math.sqrt(float(e @ e) / e.size) if e.size else 0.0
