"""The report: verdict, exit code, text and JSON from the same data."""

import json

import pytest

from refimpl.verify.findings import Finding, Suspect
from refimpl.verify.judge.coverage import Coverage
from refimpl.verify.judge.verdict import CaseReport, Report
from refimpl.verify.report.report import render, to_json
from refimpl.verify.truth.compare import Column, Comparison, Row


def column(observed: float) -> Column:
    statistics = dict.fromkeys(("mean", "p95", "max"), observed)
    return Column(dict.fromkeys(statistics, 0.5), statistics, dict.fromkeys(statistics, 2.0))


def report(*findings: Finding, ratios=((1.0, 1.0),)) -> Report:
    rows = tuple(
        Row(f"layers.{i}.q", column(2.0 * one), column(2.0 * both))
        for i, (one, both) in enumerate(ratios)
    )
    case = CaseReport("a-case", "why", ("full_attention",), Comparison("float32", rows, None))
    suspects = (Suspect("F2", "tanh GELU", 0.9999, ("org/repo#1",), ("F9",)),)
    everything = Coverage((27, 27), (1690, 1690), ())
    return Report("a port", "float32", (case,), findings, suspects, coverage=everything)


@pytest.mark.parametrize(
    ("levels", "verdict", "code"),
    [
        ((), "exact-spec", 0),
        (("note",), "exact-spec", 0),
        (("deviation", "note"), "declared deviation", 3),
        (("deviation", "fail"), "fail", 1),
    ],
)
def test_verdict_is_that_of_the_worst_finding(levels, verdict, code):
    made = report(*(Finding("operations", level, "x") for level in levels))
    assert (made.verdict, made.exit_code) == (verdict, code)


def test_culprit_is_the_first_step_over_its_own_budget():
    made = report(ratios=((0.5, 3.0), (1.5, 3.0), (4.0, 3.0)))
    assert made.culprit == ("a-case", "layers.1.q")
    assert made.smallest_k == 2.0 * 4.0
    assert report().culprit is None


def test_text_holds_verdict_culprit_suspect_and_threads():
    made = report(Finding("operations", "fail", "wrong by itself"), ratios=((0.5, 0.5), (1.5, 2.0)))
    text = render(made)
    for part in ("a port (float32), 27 of 27 cases, 1,690 of 1,690 steps: fail",
                 "layers.1.q   (case a-case)", "F2  tanh GELU",
                 "explains 99.99 %", "org/repo#1", "the same here: F9", "k = 4"):  # fmt: skip
        assert part in text
    assert "layers.0.q" not in text and "layers.0.q" in render(made, full=True)
    assert "\033[31mfail\033[0m" in render(made, colour=True) and "\033" not in text


def test_text_counts_findings_that_are_alike():
    alike = [Finding("operations", "fail", "m", f"case {i}", "layers.0.q") for i in range(4)]
    text = render(report(*alike, Finding("plan", "note", "first gate")))
    assert "(and 3 more like it)" in text
    assert text.index("first gate") < text.index("more like it")
    assert render(report(*alike), full=True).count("operations") == 4


def test_notes_are_folded_by_what_they_say_and_by_nothing_else():
    refused = [Finding("port", "note", "no packed input", f"case {i}") for i in range(3)]
    text = render(report(*refused, Finding("port", "note", "no heads", "case 9")))
    assert "no packed input (and 2 more like it)" in text and "no heads" in text


@pytest.mark.parametrize(
    ("level", "ratio", "words"),
    [
        ("note", 0.5, "every comparison passes with k = 1 (k = 2 is allowed)"),
        ("fail", 0.5, "every step is within its budget, k = 1 of 2; what fails is above"),
        ("fail", 50.0, "off by 50 times what rounding in float32 may do (it would need k = 100;"),
    ],
)
def test_the_last_line_says_what_its_k_means(level, ratio, words):
    text = render(report(Finding("runtime", level, "m"), ratios=((ratio, ratio),)))
    assert words in text.splitlines()[-1]


def test_json_is_plain_and_holds_no_number_that_json_lacks():
    made = report(
        Finding("plan", "fail", "m", data={"ratio": float("nan"), "shape": (2, 3)}),
        ratios=((float("inf"), 0.0),),
    )
    text = json.dumps(to_json(made), allow_nan=False)
    back = json.loads(text)
    assert back["verdict"] == "fail" and back["culprit"] == {"case": "a-case", "tap": "layers.0.q"}
    assert back["findings"][0]["data"] == {"ratio": "nan", "shape": [2, 3]}
    assert back["cases"][0]["steps"][0]["forced"]["ratio"] == "inf"
