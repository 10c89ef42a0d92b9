"""Which dtype a port computes in, and what is said when it is not the one that is declared."""

import numpy as np
import pytest

from refimpl.verify.judge.gates import verify
from refimpl.verify.ports.port import PortResult, ReferencePort
from refimpl.verify.truth.cases import case
from refimpl.verify.truth.passes import trace
from refimpl.verify.truth.rounding import noisy
from refimpl.verify.zoo import ZOO

CASES = [case("eight-tokens"), case("padding-mixed")]


class Given(ReferencePort):
    """A port that gives what `steps` makes of a pass, under a declared dtype."""

    def __init__(self, dtype, steps):
        super().__init__(dtype)
        object.__setattr__(self, "steps", steps)

    def run(self, request):
        return PortResult(self.steps(request.to_pass()), self.dtype)


def said(dtype, steps):
    report = verify(Given(dtype, steps), CASES, runtime=False, suspects=False)
    return report, [f.message for f in report.findings if f.level == "note"]


def float32_in_float64(p):
    return {k: x.astype(np.float64) for k, x in trace(p.astype(np.float32)).items()}


def wide_sums(p):
    """float64 numbers that are right to float32 only."""
    steps = trace(noisy(p, "float32", 77))
    return {name: x for name, x in steps.items() if not name.startswith("rope.")}


@pytest.mark.parametrize(
    ("dtype", "steps", "words"),
    [
        ("float32", trace, "float64 numbers and are judged as float32; they are right to float64"),
        ("float32", wide_sums, "the steps hold float64 numbers and are judged as float32"),
        ("bfloat16", float32_in_float64, "judged as bfloat16; they are right to float32 as well"),
        ("float32", float32_in_float64, None),
        ("float64", trace, None),
    ],
)
def test_steps_in_more_bits_than_declared_are_a_note(dtype, steps, words):
    report, notes = said(dtype, steps)
    assert report.verdict == "exact-spec", report.findings
    assert len(set(notes)) == (words is not None)
    assert all(words in note for note in notes)
    assert steps is not wide_sums or "as well" not in notes[0]


def test_a_port_that_would_pass_in_a_lower_dtype_is_told_so():
    mistake = ZOO["W4a"].apply
    report, notes = said("float32", lambda p: trace(noisy(p, "float16", 77)))
    assert report.verdict == "fail"
    assert any("passes as float16: if that is what the port computes in" in n for n in notes)
    report, notes = said("float32", lambda p: trace(mistake(noisy(p, "float16", 77))))
    assert report.verdict == "fail" and not any("passes as" in n for n in notes)
    # Numbers kept in fewer bits than declared say that themselves.
    report, notes = said("float64", float32_in_float64)
    assert report.verdict == "fail" and not notes
