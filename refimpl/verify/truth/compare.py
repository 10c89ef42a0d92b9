"""A port's steps against the reference's: error, budget and ratio of each, in two columns.

Teacher-forced: the reference computes each step from the PORT's own earlier steps, so the error is
what the port did wrong in that step alone; the first step over its budget is the culprit. Those
earlier steps were rounded when they were dumped, which the family undoes (rounding.unrounded).
Cumulative: the reference's own run against the port's. Errors are per-token relative L2 over real
tokens; mean, 95th percentile and maximum over tokens are held against K times the worst of the same
statistic over a family of legitimate evaluations (rounding.py). No literal tolerance anywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import STATISTICS, compared, error, real_rows
from .passes import Pass, Taps, forced, trace
from .rounding import SEEDS, K, noisy, unrounded

Array = np.ndarray


@dataclass(frozen=True)
class Column:
    """One step in one column: statistics (STATISTICS) of the port's error, of the family's best
    member (floor), and what is allowed."""

    floor: Mapping[str, float]
    observed: Mapping[str, float]
    budget: Mapping[str, float]

    @property
    def ratio(self) -> float:
        """Worst observed / budget; above 1 it is no longer rounding. NaN or inf counts as inf."""
        return max(_quotient(self.observed[s], self.budget[s]) for s in STATISTICS)


@dataclass(frozen=True)
class Row:
    """One step of one case."""

    tap: str
    forced: Column
    cumulative: Column


@dataclass(frozen=True)
class Comparison:
    """All steps that the port gave for one case, in the order of the forward pass."""

    dtype: str
    rows: tuple[Row, ...]
    first_nonfinite: str | None

    @property
    def culprit(self) -> str | None:
        """The first step that is wrong although its inputs are taken as the port had them."""
        return next((row.tap for row in self.rows if not row.forced.ratio <= 1.0), None)

    @property
    def ratio(self) -> float:
        """The worst ratio of both columns."""
        return max((max(r.forced.ratio, r.cumulative.ratio) for r in self.rows), default=0.0)

    @property
    def smallest_k(self) -> float:
        """The safety factor with which everything would pass."""
        return K * self.ratio


def compare(p: Pass, port: Taps, dtype: str, seeds: Sequence[int] = range(SEEDS)) -> Comparison:
    """Compare the steps in `port` (float64 arrays with the shapes of the pass, names of MODEL.md).

    p: the float64 reference pass of the case; dtype: what the port says it computes in.
    """
    real, truth = real_rows(p), trace(p)
    alone = steps_alone(p, port, dtype, seeds)
    family = _family(alone, (trace(noisy(p, dtype, seed)) for seed in seeds), truth, real)
    rows = tuple(
        Row(name, column, _column(error(name, port[name], truth[name], real), family[name]))
        for name, column in alone.items()
    )
    bad = (n for n in alone if not np.isfinite(compared(n, port[n], real)).all())
    return Comparison(dtype, rows, next(bad, None))


def steps_alone(
    p: Pass, port: Taps, dtype: str, seeds: Sequence[int] = range(SEEDS)
) -> dict[str, Column]:
    """The teacher-forced column of `compare` by step, in the order of the pass."""
    real, fed = real_rows(p), forced(p, port)
    members = (
        forced(noisy(p, dtype, seed, fed=True), unrounded(port, dtype, seed)) for seed in seeds
    )
    names = [name for name in fed if name in port]
    family = _family(names, members, fed, real)
    return {name: _column(error(name, port[name], fed[name], real), family[name]) for name in names}


def budgets(
    p: Pass, dtype: str, steps: Collection[str] | None = None, seeds: Sequence[int] = range(SEEDS)
) -> dict[str, dict[str, float]]:
    """The cumulative budget of these steps of a pass, None for every one: step -> statistic ->
    allowed error."""
    truth = trace(p)
    names = [name for name in truth if steps is None or name in steps]
    members = (trace(noisy(p, dtype, seed)) for seed in seeds)
    family = _family(names, members, truth, real_rows(p))
    return {
        name: {s: K * max(member[s] for member in errors) for s in STATISTICS}
        for name, errors in family.items()
    }


def _family(
    names: Iterable[str], members: Iterable[Taps], want: Taps, real: Array
) -> dict[str, list[Mapping[str, float]]]:
    """Of each step the error of every member."""
    out: dict[str, list[Mapping[str, float]]] = {name: [] for name in names}
    for member in members:
        for name, errors in out.items():
            errors.append(error(name, member[name], want[name], real))
    return out


def _column(observed: Mapping[str, float], family: list[Mapping[str, float]]) -> Column:
    floor = {s: min(member[s] for member in family) for s in STATISTICS}
    budget = {s: K * max(member[s] for member in family) for s in STATISTICS}
    return Column(floor, observed, budget)


def _quotient(observed: float, budget: float) -> float:
    if observed == 0.0:
        return 0.0
    return float("inf") if budget == 0.0 or not np.isfinite(observed) else observed / budget
