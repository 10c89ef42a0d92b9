"""A port's training run against the reference's: error, budget and ratio of each value.

Values stand in the order in which they come about: steps of the forward pass where the port gives
them, `loss`, then backwards `d.STEP` and `grad.NAME`, then `after_1.NAME` and `after_10.NAME`, the
parameters after so many steps, measured by how far they have moved. Teacher-forced: each gradient
from the port's own activations and gradients of activations, the update from the port's own
gradients; where it gives none, from the reference's. Errors are relative L2 by row (of a matrix; by
entry of a vector, by token of an activation) against the root mean square of all rows; mean, 95th
percentile and maximum are held against K times the worst of a family (rounding.py). Long
because what is compared, and against how many, stand together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..truth.compare import Column, Comparison, Row
from ..truth.errors import STATISTICS
from ..truth.rounding import SEEDS, K
from .rounding import noisy, undone
from .step import Arrays, Training, Window, gradient, trained

Array = np.ndarray
AFTER = (1, 10)
"""Steps after which parameters are compared."""
MANY = 32
"""Members of the family for loss and gradients: a loss is one draw, and the largest of a vector's
entries that of few; of SEEDS of them all could be small by chance."""
FEW, MANY_RUNS = 16, 16
"""Members for parameters after an update, which take all its steps, where some tensor has fewer
rows than FEW: what is a handful of draws needs as many members more; and for what is computed from
the port's own steps inside the passes, where each of hundreds is held against the worst of them."""


@dataclass(frozen=True)
class Told:
    """What a port gave, in float64 and in the reference's shapes: names of `Step.values`, and
    `after_K.NAME`; later: its gradients at the steps behind the first, as far as it gives all."""

    values: Arrays
    later: tuple[Arrays, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def inside(self) -> dict[str, Array]:
        """Steps of both passes, which others are computed from."""
        outside = ("loss", "grad.", "after_")
        return {k: x for k, x in self.values.items() if not k.startswith(outside)}

    def all_grads(self, params: Arrays) -> bool:
        """Whether it gave the gradient of every parameter, and no step inside the passes."""
        return not self.inside and all(f"grad.{name}" in self.values for name in params)

    def grads(self, own: Arrays) -> list[Arrays]:
        """The port's gradients of step 1 (the reference's where it gives none) and further on."""
        given = {
            k.removeprefix("grad."): x for k, x in self.values.items() if k.startswith("grad.")
        }
        return [{**own, **given}, *self.later]


def values(
    t: Training, steps: Sequence[int] = AFTER, told: Told | None = None, seed: int | None = None,
    dtype: str = "",
) -> dict[str, Array]:  # fmt: skip
    """Every value of a run in their order. steps: after which parameters are wanted; told:
    teacher-forced from what the port gave, and then `after_K` only where its gradients reach.

    seed, dtype: the member of the family that `t` is, which starts from the dump before it was
    rounded.
    """
    out: dict[str, Array] = {}
    grads: Sequence[Arrays] = []
    # An update that has every gradient from the port needs no pass of the reference's own.
    if not (steps and told is not None and told.all_grads(t.params)):
        given = {} if told is None else told.inside
        if seed is not None and given:
            given = undone(given, dtype, seed)
        with np.errstate(all="ignore"):
            step = gradient(t, t.window(t, 0), given=given)
        out, grads = dict(step.values), [step.grads]
    if told is not None:
        grads = told.grads(grads[0] if grads else {})
        steps = [k for k in steps if k <= len(grads)]
        if seed is not None:
            grads = [undone(g, dtype, seed) for g in grads]
    if steps:
        for k, params in trained(t, steps, grads).items():
            out |= {f"after_{k}.{name}": x for name, x in params.items()}
    return out


def enough(t: Training, found: Arrays, seeds: Sequence[int]) -> Sequence[int]:
    """The members that these values need."""
    few = any(len(by_rows(t, n, x)) < FEW for n, x in found.items() if n.startswith("after_"))
    return range(max(len(seeds), MANY_RUNS)) if few and seeds else seeds


@dataclass(frozen=True)
class Right:
    """The right run of a case, and how far the members of a family stray from it: value -> error
    of each member."""

    t: Training
    dtype: str
    truth: Mapping[str, Array]
    strays: Mapping[str, Sequence[Mapping[str, float]]]


def right(
    t: Training, dtype: str, steps: Sequence[int] = AFTER, seeds: Sequence[int] = range(SEEDS)
) -> Right:
    """t: the float64 truth."""
    truth = values(t, steps)
    seeds = enough(t, truth, seeds)
    runs = [values(noisy(t, dtype, seed), steps) for seed in seeds]
    strays = {name: [error(t, name, run[name], x) for run in runs] for name, x in truth.items()}
    first = [name for name in truth if not name.startswith("after_")]
    for seed in range(len(seeds), MANY) if seeds else ():
        more = values(noisy(t, dtype, seed), ())
        for name in first:
            strays[name].append(error(t, name, more[name], truth[name]))
    return Right(t, dtype, truth, strays)


def compare(of: Right, told: Told, seeds: Sequence[int] = range(SEEDS)) -> Comparison:
    """Compare a port's run."""
    t, names = of.t, [name for name in of.truth if name in told.values]
    steps = [k for k in AFTER if any(n.startswith(f"after_{k}.") for n in names)]
    fed = values(t, steps, told)
    # Without steps inside the passes there is nothing to force gradients with.
    forced = [n for n in names if n in fed and (told.inside or n.startswith("after_"))]
    alone: dict[str, list[Mapping[str, float]]] = {name: [] for name in forced}
    if told.all_grads(t.params):  # without a pass
        seeds = enough(t, {name: fed[name] for name in forced}, seeds)
    for seed in seeds if forced else ():
        member = values(noisy(t, of.dtype, seed, fed=True), steps, told, seed, of.dtype)
        for name in forced:
            alone[name].append(error(t, name, member[name], fed[name]))
    passes = [name for name in forced if not name.startswith("after_")]
    for seed in range(len(seeds), MANY_RUNS) if passes and seeds else ():
        member = values(noisy(t, of.dtype, seed, fed=True), (), told, seed, of.dtype)
        for name in passes:
            alone[name].append(error(t, name, member[name], fed[name]))
    rows = []
    for name in names:
        run = column(error(t, name, told.values[name], of.truth[name]), of.strays[name])
        own = run
        if name in alone:
            own = column(error(t, name, told.values[name], fed[name]), alone[name])
        if name.startswith("after_") and name in alone and told.all_grads(t.params):
            # What its gradients are off by is judged there: an update turns the sign of a small one
            # into a whole step, and the largest of those says nothing.
            run = own
        rows.append(Row(name, own, run))
    bad = (name for name in names if not np.isfinite(told.values[name]).all())
    return Comparison(of.dtype, tuple(rows), next(bad, None))


def column(observed: Mapping[str, float], members: Sequence[Mapping[str, float]]) -> Column:
    floor = {s: min(member[s] for member in members) for s in STATISTICS}
    budget = {s: K * max(member[s] for member in members) for s in STATISTICS}
    return Column(floor, observed, budget)


# -- errors ---------------------------------------------------------------------------------------


def error(t: Training, name: str, got: Array, want: Array) -> dict[str, float]:
    """mean, p95 and max over rows of |got - want| / rms |want|; inf where anything is not finite
    that should be."""
    a, b = by_rows(t, name, got), by_rows(t, name, want)
    with np.errstate(all="ignore"):
        e = np.linalg.norm(a - b, axis=-1) / scale_of(b)
    if not np.isfinite(e).all():
        return dict.fromkeys(STATISTICS, float("inf"))
    if not e.size:
        return dict.fromkeys(STATISTICS, 0.0)
    return {"mean": float(e.mean()), "p95": float(np.quantile(e, 0.95)), "max": float(e.max())}


def scale_of(rows: Array) -> float:
    """The root mean square of the norms of the rows that are not nothing; 1 where all are."""
    norms = np.linalg.norm(rows, axis=-1)
    live = norms[norms > 0]
    return float(np.sqrt((live * live).mean())) if live.size else 1.0


def by_rows(t: Training, name: str, x: Array) -> Array:
    """[rows, width]: what is measured one by one."""
    kind, _, of = name.partition(".")
    if kind.startswith("after_"):
        x = x - t.params[of]
    elif kind != "grad":
        return tokens_of(t, x)
    return x.reshape(len(x), -1) if x.ndim > 1 else x.reshape(-1, 1)


def tokens_of(t: Training, x: Array) -> Array:
    """The real tokens of an activation [micro, ..], or its sequences, or one number."""
    if x.ndim == 0:
        return x.reshape(1, 1)
    real = real_of(t.windows[0])
    if x.shape[: real.ndim] == real.shape:
        x = x[real]
        return x.reshape(len(x), -1)
    return x.reshape(-1, x.shape[-1])


def real_of(window: Window) -> Array:
    """bool [micro, batch, seq], or [micro, total]: tokens that are compared."""
    masks = [np.ones(m.inputs["input_ids"].shape) if m.mask is None else m.mask for m in window]  # type: ignore[union-attr]
    return np.asarray(np.stack(masks) != 0)
