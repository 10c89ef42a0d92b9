"""Mistakes with a number in them that the zoo does not know: fit it, and say it.

    "theta of the sliding layers looks like 20000", "window is 5 keys per side"

A family is a mistake with one parameter: values to try, and for a real number a golden-section
search around the best of them. Only families that can show at the culprit are tried. A fit is one
more suspect, not a verdict: search.py holds it against the others. Long because the families stand
here, a few lines each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from ...reference.erf import erf
from ...reference.ops import ACTIVATIONS
from ...reference.pooling import POOLINGS, pool
from ..truth.passes import Pass
from ..zoo import attention, heads, masks, plan, rotary, runtime
from ..zoo.mistake import (
    Array,
    positions,
    rewired,
    round_bits,
    with_config,
    with_visibility,
    with_window,
)
from ..zoo.mlp import with_activation
from .candidates import Candidate, Mistakes, fitted, may_meet, with_one_more
from .evidence import Change, Evidence
from .segments import Segment

GOLDEN_STEPS = 48
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
THETAS = (*np.geomspace(1.0, 1e8, 33), 20000.0, 50000.0, 80000.0, 160000.0, 500000.0)
LENGTHS = (*range(1, 34), 48, 63, 64, 65, 96, 127, 128, 129, 192, 256, 384, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Family:
    """Mistakes that differ in one value. id(p, value) is the zoo's; smooth: search between values,
    which are then positive numbers, on a logarithmic scale."""

    taps: tuple[str, ...]
    id: Callable[[Pass, Any], str]
    say: Callable[[Any], str]
    change: Callable[[Any], Change]
    values: Callable[[Evidence], Iterable[Any]]
    smooth: bool = False

    def may_show(self, segment: Segment) -> bool:
        """Whether it can show in the segment: not where its own steps were given and are right."""
        given = [name for name in segment.steps if any(fnmatchcase(name, t) for t in self.taps)]
        own, floor = segment.of.own, segment.of.floor
        if given and all(own[name] <= floor[name] for name in given):
            return False
        return any(may_meet(tap, stage) for tap in self.taps for stage in segment.stages)


def fits(
    segment: Segment,
    found: Mistakes,
    cost: Callable[[Segment, Mistakes], float],
    passes: Sequence[Pass],
) -> Iterator[Candidate]:
    """The best member of each family that can show in the segment and lowers its cost, on top of
    what was found."""
    before = cost(segment, found)
    for family in FAMILIES:
        if not family.may_show(segment):
            continue

        def candidate(value: Any, family: Family = family) -> Candidate:
            id, say = family.id(segment.of.p, value), family.say(value)
            return fitted(id, say, family.change(value), passes)

        def of(value: Any, candidate: Callable[[Any], Candidate] = candidate) -> float:
            return min(cost(segment, some) for some in with_one_more(found, candidate(value)))

        values = list(family.values(segment.of))
        costs = [of(value) for value in values]
        if not values or not min(costs) < before:
            continue
        best = int(np.argmin(costs))
        yield candidate(_between(of, values, best) if family.smooth else values[best])


def _between(cost: Callable[[float], float], values: Sequence[float], best: int) -> float:
    """The best value between the neighbours of the best of `values`."""
    around = sorted(values)
    i = around.index(values[best])
    ends = around[max(i - 1, 0)], around[min(i + 1, len(around) - 1)]
    refined = math.exp(golden(lambda x: cost(math.exp(x)), *map(math.log, ends)))
    return refined if cost(refined) < cost(values[best]) else values[best]


def golden(f: Callable[[float], float], low: float, high: float) -> float:
    """Where f is least between low and high, if it has one dip there."""
    a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    fa, fb = f(a), f(b)
    for _ in range(GOLDEN_STEPS):
        if fa <= fb:
            high, b, fb = b, a, fa
            a = high - GOLDEN * (high - low)
            fa = f(a)
        else:
            low, a, fa = a, b, fb
            b = low + GOLDEN * (high - low)
            fb = f(b)
    return a if fa <= fb else b


# -- plan and rotary ------------------------------------------------------------------------------


def _theta(kinds: tuple[str, ...], id: str, name: str) -> Family:
    def change(theta: float) -> Change:
        return lambda p: with_config(p, **dict.fromkeys(kinds, theta))

    return Family(
        plan.ROTATED, lambda p, v: id, lambda v: f"theta of {name} looks like {v:.6g}",
        change, lambda e: THETAS, smooth=True,
    )  # fmt: skip


def _schedules(e: Evidence) -> list[tuple[bool, ...]]:
    """Every pattern of full layers in a shallow model; every period and phase in a deep one."""
    n = e.p.config.num_hidden_layers
    if n <= 5:
        return list(itertools.product((True, False), repeat=n))
    return [
        tuple(i % every == phase for i in range(n))
        for every in range(1, 9)
        for phase in range(every)
    ]


def _schedule(p: Pass, full: tuple[bool, ...]) -> Pass:
    """A model of another depth, in which the value was not found, stays as it is."""
    same = len(full) == p.config.num_hidden_layers
    return plan.with_layer_types(p, list(full)) if same else p


def _lengths(e: Evidence) -> list[int]:
    """Tables that some position of the case is beyond."""
    return [n for n in LENGTHS if n <= positions(e.p).max()]


def _short_table(kind: str, name: str, wrapped: bool) -> Family:
    def change(length: int) -> Change:
        if wrapped:
            return lambda p: rotary.with_table(p, kind, lambda x: x % length)
        return lambda p: rotary.with_table(p, kind, lambda x: np.minimum(x, length - 1))

    how = "taken modulo" if wrapped else "clamped to"
    return Family(
        plan.ROTATED, lambda p, v: "R3b" if wrapped else "R3a",
        lambda v: f"positions of {name} are {how} a table of {v} rows",
        change, _lengths,
    )  # fmt: skip


def _pattern(value: tuple[bool, ...]) -> str:
    return "".join("f" if full else "s" for full in value)


# -- masks ----------------------------------------------------------------------------------------


def _widths(e: Evidence) -> list[int]:
    return [n for n in LENGTHS if n < e.real.shape[-1]] + [0]


def _width_id(p: Pass, width: int) -> str:
    right = p.config.local_attention // 2
    if abs(width - right) == 1:
        return "W3a" if width < right else "W3b"
    return "W4b" if width < right else "W4a"


def _one_side(past: bool) -> Family:
    """One side of the window as it should be, the other of another width."""

    def change(width: int) -> Change:
        def rule(d: Array, w: int | None) -> Array:
            if w is None:
                return np.ones_like(d, bool)
            return (d >= -width) & (d <= w) if past else (d >= -w) & (d <= width)

        return lambda p: with_visibility(p, rule)

    def id(p: Pass, width: int) -> str:
        return "W5b" if width == p.config.local_attention // 2 - 1 else "W5a"

    side = "past" if past else "future"
    return Family(
        masks.ATTENTION, id, lambda v: f"the window's {side} side looks like {v} keys",
        change, _widths,
    )  # fmt: skip


def _past_window(width: int) -> Change:
    def rule(d: Array, w: int | None) -> Array:
        return np.ones_like(d, bool) if w is None else (d <= 0) & (d >= -width)

    return lambda p: with_visibility(p, rule)


def _constant_window(width: int, everywhere: bool) -> Change:
    return lambda p: with_window(p, lambda w: None if w is None and not everywhere else width)


# -- weights, heads, precision --------------------------------------------------------------------


def _other_layers(e: Evidence) -> Iterator[tuple[str, int, int]]:
    n = e.p.config.num_hidden_layers
    for name in ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo", "attn_norm", "mlp_norm"):
        for i, j in itertools.permutations(range(min(n, 6)), 2):
            if (
                f"layers.{i}.{name}.weight" in e.p.params
                and f"layers.{j}.{name}.weight" in e.p.params
            ):
                yield name, i, j


def _other_layer(value: tuple[str, int, int]) -> Change:
    name, i, j = value

    def apply(p: Pass) -> Pass:
        own, other = f"layers.{i}.{name}.weight", f"layers.{j}.{name}.weight"
        if own not in p.params or other not in p.params:  # a model of fewer layers
            return p
        return replace(p, params={**p.params, own: p.params[other]})

    return apply


def _square(e: Evidence) -> list[str]:
    return [k for k, x in e.p.params.items() if x.ndim == 2 and x.shape[0] == x.shape[1]]


# Poolings by the mistake that they are.
POOLING_IDS = {"cls": "H1a", "first_token": "H1a", "mean": "H1b", "lasttoken": "H1c"}


def _pooled(how: str) -> Change:
    def apply(p: Pass) -> Pass:
        def change(name: str, value: Array, seen: Any) -> Array:
            if name != "pooled":
                return value
            return pool(seen["final_norm"], p.inputs.get("attention_mask"), how)

        return rewired(p, change)

    return apply


def _weak_mask(value: float) -> Change:
    return lambda p: runtime.weak_mask(p, -value)


KINDS = (("sliding", "sliding layers"), ("full", "full layers"), ("*", "all layers"))
FAMILIES: tuple[Family, ...] = (
    _theta(("global_rope_theta",), "C4a", "the full layers"),
    _theta(("local_rope_theta",), "C4b", "the sliding layers"),
    _theta(("global_rope_theta", "local_rope_theta"), "C4b", "all layers"),
    Family(
        plan.SCHEDULE, lambda p, v: "C3", lambda v: f"layer schedule looks like {_pattern(v)}",
        lambda v: lambda p: _schedule(p, v), _schedules,
    ),
    *(
        _short_table(kind, name, wrapped)
        for kind, name in KINDS
        for wrapped in (False, True)
    ),
    Family(
        masks.ATTENTION, _width_id, lambda v: f"window looks like {v} keys per side",
        lambda v: _constant_window(v, False), _widths,
    ),
    Family(
        masks.ATTENTION, lambda p, v: "W6a",
        lambda v: f"every layer, full ones too, has a window of {v} keys per side",
        lambda v: _constant_window(v, True), _widths,
    ),
    _one_side(True),
    _one_side(False),
    Family(
        masks.ATTENTION, lambda p, v: "W5a",
        lambda v: f"window looks like {v} past keys and no other",
        _past_window, _widths,
    ),
    Family(
        masks.ATTENTION, lambda p, v: "X5a",
        lambda v: f"masked keys get {-v:.3g} added to their score",
        _weak_mask, lambda e: np.geomspace(0.5, 64.0, 15), smooth=True,
    ),
    Family(
        masks.ATTENTION, lambda p, v: "A1a" if v < 1 else "A1b",
        lambda v: f"scores look scaled by {v:.6g} once too often",
        lambda v: lambda p: attention.scaled(p, v),
        lambda e: np.geomspace(2.0**-8, 2.0**8, 17), True,
    ),
    Family(
        plan.NORMED, lambda p, v: "C7a", lambda v: f"eps of the norms looks like {v:.3g}",
        lambda v: lambda p: with_config(p, norm_eps=v),
        lambda e: np.geomspace(1e-14, 1.0, 29), True,
    ),
    Family(
        ("layers.*.glu",), lambda p, v: "C6", lambda v: f"hidden activation looks like {v}",
        lambda v: lambda p: with_config(p, hidden_activation=v), lambda e: ACTIVATIONS,
    ),
    Family(
        ("head.act",), lambda p, v: "C6b", lambda v: f"activation of the head looks like {v}",
        lambda v: lambda p: with_config(p, classifier_activation=v), lambda e: ACTIVATIONS,
    ),
    Family(
        ("layers.*.glu", "head.act"), lambda p, v: "F3",
        lambda v: f"GELU looks like x (1 + erf({v:.6g} x)) / 2",
        lambda v: lambda p: with_activation(p, "gelu", lambda x: x * (1 + erf(v * x)) / 2),
        lambda e: np.geomspace(0.25, 4.0, 9), True,
    ),
    Family(
        ("pooled",), lambda p, v: POOLING_IDS.get(v, "H1c"), lambda v: f"pooling looks like {v}",
        _pooled, lambda e: POOLINGS if e.p.head == "sequence_classification" else (),
    ),
    Family(
        ("layers.*", "head.dense", "logits"), lambda p, v: "H8b",
        lambda v: f"layer {v[1]} uses {v[0]} of layer {v[2]}", _other_layer, _other_layers,
    ),
    Family(
        ("layers.*", "head.dense", "logits"), lambda p, v: "H8c" if "head" in v else "H8a",
        lambda v: f"{v} is transposed",
        lambda v: lambda p: heads.transposed(p, v), _square,
    ),
    Family(
        ("layers.*", "head.dense", "logits", "final_norm"), lambda p, v: "X1a",
        lambda v: f"operands of matrix products look rounded to {v} bits",
        lambda v: lambda p: runtime.with_operands(p, lambda x: round_bits(x, v)),
        lambda e: range(4, 20),
    ),
    Family(
        ("layers.*.attention",), lambda p, v: "T5", lambda v: f"rows look truncated to {v} tokens",
        lambda v: lambda p: runtime.truncated(p, v),
        lambda e: [n for n in range(4, 520, 4) if n < e.real.shape[-1]] if e.real.ndim == 2 else (),
    ),
)  # fmt: skip
