"""How far a legitimate float32 evaluation may stand from float64: measured, never guessed.

    error_i = |got_i - truth_i|_2 / |truth_i|_2       per real token i, or for all logits of a head

The budget of a quantity is FACTOR times what the worst member of a family of legitimate float32
evaluations shows (`naive.py`, several orders of summation), for each of mean, 95th percentile and
maximum over the tokens. Truth is always a float64 run. A failure prints statistic, bound, worst
token, expected and got. The second family also has float32 rotary tables, as transformers does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from . import naive
from .cases import Batch, Case

# Rounding is a random walk whose members scatter: a run may show twice the worst member's figure.
# (The rule for fused attention elsewhere, too: at most 2x the naive error in the same precision.)
FACTOR = 2.0
# Agreement of two float64 evaluations: the contract of the parity tests (relative L2 per token).
FLOAT64_PARITY = 1e-12
STATISTICS = {
    "mean": np.mean,
    "p95": lambda e: np.quantile(e, 0.95, method="higher"),
    "max": np.max,
}
# (chunks, seed of the shuffle). The largest of ten draws of one normal error is below half of a
# further draw in 0.5 % of cases: that is a head's only logit, the noisiest thing compared.
ORDERS = ((1, 0), *((3 + seed % 3, seed) for seed in range(1, 10)))
FAMILIES = {
    # Rounding alone: tables are float64 values rounded once, as the reference promises.
    "float32": [naive.Arithmetic(np.float32, chunks, seed) for chunks, seed in ORDERS],
    # transformers in float32: its frequencies are honest to one unit in the last place.
    "float32-tables": [
        naive.Arithmetic(np.float32, chunks, seed, rotary=np.float32, ulps=1)
        for chunks, seed in ORDERS
    ],
    # transformers in float64 as it comes: all but the rotary steps is exact.
    "float64-tables": [
        naive.Arithmetic(np.float64, 1, seed, rotary=np.float32, ulps=1) for seed in range(10)
    ],
}


@dataclass(frozen=True)
class Quantity:
    """One compared thing: got and truth [n, values], and where each of the n stands."""

    name: str
    got: np.ndarray
    truth: np.ndarray
    where: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        return relative_l2(self.got, self.truth)


def relative_l2(got: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """|got - truth|_2 / |truth|_2 over the last axis, in float64."""
    got, truth = got.astype(np.float64), truth.astype(np.float64)
    return np.linalg.norm(got - truth, axis=-1) / np.linalg.norm(truth, axis=-1)


def quantities(
    got: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], mask: np.ndarray
) -> Iterator[Quantity]:
    """Every hidden state and the MLM logits per real token; each other head's logits as one vector.

    Padding tokens and rows without any real token are never compared.
    """
    real, live = np.argwhere(mask != 0), np.flatnonzero(mask.any(axis=1))
    at = tuple(real.T)
    for i in range(len(truth["hidden"])):
        yield Quantity(f"hidden[{i}]", got["hidden"][i][at], truth["hidden"][i][at], real)
    for name in truth.keys() - {"hidden"}:
        a, b = got[name], truth[name]
        if name == "masked_lm":
            yield Quantity(name, a[at], b[at], real)
        elif a.shape[:2] == mask.shape and a.ndim == 3:
            yield Quantity(name, a[at].reshape(1, -1), b[at].reshape(1, -1), real[:1])
        else:
            a, b = a.reshape(len(mask), -1)[live], b.reshape(len(mask), -1)[live]
            yield Quantity(name, a.reshape(1, -1), b.reshape(1, -1), real[:1])


@cache
def family_figures(
    case: Case, batch: Batch, family: str, padding: bool = False
) -> dict[str, dict[str, float]]:
    """Worst member's statistics of every quantity: {quantity: {statistic: figure}}.

    padding: of all tokens up to the last real one of each row, as they are compared then; else of
    real ones.
    """
    inputs = case.inputs(batch)
    truth = naive.run(case, inputs, naive.Arithmetic())
    real = inputs.mask != 0
    over = np.logical_or.accumulate(real[:, ::-1], axis=1)[:, ::-1] if padding else real
    worst: dict[str, dict[str, float]] = {}
    for member in FAMILIES[family]:
        for q in quantities(naive.run(case, inputs, member), truth, over):
            mine = worst.setdefault(q.name, dict.fromkeys(STATISTICS, 0.0))
            for name, statistic in STATISTICS.items():
                mine[name] = max(mine[name], float(statistic(q.errors)))
    # All heads are one prediction head and one matrix: those that give few logits, whose errors
    # scatter most, share the figure of the worst head.
    heads = worst.keys() - {f"hidden[{i}]" for i in range(len(truth["hidden"]))}
    shared = max(worst[name]["max"] for name in heads)
    return worst | {name: dict.fromkeys(STATISTICS, shared) for name in heads - {"masked_lm"}}


def ratios(
    got: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    mask: np.ndarray,
    case: Case,
    batch: Batch,
    families: Sequence[str] = ("float32",),
) -> float:
    """Largest observed / budget; AssertionError when it passes 1.

    Several families add up: the difference of two evaluations may be the sum of their errors. What
    is exact in a float64 family differs by float64's own rounding, which every bound includes.
    """
    figures = [family_figures(case, batch, family) for family in families]
    top = 0.0
    for q in quantities(got, truth, mask):
        for name, statistic in STATISTICS.items():
            bound = FACTOR * sum(f[q.name][name] for f in figures) + FLOAT64_PARITY
            observed = float(statistic(q.errors))
            top = max(top, observed / bound)
            assert observed <= bound, explain(q, f"{name} {observed:.3g} over its budget", bound)
    return top


def float64_budget(case: Case, batch: Batch, quantity: str) -> float:
    """How far two float64 evaluations may stand apart, per token.

    Rounding errors are proportional to eps: the float32 family's figure, in float64's eps, once for
    each of the two.
    """
    shrink = float(np.finfo(np.float64).eps / np.finfo(np.float32).eps)
    return 2 * FACTOR * shrink * family_figures(case, batch, "float32")[quantity]["max"]


def check_flat(q: Quantity, bound: float) -> float:
    """Largest error of a quantity; AssertionError when it passes the bound."""
    worst = float(q.errors.max())
    assert worst <= bound, explain(q, f"relative L2 {worst:.3g}", bound)
    return worst


def explain(q: Quantity, what: str, bound: float) -> str:
    """The message of a failure: bound, worst index, expected, got."""
    i = int(np.nanargmax(np.where(np.isnan(q.errors), np.inf, q.errors)))
    j = int(np.nanargmax(np.abs(q.got[i].astype(np.float64) - q.truth[i])))
    return (
        f"{q.name}: {what}, bound {bound:.3g}; worst at (row, column) {q.where[i].tolist()}, "
        f"its largest difference in entry {j}: expected {q.truth[i, j]:.9g}, got {q.got[i, j]:.9g}"
    )
