"""What may be wrong: the zoo's mistakes as changes that can be put together, in a natural order.

A set of mistakes is made as a port would make it: what it reads from the config first, then its
inputs, its weights, its equations, and at last what it hands from step to step. Within one of these
stages two mistakes about the same thing are tried in both orders, since one that replaces an
equation undoes another that alters it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

from ..truth.passes import Pass
from ..zoo import CLASSES, ZOO
from .evidence import Change, combined
from .segments import Segment

STAGES = ("config", "inputs", "params", "ops", "steps")
Mistakes = tuple["Candidate", ...]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mistake, known or fitted. taps, noise, reports: as in Mistake; about: what it changes
    (stage:what); stage: the last of STAGES that it belongs to."""

    id: str
    title: str
    change: Change
    taps: tuple[str, ...]
    noise: bool = False
    reports: bool = False
    fitted: bool = False
    about: frozenset[str] = frozenset()

    @cached_property
    def stage(self) -> int:
        return max((STAGES.index(x.partition(":")[0]) for x in self.about), default=0)

    @property
    def klass(self) -> str:
        return ZOO[self.id].klass

    def reaches(self, segment: Segment) -> bool:
        """Whether it can show in the stages of the segment."""
        if any(x.startswith("inputs") for x in self.about):
            return True
        return any(may_meet(tap, stage) for tap in self.taps for stage in segment.stages)

    @cached_property
    def parts_steps(self) -> bool:
        """Whether layers go on with other values than they hand out: no segment stands alone."""
        return self.reports and any(tap.startswith("layers.") for tap in self.taps)

    def alters_what(self, other: Candidate) -> bool:
        """Whether the order of the two may matter."""
        both = self.about & other.about
        if both == {"steps"}:
            return bool(set(self.taps) & set(other.taps))
        return bool(both)


def known(passes: Sequence[Pass]) -> list[Candidate]:
    """One of each class of the zoo; `about` as seen on those passes."""
    out = []
    for klass in CLASSES:
        m = ZOO[klass]
        about = frozenset(x for p in passes for x in changed(m.apply, p))
        out.append(Candidate(m.id, m.title, m.apply, m.taps, m.noise, m.reports, False, about))
    return out


def changed(change: Change, p: Pass) -> Iterator[str]:
    """What of a pass is another after a change."""
    q = change(p)
    for f in fields(p.config):
        if getattr(p.config, f.name) != getattr(q.config, f.name):
            yield "config:theta" if f.name.endswith("theta") else f"config:{f.name}"
    if any(q.inputs.get(k) is not p.inputs.get(k) for k in {**p.inputs, **q.inputs}):
        yield "inputs"
    for k in {**p.params, **q.params}:
        if q.params.get(k) is not p.params.get(k):
            yield f"params:{k}"
    for k, f in vars(q.ops).items():
        if f is not getattr(p.ops, k):
            yield f"ops:{k}"
    if q.encode is not p.encode or q.head_forward is not p.head_forward or q.edit is not p.edit:
        yield "steps"


def with_one_more(some: Mistakes, one: Candidate) -> Iterator[Mistakes]:
    """The mistakes and one more, in every order that may give other numbers."""
    low = sum(c.stage < one.stage for c in some)
    high = sum(c.stage <= one.stage for c in some)
    group = range(low, high)
    places = {i + 1 for i in group if one.alters_what(some[i])}
    for place in sorted({low, *places} if places else {high}, reverse=True):
        yield (*some[:place], one, *some[place:])


def change_of(some: Mistakes) -> Change:
    return combined([c.change for c in some])


def without(some: Mistakes, one: Candidate) -> Mistakes:
    return tuple(c for c in some if c is not one)


def fitted(id: str, title: str, change: Change, passes: Sequence[Pass]) -> Candidate:
    """A member of a family that the zoo does not have, under the id of its kin."""
    m, about = ZOO[id], frozenset(x for p in passes for x in changed(change, p))
    one = Candidate(id, title, change, m.taps, m.noise, m.reports, True, about)
    return replace(one, noise=False)


def may_meet(tap: str, stage: str) -> bool:
    """Whether a pattern of steps may hold a step of a stage (see Segment.stages)."""
    if tap.startswith("*"):
        return True
    if stage.startswith("layers."):
        layer = tap.split(".")[1] if tap.startswith("layers.") else "*"
        return tap.startswith(("layers.", "rope.")) and layer in ("*", stage.split(".")[1])
    if stage == "head":
        return not tap.startswith(("layers.", "rope.", "embedding", "final_norm"))
    return tap == stage
