"""Several mistakes at once: a seeded sample is named in full, and every share is what it says.

Five hundred sets: `pytest -m soak -s tests/verify/test_verify_combinations.py`, in goes with
REFIMPL_SETS=FILE, which keeps the outcome of each.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from refimpl.verify.findings import Suspect
from refimpl.verify.judge import combinations, fit
from refimpl.verify.judge.candidates import change_of, known, with_one_more, without
from refimpl.verify.judge.combinations import Outcome, drawn, main, outcome
from refimpl.verify.judge.evidence import Evidence
from refimpl.verify.judge.rank import SHARE, rank_cases, suspects
from refimpl.verify.judge.search import Search
from refimpl.verify.truth.cases import case
from refimpl.verify.truth.passes import forced, trace
from refimpl.verify.zoo import ZOO

# 9 and 39 have a rounding that another one is like, and one that alone explains nothing. Two
# roundings at once, as seed 0 has, are not told apart; the five hundred count them.
SAMPLE = (1, 2, 3, 9, 39)


@pytest.mark.heavy
def test_a_sample_of_sets_is_named_in_full_and_no_suspect_pairs_with_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[list[Suspect]] = []

    def ranked(search: Search) -> list[Suspect]:
        told.append(suspects(search))
        return told[-1]

    monkeypatch.setattr(combinations, "suspects", ranked)
    lines: list[str] = []
    assert main(SAMPLE, lines.append) == 0, lines
    assert lines[-1].startswith(f"{len(SAMPLE)} sets of 2 - 5 mistakes: {len(SAMPLE)} named")
    assert len(told) == len(SAMPLE)
    for s in [s for one in told for s in one]:
        assert s.id not in s.together_with and s.id not in s.tied_with
        assert math.isfinite(s.explained) and s.explained >= SHARE


@pytest.mark.soak
def test_five_hundred_sets() -> None:
    with ProcessPoolExecutor(os.cpu_count() or 1) as pool:
        run = kept(pool.map, Path(os.environ.get("REFIMPL_SETS", os.devnull)))
        assert main(range(500), lambda line: print(line, flush=True), run) == 0


Run = Callable[..., Iterable[Outcome]]


def kept(run: Run, file: Path) -> Run:
    """The map, with the outcomes that the file has, and those that are made written to it."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    tuples = ("ids", "told", "shares")
    done = [Outcome(**{k: tuple(x) if k in tuples else x for k, x in json.loads(line).items()})
            for line in lines]  # fmt: skip

    def outcomes(one: Callable[[int], Outcome], seeds: Iterable[int]) -> Iterator[Outcome]:
        yield from (o for o in done if o.seed in seeds)
        left = set(seeds) - {o.seed for o in done}
        for made in run(one, sorted(left)):
            with file.open("a", encoding="utf-8") as f:
                f.write(json.dumps(asdict(made)) + "\n")
            yield made

    return outcomes


def test_outcomes_are_kept_and_not_made_twice(tmp_path: Path) -> None:
    file, made = tmp_path / "sets", []

    def one(seed: int) -> Outcome:
        made.append(seed)
        return Outcome(seed, ("F1", "C1"), ("F1",), (1.0,), False, False)

    first = list(kept(map, file)(one, range(2)))
    both = list(kept(map, file)(one, range(3)))
    assert made == [0, 1, 2] and both[:2] == first and [o.seed for o in both] == [0, 1, 2]


def test_members_of_a_drawn_set_show() -> None:
    """Without any one of them the port's numbers are others."""
    some, evidence = drawn(0)
    for c in some:
        rest = change_of(without(some, c))
        moved = 0.0
        for one in evidence:
            other = trace(rest(one.p.astype(np.float32)))
            for name, x in one.port.items():
                y = other[name].astype(np.float64)[one.real]
                moved = max(moved, float(np.nanmax(np.abs(x[one.real] - y), initial=0.0)))
        assert moved > 1e-6, c.id


def test_share_is_what_leaving_the_suspect_out_costs() -> None:
    """Recomputed by whole passes, segment by segment nowhere."""
    by_id = {c.id: c for c in known([case("silu-64").model()])}
    some = tuple(next(with_one_more((by_id["F1"],), by_id["C1"])))
    evidence = [combinations.made(some, case(name)) for name in ("eight-tokens", "silu-64")]
    for suspect in rank_cases(evidence):
        rest = change_of(c for c in some if c.id != suspect.id)
        before, after = 0.0, 0.0
        for one in evidence:
            without_it = forced(rest(one.p), one.port)
            with_it = forced(change_of(some)(one.p), one.port)
            for at, name in suspect.steps:
                if at == one.name:
                    before += one.distance(name, without_it[name]) ** 2
                    after += one.distance(name, with_it[name]) ** 2
        assert suspect.explained == pytest.approx(1.0 - after / before, rel=1e-9)
        assert suspect.together is not None and suspect.together > 0.999


def test_a_share_that_a_suspect_does_not_have_fails_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = Outcome(0, ("F1", "C1"), ("F1", "C1"), (1.0, SHARE / 2), True, False)
    monkeypatch.setattr(combinations, "outcome", lambda seed: bad)
    lines: list[str] = []
    assert main([0], lines.append) == 1
    assert "below its share: C1" in lines[0]


def test_a_surplus_suspect_is_not_named_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample has it named in full."""
    some, evidence = drawn(SAMPLE[0])
    monkeypatch.setattr(combinations, "drawn", lambda seed: (some[1:], evidence))
    assert not outcome(SAMPLE[0]).named


def made(ids: tuple[str, ...], names: tuple[str, ...]) -> list[Evidence]:
    every = {c.id: c for c in known([case(name).model() for name in names])}
    some = ()
    for id in ids:
        some = next(with_one_more(some, every[id]))
    return [combinations.made(some, case(name)) for name in names]


# Tanh GELU, silu unread, one spelling read: what mlx-embeddings 0.1.0 does to an encoder.
FOUND_IN_PORTS = [
    ("F2", "C6", "C5e"),
    ("C5b", "C5d"),
    ("C6", "C5d", "N5"),
    ("E1b", "F2", "F4a", "R1a", "R3b"),
]


@pytest.mark.parametrize(
    "ids",
    [
        FOUND_IN_PORTS[0],
        *(pytest.param(ids, marks=pytest.mark.heavy) for ids in FOUND_IN_PORTS[1:]),
    ],
)
def test_sets_that_public_ports_have(ids: tuple[str, ...]) -> None:
    names = ("two-tokens", "eight-tokens", "silu-64", "window-66", "pad-id-is-a-word", "hard-rows",
             "cls-padding", "plain-new-keys")  # fmt: skip
    told = rank_cases(made(ids, names))
    wanted = {("C5b", "C5d"): {"C5e"}}.get(ids, set(ids))
    # Tanh GELU and silu unread give what tanh for silu gives: one is told as tied with the other.
    stands_for = [{s.id, *s.tied_with} & wanted for s in told]
    assert all(len(ids) == 1 for ids in stands_for) and set().union(*stands_for) == wanted
    assert all(s.explained > 0.99 for s in told)
    assert all({s.id, *s.together_with} == {s.id for s in told} for s in told)


@pytest.mark.heavy
def test_a_rounding_is_named_beside_a_cause_and_has_its_own_share() -> None:
    told = rank_cases(made(("F1", "X1c"), ("two-tokens", "eight-tokens", "pad-id-is-a-word")))
    assert [s.id for s in told] == ["F1", "X1c"]
    assert SHARE <= told[1].explained <= 1.0


@pytest.mark.heavy
@pytest.mark.parametrize("rounding", ["X1a", "X1b", "X1c", "N8", "X1d"])
def test_a_rounding_alone_is_no_cause_for_values(rounding: str) -> None:
    told = rank_cases(made((rounding,), ("two-tokens", "eight-tokens", "pad-id-is-a-word")))
    assert told and told[0].id in (rounding, *told[0].tied_with)
    assert all(ZOO[s.id].noise for s in told)


def test_a_fitted_value_leaves_a_model_of_another_depth_alone() -> None:
    p = case("usual-size-80").model()
    assert fit._schedule(p, (True, False, False, True)) is p
    assert fit._schedule(p, (True, True)).config.layer_types != p.config.layer_types
    assert fit._other_layer(("mlp.Wo", 0, 3))(p) is p
    assert fit._other_layer(("mlp.Wo", 0, 1))(p) is not p
