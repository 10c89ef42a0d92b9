"""The runtime gate: what one forward pass cannot show.

More padding, a row alone, other order, packed, A-B-A, long-short-long, several threads. Each call
is held, at the last step that the port gives, against the reference's own run of that very input
within the cumulative budget of its dtype; a port that is wrong anyway is held against its own first
call instead, within twice the budget (two evaluations differ). A stale buffer, a cached table, a
race or a neighbour's padding is far beyond either; other bits within the budget are a note.

Long because the calls and the judge of them belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...progress import progress
from ..findings import Finding
from ..ports.port import Port, PortResult, Request
from ..truth.cases import Case
from ..truth.compare import budgets
from ..truth.errors import STATISTICS, error, real_rows
from ..truth.passes import Pass, Taps, per_token, trace
from ..truth.vectors import VECTORS

Array = np.ndarray
# Beyond the usual tiles, and a multiple of 32 over 128: mlx-embeddings#80's NaN needs both.
WIDE = 160
CALLS_AT_ONCE = 8
REFUSED_CALL = "refused"
"""Key in the data of a note about a call that the port refused, and so has shown nothing by."""
PACKED_CALL = "the rows packed"


@dataclass(frozen=True)
class Call:
    """An altered request: what was done, and which of the case's rows its rows are, if they are."""

    what: str
    request: Request
    rows: tuple[int, ...] | None = None


class Judge:
    """Says whether a call's answer is right.

    reference: the pass that the port is held to, Pass -> Pass (the identity, or its declared
    deviation); own: the port's answer to the case as it is, to be used instead; None otherwise.
    """

    def __init__(
        self,
        case: Case,
        dtype: str,
        reference: Callable[[Pass], Pass],
        own: PortResult | None = None,
    ) -> None:
        self.case, self.dtype, self.reference, self.own = case, dtype, reference, own
        self.known: dict[bytes, tuple[Pass, Taps, dict[str, float]]] = {}

    def findings(self, call: Call, result: PortResult) -> list[Finding]:
        failed = [f for f in result.findings if f.level == "fail"]
        out = [replace(f, message=f"{call.what}: {f.message}") for f in failed]
        last = last_step(result.taps)
        if last is None:
            if out:
                return out
            told = [f.message for f in result.findings]
            level: Any = "note" if told else "fail"  # a refusal is no wrong answer
            message = f"{call.what}: {told[0] if told else 'no answer'}"
            what = {REFUSED_CALL: call.what} if told else {}
            return [Finding("runtime", level, message, call.request.name, None, what)]
        got = result.taps[last].astype(np.float64)
        p, truth, allowed = self.of(call.request, last)
        real = real_rows(p) if result.shown is None else real_rows(p) & result.shown
        if self.own is None:
            observed, factor, than = error(last, got, truth[last], real), 1.0, ""
        elif call.rows is not None and last in self.own.taps and result.shown is None:
            want, rows = self.own.taps[last].astype(np.float64), list(call.rows)
            if per_token(last, got, real):
                got, want = got[real], want[rows][self.case.real[rows]]
            else:
                want = want[rows]
            observed = error(last, got, want, np.ones(len(got), bool))
            factor, than = 2.0, " against its own first answer"
        else:
            return out
        ratio = max(_quotient(observed[s], factor * allowed[s]) for s in STATISTICS)
        if not ratio <= 1.0:
            message = f"{call.what}: {ratio:.3g} times the budget{than}"
            data = {"ratio": ratio}
            out.append(Finding("runtime", "fail", message, call.request.name, last, data))
        return out

    def of(self, request: Request, last: str) -> tuple[Pass, Taps, dict[str, float]]:
        """The reference's pass and steps for a request, and the budget of the last step that is
        looked at; the same input is run once."""
        key = last.encode() + b"".join(
            name.encode() + repr(x.shape).encode() + x.tobytes()
            for name, x in request.inputs.items()
            if x is not None
        )
        if key not in self.known:
            p = self.reference(request.to_pass())
            self.known[key] = p, trace(p), budgets(p, self.dtype, [last])[last]
        return self.known[key]


def runtime_findings(
    port: Port,
    cases: Sequence[Case],
    dtype: str,
    reference: Callable[[Pass], Pass] = lambda p: p,
    right: bool = True,
) -> list[Finding]:
    """All checks that the port's abilities allow, on the most telling case of those given.

    right: whether the port agrees with `reference` on the cases as they are.
    """
    case = base_case(cases)
    if case is None or "inputs" not in port.abilities:
        return []
    first = as_it_is(case, "first call")
    answer = port.run(first.request)
    judge = Judge(case, dtype, reference, None if right else answer)
    out = judge.findings(first, answer)
    per_token_only = {"packed"} if last_step(answer.taps) in VECTORS else set()
    calls = list(altered(case, port.abilities - per_token_only, answer.shown))
    for call in progress(calls, "in other company", name=lambda call: call.what):
        out += judge.findings(call, port.run(call.request))
    if "state" in port.abilities:
        out += in_order(port, case, judge, answer)
    if "threads" in port.abilities:
        out += together(port, case, judge)
    return out


def base_case(cases: Sequence[Case]) -> Case | None:
    """A padded batch where there is one: the one with the most rows, then the shortest."""
    plain = [c for c in cases if c.inputs["input_ids"].ndim == 2 and "position_ids" not in c.inputs]
    return max(plain, key=lambda c: (len(c.real), -c.real.shape[1]), default=None)


def as_it_is(case: Case, what: str) -> Call:
    ids, mask = case.inputs["input_ids"], case.real.astype(np.int64)
    return Call(what, _request(case, ids, mask), tuple(range(len(ids))))


def altered(case: Case, abilities: frozenset[str], shown: Array | None = None) -> Iterator[Call]:
    """The same tokens in other company. shown: bool [batch, seq], what the port has answered; a row
    that it leaves out is not asked for alone."""
    ids, mask = case.inputs["input_ids"], case.real.astype(np.int64)
    everyone = tuple(range(len(ids)))
    pad = int(ids[mask == 0][0]) if (mask == 0).any() else 0
    for width in (1, WIDE - ids.shape[1]):
        if width > 0:
            more = ((0, 0), (0, width))
            columns = "column" if width == 1 else "columns"
            wider = np.pad(ids, more, constant_values=pad)
            request = _request(case, wider, np.pad(mask, more))
            yield Call(f"{width} more {columns} of padding", request, everyone)
    for i in _rows(mask if shown is None else mask * shown):
        yield Call(f"row {i} alone", _request(case, ids[i : i + 1], mask[i : i + 1]), (i,))
    request = _request(case, ids[::-1], mask[::-1])
    yield Call("the rows in reverse order", request, everyone[::-1])
    if "packed" in abilities and case.head in (None, "masked_lm", "token_classification"):
        # Whatever stood in the holes of a row becomes a token like others.
        parts = [ids[i, : mask[i].sum()] for i in _rows(mask)]
        cu = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        yield Call(PACKED_CALL, _request(case, np.concatenate(parts), None, cu))


def in_order(port: Port, case: Case, judge: Judge, answer: PortResult) -> list[Finding]:
    """A (the answer), a longer B, a shorter C, B, A on one loaded model: A must be what it was."""
    ids, mask = case.inputs["input_ids"], case.real.astype(np.int64)
    width = ((0, 0), (0, WIDE - ids.shape[1] % WIDE))
    # Every token real: behind the padding of a row it would be padding between tokens, which a port
    # that drops padding may refuse, and a wrong answer to that would be no memory of another call.
    wide = np.pad(ids, width, mode="wrap")
    long = _request(case, wide, np.ones_like(wide))
    short = _request(case, ids[:, :1], np.ones_like(mask[:, :1]))
    out: list[Finding] = []
    for call in (
        Call("a longer input after it", long),
        Call("a shorter one after the longer", short),
        Call("the longer again", long),
        as_it_is(case, "the first again"),
    ):
        result = port.run(call.request)
        out += judge.findings(call, result)
    return out + _same_bits(case, answer, result)


def together(port: Port, case: Case, judge: Judge) -> list[Finding]:
    """Different rows from several threads at once, each several times."""
    ids, mask = case.inputs["input_ids"], case.real.astype(np.int64)
    calls = [
        Call(f"one of {CALLS_AT_ONCE} calls at once",
             _request(case, ids[i : i + 1], mask[i : i + 1]), (i,))
        for i in (_rows(mask) * CALLS_AT_ONCE)[:CALLS_AT_ONCE]
    ]  # fmt: skip
    results = port.run_together([call.request for call in calls])
    every = [judge.findings(call, result) for call, result in zip(calls, results, strict=True)]
    return next((found for found in every if found), [])


def last_step(taps: Mapping[str, Array]) -> str | None:
    """The last one; a vector a sequence, which tells less, only where there is nothing else."""
    steps = [name for name in taps if name not in VECTORS] or list(taps)
    return steps[-1] if steps else None


def _quotient(observed: float, allowed: float) -> float:
    if observed == 0.0:
        return 0.0
    return observed / allowed if allowed else float("inf")


def _rows(mask: Array) -> list[int]:
    """Rows with a real token."""
    return [i for i in range(len(mask)) if mask[i].any()]


def _same_bits(case: Case, a: PortResult, b: PortResult) -> list[Finding]:
    last = last_step(b.taps)
    if last is None or last not in a.taps:
        return []
    real = case.real if per_token(last, a.taps[last], case.real) else ...
    if np.array_equal(a.taps[last][real], b.taps[last][real]):
        return []
    message = "the first input gives other bits when it is run again"
    return [Finding("runtime", "note", message, case.name, last)]


def _request(case: Case, ids: Array, mask: Array | None, cu: Array | None = None) -> Request:
    inputs = {"input_ids": np.ascontiguousarray(ids)}
    if mask is not None:
        inputs["attention_mask"] = np.ascontiguousarray(mask)
    if cu is not None:
        inputs["cu_seqlens"] = cu
    return Request(case.name, case.config, case.params(), inputs, case.head)
