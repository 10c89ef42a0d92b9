"""The kit tested by itself: every known mistake against every case.

Each mistake, made by the reference in float32, must miss its budget tenfold in some case, be named
at a step where it shows, and come first among the suspects (members of its class give the same
numbers and count as it). No case may catch nothing. The unbroken reference, and legitimate float32
evaluations that are not in the budget's own family, must pass everywhere.

    NN mistakes, NN caught, NN ranked first, NN false alarms

is the last line. The matrix holds a mistake's dump against budgets taken at the reference's own
steps; those cases that are ranked go through `compare` itself. So do the honest ports of the zoo,
each of which must pass on every short case.

Long because each part of the score and its line stand together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np

from ..ports.port import ReferencePort
from ..truth.cases import BY_NAME, CASES
from ..truth.compare import Comparison, compare
from ..truth.errors import STATISTICS, error, real_rows
from ..truth.passes import Pass, forced, trace
from ..truth.rounding import DEVIATIONS, DTYPES, SEEDS, K, noisy, precision, unrounded
from ..zoo import FAULTY, NOT_EXPRESSED, ZOO
from ..zoo.honest import HONEST
from .evidence import Evidence
from .rank import rank_cases
from .runtime import runtime_findings
from .runtime_suspects import ranked as runtime_ranked

Array = np.ndarray
T = TypeVar("T")

CAUGHT = 10.0
"""A mistake is caught where it misses its budget by at least this factor."""
RANKED_CASES = 4
"""On so many cases that catch a mistake its suspects are ranked, and on so many that are right."""
FALSE_ALARM_SEEDS = 20
LONG_TOKENS, LONG_SEEDS = 200, 4
"""So many sets of weights must raise no alarm on each case; fewer on long ones, for time."""
SHORT_SEEDS, SHORT_TOKENS = 3, 66
"""In CI: so many sets of weights (one for honest variants), on cases of at most so many tokens."""
# The seed of an evaluation that is no member of a budget's family.
OUTSIDE = 1000
LOWER = tuple(dtype for dtype in DTYPES if dtype not in ("float64", "float32"))
DECLARED = tuple(f"float32+{name}" for name in DEVIATIONS)


@dataclass(frozen=True)
class Verdict:
    """One mistake. ratios: case -> error / budget; wrong_taps: culprits at which it cannot show
    first; hidden: lower dtypes that hide it in every case; below: declared
    deviations under which it is not caught; first: whether it leads the suspects,
    leader: who does; final: who does when the final hidden state of one case is all that there is,
    None when that shows nothing."""

    id: str
    ratios: Mapping[str, float]
    first: bool
    leader: str
    wrong_taps: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    final: str | None = None

    @property
    def caught(self) -> bool:
        return max(self.ratios.values()) >= CAUGHT and not self.wrong_taps


def main(
    short: bool = False,
    say: Callable[[str], Any] = print,
    workers: int | None = None,
    ids: Sequence[str] = (*ZOO, *FAULTY),
) -> int:
    """Run it. short: only cases of at most SHORT_TOKENS tokens, and fewer seeds, for CI; workers:
    processes, None for as many as there are cores, up to four; ids: of ZOO and FAULTY.

    Returns 0 when every mistake is caught and there is no false alarm, else 1.
    """
    names = [c.name for c in CASES if not short or c.real.size <= SHORT_TOKENS]
    seeds = SHORT_SEEDS if short else FALSE_ALARM_SEEDS
    with pool(workers) as run:
        verdicts = list(run(judged, [(id, tuple(names)) for id in ids if id in ZOO]))
        runtime = list(run(judged_runtime, [id for id in ids if id in FAULTY]))
        jobs = [(name, seed) for name in names for seed in range(seeds_of(name, seeds))]
        alarms = [alarm for alarm in run(false_alarm, jobs) if alarm]
        variants = [
            (name, seed, id)
            for name in names
            if BY_NAME[name].real.size <= SHORT_TOKENS
            for seed in range(1 if short else seeds)
            for id in HONEST
        ]
        alarms += [alarm for alarm in run(honest_alarm, variants) if alarm]
    unseen = [v.id for v in verdicts if max(v.ratios.values()) == 0.0]
    verdicts = [v for v in verdicts if v.id not in unseen]
    for line in table(verdicts, names):
        say(line)
    for v in (*verdicts, *runtime):
        if not v.caught:
            say(f"not caught: {v.id}, {max(v.ratios.values()):.3g} times its budget {v.wrong_taps}")
        if not v.first:
            say(f"not ranked first: {v.id}; {v.leader} was")
    for dtype in LOWER:
        hidden = [v.id for v in verdicts if dtype in v.hidden]
        say(f"hidden by {dtype}'s own rounding: {', '.join(hidden) or 'none'}")
    for dtype in DECLARED:
        below = [v.id for v in verdicts if dtype in v.below]
        say(f"not tenfold over the budget of {dtype}: {', '.join(below) or 'none'}")
    idle = [name for name in names if all(v.ratios[name] < CAUGHT for v in verdicts)]
    for name in idle:
        say(f"case {name} catches nothing")
    if unseen:
        say(f"need a longer case: {', '.join(unseen)}")
    for id, reason in NOT_EXPRESSED.items():
        say(f"not expressed: {id}, {reason}")
    told = [v for v in verdicts if v.final is not None]
    led = sum(ZOO[v.final or v.id].klass == ZOO[v.id].klass for v in told)
    say(
        f"from the final hidden state of one case alone: {len(told)} of {len(verdicts)} have a "
        f"verdict and suspects, {led} the right one first"
    )
    say(f"{len(HONEST)} honest variants, {len(variants)} runs")
    for alarm in alarms:
        say(f"false alarm: {alarm}")
    every = [*verdicts, *runtime]
    caught, first = sum(v.caught for v in every), sum(v.first for v in every)
    say(f"{len(every)} mistakes, {caught} caught, {first} ranked first, {len(alarms)} false alarms")
    return 0 if caught == len(every) and not alarms and not idle else 1


def table(verdicts: Sequence[Verdict], names: Sequence[str]) -> Iterator[str]:
    """The matrix: powers of ten by which each case catches each mistake; `.` is within budget."""
    yield "error / budget as a power of ten; . within budget, * not finite"
    for i, name in enumerate(names):
        yield f"{'':6s}{'  |' * i}  {name}"
    for v in verdicts:
        yield f"{v.id:6s}" + "".join(f"{_power(v.ratios[name]):>3s}" for name in names)


def _power(ratio: float) -> str:
    if ratio <= 1.0:
        return "."
    return "*" if not np.isfinite(ratio) else str(int(np.log10(ratio)))


# -- one mistake ----------------------------------------------------------------------------------


def judged(job: tuple[str, tuple[str, ...]]) -> Verdict:
    """A mistake of ZOO on the cases of those names."""
    id, names = job
    mistake = ZOO[id]
    ratios = {name: ratio(name, "float32", id) for name in names}
    catching = [name for name in names if ratios[name] >= CAUGHT]
    by_size = sorted(names, key=lambda name: BY_NAME[name].real.size)
    chosen = [name for name in by_size if name in catching][:RANKED_CASES]
    chosen += [name for name in by_size if ratios[name] <= 1.0][:RANKED_CASES]
    given = []
    for name in chosen:
        p, dump = BY_NAME[name].model(), broken(name, "float32", id)
        given.append(Evidence(p, dump, compare(p, dump, "float32").culprit, "float32", name))
    suspects = rank_cases(given)
    leader = suspects[0].id if suspects else "nobody"
    culprits = {one.culprit for one in given if one.name in catching}
    wrong = {at for at in culprits if not (at and mistake.shows_at(at))}
    lower = [name for name in names if BY_NAME[name].real.size <= SHORT_TOKENS]
    hidden = [d for d in LOWER if all(ratio(name, d, id) <= 1.0 for name in lower)]
    plainest = sorted(catching, key=ratios.__getitem__, reverse=True)[:RANKED_CASES]
    below = [d for d in DECLARED if all(ratio(name, d, id) < CAUGHT for name in plainest)]
    first = bool(suspects) and ZOO[leader].klass == mistake.klass
    most = [one for one in reversed(given) if one.name in catching]
    final = next(filter(None, map(final_alone, most)), None)
    return Verdict(
        id, ratios, first, leader, tuple(map(str, wrong)), tuple(hidden), tuple(below), final
    )


def final_alone(one: Evidence) -> str | None:
    """The leading suspect when the final hidden state is all that the port gives."""
    dump = {"final_norm": one.port["final_norm"]}
    culprit = compare(one.p, dump, one.dtype).culprit
    suspects = rank_cases([Evidence(one.p, dump, culprit, one.dtype)])
    return suspects[0].id if suspects else None


def judged_runtime(id: str) -> Verdict:
    """A faulty port: caught when the runtime gate fails it."""
    port = FAULTY[id].wrap(ReferencePort())
    found = [f for f in runtime_findings(port, CASES, port.dtype) if f.level == "fail"]
    worst = max((f.data.get("ratio", float("inf")) for f in found), default=0.0)
    suspects = runtime_ranked(found, CASES)
    leader = suspects[0][0] if suspects else "nobody"
    return Verdict(id, {"runtime": worst}, leader == id, leader)


def broken(name: str, dtype: str, id: str) -> dict[str, Array]:
    """What a port with the mistake gives for a case, in float64 arrays.

    float32 is computed in float32; lower dtypes are a legitimate evaluation that is then broken.
    """
    p = BY_NAME[name].model()
    port = p.astype(np.float32) if dtype == "float32" else noisy(p, dtype, OUTSIDE)
    return {k: x.astype(np.float64) for k, x in trace(ZOO[id].apply(port)).items()}


def ratio(name: str, dtype: str, id: str) -> float:
    """Worst error / budget over the steps, each from the port's own earlier steps."""
    p, right, budgets = _right(name, dtype)
    dump = broken(name, dtype, id)
    real, fed = real_rows(p), forced(p, dump)
    worst = 0.0
    for tap, x in dump.items():
        if tap in fed and not np.array_equal(x, fed[tap]):
            seen = error(tap, x, fed[tap], real)
            worst = max(worst, *(_quotient(seen[s], budgets[tap][s]) for s in STATISTICS))
    return worst


@cache
def _right(name: str, dtype: str) -> tuple[Pass, dict[str, Array], dict[str, dict[str, float]]]:
    """A case's pass, its steps, and the budget of each step alone at the reference's own inputs."""
    p = BY_NAME[name].model()
    truth, real = trace(p), real_rows(p)
    u = precision(dtype).store
    family = [
        forced(noisy(p, dtype, seed, fed=True), unrounded(truth, dtype, seed, u))
        for seed in range(SEEDS)
    ]
    budgets = {
        tap: {s: K * max(error(tap, m[tap], x, real)[s] for m in family) for s in STATISTICS}
        for tap, x in truth.items()
    }
    return p, truth, budgets


def _quotient(observed: float, budget: float) -> float:
    if observed == 0.0:
        return 0.0
    return observed / budget if budget else float("inf")


# -- no mistake -----------------------------------------------------------------------------------


def seeds_of(name: str, seeds: int) -> int:
    """How many sets of weights a case is run with."""
    return seeds if BY_NAME[name].real.size <= LONG_TOKENS else min(seeds, LONG_SEEDS)


def false_alarm(job: tuple[str, int]) -> str | None:
    """What `compare` says against the reference in float32, with the weights of a seed (0: those
    of the case); None when it passes."""
    name, seed = job
    p = reweighted(name, seed)
    dump = {k: x.astype(np.float64) for k, x in trace(p.astype(np.float32)).items()}
    return _alarm(f"{name}, seed {seed}", compare(p, dump, "float32"))


def honest_alarm(job: tuple[str, int, str]) -> str | None:
    """The same of a variant of HONEST: (case, seed, id)."""
    name, seed, id = job
    p, variant = reweighted(name, seed), HONEST[id]
    found = compare(p, variant.dump(p), variant.dtype)
    return _alarm(f"{name}, seed {seed}, {id}", found)


def reweighted(name: str, seed: int) -> Pass:
    """A case's pass with the weights of a seed."""
    case = BY_NAME[name]
    p = case.model()
    if seed:
        p = replace(p, params=replace(case.fixture, name=f"{case.fixture.name}:{seed}").params())
    return p


def _alarm(what: str, found: Comparison) -> str | None:
    if found.ratio <= 1.0:
        return None
    return f"{what}: {found.ratio:.3g} times the budget at {found.culprit or 'cumulative'}"


# -- work on several cores ------------------------------------------------------------------------


class pool:
    """`with pool(n) as run: run(function, jobs)` maps in order, in n processes; 1 is this one."""

    def __init__(self, workers: int | None) -> None:
        self.workers = min(os.cpu_count() or 1, 4) if workers is None else workers
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Callable[[Callable[[Any], T], Iterable[Any]], Iterable[T]]:
        if self.workers > 1:
            self.pool = ProcessPoolExecutor(self.workers)
            return self.pool.map
        return map

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
