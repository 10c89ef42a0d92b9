"""Which mistake it is: the zoo replayed at the culprit, ranked by what each explains.

    explained = 1 - |port - broken|^2 / |port - right|^2     at the first wrong step

The order is that of evidence.py's cost, which also looks at every other step that the port gave: a
suspect that explains the culprit and breaks a step that the port has right comes later. Cheap
evidence first: all suspects on a few short cases, the best of them on more. If no single suspect
explains the port down to rounding, parameters are fitted (fit.py: "window is 5 per side") and
pairs are tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..findings import Suspect
from ..truth.passes import Pass, Taps
from ..zoo import CLASSES, ZOO
from .evidence import Change, Evidence, Score, combined, score
from .fit import fitted

# How much evidence the first two rounds take, and the last one: cases, tokens.
FIRST_CASES, FIRST_TOKENS = 3, 140
MORE_TOKENS = 400
# How many suspects see the second and the third round, begin a pair, and are told.
SECOND_ROUND, THIRD_ROUND, FIRSTS, TOLD = 24, 8, 6, 8
# A suspect that leaves less than this share of the cost has explained the port.
LEFT_OVER = 0.1


@dataclass(frozen=True)
class _Candidate:
    id: str
    title: str
    change: Change
    noise: bool = False
    fitted: bool = False
    score: Score = Score(0.0, 0.0)


def rank(p: Pass, port: Taps, culprit: str | None, dtype: str) -> list[Suspect]:
    """Suspects of one case, best first; empty when nothing is wrong. See rank_cases."""
    return rank_cases([Evidence(p, port, culprit, dtype)])


def rank_cases(evidence: Sequence[Evidence]) -> list[Suspect]:
    """Suspects of several cases of one port, best first: at most TOLD.

    Cases without a culprit count as well: a suspect that would show there is less likely.
    """
    wrong = [one for one in evidence if one.culprit is not None]
    if not wrong:
        return []
    first = first_round(wrong)
    more = second_round(evidence, first)
    everybody = [
        _Candidate(m.id, m.title, m.apply, m.noise) for m in (ZOO[klass] for klass in CLASSES)
    ]
    best = ordered(first[:1], everybody)[:SECOND_ROUND]
    best = ordered(first, best)[:THIRD_ROUND]
    best = ordered(more, best)
    nobody = score(more, None)
    pair: tuple[_Candidate, ...] = ()
    if not explains(best[0], nobody):
        best = ordered(more, best + parameters(first))
    if not explains(best[0], nobody):
        best, pair = with_pair(first, more, best, everybody, nobody)
    best = [one for one in best if one.score.cost < nobody.cost or one in pair][:TOLD]
    return [_suspect(one, nobody, pair) for one in best]


def first_round(wrong: Sequence[Evidence]) -> list[Evidence]:
    """A few short wrong cases, of different models where there are such, none too short to tell."""
    told = [one for one in wrong if one.real.sum() >= FIRST_CASES] or list(wrong)
    told = sorted(told, key=lambda one: one.tokens)
    chosen: list[Evidence] = []
    for fresh in (True, False):
        for one in told:
            old = any(one.p.config == other.p.config for other in chosen)
            full = len(chosen) >= FIRST_CASES
            large = chosen and sum(c.tokens for c in chosen) + one.tokens > FIRST_TOKENS
            if (
                not any(one is other for other in chosen)
                and old != fresh
                and not full
                and not large
            ):
                chosen.append(one)
    return chosen


def second_round(evidence: Sequence[Evidence], first: list[Evidence]) -> list[Evidence]:
    """As many of the other cases, short ones first, as MORE_TOKENS allow."""
    chosen, tokens = list(first), sum(one.tokens for one in first)
    for one in sorted(evidence, key=lambda one: one.tokens):
        if not any(one is other for other in chosen) and tokens + one.tokens <= MORE_TOKENS:
            chosen.append(one)
            tokens += one.tokens
    return chosen


def ordered(evidence: Sequence[Evidence], some: Sequence[_Candidate]) -> list[_Candidate]:
    """The candidates with their scores, the cheapest first; at equal cost the zoo's own first."""
    scored = [replace(one, score=score(evidence, one.change, one.noise)) for one in some]
    return sorted(scored, key=lambda one: (one.score.cost, one.fitted))


def explains(one: _Candidate, nobody: Score) -> bool:
    """Whether nothing is left to look for."""
    return one.score.cost <= LEFT_OVER * nobody.cost


# -- fits and pairs -------------------------------------------------------------------------------


def parameters(first: Sequence[Evidence], given: tuple[_Candidate, ...] = ()) -> list[_Candidate]:
    """The families' best members on the longest of the short cases, up to one that explains it."""
    one = max(first, key=lambda one: one.tokens)
    nobody = score([one], None)
    out = []
    for fit in fitted(one, [c.change for c in given]):
        out.append(_Candidate(fit.id, fit.title, fit.change, fitted=True))
        if fit.cost <= LEFT_OVER * nobody.cost:
            break
    return out


def with_pair(
    first: Sequence[Evidence],
    more: Sequence[Evidence],
    best: list[_Candidate],
    everybody: list[_Candidate],
    nobody: Score,
) -> tuple[list[_Candidate], tuple[_Candidate, ...]]:
    """Two mistakes at once: each of the best with each other one, and with fitted ones.

    The pair comes first when it explains clearly more than its better half does.
    """
    short = [telling(more, best[0])]
    # Step by step, each mistake is seen by itself, and the best one is one of the two.
    firsts = FIRSTS if min(len(one.port) for one in first) == 1 else 2
    pairs = []
    for a in best[:firsts]:
        seconds = [b for b in (*everybody, *best) if b.id != a.id]
        pairs += [(both_cost(short, a, b), a, b) for b in seconds]
    pairs.sort(key=lambda pair: pair[0])
    again = [(both_cost(more, a, b), a, b) for _, a, b in pairs[:THIRD_ROUND]]
    again.sort(key=lambda pair: pair[0])
    cost, a, b = again[0]
    if cost > LEFT_OVER * nobody.cost:
        a = best[0]
        for c in parameters([telling(more, a)], (a,)):
            other = both_cost(more, a, c)
            if other < cost:
                cost, b = other, c
    if cost > best[0].score.cost - LEFT_OVER * nobody.cost:
        return best, ()
    pair = tuple(ordered(more, [a, b]))
    rest = [one for one in best if one.id not in (a.id, b.id)]
    return [*pair, *rest], pair


def telling(evidence: Sequence[Evidence], known: _Candidate) -> Evidence:
    """The shortest case among those that say much about what `known` leaves unexplained."""
    left = [score([one], known.change, known.noise).cost for one in evidence]
    much = [one for one, cost in zip(evidence, left, strict=True) if cost >= max(left) / 2.0]
    return min(much, key=lambda one: one.tokens)


def both_cost(evidence: Sequence[Evidence], a: _Candidate, b: _Candidate) -> float:
    """Of the two together. A mistake that replaces a whole equation would undo one that alters it,
    so both orders are looked at where both may be about the same step."""
    taps = ZOO[a.id].taps, ZOO[b.id].taps
    orders = ((a, b), (b, a)) if set(taps[0]) & set(taps[1]) else ((a, b),)
    return min(
        score(evidence, combined([x.change, y.change]), a.noise or b.noise).cost for x, y in orders
    )


def _suspect(one: _Candidate, nobody: Score, pair: tuple[_Candidate, ...]) -> Suspect:
    other = [c.id for c in pair if c is not one] if one in pair else []
    klass = CLASSES[ZOO[one.id].klass]
    return Suspect(
        one.id,
        one.title,
        1.0 - (one.score.distance / nobody.distance) ** 2 if nobody.distance else 0.0,
        ZOO[one.id].citations,
        () if one.fitted else tuple(i for i in klass if i != one.id),
        other[0] if other else None,
        one.score.distance,
    )
