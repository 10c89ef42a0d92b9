"""What each step of a segment is under a hypothesis, and how far the port is from that.

    Hypothesis(found, rounding): some mistakes, and at most one that is known by its size alone

A segment is solved when every step is what rounding may make of it under the mistakes: the dtype's
rounding, or about as much as the hypothesis' own. Where that rounding may make anything of a step,
the step says nothing, neither for it nor against it. Whatever was replayed is kept with its
segment, under those mistakes that can show there: sets that differ elsewhere share it.

Long because distances, bounds and costs are one calculation, and each is asked for alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..truth.rounding import K
from .candidates import Candidate, Mistakes, change_of, with_one_more
from .evidence import Array, Evidence, rms
from .segments import Segment

# A step is wrong when it is further off than this many times what rounding may do there.
SLACK = 2.0
# A replay so close to the port, in its error before, is held against rounding under the mistakes.
NEAR = 0.05
# The error of a port that only rounds is within this factor of the rounding's, almost everywhere.
ALIKE, ALMOST = 3.0, 0.85
# A rounding that changes more than this explains anything, and so nothing.
CHAOS = 0.1


class Hypothesis(NamedTuple):
    """found: mistakes, in the order in which they are put together; rounding: a mistake of which a
    replay gives the size only, on top of them."""

    found: Mistakes = ()
    rounding: Candidate | None = None


class Replays:
    """The arithmetic of a search. slack: see SLACK; replayed: work (Segment.work) so far."""

    def __init__(self) -> None:
        self.slack = SLACK
        self.replayed = 0
        self.last: tuple[tuple[Segment, Mistakes, bool], dict[str, Array]] | None = None

    def relevant(self, segment: Segment, some: Mistakes) -> tuple[Mistakes, bool]:
        """Those that can show there; and whether it must be replayed from the input on."""
        if any(c.parts_steps or c.reports and segment.start == "final_norm" for c in some):
            return some, True
        return tuple(c for c in some if self.reaches(segment, c)), False

    def reaches(self, segment: Segment, c: Candidate) -> bool:
        key = "reaches", c
        if key not in segment.known:
            segment.known[key] = c.reaches(segment)
        return bool(segment.known[key])

    def distances(self, segment: Segment, some: Mistakes) -> dict[str, float]:
        """Of the port to a replay, per step."""
        some, whole = self.relevant(segment, some)
        key = "distances", some
        if key not in segment.known:
            segment.known[key] = segment.distances(self.made(segment, some, whole) if some else {})
        return segment.known[key]

    def made(self, segment: Segment, some: Mistakes, whole: bool) -> dict[str, Array]:
        """A replay; the last one is kept, since its distances and its roundings are both asked."""
        key = segment, some, whole
        if self.last is None or self.last[0] != key:
            self.replayed += segment.work
            self.last = key, segment.replay(change_of(some), whole)
        return self.last[1]

    def bounds(self, segment: Segment, h: Hypothesis) -> dict[str, tuple[float, float]]:
        """The least and the most by which each step may differ from the port."""
        floor = self.smooth(segment, h.found)
        if h.rounding is None:
            return {name: (0.0, floor[name]) for name in segment.steps}
        size, out = self.size(segment, h), {}
        for name in segment.steps:
            rough = size[name] / ALIKE, K * size[name]
            anything = 0.0, math.inf
            out[name] = anything if size[name] > CHAOS else rough
            if size[name] <= floor[name]:
                out[name] = 0.0, floor[name]
        return out

    def smooth(self, segment: Segment, some: Mistakes) -> dict[str, float]:
        """What the dtype's rounding may do; under the mistakes once that was asked for."""
        some, _ = self.relevant(segment, some)
        return segment.known.get(("floor", some), segment.of.floor)

    def size(self, segment: Segment, h: Hypothesis) -> dict[str, float]:
        """How much the rounding of a hypothesis changes each step, on top of its mistakes."""
        assert h.rounding is not None
        some, whole = self.relevant(segment, h.found)
        key = "size", some, h.rounding
        if key not in segment.known:
            made = self.made(segment, some, whole)
            self.replayed += segment.work
            least = dict.fromkeys(segment.steps, math.inf)
            for order in with_one_more(some, h.rounding):  # in one of them it may undo another
                rounded = segment.replay(change_of(order), whole)
                for name, x in made.items():
                    least[name] = min(least[name], _apart(segment.of, name, rounded[name], x))
            segment.known[key] = least
        return segment.known[key]

    def cost(self, segment: Segment, h: Hypothesis) -> float:
        """Sum over steps of the log of how far each is out of its bounds, in multiples of them."""
        bounds, cost = self.bounds(segment, h), 0.0
        for name, d in self.distances(segment, h.found).items():
            low, high = bounds[name]
            cost += math.log(max(d / high, low / max(d, 1e-300), 1.0))
        return cost

    def solved(self, segment: Segment, h: Hypothesis) -> bool:
        """Whether every step is within rounding, also as it grows under the mistakes."""
        distance, bounds = self.distances(segment, h.found), self.bounds(segment, h)
        over = [
            name
            for name, d in distance.items()
            if not bounds[name][0] <= d <= self.slack * bounds[name][1]
        ]
        if not over or not h.found:
            return not over
        own = segment.of.own
        if any(distance[name] > NEAR * own[name] for name in over):
            return False
        here, whole = self.relevant(segment, h.found)
        key = "floor", here
        if key in segment.known:
            return False
        change = change_of(here)
        spread = segment.spread(change, segment.replay(change, whole), whole)
        old = segment.of.floor
        segment.known[key] = {name: max(old[name], spread.get(name, 0.0)) for name in old}
        return self.solved(segment, h)

    def total(self, h: Hypothesis, segments: Iterable[Segment], limit: float = math.inf) -> float:
        """Cost on several segments; anything over the limit when it is over."""
        cost = 0.0
        for segment in segments:
            if not self.solved(segment, h):
                cost += self.cost(segment, h)
            if cost > limit:
                break
        return cost

    # -- how much an error looks like a rounding --------------------------------------------------

    def unlike(self, segments: Sequence[Segment], h: Hypothesis) -> float:
        """Mean |log(error / the rounding's size)| over steps that are wrong under the mistakes; inf
        unless almost all are alike."""
        logs, _ = self.likeness(segments, h)
        alike = [x <= math.log(ALIKE) for x in logs]
        return sum(logs) / len(logs) if logs and sum(alike) >= ALMOST * len(alike) else math.inf

    def likeness(
        self, segments: Sequence[Segment], h: Hypothesis
    ) -> tuple[list[float], list[tuple[str, str]]]:
        """|log(error / the rounding's size)| of each step that is wrong under the mistakes and says
        something of the rounding; and its (case, name)."""
        logs, steps = [], []
        for segment in segments:
            size, floor = self.size(segment, h), self.smooth(segment, h.found)
            for name, d in self.distances(segment, h.found).items():
                if not d <= self.slack * floor[name] and size[name] <= CHAOS:
                    logs.append(abs(math.log(d / size[name])) if size[name] else math.inf)
                    steps.append((segment.of.name, name))
        return logs, steps


def _apart(one: Evidence, name: str, x: Array, y: Array) -> float:
    """How far two replays of a step are apart; infinite where one is lost that the other has."""
    e = one.relative(name, x, y)
    if np.isfinite(e).all():
        return rms(e)
    return math.inf if np.isfinite(one.relative(name, y, y)).all() else 0.0
