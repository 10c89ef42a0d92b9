"""The training kit tested by itself: every known mistake, and honest steps with many weights.

Each mistake, made by the reference in float32, must miss its budget tenfold in some case, first
show in its own stage, and come first among the suspects; honest variants (honest.py) must pass
everywhere, with the weights of every seed.

    NN mistakes, NN caught, NN ranked first, NN false alarms

is the last line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from ..judge.selftest import CAUGHT, pool
from ..truth.compare import Comparison
from .cases import BY_NAME, TrainingCase
from .compare import AFTER, Right, Told, compare, right, values
from .honest import HONEST
from .rank import Evidence, ranking
from .zoo import NOT_EXPRESSED, ZOO

Array = np.ndarray
SEEDS, SHORT_SEEDS = 20, 1
"""Sets of weights of the honest runs; in CI."""
RUN_SEEDS = 3
"""Of so many, the plain run takes all its steps, the others the first alone, for time."""
WRONG_CASES, RIGHT_CASES = 4, 3
"""Cases of each kind from which a mistake's suspects are ranked."""


@dataclass(frozen=True)
class Verdict:
    """One mistake. ratio: its worst error / budget; case, value: where; cases: how many show it;
    first: whether it leads the suspects, leader: who does."""

    id: str
    ratio: float
    case: str
    value: str
    cases: int
    first: bool
    leader: str
    stage: str

    @property
    def caught(self) -> bool:
        return self.ratio >= CAUGHT and self.stage == ZOO[self.id].stage


def main(
    short: bool = False,
    say: Callable[[str], Any] = print,
    workers: int | None = None,
    ids: Sequence[str] = tuple(ZOO),
    names: Sequence[str] = tuple(BY_NAME),
) -> int:
    """Run it. short: fewer seeds, for CI; workers: processes, None for as many as there are cores,
    up to four; ids: of ZOO; names: of cases.

    Returns 0 when every mistake is caught and there is no false alarm, else 1.
    """
    seeds = SHORT_SEEDS if short else SEEDS
    verdicts, alarms, closest, runs = [], [], 0.0, 0
    with pool(workers) as run:
        for v in run(judged, [(id, tuple(names)) for id in ids]):
            verdicts.append(v)
            say(f"{v.id:4s} {v.ratio:9.3g} at {v.value}, {v.case}; in {v.cases} cases; {v.leader}")
        for found in run(honest, [(name, seed) for name in names for seed in range(seeds)]):
            for what, ratio in found.items():
                runs, closest = runs + 1, max(closest, ratio)
                if not ratio <= 1.0:
                    alarms.append(f"{what}: {ratio:.3g} times its budget")
    for v in verdicts:
        if not v.caught:
            say(f"not caught: {v.id}, {v.ratio:.3g} times its budget, first in the {v.stage}")
        if not v.first:
            say(f"not ranked first: {v.id}; {v.leader} was")
    for id, reason in NOT_EXPRESSED.items():
        say(f"not expressed: {id}, {reason}")
    say(f"{len(HONEST)} honest variants, {runs} runs, the closest at {closest:.2f} of its budget")
    for alarm in alarms:
        say(f"false alarm: {alarm}")
    caught, first = sum(v.caught for v in verdicts), sum(v.first for v in verdicts)
    n = len(verdicts)
    say(f"{n} mistakes, {caught} caught, {first} ranked first, {len(alarms)} false alarms")
    return 0 if caught == n and not alarms else 1


# -- one mistake ----------------------------------------------------------------------------------


def judged(job: tuple[str, tuple[str, ...]]) -> Verdict:
    """A mistake on the cases of those names."""
    id, names = job
    mistake = ZOO[id]
    steps = AFTER if mistake.stage == "run" else AFTER[:1]
    found: list[tuple[float, Evidence, str]] = []
    for name in names:
        of = _right(name)
        with np.errstate(all="ignore"):
            made = values(mistake.apply(of.t.astype(np.float32)), steps)
        told = Told({
            n: x.astype(np.float64)
            for n, x in made.items()
            if n.startswith(("loss", "grad.", "after_"))
        })  # fmt: skip
        comparison = compare(of, told)
        worst, value = worst_of(comparison)
        found.append((worst, Evidence(name, of, told, comparison), value))
    top = max(found, key=lambda one: one[0])
    catching = [one for one in found if one[0] >= CAUGHT]
    by_size = sorted(found, key=lambda one: one[1].right.t.windows[0][0].labels.size)
    chosen = [one[1] for one in by_size if one in catching][:WRONG_CASES]
    chosen += [one[1] for one in by_size if one[0] <= 1.0][:RIGHT_CASES]
    suspects = ranking(chosen)
    leader = suspects[0].id if suspects else "nobody"
    first = bool(suspects) and ZOO[leader].klass == mistake.klass
    wrong = [s for s in ("gradient", "update", "run") if any(one[1].wrong(s) for one in catching)]
    stage = wrong[0] if wrong else "nothing"
    return Verdict(
        id, top[0], top[1].name, top[2], len(catching), first, leader, stage
    )  # fmt: skip


def worst_of(comparison: Comparison) -> tuple[float, str]:
    """The worst ratio, and at which value."""
    rows = [(max(row.forced.ratio, row.cumulative.ratio), row.tap) for row in comparison.rows]
    return max(rows)


@cache
def _right(name: str) -> Right:
    return right(BY_NAME[name].training(), "float32")


# -- no mistake -----------------------------------------------------------------------------------


def honest(job: tuple[str, int]) -> Mapping[str, float]:
    """Every honest variant on a case, with the weights of a seed: what -> its worst ratio. The
    plain one runs all steps with some of them, the others the first."""
    name, seed = job
    t, out = reweighted(BY_NAME[name], seed).training(), {}
    most = AFTER if seed < RUN_SEEDS else AFTER[:1]
    rights = {"float32": right(t, "float32", most), "bfloat16": right(t, "bfloat16", AFTER[:1])}
    for id, variant in HONEST.items():
        steps = most if id == "plain" else AFTER[:1]
        of = rights[variant.dtype]
        comparison = compare(of, Told(variant.values(t, steps)))
        out[f"{name}, seed {seed}, {id}"] = worst_of(comparison)[0]
    return out


def reweighted(case: TrainingCase, seed: int) -> TrainingCase:
    """A case with the weights, and the data, of a seed."""
    if not seed:
        return case
    return replace(case, fixture=replace(case.fixture, name=f"{case.fixture.name}:{seed}"))
