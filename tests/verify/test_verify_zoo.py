"""The zoo: every known mistake is there, changes what it says, and is no other one's double.

Small cases only; the matrix over all cases is test_verify_selftest.py's.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from refimpl.verify.judge.evidence import Evidence
from refimpl.verify.judge.rank import rank_cases
from refimpl.verify.ports.port import ReferencePort, Request
from refimpl.verify.truth.cases import CASES, case
from refimpl.verify.truth.compare import compare
from refimpl.verify.truth.passes import Pass, forced, trace
from refimpl.verify.zoo import (
    CLASSES,
    FAULTY,
    NOT_EXPRESSED,
    ZOO,
    attention,
    heads,
    masks,
    mlp,
    plan,
    rotary,
    runtime,
)

IDS = Path(__file__).with_name("port_bug_ids.txt").read_text().split()
# Few enough tokens for all mistakes on all of them.
SMALL = [c.name for c in CASES if c.real.size <= 130]


@cache
def right(name: str) -> tuple[Pass, dict[str, np.ndarray]]:
    p = case(name).model()
    return p, trace(p)


@cache
def broken(mistake: str, name: str) -> dict[str, np.ndarray]:
    return trace(ZOO[mistake].apply(right(name)[0]))


def test_zoo_ids_cover_the_list() -> None:
    base = {re.match(r"[A-Z]\d+", i)[0] for i in (*ZOO, *FAULTY)}
    assert base | set(NOT_EXPRESSED) == set(IDS)
    assert not base & set(NOT_EXPRESSED)
    assert len(ZOO) + len(FAULTY) >= 50


def test_zoo_ids_are_unique_and_described() -> None:
    sections = (attention, heads, masks, mlp, plan, rotary, runtime)
    assert len(ZOO) == sum(len(section.MISTAKES) for section in sections)
    assert not set(ZOO) & set(FAULTY)
    for m in (*ZOO.values(), *FAULTY.values()):
        assert m.title and m.text.endswith(".")
        assert all(re.fullmatch(r"[\w./-]+#\d+", c) for c in m.citations), m.id


@pytest.mark.parametrize("mistake", sorted(ZOO))
def test_mistake_shows_first_where_it_says(mistake: str) -> None:
    seen = False
    for name in SMALL:
        want, got = right(name)[1], broken(mistake, name)
        first = [k for k in want if k in got and not np.array_equal(got[k], want[k])]
        if first:
            seen = True
            assert ZOO[mistake].shows_at(first[0]), f"{name}: shows at {first[0]}"
    assert seen, "changes nothing"


@pytest.mark.parametrize("mistake", sorted(ZOO))
def test_mistake_keeps_dtype_shapes_and_pass(mistake: str) -> None:
    for name in ("padding-mixed", "packed", "cls-padding"):
        p = case(name).model().astype(np.float32)
        before = trace(p)
        got = trace(ZOO[mistake].apply(p))
        assert {k: (x.dtype, x.shape) for k, x in got.items()} == {
            k: (np.dtype(np.float32), before[k].shape) for k in got
        }
        after = trace(p)
        assert all(np.array_equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("mistake", sorted(ZOO))
def test_mistake_replayed_on_its_own_steps_explains_them(mistake: str) -> None:
    """Teacher-forced by its own dump, a mistake gives that dump again: it is a function of what the
    steps before hand on, and of nothing else."""
    p, _ = right("cls-padding")
    m = ZOO[mistake].apply(p)
    dump = trace(m)
    again = forced(m, dump)
    for name, x in dump.items():
        np.testing.assert_array_equal(again[name], x, err_msg=name)


def signature(mistake: str) -> np.ndarray:
    """Sum and norm of every step in every small case."""
    parts = []
    for name in SMALL:
        steps = broken(mistake, name)
        for tap in right(name)[1]:
            x = steps.get(tap, np.zeros(1))
            parts += [np.nan_to_num(x).sum(), np.linalg.norm(np.nan_to_num(x))]
            parts.append(float(np.isnan(x).sum()))
    return np.array(parts)


@pytest.mark.heavy
def test_classes_are_equal_and_no_larger_than_needed() -> None:
    signatures = {m: signature(m) for m in ZOO}
    for members in CLASSES.values():
        for other in members[1:]:
            np.testing.assert_array_equal(signatures[members[0]], signatures[other])
    # Two evaluations of one thing differ by float64 rounding, far below that of a float32.
    first = [members[0] for members in CLASSES.values()]
    for i, a in enumerate(first):
        for b in first[:i]:
            x, y = signatures[a], signatures[b]
            same = np.abs(x - y) <= 2.0**-24 * np.maximum(np.abs(x), np.abs(y))
            assert not same.all(), f"{a} and {b} give the same numbers: one class"


@pytest.mark.parametrize("mistake", sorted(FAULTY))
def test_faulty_port_is_right_in_its_first_call(mistake: str) -> None:
    c = case("padding-mixed")
    request = Request.of(c.name, c.config, c.model())
    want = ReferencePort().run(request).taps
    got = FAULTY[mistake].wrap(ReferencePort()).run(request).taps
    for name, x in want.items():
        np.testing.assert_array_equal(got[name], x)


# A mistake, the one that it is most easily taken for, and the cases that tell them apart.
NEIGHBOURS = [
    ("F2b", "C6", ("eight-tokens", "one-token")),
    ("F2b", "F2", ("eight-tokens", "one-token")),
    ("C5b", "C4c", ("plain-new-keys", "plain-window")),
    ("C5e", "C5d", ("plain-new-keys",)),
    ("C5f", "C4c", ("plain-new-keys", "plain-window")),
    ("E1a", "C7b", ("one-token", "eight-tokens")),
    ("E1b", "E1a", ("one-token",)),
    ("N7", "N3", ("one-token",)),
    ("X1d", "X1c", ("eight-tokens",)),
    ("X1e", "X1b", ("eight-tokens",)),
    ("X1f", "X1d", ("eight-tokens",)),
    ("X1d", "X1f", ("eight-tokens",)),
    ("N6b", "N6", ("two-tokens",)),
    ("H9", "N4a", ("one-token",)),
]


@pytest.mark.parametrize(("mistake", "other", "names"), NEIGHBOURS)
def test_a_case_tells_it_from_its_neighbour(
    mistake: str, other: str, names: tuple[str, ...]
) -> None:
    evidence = []
    for name in names:
        p = case(name).model()
        dump = trace(ZOO[mistake].apply(p.astype(np.float32)))
        dump = {k: x.astype(np.float64) for k, x in dump.items()}
        evidence.append(Evidence(p, dump, compare(p, dump, "float32").culprit, "float32", name))
    told = rank_cases(evidence)
    assert [s.id for s in told] == [mistake]
    assert other not in told[0].tied_with
