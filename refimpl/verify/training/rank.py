"""Which known mistakes explain a training step that is wrong.

Each mistake is put into the reference, which then computes every value from the port's own
activations, gradients and updates as far as it gave them. What is left of a value is its distance
from the port's in budgets; a mistake's score is the mean over all values of the decades that are
left, right ones included: what it would break counts against it. Stage by stage: loss and gradients
of the first step, its update, then the further steps, under what was found before. When one leaves
something over, the search goes on with it in place. Long because search and its numbers stand
together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..findings import Suspect
from ..truth.compare import Comparison
from ..truth.errors import STATISTICS
from .compare import AFTER, Right, Told, by_rows, error, scale_of, values
from .step import Training
from .zoo import ZOO

Array = np.ndarray
Found = dict[str, list[str]]
"""Case -> the mistakes that were found for it."""
Scores = dict[tuple[str, tuple[str, ...]], float]
"""(case, mistakes) -> the decades that they leave."""
MOST_TOGETHER = 3
"""Mistakes of one stage that are looked for at most."""
WRONG_CASES, RIGHT_CASES = 6, 3
"""Cases of each kind that candidates are tried on."""
FIRST_CASES, KEPT = 2, 8
"""Every candidate is tried on so many cases, and so many of them on the others."""
LESS = 0.1
"""A candidate has to take away at least this share of the decades that are left."""
TIED = 1e-3
NOTHING = 1e-300


@dataclass(frozen=True)
class Evidence:
    """What a port gave for one case, and what the comparison said."""

    name: str
    right: Right
    told: Told
    comparison: Comparison

    def budget(self, value: str) -> Mapping[str, float]:
        row = next(row for row in self.comparison.rows if row.tap == value)
        return row.cumulative.budget if value.startswith("after_10.") else row.forced.budget

    def wrong(self, stage: str) -> bool:
        """Whether a value of the stage is over its budget."""
        return any(
            not (row.cumulative if stage == "run" else row.forced).ratio <= 1.0
            for row in self.comparison.rows
            if stage_of(row.tap) == stage
        )


def stage_of(value: str) -> str:
    if value.startswith(f"after_{AFTER[0]}."):
        return "update"
    return "run" if value.startswith("after_") else "gradient"


def ranking(evidence: Sequence[Evidence]) -> list[Suspect]:
    """Suspects, those of the earliest wrong stage first. What no one set explains in all cases is
    looked for head by head: a mistake may be one head's own."""
    before: Found = {one.name: [] for one in evidence}
    out: list[Suspect] = []
    for stage in ("gradient", "update", "run"):
        wrong = [one for one in evidence if one.wrong(stage)]
        if not wrong or stage == "run" and out and not left(wrong, before):
            continue
        searches = [Search(stage, evidence, before)]
        searches[0].run()
        if searches[0].left_over or len(searches[0].found) > 1:
            known = searches[0].scores
            apart = [Search(stage, some, before, known) for some in by_head(evidence)]
            for search in apart:
                search.run()
            if simpler(apart, searches[0]):
                searches = apart
        out += merged([s for search in searches for s in search.suspects()])
        for search in searches:
            for one in search.evidence:
                before[one.name] += search.found
        if any(search.left_over for search in searches):
            break
    return out


def simpler(apart: Sequence[Search], together: Search) -> bool:
    """Whether mistakes of single heads explain more than a set for all, or as much by fewer."""
    left = sum(search.leftover for search in apart)
    fewer = max(len(search.found) for search in apart) < len(together.found)
    return left < (1.0 - LESS) * together.leftover or (
        fewer and left <= together.leftover + TIED * len(together.panel)
    )


def by_head(evidence: Sequence[Evidence]) -> list[list[Evidence]]:
    """Cases whose loss is computed by the same lines of a port."""
    groups: dict[tuple[str, str], list[Evidence]] = {}
    for one in evidence:
        groups.setdefault((one.right.t.head, one.right.t.problem), []).append(one)
    return list(groups.values())


def merged(suspects: Sequence[Suspect]) -> list[Suspect]:
    """Those of several groups of cases with one id are one, that of most steps first."""
    groups: dict[str, list[Suspect]] = {}
    for s in suspects:
        groups.setdefault(s.id, []).append(s)
    out = []
    for same in groups.values():
        steps = tuple(step for s in same for step in s.steps)
        share = sum(s.explained * len(s.steps) for s in same) / max(len(steps), 1)
        tied = set(same[0].tied_with).intersection(*(s.tied_with for s in same))
        kept = tuple(x for x in same[0].tied_with if x in tied)
        out.append(replace(same[0], explained=share, steps=steps, tied_with=kept))
    return sorted(out, key=lambda s: -len(s.steps))


def left(wrong: Sequence[Evidence], before: Found) -> bool:
    """Whether a run is wrong under what was found in its first step."""
    return any(decades(one, "run", before[one.name]) > 0.0 for one in wrong[:RIGHT_CASES])


def applied(t: Training, ids: Sequence[str]) -> Training:
    for id in ids:
        t = ZOO[id].apply(t)
    return t


def replayed(one: Evidence, stage: str, ids: Sequence[str]) -> dict[str, Array]:
    """The values of a stage, with mistakes in place and from what the port gave."""
    t = applied(one.right.t, ids)
    told = one.told if stage != "run" or one.told.later else None
    steps = {"gradient": (), "update": AFTER[:1], "run": AFTER[1:]}[stage]
    with np.errstate(all="ignore"):
        made = values(t, steps, told)
    return {name: x for name, x in made.items()
            if stage_of(name) == stage and name in one.told.values}  # fmt: skip


def distances(one: Evidence, made: Mapping[str, Array]) -> dict[str, float]:
    """Value -> the port's distance from what was made, in budgets; 1 and less is none."""
    out = {}
    for name, x in made.items():
        port, t = one.told.values[name], one.right.t
        bad = ~np.isfinite(port)
        if bad.any() or not np.isfinite(x).all():
            same = bool((bad == ~np.isfinite(x)).all())
            port, x = np.where(bad, 0.0, port), np.where(np.isfinite(x), x, 0.0)
            if not same:
                out[name] = 1e9
                continue
        budget = one.budget(name)
        truth = scale_of(by_rows(t, name, one.right.truth[name]))
        grown = max(1.0, truth / scale_of(by_rows(t, name, x)))
        found = error(t, name, port, x)
        # error() is relative to what was made; a budget is to the truth, and grows with the value.
        out[name] = max(
            found[s] / grown / budget[s] if budget[s] else (math.inf if found[s] else 0.0)
            for s in STATISTICS
        )
    return out


def decades(one: Evidence, stage: str, ids: Sequence[str]) -> float:
    """The mean over values of log10 of what is left over budget."""
    left = distances(one, replayed(one, stage, ids))
    if not left:
        return 0.0
    return sum(math.log10(min(max(x, 1.0), 1e9)) for x in left.values()) / len(left)


class Search:
    """One stage of one port. before: mistakes of earlier stages, in place throughout; scores: what
    another search of the same stage has computed."""

    def __init__(
        self, stage: str, evidence: Sequence[Evidence], before: Found, scores: Scores | None = None
    ) -> None:
        self.stage, self.evidence = stage, evidence
        self.before = {one.name: list(before[one.name]) for one in evidence}
        size = {one.name: one.right.t.windows[0][0].labels.size * len(one.right.t.windows[0])
                for one in evidence}  # fmt: skip
        by_size = sorted(evidence, key=lambda one: size[one.name])
        wrong = [one for one in by_size if one.wrong(stage)]
        fine = [one for one in by_size if not one.wrong(stage)]
        limit = WRONG_CASES if stage != "run" else FIRST_CASES + 1
        self.wrong, self.fine = wrong[:limit], fine[:RIGHT_CASES]
        self.candidates = [id for id, m in ZOO.items() if self.of_stage(m.stage)]
        self.found: list[str] = []
        self.scores: Scores = {} if scores is None else scores
        self.tied: dict[str, tuple[str, ...]] = {}

    def of_stage(self, stage: str) -> bool:
        return (stage == "gradient") == (self.stage == "gradient")

    def score(self, one: Evidence, ids: Sequence[str]) -> float:
        key = one.name, tuple(ids)
        if key not in self.scores:
            self.scores[key] = decades(one, self.stage, [*self.before[one.name], *ids])
        return self.scores[key]

    def total(self, panel: Sequence[Evidence], ids: Sequence[str]) -> float:
        return sum(self.score(one, ids) for one in panel)

    @property
    def panel(self) -> list[Evidence]:
        return [*self.wrong, *self.fine]

    @property
    def leftover(self) -> float:
        """Decades that stay, summed over cases."""
        return self.total(self.panel, self.found)

    @property
    def left_over(self) -> bool:
        """Whether they are over a twentieth a case: rounding that replays cannot meet is less."""
        return self.leftover > 0.05 * len(self.panel)

    def run(self) -> None:
        while self.wrong and len(self.found) < MOST_TOGETHER:
            best = self.best()
            if best is None:
                return
            self.found.append(best)
            if not self.left_over:
                return

    def best(self) -> str | None:
        """The candidate that leaves least, of those that take enough away."""
        first = self.wrong[:FIRST_CASES]
        others = [c for c in self.candidates if c not in self.found]
        order = sorted(others, key=lambda c: self.total(first, [*self.found, c]))
        kept = order[:KEPT]
        if not kept:
            return None
        now = self.total(self.panel, self.found)
        totals = {c: self.total(self.panel, [*self.found, c]) for c in kept}
        best = min(kept, key=lambda c: totals[c])
        if totals[best] > (1.0 - LESS) * now:
            return None
        self.tied[best] = tuple(c for c in kept if c != best and totals[c] <= totals[best] + TIED)
        return best

    def suspects(self) -> Iterator[Suspect]:
        """Each with the share of the squared error that goes with it, the others in place."""
        everything = self.found
        without = self.squares([])
        together = 1.0 - self.of(self.squares(everything)) / (self.of(without) or 1.0)
        for id in everything:
            others = [c for c in everything if c != id]
            before, after = self.squares(others), self.squares(everything)
            touched = [k for k in before if before[k] != after[k]]
            total = sum(before[k] for k in touched)
            share = 1.0 - sum(after[k] for k in touched) / total if total else 0.0
            m = ZOO[id]
            yield Suspect(
                id, m.title, share, m.citations, self.tied.get(id, ()), tuple(others),
                together if others else None, steps=tuple(touched),
            )  # fmt: skip

    def squares(self, ids: Sequence[str]) -> dict[tuple[str, str], float]:
        """(case, value) -> the squared relative distance that is left."""
        out = {}
        for one in self.wrong:
            made = replayed(one, self.stage, [*self.before[one.name], *ids])
            within = distances(one, made)
            for name, x in made.items():
                if within[name] <= 1.0:
                    out[one.name, name] = 0.0
                    continue
                port, t = one.told.values[name], one.right.t
                a, b = by_rows(t, name, port), by_rows(t, name, x)
                c = by_rows(t, name, one.right.truth[name])
                with np.errstate(all="ignore"):
                    size = max(float(np.linalg.norm(a)), float(np.linalg.norm(c)), NOTHING)
                    d = float(np.linalg.norm(a - b)) / size
                same = (np.isfinite(a) == np.isfinite(b)).all()
                out[one.name, name] = (
                    min(float(d * d), 1.0) if np.isfinite(d) else 0.0 if same else 1.0
                )
        return out

    @staticmethod
    def of(squares: Mapping[tuple[str, str], float]) -> float:
        return sum(squares.values())
