"""The search for the set of mistakes that explains what a port gave, segment by segment.

    solved: under the mistakes found so far, every step of a segment is what rounding may make of it

First each single mistake on the cheapest wrong segments: one that solves any is put to all of them
and to all that the port has right. Then on with what is left, on top of what is found. Where no
single one solves anything: a family's value (fit.py), a rounding of that size, two or more at once
on the segment that the fewest can reach, in this order. Whoever solves the most wins; a mistake
that breaks what is right pays as much as it gains.

Long because the moves of the search share what they have replayed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ..truth.rounding import K
from .candidates import Candidate, Mistakes, change_of, known, with_one_more, without
from .evidence import Evidence, rms
from .fit import fits
from .segments import Segment, segments_of

# A step is wrong when it is further off than this many times what rounding may do there.
SLACK = 2.0
# A replay so close to the port, in its error before, is held against rounding under the mistakes.
NEAR = 0.05
# Segments that single mistakes are tried on at most, and enough when some of them are solved.
TRIED, ENOUGH = 24, 4
# Several at once: mistakes at most, sets kept in each round, segments tried.
TOGETHER, KEPT, BEGUN = 4, 16, 6
# The error of a port that only rounds is within this factor of the rounding's, almost everywhere.
ALIKE, ALMOST = 3.0, 0.85
# A rounding that changes more than this explains anything, and so nothing.
CHAOS = 0.1
# What may be lost by leaving a mistake out, or gained by another, and mean nothing.
NOTHING = 1.0
ROUNDS = 8
# Work (Segment.work) that may be replayed before sets of several are given up: some 8 s.
LIMIT = 1_600_000
# What is tried, in this order, until something is found.
MOVES = ("single", "fit", "round_off", "several")
MOVES_ROUNDED = ("single",)


class Search:
    """found: the mistakes, in the order in which they are put together; rounding: the one that is
    known by its size alone, if any; left: the segments that stay wrong."""

    def __init__(self, evidence: Sequence[Evidence], groups: Sequence[Sequence[Evidence]]) -> None:
        self.evidence = evidence
        self.passes = list({e.model: e.p for e in evidence}.values())
        every = known(self.passes)
        self.candidates = [c for c in every if not c.noise]
        self.roundings = [c for c in every if c.noise]
        self.found: Mistakes = ()
        self.rounding: Candidate | None = None
        self.slack = SLACK
        self.panel: list[Segment] = []
        self.groups = list(groups)
        self.replayed = 0

    def run(self) -> None:
        """Until nothing is wrong any more, or nothing helps; then once more for a port that also
        rounds, with what each known rounding may do for a floor."""
        for group in self.groups:
            self.panel += [s for one in group for s in segments_of(one)]
            self.panel.sort(key=lambda s: s.cost)
            self.pursue(MOVES)
            if self.left:
                break
        if not self.found and not self.rounding and not self.left:
            self.on_the_edge()
        if self.left and self.rounding is None:
            self.suppose_rounding()
        self.tidy()

    def pursue(self, moves: Sequence[str]) -> None:
        for _ in range(ROUNDS):
            left = self.left
            if not left or not any(getattr(self, move)(left) for move in moves):
                break

    def suppose_rounding(self) -> None:
        """The set under the rounding that is most like what it leaves, if it leaves no more."""
        plain, best = (math.inf, self.found, None), (math.inf, self.found, None)
        for rounding in self.roundings:
            if self.replayed > 2 * LIMIT:
                break
            self.found, self.rounding = (), rounding
            self.pursue(MOVES_ROUNDED)
            if not self.left and self.found:
                unlike = self.unlike(self.panel, self.found, rounding)
                best = min(best, (unlike, self.found, rounding), key=lambda one: one[0])
        _, self.found, self.rounding = best if best[0] < math.inf else plain

    @property
    def left(self) -> list[Segment]:
        """What is wrong under the mistakes found."""
        return self.unsolved(self.found)

    def on_the_edge(self) -> None:
        """A port that is wrong by little more than its budget: what halves that is a suspect."""
        wrong = [(e, e.own.get(e.culprit or "", 0.0)) for e in self.evidence if e.culprit]
        self.slack = 0.5 * max((d / e.floor[e.culprit or ""] for e, d in wrong), default=SLACK)
        self.pursue(MOVES[:1])

    # -- what is known of a segment ---------------------------------------------------------------

    def relevant(self, segment: Segment, some: Mistakes) -> tuple[Mistakes, bool]:
        """Those that can show there; and whether it must be replayed from the input on."""
        if any(c.parts_steps or c.reports and segment.start == "final_norm" for c in some):
            return some, True
        return tuple(c for c in some if self.reaches(segment, c)), False

    def reaches(self, segment: Segment, c: Candidate) -> bool:
        key = "reaches", c.id
        if key not in segment.known:
            segment.known[key] = c.reaches(segment)
        return bool(segment.known[key])

    def distances(self, segment: Segment, some: Mistakes) -> dict[str, float]:
        some, whole = self.relevant(segment, some)
        key = "distances", some
        if key not in segment.known:
            made = segment.replay(change_of(some), whole) if some else {}
            self.replayed += segment.work
            segment.known[key] = segment.distances(made)
        return segment.known[key]

    def bounds(self, segment: Segment, some: Mistakes) -> dict[str, tuple[float, float]]:
        """The least and the most by which each step may differ from the port: what the dtype's
        rounding may do, or about as much as `rounding` does."""
        floor = self.smooth(segment, some)
        if self.rounding is None:
            return {name: (0.0, floor[name]) for name in segment.steps}
        size, rough = self.size(segment, some, self.rounding), {}
        for name in segment.steps:
            is_rough = floor[name] < size[name] <= CHAOS
            rough[name] = (size[name] / ALIKE, K * size[name]) if is_rough else (0.0, floor[name])
        return rough

    def smooth(self, segment: Segment, some: Mistakes) -> dict[str, float]:
        """What the dtype's rounding may do; under the mistakes once that was asked for."""
        some, _ = self.relevant(segment, some)
        return segment.known.get(("floor", some), segment.of.floor)

    def size(self, segment: Segment, some: Mistakes, rounding: Candidate) -> dict[str, float]:
        """How much a mistake that rounds changes each step, on top of the others."""
        some, whole = self.relevant(segment, some)
        key = "size", some, rounding.id
        if key not in segment.known:
            made = segment.replay(change_of(some), whole)
            self.replayed += 2 * segment.work
            least = dict.fromkeys(segment.steps, math.inf)
            for order in with_one_more(some, rounding):  # in one of them it may undo another
                rounded = segment.replay(change_of(order), whole)
                for name, x in made.items():
                    e = segment.of.relative(name, rounded[name], x)
                    least[name] = min(least[name], rms(e) if np.isfinite(e).all() else 0.0)
            segment.known[key] = {n: x if x < math.inf else 0.0 for n, x in least.items()}
        return segment.known[key]

    def cost(self, segment: Segment, some: Mistakes) -> float:
        """Sum over steps of the log of how far each is out of its bounds, in multiples of them."""
        bounds, cost = self.bounds(segment, some), 0.0
        for name, d in self.distances(segment, some).items():
            low, high = bounds[name]
            cost += math.log(max(d / high, low / max(d, 1e-300), 1.0))
        return cost

    def solved(self, segment: Segment, some: Mistakes) -> bool:
        """Whether every step is within rounding, also as it grows under the mistakes."""
        distance, bounds = self.distances(segment, some), self.bounds(segment, some)
        over = [
            name
            for name, d in distance.items()
            if not bounds[name][0] <= d <= self.slack * bounds[name][1]
        ]
        if not over or not some:
            return not over
        own = segment.of.own
        if any(distance[name] > NEAR * own[name] for name in over):
            return False
        here, whole = self.relevant(segment, some)
        key = "floor", here
        if key in segment.known:
            return False
        change = change_of(here)
        spread = segment.spread(change, segment.replay(change, whole), whole)
        old = segment.of.floor
        segment.known[key] = {name: max(old[name], spread.get(name, 0.0)) for name in old}
        return self.solved(segment, some)

    def unsolved(self, some: Mistakes) -> list[Segment]:
        return [s for s in self.panel if not self.solved(s, some)]

    def total(self, some: Mistakes, segments: Iterable[Segment], limit: float = math.inf) -> float:
        """Cost on several segments; anything over the limit when it is over."""
        cost = 0.0
        for segment in segments:
            if not self.solved(segment, some):
                cost += self.cost(segment, some)
            if cost > limit:
                break
        return cost

    # -- the moves --------------------------------------------------------------------------------

    def others(self) -> list[Candidate]:
        """Those that may be added. Where steps are parted, sizes say nothing of a rounding."""
        rough = self.rounding is not None
        every = (c for c in self.candidates if c not in self.found)
        return [c for c in every if not (rough and c.parts_steps)]

    def single(self, left: list[Segment]) -> bool:
        """The mistakes that solve a segment by themselves, the best of them first."""
        solvers: dict[Mistakes, int] = {}
        for tried, segment in enumerate(apart(left)[:TRIED]):
            if tried >= ENOUGH and solvers:
                break
            for order in self.orders(segment):
                if self.solved(segment, order):
                    solvers[order] = solvers.get(order, 0) + 1
        return self.take_best(list(solvers))

    def orders(self, segment: Segment) -> list[Mistakes]:
        """What was found and one more that can show in the segment."""
        return [
            order
            for c in self.others()
            if self.reaches(segment, c) or c.reports
            for order in with_one_more(self.found, c)
        ]

    def take_best(self, sets: list[Mistakes]) -> bool:
        """The set with the least cost on the whole panel, if it is better than what there is."""
        best, least = None, self.total(self.found, self.panel) - NOTHING
        for some in sets:
            cost = self.total(some, self.panel, least)
            if cost < least:
                best, least = some, cost
        if best is None:
            return False
        self.found = best
        return True

    def fit(self, left: list[Segment]) -> bool:
        """A value that the zoo does not have."""
        sets: list[Mistakes] = []
        for segment in [s for s in apart(left) if s.of.real.sum() >= 3][:2]:
            for c in fits(segment, self.found, self.cost, self.passes):
                orders = list(with_one_more(self.found, c))
                sets += [some for some in orders if self.solved(segment, some)]
            if sets:
                break
        return self.take_best(sets)

    def several(self, left: list[Segment]) -> bool:
        """Two or more at once, on the segments that the fewest can reach."""
        begun: list[tuple[int, int, Segment, list[Mistakes]]] = []
        for segment in apart(left)[:TRIED]:
            base = self.distances(segment, self.found)
            orders = [s for s in self.orders(segment) if self.distances(segment, s) != base]
            begun.append((len(orders) ** 2 * segment.cost, len(begun), segment, orders))
        for _, _, segment, orders in sorted(begun)[:BEGUN]:
            new = {c: None for order in orders for c in order if c not in self.found}
            kept = self.cheapest(segment, orders)
            for _ in range(TOGETHER - 1):
                if self.replayed > LIMIT:
                    return False
                wider = {
                    order: None
                    for some in kept
                    for c in new
                    if c not in some
                    for order in with_one_more(some, c)
                }
                solving = [some for some in wider if self.solved(segment, some)]
                if solving and self.take_best(solving):
                    return True
                kept = self.cheapest(segment, list(wider))
        return False

    def cheapest(self, segment: Segment, sets: list[Mistakes]) -> list[Mistakes]:
        """The sets to go on with; of those with the same numbers one."""
        seen: dict[float, Mistakes] = {}
        for some in sets:
            seen.setdefault(self.cost(segment, some), some)
        return [seen[cost] for cost in sorted(seen)[:KEPT]]

    def round_off(self, left: list[Segment]) -> bool:
        """What is left has everywhere the size of a known rounding."""
        if self.rounding is not None:
            return False
        likeness = [(self.unlike(left, self.found, c), i) for i, c in enumerate(self.roundings)]
        least, best = min(likeness)
        if least == math.inf:
            return False
        self.rounding = self.roundings[best]
        return True

    def unlike(self, left: Sequence[Segment], some: Mistakes, rounding: Candidate) -> float:
        """Mean |log(error / the rounding's size)| over wrong steps; inf unless almost all are
        alike."""
        logs, _ = self.likeness(apart(left)[:TRIED], some, rounding)
        alike = [x <= math.log(ALIKE) for x in logs]
        return sum(logs) / len(logs) if logs and sum(alike) >= ALMOST * len(alike) else math.inf

    def alike(
        self, segments: Sequence[Segment], some: Mistakes, rounding: Candidate
    ) -> tuple[list[bool], list[tuple[str, str]]]:
        """Of each step that is wrong under the mistakes: whether the error has the rounding's
        size; and its (case, name)."""
        logs, steps = self.likeness(segments, some, rounding)
        return [x <= math.log(ALIKE) for x in logs], steps

    def likeness(
        self, segments: Sequence[Segment], some: Mistakes, rounding: Candidate
    ) -> tuple[list[float], list[tuple[str, str]]]:
        """|log(error / the rounding's size)| of each wrong step, and its (case, name)."""
        logs, steps = [], []
        for segment in segments:
            size, floor = self.size(segment, some, rounding), self.smooth(segment, some)
            for name, d in self.distances(segment, some).items():
                if not d <= self.slack * floor[name]:
                    logs.append(abs(math.log(d / size[name])) if size[name] else math.inf)
                    steps.append((segment.of.name, name))
        return logs, steps

    # -- in the end -------------------------------------------------------------------------------

    def tidy(self) -> None:
        """No mistake too many, and none that another one does better."""
        for c in self.found:
            fewer = without(self.found, c)
            now = self.total(self.found, self.panel)
            if self.total(fewer, self.panel, now + NOTHING) <= now + NOTHING:
                self.found = fewer
        for i, c in enumerate(self.found):
            for d in self.found[i + 1 :]:
                fewer = without(without(self.found, c), d)
                now = self.total(self.found, self.panel)
                for one in self.others():
                    for order in with_one_more(fewer, one):
                        if self.total(order, self.where(c, d), now + NOTHING) <= now + NOTHING:
                            if self.total(order, self.panel, now + NOTHING) <= now + NOTHING:
                                self.found = order
                                return self.tidy()
        return None

    def where(self, *some: Candidate) -> list[Segment]:
        """The segments that any of them can show in."""
        return [s for s in self.panel if any(self.reaches(s, c) or c.reports for c in some)]

    def tied(self, c: Candidate) -> list[Candidate]:
        """Others that explain as much in its place."""
        rest, out = without(self.found, c), []
        touched = [s for s in self.panel if self.shows(s, c)]
        now = self.total(self.found, touched)
        for one in self.others():
            for order in with_one_more(rest, one):
                if self.total(order, touched, now + NOTHING) > now + NOTHING:
                    continue
                if self.total(order, self.panel, now + NOTHING) <= now + NOTHING:
                    out.append(one)
                    break
        return out

    def shows(self, segment: Segment, c: Candidate) -> bool:
        """Whether a mistake that was found makes a difference there."""
        rest = without(self.found, c)
        return self.distances(segment, rest) != self.distances(segment, self.found)


def apart(segments: Sequence[Segment]) -> list[Segment]:
    """Cheap ones first, of every model and stage one before the second of any."""
    place: dict[tuple[str, int, int], int] = {}
    keyed: list[tuple[int, int, Segment]] = []
    for s in sorted(segments, key=lambda s: s.cost):
        kind = s.of.model, s.first, s.stop
        place[kind] = place.get(kind, -1) + 1
        keyed.append((place[kind], len(keyed), s))
    return [s for _, _, s in sorted(keyed)]
