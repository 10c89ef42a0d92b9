"""Whether a port computes in the dtype that it is judged in: fewer bits, more bits, or another.

Fewer bits than declared in every step is a failure. The rest are notes, for people who have said
the wrong dtype or none: steps that hold wider numbers than declared, and a port that fails in its
dtype and would pass in a lower one, or with a deviation that it has not declared. No note changes a
verdict. A deviation that is declared, and without which the port would fail, is one in the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..findings import Finding
from ..ports.port import PortResult, Request
from ..truth.compare import Comparison, compare
from ..truth.rounding import DEVIATIONS, DTYPES, base_of, significant_bits
from .evidence import Evidence
from .exact import finding

# Bits of a float's significand, the leading one included.
SIGNIFICANT_BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
WIDER = ("float32", "float64")
LOWER = ("float32", "float16", "bfloat16")


def precision_gate(request: Request, result: PortResult) -> list[Finding]:
    """Whether the numbers can be of the dtype that is declared: how many bits they really use."""
    declared = SIGNIFICANT_BITS[base_of(result.dtype)]
    used = {name: significant_bits(x) for name, x in result.taps.items() if x.size > 1}
    short = {name: bits for name, bits in used.items() if bits < declared}
    if not used or len(short) < len(used):
        return []
    bits = max(used.values())
    held = next((name for name, n in SIGNIFICANT_BITS.items() if n == bits), f"{bits} bits")
    message = (
        f"{result.dtype} is declared, but no value of any step uses more than {bits} significant "
        f"bits: they were kept in {held}"
    )
    return [finding("runtime", "fail", message, request, data={"bits": bits})]


def wider_gate(
    request: Request, result: PortResult, compared: Callable[[str], Comparison]
) -> list[Finding]:
    """Steps in more bits than are declared: judged as declared, and exact enough for more, or not.

    compared: the comparison of the case, when it is judged in a dtype.
    """
    declared = SIGNIFICANT_BITS[base_of(result.dtype)]
    bits = max((significant_bits(x) for x in result.taps.values() if x.size > 1), default=0)
    held = next((name for name in WIDER if SIGNIFICANT_BITS[name] >= bits), WIDER[-1])
    if bits <= declared or SIGNIFICANT_BITS[held] <= declared:
        return []
    what = f"the steps hold {held} numbers and are judged as {result.dtype}"
    if compared(held).ratio <= 1.0:
        what += f"; they are right to {held} as well, which --dtype {held} asks for"
    return [finding("port", "note", what, request, data={"bits used": bits})]


def as_declared(case: str, dtype: str, plain: Comparison) -> Finding:
    """What a declared deviation was good for in a case that passes with it.

    dtype: "float32+tf32"; plain: the comparison in the dtype alone.
    """
    base, *names = dtype.split("+")
    if plain.ratio <= 1.0:
        what = f"{' and '.join(names)}: declared and not needed, right to {base} as well"
        return Finding("port", "note", what, case)
    what = (
        f"declared, {said(dtype)}: {plain.ratio:.3g} times the budget of {base}, within {dtype}'s"
    )
    data = {"ratio": plain.ratio, "declared": names}
    return Finding("operations", "deviation", what, case, plain.culprit, data)


def said(dtype: str) -> str:
    return " and ".join(DEVIATIONS[name].text for name in dtype.split("+")[1:])


def would_pass(failing: Sequence[Evidence]) -> list[Finding]:
    """A lower dtype, and deviations to declare, with which every case passes of those that fail."""
    if not failing:
        return []
    declared = failing[0].dtype
    base, *names = declared.split("+")
    coarser = [name for name in LOWER if DTYPES[name].store > DTYPES[base].store]
    others = [f"{declared}+{name}" for name in DEVIATIONS if name not in names]
    passes = [dtype for dtype in (*coarser, *others) if _all_pass(failing, dtype)]
    lower, beside = [d for d in passes if d in coarser][:1], [d for d in passes if d in others]
    out = [
        f"what fails as {declared} passes as {name}: if that is what the port computes in, "
        f"--dtype {name} says so"
        for name in lower
    ]
    out += [
        f"what fails as {declared} passes if {said(name.removeprefix(declared))}: if that is what "
        f"the port does, --dtype {name} declares it"
        for name in beside
    ]
    return [Finding("port", "note", what) for what in out]


def _all_pass(failing: Sequence[Evidence], dtype: str) -> bool:
    cheap_first = sorted(failing, key=lambda one: one.tokens)
    return all(compare(one.p, one.port, dtype).ratio <= 1.0 for one in cheap_first)
