"""The report of a verification: its JSON form, and its text for a terminal.

One verdict with what it covers, the first culprit, the suspects, then what was measured: a table
per case of every step in two columns. `to_json` is what html.py renders and what other tools read;
numbers that are not finite are written as text ("inf"), since JSON has none.

Long because both forms are of one report, side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..findings import GATES, MISSING, Finding, Suspect, counted
from ..judge.coverage import Coverage
from ..judge.verdict import CaseReport, Report
from ..truth.compare import Column
from ..truth.rounding import K

# -- JSON -----------------------------------------------------------------------------------------


def to_json(report: Report) -> dict[str, Any]:
    """Plain dicts, lists, numbers and text."""
    return _plain(
        {
            "port": report.port,
            "dtype": report.dtype,
            "verdict": report.verdict,
            "exit_code": report.exit_code,
            "coverage": _coverage(report.coverage),
            "culprit": report.culprit and dict(zip(("case", "tap"), report.culprit, strict=True)),
            "smallest_k": report.smallest_k,
            "suspects": [asdict(s) for s in report.suspects],
            "findings": [{**asdict(f), "data": dict(f.data)} for f in report.findings],
            "cases": [_case(c) for c in report.cases],
            "provenance": dict(report.provenance),
        }
    )


def _coverage(c: Coverage) -> dict[str, Any]:
    return {
        "complete": c.complete,
        "cases": dict(zip(("compared", "of"), c.cases, strict=True)),
        "steps": dict(zip(("compared", "of"), c.steps, strict=True)),
        "tokens": dict(zip(("compared", "of"), c.tokens, strict=True)),
        "not_shown": list(c.lacking),
        "accepted": sorted(c.accepted & set(c.lacking)),
        "asked_in_other_company": not c.unasked,
    }


def _case(case: CaseReport) -> dict[str, Any]:
    comparison = case.comparison
    rows = comparison.rows if comparison else ()
    return {
        "name": case.name,
        "why": case.why,
        "layers": list(case.layers),
        "culprit": comparison and comparison.culprit,
        "first_nonfinite": comparison and comparison.first_nonfinite,
        "ratio": comparison and comparison.ratio,
        "steps": [
            {"tap": row.tap, "forced": _column(row.forced), "cumulative": _column(row.cumulative)}
            for row in rows
        ],
        "slices": [asdict(s) for s in case.slices],
    }


def _column(c: Column) -> dict[str, Any]:
    return {
        "floor": dict(c.floor),
        "observed": dict(c.observed),
        "budget": dict(c.budget),
        "ratio": c.ratio,
    }


def _plain(x: Any) -> Any:
    if isinstance(x, Mapping):
        return {str(k): _plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(v) for v in x]
    if isinstance(x, float) and not math.isfinite(x):
        return str(x)
    return x if x is None or isinstance(x, (bool, int, float, str)) else str(x)


# -- terminal -------------------------------------------------------------------------------------

COLOURS = {"exact-spec": "32", "declared deviation": "33", "incomplete": "33", "fail": "31"}
MAX_SUSPECTS = 5
# How many cases a line names that is said of several.
MAX_CASES = 8


def render(report: Report, *, colour: bool = False, full: bool = False) -> str:
    """The report as text. full: every finding, and every step of every case; else one line for
    findings that say the same, and of the culprit's case the steps that are wrong by themselves and
    the first and last that are off in the cumulative column."""
    lines = [first_line(report, colour)]
    if report.coverage.lacking:
        lines.append(f"not shown: {', '.join(report.coverage.lacking)}")
    if report.coverage.unasked:
        lines.append("not asked: the same input in other company (padding, batch, order, threads)")
    if report.culprit:
        case, tap = report.culprit
        lines.append(f"first wrong step: {tap}   (case {case})")
    if report.suspects:
        together = report.suspects[0].together
        all_of_it = f": together they explain {_percent(together)}" if together is not None else ""
        lines += ["", f"suspects{all_of_it}", *_suspects(report.suspects)]
    lines += ["", *_findings(report.findings, full)]
    shown = [c for c in report.cases if full or (report.culprit or ("",))[0] == c.name]
    for case_report in shown:
        lines += _steps(case_report, full)
    return "\n".join([*lines, *_margin(report)])


def _margin(report: Report) -> list[str]:
    """How much of what rounding may do was used, and what a larger number means."""
    k = report.smallest_k
    if k is None:
        return []
    if k > K:
        said = (
            f"the worst step is off by {k / K:.3g} times what rounding in {report.dtype} may do "
            f"(it would need k = {k:.3g}; k = {K:g} is allowed)"
        )
    elif report.verdict == "fail":
        said = f"every step is within its budget, k = {k:.3g} of {K:g}; what fails is above"
    else:
        said = f"every comparison passes with k = {k:.3g} (k = {K:g} is allowed)"
    return ["", said]


def first_line(report: Report, colour: bool = False) -> str:
    """Port, dtype, what was covered, and the verdict last."""
    c = report.coverage
    short = report.verdict != "fail" and not c.enough
    verdict = _paint(report.verdict, "incomplete" if short else report.verdict, colour)
    state = "" if c.complete else "partial, " if c.enough else "incomplete, "
    amount = f"{state}{c.cases[0]} of {c.cases[1]} cases, {c.steps[0]:,} of {c.steps[1]:,} steps"
    if c.tokens[0] < c.tokens[1]:
        amount += f", {c.tokens[0]:,} of {c.tokens[1]:,} tokens"
    return f"{report.port} ({report.dtype}), {amount}: {verdict}"


def _suspects(suspects: Sequence[Suspect]) -> list[str]:
    lines = []
    for place, s in enumerate(suspects[:MAX_SUSPECTS], start=1):
        tied = f" (the same here: {', '.join(s.tied_with)})" if s.tied_with else ""
        share = f"explains {_percent(s.explained)}{where(s.steps)}"
        lines.append(f"{place}. {s.id}  {s.title}: {share}{tied}")
        if s.citations:
            lines.append(f"      others made it: {', '.join(s.citations)}")
    return lines


def where(steps: Sequence[Sequence[str]]) -> str:
    """Of what a suspect explains its share: " of 12 steps in 5 cases", of one case by its name."""
    cases = list(dict.fromkeys(case for case, _ in steps))
    if not cases:
        return ""
    name = f"case {cases[0]}" if cases[0] else "the case"
    what = steps[0][1] if len(steps) == 1 else f"{len(steps)} steps"
    return f" of {what} in {name}" if len(cases) == 1 else f" of {what} in {len(cases)} cases"


def _findings(findings: Iterable[Finding], full: bool) -> list[str]:
    """One line each, in the order of the gates. Unless full, failures at the same step share the
    line of the first, those of tensors that cannot be read that of the same problem, and notes
    that of the same message (two kinds of refusal are two lines) or on steps that are not given."""
    order = {gate: i for i, gate in enumerate(GATES)}
    kinds: dict[tuple[Any, ...], list[Finding]] = {}
    for place, f in enumerate(findings):
        alike: Any = f.tap or f.case is None
        if f.level == "note":
            alike = MISSING if MISSING in f.data else f.message
        elif f.gate == "port" and f.tap:
            alike = f.message.replace(f.tap, "").partition("[")[0]
        kinds.setdefault((f.gate, f.level, alike, place if full else None), []).append(f)
    lines = []
    for same in sorted(kinds.values(), key=lambda same: order.get(same[0].gate, -1)):
        f = same[0]
        where = " ".join(x for x in (f.case, f.tap) if x)
        said = f"{where + ': ' if where else ''}{f.message}{_likewise(same)}"
        lines.append(f"{f.level:9s} {f.gate:10s} {said}")
    return lines


def _likewise(same: Sequence[Finding]) -> str:
    """After the first of several findings that share a line: what the others are about, the cases
    by name."""
    cases = list(dict.fromkeys(f.case for f in same if f.case and f.case != same[0].case))
    steps = len({f.tap for f in same}) - 1
    about = [f"at {counted(steps, 'more step')}"] if steps else []
    if cases:
        rest = f" and {len(cases) - MAX_CASES} more" if len(cases) > MAX_CASES else ""
        named = f"{', '.join(cases[:MAX_CASES])}{rest}"
        about.append(f"in {counted(len(cases), 'more case')}: {named}")
    if len(same) > 1 and not about:
        about = [f"{len(same) - 1} more like it"]
    return f" (and {', '.join(about)})" if about else ""


def _steps(case: CaseReport, full: bool) -> list[str]:
    if case.comparison is None:
        return []
    every = case.comparison.rows
    over = [row for row in every if not row.cumulative.ratio <= 1.0]
    wanted = {
        r.tap for r in [*over[:1], *over[-1:], *(r for r in every if not r.forced.ratio <= 1)]
    }
    rows = [row for row in every if full or row.tap in wanted]
    if not rows:
        return []
    head = f"{'step':24s} {'observed':>9s} {'floor':>9s} {'budget':>9s} {'ratio':>9s}"
    head += f"  | {'observed':>9s} {'budget':>9s} {'ratio':>9s}"
    lines = [
        "",
        f"case {case.name}",
        f"{'':24s} {'teacher-forced':^39s}  | {'cumulative':^29s}",
        head,
    ]
    for row in rows:
        one, all_ = row.forced, row.cumulative
        lines.append(
            f"{row.tap:24s} {one.observed['max']:9.2e} {one.floor['max']:9.2e} "
            f"{one.budget['max']:9.2e} {one.ratio:9.3g}  | {all_.observed['max']:9.2e} "
            f"{all_.budget['max']:9.2e} {all_.ratio:9.3g}"
        )
    for s in case.slices:
        lines.append(f"  {s.kind:9s} {s.name:24s} {s.tokens:6d} tokens  mean {s.mean:9.2e}  "
                     f"max {s.max:9.2e}")  # fmt: skip
    return lines


def _percent(share: float) -> str:
    return f"{100.0 * share:.4g} %"


def _paint(text: str, verdict: str, colour: bool) -> str:
    return f"\033[{COLOURS[verdict]}m{text}\033[0m" if colour else text
