"""The kit's test of itself, on a subset: matrix, ranking, false alarms, last line, exit code.

The whole of it is `modernbert verify --self-test`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from refimpl.verify.judge import selftest
from refimpl.verify.zoo import ZOO

SOME = ("W6b", "F2", "H5b")
CASES = ("eight-tokens", "cls-padding")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "CASES", tuple(selftest.BY_NAME[name] for name in CASES))
    monkeypatch.setattr(selftest, "SHORT_SEEDS", 1)
    monkeypatch.setattr(selftest, "RANKED_CASES", 1)


def slightly_off(glu: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """An error of two float32 roundings."""
    return lambda u, act: glu(u, act) * (1 + 2.0**-22)


@pytest.mark.heavy
@pytest.mark.usefixtures("few")
def test_selftest_catches_names_and_ranks() -> None:
    lines: list[str] = []
    assert selftest.main(short=True, say=lines.append, workers=1, ids=SOME) == 0
    n = len(SOME)
    assert lines[-1] == f"{n} mistakes, {n} caught, {n} ranked first, 0 false alarms"
    hidden = [line for line in lines if line.startswith("hidden by bfloat16")]
    assert hidden and "F2" in hidden[0]


@pytest.mark.usefixtures("few")
def test_selftest_sees_a_mistake_that_nothing_catches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake far below its budget is reported and fails the run."""
    tiny = replace(ZOO["C7a"], apply=lambda p: p.with_ops(glu=slightly_off(p.ops.glu)))
    monkeypatch.setattr(selftest, "ZOO", {**ZOO, "C7a": tiny})
    lines: list[str] = []
    assert selftest.main(short=True, say=lines.append, workers=1, ids=["C7a"]) == 1
    assert any(line.startswith("not caught: C7a") for line in lines)
    assert any(re.match(r"case .* catches nothing", line) for line in lines)


@pytest.mark.usefixtures("few")
def test_selftest_sees_a_false_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets of float64 for a float32 port: everything is an alarm."""
    found = selftest.compare
    monkeypatch.setattr(selftest, "compare", lambda p, dump, dtype: found(p, dump, "float64"))
    assert selftest.false_alarm(("eight-tokens", 0)) is not None
    assert selftest.false_alarm(("eight-tokens", 3)) is not None


@pytest.mark.heavy
def test_selftest_names_the_faulty_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "CASES", (selftest.BY_NAME["padding-mixed"],))
    verdict = selftest.judged_runtime("X3a")
    assert verdict.caught and verdict.first
