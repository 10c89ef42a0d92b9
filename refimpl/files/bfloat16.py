"""bfloat16 as uint16 bits: the upper half of a float32, for numpy, which has no such type.

    widen(bits) = float32 with those upper bits, exact
    to_bits(x)  = the nearest bfloat16, ties to even, rounded once also from float64
    BFLOAT16    = the dtype of arrays of such bits: a record, which no sum takes for integers

Promise: NaN stays NaN (sign kept, made quiet), infinities and signed zeros stay what they are; a
finite value beyond the largest bfloat16 becomes infinite, and the caller decides what that means.
"""

from __future__ import annotations

import numpy as np

BFLOAT16 = np.dtype([("bits", "<u2")])

# Typed constants: numpy 1 would turn a single uint32 and a Python int into int64.
HALF = np.uint32(16)


def widen(bits: np.ndarray) -> np.ndarray:
    """uint16 [...] -> float32 [...], exact."""
    return (bits.astype(np.uint32) << HALF).view(np.float32)


def to_bits(x: np.ndarray) -> np.ndarray:
    """float16, float32 or float64 [...] -> uint16 [...], rounded to nearest, ties to even."""
    bits = _to_float32_odd(x).view(np.uint32)
    # Adding 0x7fff, and one more when the kept half is odd, carries exactly when rounding goes up.
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> HALF) & np.uint32(1))) >> HALF
    quiet_nan = (bits >> HALF) | np.uint32(0x40)
    return np.where(np.isnan(x), quiet_nan, rounded).astype(np.uint16)


def _to_float32_odd(x: np.ndarray) -> np.ndarray:
    """To float32, float64 by rounding to odd: a later rounding to fewer bits is then rounded once.

    Rounding to odd cuts towards zero and sets the last bit if anything was lost, so that no value
    is mistaken for a tie of the second rounding.
    """
    if x.dtype.itemsize <= 4:
        return np.ascontiguousarray(x, np.float32).reshape(x.shape)
    with np.errstate(over="ignore", under="ignore"):
        nearest = np.ascontiguousarray(x, np.float32).reshape(x.shape)
    bits = nearest.view(np.uint32).copy()
    bits -= np.abs(nearest.astype(np.float64)) > np.abs(x)
    bits |= (nearest != x) & ~np.isnan(x)
    return bits.view(np.float32)
