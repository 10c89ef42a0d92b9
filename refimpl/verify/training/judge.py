"""`verify(port, cases)`: every training case in order, then one report.

The report is that of the kit for forward passes (judge/verdict.py): loss, gradients in the order of
the backward pass, the first update, the run; suspects; what was shown. A loss that is wrong points
at the forward pass or at the normaliser, whose factor is measured.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ...progress import progress
from ..findings import Finding
from ..judge.verdict import CaseReport, Report
from ..truth.compare import Comparison, Row
from ..truth.rounding import base_of
from .cases import CASES, TrainingCase
from .compare import AFTER, Right, Told, compare, right, values
from .coverage import covered
from .measured import divisor, factor
from .port import TrainingPort
from .rank import Evidence, ranking, stage_of
from .step import Training

GATES = {"loss": "loss", "gradient": "gradients", "update": "update", "run": "run"}


@np.errstate(all="ignore")  # a port may give any number; what is not finite is a finding
def verify(
    port: TrainingPort,
    cases: Sequence[TrainingCase] = CASES,
    dtype: str | None = None,
    suspects: bool = True,
    without: Collection[str] = (),
) -> Report:
    """Judge a port's training step. dtype: what to hold it to; None takes what the port declares.
    without: names of coverage.NAMES that need not be shown."""
    findings: list[Finding] = []
    reports: list[CaseReport] = []
    evidence: list[Evidence] = []
    told_dtype = base_of(dtype or port.dtype)
    for case in progress(cases, "cases"):
        t = case.training()
        answer = port.run(case, shapes_of(t))
        findings += answer.findings
        layers = t.config.layer_types
        if not answer.told:
            reports.append(CaseReport(case.name, case.why, layers, None))
            continue
        findings += without_budget(case, dtype or answer.dtype)
        told_dtype = base_of(dtype or answer.dtype)
        of = right(t, told_dtype)
        comparison = compare(of, answer.told)
        findings += compared(case, of, answer.told, comparison)
        reports.append(CaseReport(case.name, case.why, layers, comparison))
        evidence.append(Evidence(case.name, of, answer.told, comparison))
    if not evidence:
        findings.append(Finding("port", "fail", "no case could be compared"))
    wrong = any(f.level == "fail" and f.gate in GATES.values() for f in findings)
    ranked = ranking(evidence) if suspects and wrong else []
    given = {r.name: [row.tap for row in r.comparison.rows] for r in reports if r.comparison}
    return Report(
        port.name, told_dtype, tuple(reports), tuple(findings), tuple(ranked),
        coverage=replace(covered(given, without), unasked=False),
    )  # fmt: skip


def without_budget(case: TrainingCase, dtype: str) -> list[Finding]:
    """A note where a dtype declares deviations: a training step has no budget for those."""
    base = base_of(dtype)
    what = f"{dtype} is judged as {base}: a training step has no budgets for declared deviations"
    return [Finding("port", "note", what, case.name)] if base != dtype else []


def shapes_of(t: Training) -> dict[str, tuple[int, ...]]:
    """Value -> shape, of all that there are, in order."""
    shapes = {name: x.shape for name, x in values(t, ()).items()}
    return shapes | {f"after_{k}.{name}": x.shape for k in AFTER for name, x in t.params.items()}


def compared(
    case: TrainingCase, of: Right, told: Told, comparison: Comparison
) -> Iterator[Finding]:
    """Findings of loss, gradients, update and run: the first wrong value of each."""
    wrong = [row for row in comparison.rows if not own(row) <= 1.0]
    by_gate: dict[str, list[Row]] = {}
    for row in wrong:
        gate = GATES["loss" if row.tap == "loss" else stage_of(row.tap)]
        by_gate.setdefault(gate, []).append(row)
    for gate, rows in by_gate.items():
        if gate == "run" and set(by_gate) - {"run"}:
            continue  # the further steps only show what the first has shown
        more = f", and {len(rows) - 1} more" if len(rows) > 1 else ""
        message = f"{own(rows[0]):.3g} times its budget{more}"
        if rows[0].tap == "loss":
            message += ": the forward pass, the labels, or what the sum is divided by"
        data = {"ratio": own(rows[0])}
        yield Finding(gate, "fail", message, case.name, rows[0].tap, data)
    if "gradients" in by_gate:
        f = factor(of, told)
        if f is not None:
            counted, divided = divisor(of, f)
            message = (
                f"every gradient is the right one times {f:.6g}: the sum is divided by "
                f"{divided:.6g}, where {counted:.6g} is counted in the step"
            )
            yield Finding("gradients", "note", message, case.name, None, {"factor": f})


def own(row: Row) -> float:
    """What a value is judged by: itself, or, where nothing could be forced, the run."""
    return row.forced.ratio
