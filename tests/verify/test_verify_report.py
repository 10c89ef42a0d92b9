"""The report: verdict, exit code, text and JSON from the same data."""

import json

import pytest

from refimpl.verify.findings import MISSING, Finding, Suspect
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
    assert "(and in 3 more cases: case 1, case 2, case 3)" in text
    assert text.index("first gate") < text.index("3 more cases")
    assert render(report(*alike), full=True).count("operations") == 4


def test_notes_are_folded_by_what_they_say_and_by_nothing_else():
    refused = [Finding("port", "note", "no packed input", f"case {i}") for i in range(3)]
    text = render(report(*refused, Finding("port", "note", "no heads", "case 9")))
    assert "no packed input (and in 2 more cases: case 1, case 2)" in text and "no heads" in text


def test_of_many_cases_that_are_alike_some_are_named_and_the_rest_counted():
    alike = [Finding("operations", "fail", "m", f"case {i}", "layers.0.q") for i in range(12)]
    assert "(and in 11 more cases: case 1, " in render(report(*alike))
    assert ", case 8 and 3 more)" in render(report(*alike))
    twice = [Finding("operations", "fail", "m", "case 0", "layers.0.q")] * 2
    assert "m (and 1 more like it)" in render(report(*twice))


def test_a_failure_of_the_whole_run_is_not_folded_into_that_of_a_case():
    text = render(report(Finding("port", "fail", "the command crashes", "case 0"),
                         Finding("port", "fail", "no case could be compared")))  # fmt: skip
    assert "the command crashes\n" in text and "no case could be compared" in text


def test_steps_that_cannot_be_read_for_one_reason_share_one_line():
    wrong = [
        Finding("port", "fail", f"{tap} has the shape [{i}, 2]; expected [9]", case, tap)
        for i, tap in enumerate(("embedding", "final_norm"))
        for case in ("a", "b")
    ]
    text = render(report(*wrong, Finding("port", "fail", "layers.0.q is of dtype int8", "a",
                                         "layers.0.q")))  # fmt: skip
    assert "a embedding: embedding has the shape [0, 2]; expected [9] (and at 1 more step, " in text
    assert "in 1 more case: b)" in text and "layers.0.q is of dtype int8\n" in text
    assert (
        text.count("has the shape") == 1 and render(report(*wrong), full=True).count("shape") == 4
    )


def test_notes_on_steps_that_are_not_given_share_one_line():
    notes = [Finding("port", "note", f"{i} steps are given, 3 not: a, b, c", f"case {i}", None,
                     {MISSING: 3}) for i in range(2, 5)]  # fmt: skip
    text = render(report(*notes))
    assert "2 steps are given, 3 not: a, b, c (and in 2 more cases: case 3, case 4)" in text
    assert "3 steps are given" not in text and "3 steps are given" in render(
        report(*notes), full=True
    )


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
