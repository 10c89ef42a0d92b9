"""Known mistakes of training steps: each is caught tenfold and named, alone and together.

A subset, on few cases; all of them: `modernbert verify --training --self-test`.
"""

from dataclasses import replace

import numpy as np
import pytest

from refimpl.verify.training import selftest
from refimpl.verify.training.cases import case
from refimpl.verify.training.compare import Told, compare, right, values
from refimpl.verify.training.judge import verify
from refimpl.verify.training.port import ReferencePort
from refimpl.verify.training.rank import Evidence, ranking
from refimpl.verify.training.zoo import ZOO

CASES = ("resumed", "token-types", "partial-window")
SOME = ("L1", "L3", "B2", "B12", "B37", "O3", "O13", "R1", "R5")


def test_there_are_enough_and_each_says_what_the_port_does():
    assert len(ZOO) >= 30
    for id, m in ZOO.items():
        assert m.id == id and m.title and m.text and m.stage in ("gradient", "update", "run")


@pytest.mark.heavy
def test_selftest_catches_and_ranks(capsys):
    lines = []
    assert selftest.main(True, lines.append, 1, SOME, CASES) == 0
    n = len(SOME)
    assert lines[-1] == f"{n} mistakes, {n} caught, {n} ranked first, 0 false alarms"


@pytest.mark.heavy
def test_selftest_fails_on_a_false_alarm(monkeypatch):
    plain = selftest.HONEST["plain"]

    def off(t, steps):
        return {name: x * (1 + 2.0**-16) for name, x in plain.values(t, steps).items()}

    wrong = replace(plain, values=off)
    monkeypatch.setattr(selftest, "HONEST", {"plain": wrong})
    lines = []
    assert selftest.main(True, lines.append, 1, (), ("token-types",)) == 1
    assert lines[-1] == "0 mistakes, 0 caught, 0 ranked first, 1 false alarms"


def evidence(name, change, steps=(1,)):
    t = case(name).training()
    made = values(change(t.astype(np.float32)), steps)
    told = Told({n: x.astype(np.float64) for n, x in made.items()
                 if n.startswith(("loss", "grad.", "after_"))})  # fmt: skip
    of = right(t, "float32", steps)
    return Evidence(name, of, told, compare(of, told))


@pytest.mark.heavy
def test_two_mistakes_of_two_stages_are_both_named():
    def both(t):
        return ZOO["O5"].apply(ZOO["B9"].apply(t))

    found = ranking([evidence(name, both) for name in ("resumed", "token-types")])
    assert [s.id for s in found] == ["B9", "O5"]
    assert all(s.explained > 0.99 for s in found)


@pytest.mark.heavy
def test_a_mistake_of_one_head_is_told_beside_that_of_another():
    given = [evidence("mask-tied", ZOO["L2"].apply), evidence("several-labels", ZOO["L1"].apply)]
    found = {s.id: {name for name, _ in s.steps} for s in ranking(given)}
    assert found["L2"] == {"mask-tied"}
    assert any(cases == {"several-labels"} for id, cases in found.items() if id != "L2")


@pytest.mark.heavy
def test_a_factor_is_told_as_a_divisor():
    port = ReferencePort(mistake=ZOO["L4"].apply)
    report = verify(port, [case("token-types")])
    (note,) = [f for f in report.findings if "factor" in f.data]
    t = case("token-types").training()
    labels = [m.labels for m in t.windows[0]]
    counted, size = sum(int((y != -100).sum()) for y in labels), sum(y.size for y in labels)
    assert note.message.endswith(f"divided by {size}, where {counted} is counted in the step")
    assert report.verdict == "fail" and report.suspects[0].id == "L4" and report.exit_code == 1


@pytest.mark.parametrize("id", ["B20"])
def test_nan_is_a_finding_and_is_explained(id):
    report = verify(ReferencePort(mistake=ZOO[id].apply), [case("mask-tied")])
    assert report.cases[0].comparison.first_nonfinite.startswith("grad.layers.1.attn")
    assert report.suspects[0].id == id


@pytest.mark.heavy
def test_a_declared_deviation_buys_a_training_step_nothing():
    report = verify(ReferencePort(), [case("token-types")], "float32+tf32")
    assert report.dtype == "float32"
    (note,) = [f for f in report.findings if "float32+tf32" in f.message]
    assert note.level == "note" and "judged as float32" in note.message
