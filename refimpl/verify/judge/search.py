"""The search for the set of mistakes that explains what a port gave, segment by segment.

    solved: under the mistakes found so far, every step of a segment is what rounding may make of it

Each single mistake is tried on the cheapest wrong segments: one that solves any is put to all of
them and to all that the port has right; a mistake that breaks what is right pays as much as it
gains. Several sets are kept and the best few are gone on from, since two mistakes may look like a
third in the layer that shows first. Where no single one solves anything: a family's value (fit.py),
a rounding of that size, another one in the place of one that is there, two or more at once on the
segment that the fewest can reach, in this order. A port that also rounds has its segments solved
under none of this: then the search is run under the known roundings, likely ones first.

Long because the moves share their hypotheses. What is known of a segment: replays.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from .candidates import Candidate, Mistakes, known, with_one_more, without
from .evidence import Evidence
from .fit import fits
from .replays import ALIKE, ALMOST, CHAOS, SLACK, Hypothesis, Replays
from .segments import Segment, segments_of

# Segments that single mistakes are tried on at most, and enough when some of them are solved.
TRIED, ENOUGH = 24, 4
# Steps of a search at most, and how much more a hypothesis may cost that is gone on from.
STEPS, WORSE = 40, 1.5
# Several at once: mistakes at most, sets kept in each round, segments tried.
TOGETHER, KEPT, BEGUN = 4, 24, 6
# Roundings that are gone into.
ROUNDINGS = 3
# What may be lost by leaving a mistake out, or gained by another, and mean nothing.
NOTHING = 1.0
# Work (Segment.work) that a move may replay: some 8 s.
LIMIT = 1_600_000
Move = Callable[["Search", Hypothesis, list[Segment]], Iterator[Hypothesis]]


class Search(Replays):
    """best: what was found, in the end; left: the segments that stay wrong under it."""

    def __init__(self, evidence: Sequence[Evidence], groups: Sequence[Sequence[Evidence]]) -> None:
        super().__init__()
        self.evidence = evidence
        self.passes = list({e.model: e.p for e in evidence}.values())
        every = known(self.passes)
        self.candidates = [c for c in every if not c.noise]
        self.roundings = [c for c in every if c.noise]
        self.panel: list[Segment] = []
        self.groups = groups
        self.best = Hypothesis()

    @property
    def left(self) -> list[Segment]:
        return self.unsolved(self.best)

    def run(self) -> None:
        """Until nothing is wrong any more, or nothing helps; then under the known roundings."""
        for group in self.groups:
            self.panel += [s for one in group for s in segments_of(one)]
            self.panel.sort(key=lambda s: s.cost)
            self.best = self.pursue(self.best, CHEAP)
            if self.left:
                self.best = self.round_off(self.best)
            if self.left:
                self.best = self.pursue(self.best, MOVES)
            if self.left:
                break
        if self.best == Hypothesis() and not self.left:
            self.on_the_edge()
        if self.left and self.best.rounding is None:
            self.best = self.under_roundings()
        self.best = self.tidy(self.best)

    def pursue(
        self, start: Hypothesis, moves: Sequence[tuple[Move, int]], until: float = math.inf
    ) -> Hypothesis:
        """The best of what the moves lead to; each goes on from so many of the best. until: work
        (replayed) at which no move is begun any more."""
        made: dict[Hypothesis, int] = {start: 0}
        cost = {start: self.total(start, self.panel)}
        for _ in range(STEPS):
            best = sorted(made, key=cost.__getitem__)
            best = [h for h in best if cost[h] <= WORSE * cost[best[0]]]
            todo = [(i, h) for i, (_, n) in enumerate(moves) for h in best[:n] if made[h] == i]
            if not todo or not self.unsolved(best[0]) or self.replayed > until:
                break
            i, h = todo[0]
            made[h] += 1
            for new in moves[i][0](self, h, self.unsolved(h)):
                if new not in made:
                    c = self.total(new, self.panel, cost[h] - NOTHING)
                    if c < cost[h] - NOTHING:
                        made[new], cost[new] = 0, c
        return min(made, key=cost.__getitem__)

    def unsolved(self, h: Hypothesis) -> list[Segment]:
        return [s for s in self.panel if not self.solved(s, h)]

    def on_the_edge(self) -> None:
        """A port that is wrong by little more than its budget: what halves that is a suspect."""
        wrong = [(e, e.own.get(e.culprit or "", 0.0)) for e in self.evidence if e.culprit]
        self.slack = 0.5 * max((d / e.floor[e.culprit or ""] for e, d in wrong), default=SLACK)
        self.best = self.pursue(self.best, CHEAP[:1])

    # -- a rounding -------------------------------------------------------------------------------

    def round_off(self, h: Hypothesis) -> Hypothesis:
        """With the rounding whose size everything has that is left, if one is like that."""
        if h.rounding is not None:
            return h
        some = apart(self.unsolved(h))[:TRIED]
        rough = [h._replace(rounding=c) for c in self.roundings]
        likeness = [(self.unlike(some, one), i) for i, one in enumerate(rough)]
        least, i = min(likeness)
        return rough[i] if least < math.inf else h

    def under_roundings(self) -> Hypothesis:
        """The set under a rounding that leaves nothing: single mistakes under each, those that
        explain the most alone first; then several at once, under the first few."""
        possible = (c for c in self.roundings if self.speaks(c) and not self.denied(c))
        agree = {c: self.agree(c) for c in possible}
        first = sorted(agree, key=agree.__getitem__, reverse=True)
        begun = {}
        for rounding in first:
            until = self.replayed + LIMIT
            begun[rounding] = self.pursue(Hypothesis((), rounding), ROUNDED[:2], until)
            if self.much_like(begun[rounding]):
                return self.most_like(begun[rounding])
        best, least = self.best, math.inf
        for rounding in first[:ROUNDINGS]:
            h = self.pursue(begun[rounding], ROUNDED)
            unlike = math.inf if self.unsolved(h) else self.unlike(self.panel, h)
            if unlike < least:
                best, least = h, unlike
            if self.much_like(h):
                break
        return self.most_like(best) if best.rounding else best

    def much_like(self, h: Hypothesis) -> bool:
        """Whether nothing stays wrong, and what is left is of the size of the rounding."""
        return not self.unsolved(h) and self.unlike(self.panel, h) < 0.5 * math.log(ALIKE)

    def most_like(self, h: Hypothesis) -> Hypothesis:
        """With the rounding that is most like what its mistakes leave: one that is a little larger
        in one place explains as much, and may have been tried first."""
        every = (h._replace(rounding=c) for c in self.roundings if c != h.rounding)
        fits = [h, *(one for one in every if not self.unsolved(one))]
        return min(fits, key=lambda one: self.unlike(self.panel, one))

    def agree(self, rounding: Candidate) -> int:
        """Wrong segments that the rounding alone explains."""
        h = Hypothesis((), rounding)
        return sum(self.solved(s, h) for s in self.unsolved(Hypothesis()))

    def speaks(self, rounding: Candidate) -> bool:
        """Whether it is small enough almost everywhere to say anything."""
        h = Hypothesis((), rounding)
        sizes = [x for s in self.panel for x in self.size(s, h).values()]
        return sum(x <= CHAOS for x in sizes) >= ALMOST * len(sizes)

    def denied(self, rounding: Candidate) -> bool:
        """Whether what was found leaves no more than the dtype's own rounding where this one would
        show: no mistake undoes errors that are random. A few may be small by chance."""
        found = self.best.found
        h, shows, small = Hypothesis(found, rounding), 0, 0
        for segment in self.panel:
            if not self.solved(segment, Hypothesis(found)):
                continue
            size, floor = self.size(segment, h), self.smooth(segment, found)
            if any(x > ALIKE * floor[name] for name, x in size.items()):
                shows, small = shows + 1, small + (not self.solved(segment, h))
        return small > (1.0 - ALMOST) * shows

    # -- the moves --------------------------------------------------------------------------------

    def others(self, h: Hypothesis) -> list[Candidate]:
        """Those that may be added. Where steps are parted, sizes say nothing of a rounding."""
        rough = h.rounding is not None
        every = (c for c in self.candidates if c not in h.found)
        return [c for c in every if not (rough and c.parts_steps)]

    def orders(self, h: Hypothesis, segment: Segment) -> Iterator[Hypothesis]:
        """What was found and one more that can show in the segment."""
        for c in self.others(h):
            if self.reaches(segment, c) or c.reports:
                for order in with_one_more(h.found, c):
                    yield h._replace(found=order)

    def single(self, h: Hypothesis, left: list[Segment]) -> Iterator[Hypothesis]:
        """With each of the mistakes that solve a segment by themselves."""
        solvers: dict[Hypothesis, None] = {}
        for tried, segment in enumerate(apart(left)[:TRIED]):
            if tried >= ENOUGH and solvers:
                break
            solvers |= {one: None for one in self.orders(h, segment) if self.solved(segment, one)}
        yield from solvers

    def swap(self, h: Hypothesis, left: list[Segment]) -> Iterator[Hypothesis]:
        """With another one in the place of one that was found and is not enough."""
        for c in h.found:
            rest = h._replace(found=without(h.found, c))
            yield from self.single(rest, [s for s in left if self.shows(s, h, c)])

    def fit(self, h: Hypothesis, left: list[Segment]) -> Iterator[Hypothesis]:
        """With a value that the zoo does not have."""

        def cost(segment: Segment, some: Mistakes) -> float:
            return self.cost(segment, h._replace(found=some))

        for segment in [s for s in apart(left) if s.of.real.sum() >= 3][:2]:
            fitted = fits(segment, h.found, cost, self.passes)
            every = (h._replace(found=x) for c in fitted for x in with_one_more(h.found, c))
            solving = [one for one in every if self.solved(segment, one)]
            yield from solving
            if solving:
                break

    def several(self, h: Hypothesis, left: list[Segment]) -> Iterator[Hypothesis]:
        """With two or more at once, on the segments that the fewest can reach."""
        begun: list[tuple[int, int, Segment, list[Hypothesis]]] = []
        until = self.replayed + LIMIT
        for segment in apart(left)[:TRIED]:
            base = self.distances(segment, h.found)
            some = [x for x in self.orders(h, segment) if self.distances(segment, x.found) != base]
            begun.append((len(some) ** 2 * segment.cost, len(begun), segment, some))
        for _, _, segment, some in sorted(begun, key=lambda x: x[:2])[:BEGUN]:
            new = {c: None for one in some for c in one.found if c not in h.found}
            kept = self.cheapest(segment, some)
            for _ in range(TOGETHER - 1):
                wider = {
                    h._replace(found=order): None
                    for one in kept
                    for c in new
                    if c not in one.found
                    for order in with_one_more(one.found, c)
                }
                solving = [one for one in wider if self.solved(segment, one)]
                yield from solving
                if solving:
                    return
                if self.replayed > until:
                    return
                kept = self.cheapest(segment, wider)

    def cheapest(self, segment: Segment, sets: Iterable[Hypothesis]) -> list[Hypothesis]:
        """The sets to go on with; of those with the same numbers one."""
        seen: dict[float, Hypothesis] = {}
        for one in sets:
            seen.setdefault(self.cost(segment, one), one)
        return [seen[cost] for cost in sorted(seen)[:KEPT]]

    # -- in the end -------------------------------------------------------------------------------

    def tidy(self, h: Hypothesis) -> Hypothesis:
        """No mistake too many, and no two that are one."""
        for c in h.found:
            fewer, now = h._replace(found=without(h.found, c)), self.total(h, self.panel)
            if self.total(fewer, self.panel, now + NOTHING) <= now + NOTHING:
                h = fewer
        for i, c in enumerate(h.found):
            for d in h.found[i + 1 :]:
                rest = h._replace(found=without(without(h.found, c), d))
                for one in self.in_place(h, rest, self.touched(h, c, d)):
                    return self.tidy(one)
        return h

    def in_place(
        self, h: Hypothesis, rest: Hypothesis, where: list[Segment]
    ) -> Iterator[Hypothesis]:
        """What one more makes of the rest, if it explains as much as h does."""
        here, now = self.total(h, where), self.total(h, self.panel)
        for c in self.others(h):
            for order in with_one_more(rest.found, c):
                one = h._replace(found=order)
                if self.total(one, where, here + NOTHING) <= here + NOTHING:
                    if self.total(one, self.panel, now + NOTHING) <= now + NOTHING:
                        yield one
                        break

    def tied(self, c: Candidate) -> list[Candidate]:
        """Others that explain as much in its place."""
        h = self.best
        rest = h._replace(found=without(h.found, c))
        every = self.in_place(h, rest, self.touched(h, c))
        return [one for each in every for one in each.found if one not in h.found]

    def touched(self, h: Hypothesis, *some: Candidate) -> list[Segment]:
        """The segments in which any of these mistakes of a hypothesis makes a difference."""
        return [s for s in self.panel if any(self.shows(s, h, c) for c in some)]

    def shows(self, segment: Segment, h: Hypothesis, c: Candidate) -> bool:
        """Whether a mistake of a hypothesis makes a difference there."""
        rest = without(h.found, c)
        return self.distances(segment, rest) != self.distances(segment, h.found)


# Each with how many of the best hypotheses it goes on from.
CHEAP: tuple[tuple[Move, int], ...] = ((Search.single, 4), (Search.fit, 1))
MOVES: tuple[tuple[Move, int], ...] = (
    (Search.single, 4), (Search.swap, 2), (Search.fit, 1), (Search.several, 1),
)  # fmt: skip
ROUNDED = MOVES[:2] + MOVES[3:]


def apart(segments: Sequence[Segment]) -> list[Segment]:
    """Cheap ones first, of every model and stage one before the second of any."""
    place: dict[tuple[str, int, int], int] = {}
    keyed: list[tuple[int, int, Segment]] = []
    for s in sorted(segments, key=lambda s: s.cost):
        kind = s.of.model, s.first, s.stop
        place[kind] = place.get(kind, -1) + 1
        keyed.append((place[kind], len(keyed), s))
    return [s for _, _, s in sorted(keyed)]
