"""Which mistakes they are: the set that explains the port, each with the share that is its own.

    explained = 1 - sum |port - with it|^2 / sum |port - without it|^2

over the steps where it makes a difference, all other mistakes of the set being there both times. A
set is found by search.py on short cases first, of every model; longer ones are looked at when the
set leaves something wrong there, or when nothing short is wrong. Whoever explains as much in a
mistake's place is told as tied with it. What is left is measured (measured.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..findings import Suspect
from ..truth.passes import Pass, Taps
from ..zoo import CLASSES, ZOO
from .candidates import Candidate, change_of, without
from .evidence import Evidence
from .measured import Fact, measured
from .replays import ALIKE
from .search import Search

# Tokens, padding included, of the cases that are looked at first, second and third.
SHORT, LONGER = 66, 140
# A suspect with a smaller share is none.
SHARE = 0.2
FACTS = 3
"""Measurements that are told at most."""


@dataclass(frozen=True)
class Ranking:
    """suspects: the set that was found, the one that shows at most steps first; facts: what was
    measured where no set explains the port."""

    suspects: tuple[Suspect, ...] = ()
    facts: tuple[Fact, ...] = ()


def rank(p: Pass, port: Taps, culprit: str | None, dtype: str) -> list[Suspect]:
    """Suspects of one case, best first; empty when nothing is wrong. See ranking."""
    return rank_cases([Evidence(p, port, culprit, dtype)])


def rank_cases(evidence: Sequence[Evidence]) -> list[Suspect]:
    """The suspects of `ranking`."""
    return list(ranking(evidence).suspects)


def ranking(evidence: Sequence[Evidence]) -> Ranking:
    """Suspects of several cases of one port, and what was measured where they do not do.

    Cases without a culprit count as well: a mistake that would show there is less likely.
    """
    if not any(one.culprit is not None for one in evidence):
        return Ranking()
    search = searched(evidence)
    return Ranking(tuple(suspects(search)), tuple(facts(search)))


def searched(evidence: Sequence[Evidence]) -> Search:
    """The search, run."""
    search = Search(evidence, groups(evidence))
    search.run()
    return search


def groups(evidence: Sequence[Evidence]) -> list[list[Evidence]]:
    """Short cases, right and wrong; longer ones; the rest of those that are wrong."""
    by_size = sorted((one for one in evidence if one.port), key=lambda one: one.tokens)
    short = [one for one in by_size if one.tokens <= SHORT]
    longer = [one for one in by_size if SHORT < one.tokens <= LONGER and one.culprit]
    long = [one for one in by_size if one.tokens > LONGER and one.culprit]
    return [group for group in (short, longer, long) if group]


def suspects(search: Search) -> list[Suspect]:
    """Those found that have a share, then the rounding."""
    found, rounding = search.best
    told = sorted((_suspect(search, c) for c in found), key=lambda s: -len(s.steps))
    if rounding is not None:
        told.append(_rounding(search, rounding))
    told = [s for s in told if s.explained >= SHARE]
    ids, all_of_it = [s.id for s in told], explained_together(search)
    if len(told) < 2:
        return told
    return [
        replace(s, together_with=tuple(i for i in ids if i != s.id), together=all_of_it)
        for s in told
    ]


def explained_together(search: Search) -> float:
    """Share of the squared error of all wrong steps that is gone with the mistakes found."""
    before, after = 0.0, 0.0
    for segment in search.panel:
        own, floor = segment.of.own, segment.of.floor
        now = search.distances(segment, search.best.found)
        for name, (_, high) in search.bounds(segment, search.best).items():
            if own[name] > floor[name] and high < math.inf:
                before, after = before + own[name] ** 2, after + min(now[name], own[name]) ** 2
    return 1.0 - after / before if before else 0.0


def _suspect(search: Search, c: Candidate) -> Suspect:
    h, with_it, without_it, steps = search.best, 0.0, 0.0, []
    rest = h._replace(found=without(h.found, c))
    for segment in search.panel:
        before = search.distances(segment, rest.found)
        after = search.distances(segment, h.found)
        for name, (_, high) in search.bounds(segment, h).items():
            if before[name] > high and before[name] != after[name]:
                with_it, without_it = with_it + after[name] ** 2, without_it + before[name] ** 2
                steps.append((segment.of.name, name))
    tied = [] if c.fitted else [i for i in CLASSES[c.klass] if i != c.id]
    for other in search.tied(c):
        tied += [i for i in CLASSES[other.klass] if i not in tied]
    share = 1.0 - with_it / without_it if without_it else 0.0
    residual = math.sqrt(with_it / max(len(steps), 1))
    cited = ZOO[c.id].citations
    return Suspect(c.id, c.title, share, cited, tuple(tied), residual=residual, steps=tuple(steps))


def _rounding(search: Search, c: Candidate) -> Suspect:
    """Its share is that of the steps it is alike at, among those that the others leave wrong."""
    logs, steps = search.likeness(search.panel, search.best)
    alike = [x <= math.log(ALIKE) for x in logs]
    klass = tuple(i for i in CLASSES[c.klass] if i != c.id)
    share = sum(alike) / max(len(alike), 1)
    return Suspect(c.id, c.title, share, ZOO[c.id].citations, klass, steps=tuple(steps))


def facts(search: Search) -> Iterator[Fact]:
    """Of each step in a segment that stays wrong, the first wrong one of the shortest cases."""
    told: set[str] = set()
    for segment in search.left:
        one = segment.of
        made = segment.replay(change_of(search.relevant(segment, search.best.found)[0]))
        for name, d in search.distances(segment, search.best.found).items():
            if d <= one.floor[name] or name not in made:
                continue
            if len(told) < FACTS and name.split(".")[-1] not in told:
                port = one.port[name]
                fact = measured(name, made[name], port, one.real, one.p.params, one.p.config)
                if fact is not None:
                    told.add(name.split(".")[-1])
                    yield Fact(one.name, name, *fact)
            break
