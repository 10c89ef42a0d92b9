"""`verify(port, cases)`: every gate in order on every case, then one report.

plan -> weights -> inputs -> rotary tables (exact.py) -> operations, teacher-forced -> layers as
wholes -> cumulative -> heads -> runtime (runtime.py). All gates run, whatever an earlier one found:
the order is that of the report, since a failure early explains those later. A port whose every
error vanishes against the reference with one declared deviation of the zoo (tanh GELU) has that
deviation, and no failure. Long because the deviations stand beside the gates that ask for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ...progress import Progress, progress
from ..findings import Finding, Suspect, counted
from ..ports.port import Port, PortResult, Request
from ..truth.cases import CASES, Case
from ..truth.compare import Column, Comparison, compare, steps_alone
from ..truth.passes import Pass, forced
from ..truth.rounding import base_of
from ..truth.vectors import VECTORS
from ..zoo import FAULTY, ZOO
from . import exact
from .coverage import covered
from .evidence import Evidence
from .precision import as_declared, precision_gate, wider_gate, would_pass
from .rank import ranking
from .rope_gate import rope_gate
from .runtime import PACKED_CALL, REFUSED_CALL, base_case, runtime_findings
from .runtime_suspects import ranked as runtime_suspects
from .slices import slices
from .verdict import CaseReport, Report

Array = np.ndarray
HEAD_STEPS = ("pooled", "head.", "logits", "start_logits", "end_logits", *VECTORS)


@np.errstate(all="ignore")  # a port may give any number; what is not finite is a finding
def verify(
    port: Port,
    cases: Sequence[Case] = CASES,
    dtype: str | None = None,
    runtime: bool = True,
    suspects: bool = True,
    without: Collection[str] = (),
) -> Report:
    """Run a port through the gates. dtype: what to hold it to; None takes what the port declares.

    runtime: also ask for further forward passes (padding, order of calls, threads), of a port that
    can run them. suspects: when something is wrong, replay and rank the known mistakes. without:
    names of coverage.NAMES that need not be shown.
    """
    findings: list[Finding] = []
    reports: list[CaseReport] = []
    evidence: list[Evidence] = []
    failing: list[Evidence] = []
    ran: list[Case] = []
    held_to: dict[str, Deviation | None] = {}
    shown_tokens: dict[str, Array | None] = {}
    told = dtype or port.dtype
    for case in progress(cases, "verify", name=lambda case: case.name):
        case, request, result = answer(port, case)
        p = case.model()
        ran += [case] if result.taps else []  # what it refuses it cannot be asked once more
        if result.taps and dtype is None:
            told = result.dtype
        result = replace(result, dtype=told)
        p = replace(p, shown=result.shown)
        if not result.taps.keys() & set(VECTORS):
            p = replace(p, vectors=None)
        shown_tokens[case.name] = result.shown
        taps = {name: x.astype(np.float64) for name, x in result.taps.items()}
        comparison = compare(p, taps, result.dtype) if taps else None
        findings += result.findings
        for gate in (exact.plan_gate, exact.weights_gate, exact.inputs_gate, rope_gate):
            findings += gate(request, result)
        findings += precision_gate(request, result)
        culprit = comparison.culprit if comparison else None
        if comparison is not None:
            if comparison.ratio <= 1.0:
                findings += wider_gate(request, result, partial(compare, p, taps))
                if told != base_of(told):
                    findings.append(as_declared(case.name, told, compare(p, taps, base_of(told))))
            deviation = held_to[case.name] = deviation_of(p, taps, result.dtype, comparison)
            findings += compared(case, p, taps, comparison, deviation)
            evidence.append(Evidence(p, taps, culprit, result.dtype, case.name))
            failing += [] if deviation else evidence[-1:]
        shown = tuple(slices(p, taps, culprit)) if culprit else ()
        reports.append(CaseReport(case.name, case.why, p.config.layer_types, comparison, shown))
    asked, refused = False, set[str]()
    if runtime:
        base = base_case(ran)
        known = held_to.get(base.name) if base else None
        right = known or Deviation()
        calls = runtime_findings(port, ran, told, right.apply, known is not None)
        asked = base is not None and base.name in held_to and "inputs" in port.abilities
        refused = {f.data[REFUSED_CALL] for f in calls if REFUSED_CALL in f.data}
        if not any("cu_seqlens" in c.inputs for c in ran):
            refused.discard(PACKED_CALL)  # that packed input is not shown is said by its own name
        findings += calls
    if not any(r.comparison for r in reports):
        findings.append(Finding("port", "fail", "no case could be compared"))
    # Numbers kept in fewer bits than declared are wrong at every step: no mistake explains that.
    too_short = any("bits" in finding.data for finding in findings)
    findings += [] if too_short else would_pass(failing)
    ranked: tuple[Suspect, ...] = ()
    if suspects and not too_short:
        ranked, measured = named(evidence, findings, cases)
        findings += measured
    given = {r.name: [row.tap for row in r.comparison.rows] for r in reports if r.comparison}
    askable = "inputs" in port.abilities
    coverage = covered(given, asked, askable, without, shown_tokens, bool(refused))
    return Report(port.name, told, tuple(reports), tuple(findings), ranked, coverage=coverage)


def answer(port: Port, case: Case) -> tuple[Case, Request, PortResult]:
    """What the port gives for a case, and for which: when it refuses the head, the case goes on to
    `final_norm` without one."""
    request = Request.of(case.name, case.config, case.model())
    refused = refusal(port, case)
    if refused is not None:
        return case, request, PortResult(findings=(refused,))
    result = port.run(request)
    if not refuses(result) or case.head is None or "inputs" not in port.abilities:
        return case, request, result
    bare = case.without_head()
    request_bare = Request.of(bare.name, bare.config, bare.model())
    again = port.run(request_bare)
    if refuses(again):
        return case, request, result
    why = result.findings[0]
    why = replace(why, message=f"run to final_norm, without its head: {why.message}")
    return bare, request_bare, replace(again, findings=(why, *again.findings))


def refuses(result: PortResult) -> bool:
    """Whether the port has said that it does not do this, and nothing else."""
    return not result.taps and {f.level for f in result.findings} == {"note"}


def refusal(port: Port, case: Case) -> Finding | None:
    """A note when the case needs what the port says it cannot do; a port may refuse, not guess."""
    needs = {"packed": "cu_seqlens", "positions": "position_ids"}
    for ability, given in needs.items():
        if "inputs" in port.abilities and ability not in port.abilities and given in case.inputs:
            return Finding("port", "note", f"not run: the port takes no {given}", case.name)
    return None


def compared(
    case: Case,
    p: Pass,
    taps: Mapping[str, Array],
    comparison: Comparison,
    deviation: Deviation | None,
) -> list[Finding]:
    """Findings of operations, layers, cumulative error and heads."""
    out: list[Finding] = []

    def say(gate: str, message: str, tap: str, ratio: float) -> None:
        named = deviation.id if deviation else None
        if named is not None:
            message += f" (all of it is {named}: {ZOO[named].title})"
        level = "fail" if named is None else "deviation"
        data = {"ratio": ratio, "deviation": named}
        out.append(Finding(gate, level, message, case.name, tap, data))  # type: ignore[arg-type]

    alone = [row for row in comparison.rows if not row.forced.ratio <= 1.0]
    for gate in ("operations", "heads"):
        rows = [row for row in alone if row.tap.startswith(HEAD_STEPS) == (gate == "heads")]
        if rows:
            more = f", and at {counted(len(rows) - 1, 'later step')}" if len(rows) > 1 else ""
            message = f"wrong by itself: {rows[0].forced.ratio:.3g} times its budget{more}"
            say(gate, message, rows[0].tap, rows[0].forced.ratio)
    if not alone:
        for tap, column in layers_alone(p, taps, comparison.dtype).items():
            if not column.ratio <= 1.0:
                message = f"this layer as a whole: {column.ratio:.3g} times its budget, though "
                say("layers", message + "no step of it is wrong alone", tap, column.ratio)
        later = [row for row in comparison.rows if not row.cumulative.ratio <= 1.0]
        if later:
            message = (
                f"no step is wrong by itself, but the error has grown to "
                f"{later[0].cumulative.ratio:.3g} times its budget: lost precision"
            )
            say("cumulative", message, later[0].tap, later[0].cumulative.ratio)
    return out


def layers_alone(p: Pass, taps: Mapping[str, Array], dtype: str) -> dict[str, Column]:
    """Each layer's output from its input, no step between: for a port whose steps between are not
    those that it goes on with."""
    ends = {k: x for k, x in taps.items() if k in ("embedding", "final_norm")}
    ends |= {k: x for k, x in taps.items() if k.endswith(".residual_2")}
    return {} if len(ends) in (0, len(taps)) else steps_alone(p, ends, dtype)


@dataclass(frozen=True)
class Deviation:
    """A declared deviation of the zoo (None: no deviation at all), or a part of it.

    equations: only these, as in a port with tanh GELU in its MLP and the exact one in its head.
    """

    id: str | None = None
    equations: tuple[str, ...] = ()

    def apply(self, p: Pass) -> Pass:
        if self.id is None:
            return p
        broken = ZOO[self.id].apply(p)
        own = {name: getattr(broken.ops, name) for name in self.equations}
        return p.with_ops(**own) if own else broken


def deviations(p: Pass) -> Iterator[Deviation]:
    """Those that a port could have. One that is rounding has no digits of its own to agree with."""
    for mistake in ZOO.values():
        if mistake.deviation and not mistake.noise:
            yield Deviation(mistake.id)
            ops = vars(mistake.apply(p).ops)
            changed = [name for name, f in ops.items() if f is not getattr(p.ops, name)]
            if len(changed) > 1:
                yield from (Deviation(mistake.id, (name,)) for name in changed)


def deviation_of(
    p: Pass, taps: Mapping[str, Array], dtype: str, comparison: Comparison
) -> Deviation | None:
    """The deviation with which the reference agrees with the port everywhere, or None."""
    if comparison.ratio <= 1.0:
        return Deviation()
    if comparison.first_nonfinite is not None:
        return None
    name, own = comparison.culprit, forced(p, taps)
    for deviation in deviations(p):
        q = deviation.apply(p)
        # One that leaves the first wrong step as it is makes no right one of it.
        if name is not None and np.array_equal(forced(q, taps)[name], own[name], equal_nan=True):
            continue
        if compare(q, taps, dtype).ratio <= 1.0:
            return deviation
    return None


def named(
    evidence: Sequence[Evidence], findings: Sequence[Finding], cases: Sequence[Case]
) -> tuple[tuple[Suspect, ...], list[Finding]]:
    """The suspects of all cases together, those of the runtime when only that is wrong; and, where
    no known mistake fits, what was measured."""
    wrong = any(one.culprit for one in evidence)
    with Progress("verify", verbose=None if wrong else False) as shown:
        shown.now("looking for known mistakes")
        found = ranking(evidence)
    measured = [
        Finding("operations", "note", f"no known mistake fits all of it: {fact.text}", fact.case,
                fact.tap, {"share": fact.share})
        for fact in found.facts
    ]  # fmt: skip
    wrong_calls = any(f.gate == "runtime" and f.level == "fail" for f in findings)
    if found.suspects or found.facts or not wrong_calls:
        return found.suspects, measured
    ranked = (
        Suspect(id, FAULTY[id].title, share, FAULTY[id].citations)
        for id, share in runtime_suspects(findings, cases)
    )
    return tuple(ranked), []
