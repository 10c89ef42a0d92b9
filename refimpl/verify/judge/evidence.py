"""What a port gave for a case, cut where it can be cut, and how far each replay is from it.

    given      embedding      layers.0.residual_2      layers.1.residual_2      final_norm
    segments  [ the norm ]  [     layer 0      ]  [     layer 1     ]  [ 2, 3, norm ]  [ head ]

Whatever comes after a given step that is the whole state of the pass depends on that step alone,
so a mistake is replayed segment by segment from the PORT's own values: a few milliseconds for one
layer of a short case, in which fewer mistakes meet than in the whole. Distances are RMS over real
tokens of the relative L2 error; the floor of a step is what rounding may do, from noisy passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...reference.encoder import embed, layers, norm
from ..truth.compare import real_rows, token_errors
from ..truth.passes import Pass, Taps, forced
from ..truth.rounding import DTYPES, K, noisy, unrounded
from ..zoo.mistake import GIVEN

Array = np.ndarray
Change = Callable[[Pass], Pass]
NOISE_SEEDS = 2


@dataclass(eq=False)
class Evidence:
    """What a port gave for one case. culprit: the first wrong step, None when nothing is wrong.

    port: step -> float64 array in the reference's shape, any subset; dtype: what it computes in;
    name: of the case.
    """

    p: Pass
    port: Taps
    culprit: str | None
    dtype: str
    name: str = ""

    @cached_property
    def real(self) -> Array:
        return real_rows(self.p)

    @property
    def tokens(self) -> int:
        """Padding included: what a pass costs."""
        return self.real.size

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
        out = dict.fromkeys(made, K * DTYPES[self.dtype].store)
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
        right = self.right[name]
        with np.errstate(all="ignore"):
            return token_errors(name, right + (x - y), right, self.real)

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

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The pass, cut after every given step that is its whole state."""
        return tuple(_segments(self))


# -- parts of a pass ------------------------------------------------------------------------------


@dataclass(eq=False)
class Segment:
    """Stages first .. stop - 1 of a case's pass: 0 embedding, 1 .. n layers, n + 1 final norm,
    n + 2 head; steps: those of them that the port gave. start: the given step that it begins with,
    None for the input."""

    of: Evidence
    first: int
    stop: int
    start: str | None
    steps: tuple[str, ...]
    known: dict[Any, Any] = field(default_factory=dict)
    """What was replayed here already, by whoever replayed it."""

    @property
    def cost(self) -> int:
        """Tokens times stages."""
        return (self.of.tokens + 8) * (self.stop - self.first)

    @cached_property
    def p(self) -> Pass:
        """The reference's pass of these stages alone, from the port's step before them."""
        one, n = self.of, self.of.p.config.num_hidden_layers
        which = range(max(self.first - 1, 0), min(self.stop - 1, n))
        start = self.start

        def encode(
            params: Any, config: Any, input_ids: Any = None, *, inputs_embeds: Any = None,
            token_type_ids: Any = None, attention_mask: Any = None, position_ids: Any = None,
            cu_seqlens: Any = None, ops: Any, tap: Any,
        ) -> Array:  # fmt: skip
            if start is None:
                x = embed(params, config, input_ids, inputs_embeds, token_type_ids, ops)
                x = tap("embedding", x)
            else:
                x = tap(GIVEN + start, one.port[start])
            x = layers(params, config, x, which, attention_mask, position_ids, cu_seqlens, ops, tap)
            if self.first <= n + 1 < self.stop:
                x = tap("final_norm", norm(params, "final_norm", x, config, ops))
            return x

        return replace(one.p, encode=encode, head=one.p.head if self.stop > n + 2 else None)

    def replay(self, change: Change, whole: bool = False) -> dict[str, Array]:
        """The given steps as the changed reference makes them. whole: from the input on, for a
        mistake after whose steps the pass goes on with others."""
        made = forced(change(self.of.p if whole else self.p), with_starts(self.of.port))
        return {name: made[name] for name in self.steps if name in made}

    def distances(self, made: Mapping[str, Array]) -> dict[str, float]:
        """Of the port to a replay, per step."""
        return {name: self.of.distance(name, made.get(name)) for name in self.steps}

    def spread(self, change: Change, made: Mapping[str, Array], whole: bool) -> dict[str, float]:
        """What rounding may do to each step under a change."""
        return self.of.spread(change, self.of.p if whole else self.p, made)

    @property
    def stages(self) -> Iterator[str]:
        """A name for each stage, as a pattern of a mistake's `taps` could meet its steps."""
        n = self.of.p.config.num_hidden_layers
        for i in range(self.first, self.stop):
            yield (
                "embedding"
                if i == 0
                else "final_norm"
                if i == n + 1
                else ("head" if i > n + 1 else f"layers.{i - 1}")
            )


def _segments(one: Evidence) -> Iterator[Segment]:
    n = one.p.config.num_hidden_layers
    ends = {0: "embedding", n + 1: "final_norm"}
    ends |= {i + 1: f"layers.{i}.residual_2" for i in range(n)}
    if one.p.shown is not None:  # the other tokens go on with what the pass itself makes
        ends = {}
    last = n + 3 if one.p.head else n + 2
    first, start = 0, None
    stages = {name: stage_of(name, one.p) for name in one.right}
    for stage in range(last):
        if ends.get(stage) in one.right or stage == last - 1:
            steps = tuple(name for name, at in stages.items() if first <= at <= stage)
            if steps:
                yield Segment(one, first, stage + 1, start, steps)
            first, start = stage + 1, ends.get(stage)


def with_starts(given: Taps) -> dict[str, Array]:
    """The steps, also under the names by which a part of a pass starts from them."""
    return {**given, **{GIVEN + name: x for name, x in given.items()}}


def stage_of(name: str, p: Pass) -> int:
    """The stage in which a step is made; rotary tables in the first layer that takes them."""
    n = p.config.num_hidden_layers
    if name.startswith("layers."):
        return int(name.split(".")[1]) + 1
    if name.startswith("rope."):
        return p.config.layer_types.index(name.split(".")[1] + "_attention") + 1
    return {"embedding": 0, "final_norm": n + 1}.get(name, n + 2)


# -- changes --------------------------------------------------------------------------------------


def combined(changes: Any) -> Change:
    """One change after the other."""

    def apply(p: Pass) -> Pass:
        for change in changes:
            p = change(p)
        return p

    return apply


def rms(e: Array) -> float:
    return math.sqrt(float(e @ e) / e.size) if e.size else 0.0
