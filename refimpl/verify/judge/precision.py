"""Whether a port computes in the dtype that it is judged in: fewer bits, more bits, or another.

Fewer bits than declared in every step is a failure. The rest are notes, for people who have said
the wrong dtype or none: steps that hold wider numbers than declared, and a port that fails in its
dtype and would pass in a lower one. No note changes a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..findings import Finding
from ..ports.port import PortResult, Request
from ..truth.compare import Comparison, compare
from ..truth.rounding import DTYPES, significant_bits
from .evidence import Evidence
from .exact import finding

# Bits of a float's significand, the leading one included.
SIGNIFICANT_BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
WIDER = ("float32", "float64")
LOWER = ("float32", "float16", "bfloat16")


def precision_gate(request: Request, result: PortResult) -> list[Finding]:
    """Whether the numbers can be of the dtype that is declared: how many bits they really use."""
    declared = SIGNIFICANT_BITS[result.dtype]
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
    declared = SIGNIFICANT_BITS[result.dtype]
    bits = max((significant_bits(x) for x in result.taps.values() if x.size > 1), default=0)
    held = next((name for name in WIDER if SIGNIFICANT_BITS[name] >= bits), WIDER[-1])
    if bits <= declared or SIGNIFICANT_BITS[held] <= declared:
        return []
    what = f"the steps hold {held} numbers and are judged as {result.dtype}"
    if compared(held).ratio <= 1.0:
        what += f"; they are right to {held} as well, which --dtype {held} asks for"
    return [finding("port", "note", what, request, data={"bits used": bits})]


def lower_dtype(failing: Sequence[Evidence]) -> list[Finding]:
    """A lower dtype in which every case passes of those that fail."""
    cheap_first = sorted(failing, key=lambda one: one.tokens)
    for name in LOWER if failing else ():
        declared = failing[0].dtype
        if DTYPES[name].store <= DTYPES[declared].store:
            continue
        if all(compare(one.p, one.port, name).ratio <= 1.0 for one in cheap_first):
            what = (
                f"what fails as {declared} passes as {name}: if that is what the port computes "
                f"in, --dtype {name} says so"
            )
            return [Finding("port", "note", what)]
    return []
