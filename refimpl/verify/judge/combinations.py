"""Several mistakes in one port: are they all named, and nobody else?

Sets of 2 - 5 mistakes of the zoo are drawn at random, made by the reference in float32, and dumped
as an ordinary port dumps: the final hidden state and one step a layer. Of a set each member must
show: where leaving it out changes nothing beyond ten times what rounding may do, another set is
drawn. A set is named in full when each member, or one that is told as the same here, is a suspect,
and no suspect is anything else; a suspect below a fifth has no place at all. Another set is as good
only where no step can tell: it has no more members, and the reference gives the same numbers under
both, at every step that was given (two mistakes that undo each other, two that are a third).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..truth.cases import CASES, Case
from ..truth.passes import Pass, trace
from ..truth.rounding import K
from ..zoo import ZOO
from .candidates import Candidate, Mistakes, change_of, known, with_one_more, without
from .evidence import Evidence, rms
from .rank import SHARE, searched, suspects
from .search import Search
from .segments import segments_of

SIZES = (2, 3, 4, 5)
TOKENS = 140
"""Cases of at most so many tokens, padding included."""
SHOWS = 10.0
"""Times what rounding may do: so far each member must move some step."""
WRONG = 2.0
"""A step is wrong that is off by more than so many times what rounding may do."""


@dataclass(frozen=True)
class Outcome:
    """A set and what was said. ids: the set; told: ids of the suspects; shares: theirs; named: all
    members are there and nobody else; tied: some of them under the name of another; same: another
    set was told that gives the same numbers."""

    seed: int
    ids: tuple[str, ...]
    told: tuple[str, ...]
    shares: tuple[float, ...]
    named: bool
    tied: bool
    same: bool = False

    @property
    def below(self) -> tuple[str, ...]:
        """Suspects with a smaller share than a suspect may have."""
        pairs = zip(self.told, self.shares, strict=True)
        return tuple(id for id, share in pairs if not SHARE <= share <= 1.0)


def main(
    seeds: Iterable[int],
    say: Callable[[str], Any] = print,
    run: Callable[..., Iterable[Outcome]] = map,
) -> int:
    """Run the sets of these seeds; 0 when nine in ten are named and no share is too small."""
    outcomes = []
    for one in run(outcome, seeds):
        outcomes.append(one)
        if not (one.named or one.same) or one.below:
            say(f"seed {one.seed}: {' '.join(one.ids)} was named {' '.join(one.told) or 'nothing'}"
                + (f"; below its share: {' '.join(one.below)}" if one.below else ""))  # fmt: skip
    named, tied = sum(o.named for o in outcomes), sum(o.named and o.tied for o in outcomes)
    same, below = sum(o.same for o in outcomes), sum(len(o.below) for o in outcomes)
    for size in SIZES:
        some = [o for o in outcomes if len(o.ids) == size]
        good = sum(o.named or o.same for o in some)
        say(f"sets of {size}: {good} of {len(some)} named in full, or as one that is the same")
    say(
        f"{len(outcomes)} sets of {SIZES[0]} - {SIZES[-1]} mistakes: {named} named in full, "
        f"{tied} of them with a tie, {same} as a set that gives the same numbers, "
        f"{below} suspects below their share"
    )
    return 0 if named + same >= 0.9 * len(outcomes) and not below else 1


def outcome(seed: int) -> Outcome:
    """Draw a set, make its port, rank."""
    some, evidence = drawn(seed)
    search = searched(evidence)
    ranked = suspects(search)
    klasses = {c.klass for c in some}
    owners = [{ZOO[i].klass for i in (s.id, *s.tied_with)} & klasses for s in ranked]
    named = all(owners) and set().union(*owners) == klasses
    return Outcome(
        seed, tuple(c.id for c in some), tuple(s.id for s in ranked),
        tuple(s.explained for s in ranked), named,
        any(ZOO[s.id].klass not in klasses for s in ranked),
        not named and len(ranked) <= len(some) and same_numbers(some, search),
    )  # fmt: skip


def same_numbers(some: Mistakes, search: Search) -> bool:
    """Whether no given step can tell the set that was found from the one that was made."""
    noisy = {c.klass for c in some if c.noise}
    rounding = search.best.rounding
    if noisy != ({rounding.klass} if rounding else set()):
        return False
    quiet, found = tuple(c for c in some if not c.noise), search.best.found
    whole = any(c.reports for c in (*quiet, *found))
    for segment in (s for one in search.evidence for s in segments_of(one)):
        ours = segment.replay(change_of(quiet), whole)
        theirs = segment.replay(change_of(found), whole)
        for name, x in ours.items():
            if _moved(segment.of, name, x, theirs[name]) > SHOWS * segment.of.floor[name]:
                return False
    return True


def drawn(seed: int) -> tuple[Mistakes, list[Evidence]]:
    """The set of a seed, each member of which shows, and what its port gives."""
    rng = np.random.default_rng(seed)
    size = int(rng.choice(SIZES))
    while True:
        some: Mistakes = ()
        for i in rng.permutation(len(_candidates()))[:size]:
            orders = list(with_one_more(some, _candidates()[i]))
            some = orders[rng.integers(len(orders))]
        evidence = [made(some, case) for case in _cases()]
        if all(shows(c, some, evidence) for c in some):
            return some, evidence


def made(some: Mistakes, case: Case) -> Evidence:
    """What a float32 port with the mistakes gives for a case."""
    p = case.model()
    steps = trace(change_of(some)(p.astype(np.float32)))
    dump = {name: x.astype(np.float64) for name, x in steps.items() if given(name)}
    one = Evidence(p, dump, None, "float32", case.name)
    wrong = (name for name in one.right if one.own[name] > WRONG * one.floor[name])
    one.culprit = next(wrong, None)
    return one


def given(name: str) -> bool:
    """The final hidden state and one step a layer."""
    return name == "final_norm" or name.endswith(".residual_2")


def shows(c: Candidate, some: Mistakes, evidence: Sequence[Evidence]) -> bool:
    """Whether some step would be another one without it, beyond rounding."""
    rest, whole = without(some, c), any(x.reports for x in some)
    rough = [x for x in some if x.noise and x is not c]
    for segment in (s for one in evidence for s in segments_of(one) if one.culprit):
        with_it = segment.replay(change_of(some), whole)
        without_it = segment.replay(change_of(rest), whole)
        for name, x in with_it.items():
            moved = _moved(segment.of, name, x, without_it[name])
            floor = segment.of.floor[name]
            for other in rough:
                smooth = segment.replay(change_of(without(some, other)), whole)
                floor = max(floor, K * _moved(segment.of, name, x, smooth[name]))
            if moved > SHOWS * floor:
                return True
    return False


def _moved(one: Evidence, name: str, x: Any, y: Any) -> float:
    e = one.relative(name, x, y)
    return rms(e) if np.isfinite(e).all() else float(not np.array_equal(x, y, equal_nan=True))


@cache
def _cases() -> tuple[Case, ...]:
    return tuple(c for c in CASES if c.real.size <= TOKENS)


@cache
def _candidates() -> tuple[Candidate, ...]:
    passes: list[Pass] = [c.model() for c in _cases()]
    return tuple(known(passes))
