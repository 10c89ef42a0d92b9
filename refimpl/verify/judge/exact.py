"""The gates before any computing: plan, weights and inputs.

Each gate is a function from the request and what the port gave to findings; what the port does not
tell is not judged. No tolerances: the plan, the inputs and the weights are exact (weights rounded
once, to nearest even, when the port stores them in a lower dtype).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...files.bfloat16 import to_bits, widen
from ...reference import ops
from ..findings import Finding
from ..ports.port import PortResult, Request
from ..truth.errors import real_rows
from ..truth.passes import config_of
from ..truth.plan import differences, plan_of
from ..truth.rounding import base_of

Array = np.ndarray


def plan_gate(request: Request, result: PortResult) -> list[Finding]:
    """What the port is going to compute, fact by fact. Tanh GELU is a deviation."""
    if result.plan is None:
        return []
    expected = plan_of(config_of(request.config), request.head)
    wrong, unknown = differences(expected, result.plan)
    findings = []
    for fact, (right, told) in wrong.items():
        tanh = fact == "hidden_activation" and (right, told) == ("gelu", "gelu_pytorch_tanh")
        message = f"{fact} is {told!r}; it must be {right!r}"
        level = "deviation" if tanh else "fail"
        message += " (F2: tanh GELU for erf)" if tanh else ""
        data = {"fact": fact, "expected": right, "told": told}
        findings.append(finding("plan", level, message, request, data=data))
    if unknown:
        message = f"facts that nobody here knows: {', '.join(unknown[:5])}"
        findings.append(finding("plan", "note", message, request))
    return findings


def weights_gate(request: Request, result: PortResult) -> list[Finding]:
    """The parameters as the port holds them: the file's, or the file's rounded to the dtype."""
    findings = []
    for name, held in (result.weights or {}).items():
        right = request.params.get(name)
        if right is None:
            findings.append(finding("weights", "fail", f"there is no {name}", request, name))
        elif not _is_stored(held, right, base_of(result.dtype)):
            message = f"{name} is not the file's: {_how_it_differs(held, right, request.params)}"
            findings.append(finding("weights", "fail", message, request, name))
    return findings


def inputs_gate(request: Request, result: PortResult) -> list[Finding]:
    """ids and positions at real tokens, the mask everywhere, exactly."""
    real = real_rows(request.to_pass())
    findings = []
    for name, expected in expected_inputs(request, real).items():
        if name not in result.inputs:
            continue
        used = np.asarray(result.inputs[name])
        if name == "attention_mask":
            used = used != 0
        where = np.ones(used.shape, bool) if name in ("attention_mask", "cu_seqlens") else real
        if used.shape != expected.shape:
            message = f"{name} has the shape {list(used.shape)}, not {list(expected.shape)}"
        elif (used != expected)[where].any():
            at = np.argwhere((used != expected) & where)
            first = tuple(at[0])
            message = (
                f"{name} is not what was given in {len(at)} places, first at "
                f"{[int(i) for i in first]}: {used[first]} for {expected[first]}"
            )
        else:
            continue
        findings.append(finding("inputs", "fail", message, request, name))
    return findings


# -- what was asked for ---------------------------------------------------------------------------


def expected_inputs(request: Request, real: Array) -> dict[str, Array]:
    """ids, mask, positions and lengths that a port must have used."""
    given = {name: x for name, x in request.inputs.items() if x is not None}
    out: dict[str, Array] = {"attention_mask": real}
    out |= {k: given[k] for k in ("input_ids", "cu_seqlens", "position_ids") if k in given}
    if "position_ids" not in out:
        lengths = given.get("cu_seqlens")
        positions = np.arange(real.shape[-1]) if lengths is None else ops.packed_positions(lengths)
        out["position_ids"] = positions
    out["position_ids"] = np.broadcast_to(out["position_ids"], real.shape)
    return out


def _is_stored(held: Array, right: Array, dtype: str) -> bool:
    """held is right in float32 (or wider), or rounded to nearest even in the declared dtype."""
    held, right = np.asarray(held), np.asarray(right)
    if held.shape != right.shape:
        return False
    single = right.astype(np.float32)
    allowed = [single]
    if dtype == "bfloat16":
        allowed.append(widen(to_bits(single)))
    elif dtype == "float16":
        with np.errstate(over="ignore"):
            allowed.append(single.astype(np.float16).astype(np.float32))
    return any(np.array_equal(held, x) for x in allowed)


def _how_it_differs(held: Array, right: Array, params: Mapping[str, Array]) -> str:
    if held.ndim == 2 and np.array_equal(held.T, right.astype(held.dtype)):
        return "it is transposed"
    for other, x in params.items():
        if np.shape(x) == held.shape and np.array_equal(held, x.astype(held.dtype)):
            return f"it is {other}"
    if held.shape != right.shape:
        return f"its shape is {list(held.shape)}, not {list(right.shape)}"
    wrong = int((held != right.astype(held.dtype)).sum())
    worst = float(np.max(np.abs(held.astype(np.float64) - right)))
    return f"{wrong} of {right.size} values differ, by up to {worst:.3g}"


def finding(
    gate: str,
    level: Any,
    message: str,
    request: Request,
    tap: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> Finding:
    return Finding(gate, level, message, request.name, tap, data or {})
