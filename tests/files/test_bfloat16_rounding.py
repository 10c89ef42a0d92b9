"""bfloat16 bits against exact arithmetic on fractions, from every float type."""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.files.bfloat16 import to_bits, widen

FINITE = np.arange(0x7F80, dtype=np.uint16)  # every non-negative finite bfloat16, ascending
VALUES = [Fraction(float(x)) for x in widen(FINITE)]
BEYOND = 2 * VALUES[-1] - VALUES[-2]  # what the next value would be, were there one


def nearest_even(x: float) -> int:
    """Bits of the bfloat16 nearest to a non-negative x, found in the sorted list of all of them."""
    exact = Fraction(x)
    above = int(np.searchsorted(widen(FINITE).astype(np.float64), x))
    above_value = VALUES[above] if above < len(VALUES) else BEYOND
    if above == 0 or above_value == exact:
        return above
    below = above - 1
    gap_up, gap_down = above_value - exact, exact - VALUES[below]
    if gap_up == gap_down:
        return above if above % 2 == 0 else below
    return above if gap_up < gap_down else below


@given(st.floats(min_value=0, max_value=3.4e38))
def test_bfloat16_of_float64_is_rounded_once(x: float) -> None:
    assert to_bits(np.array([x]))[0] == nearest_even(x)
    assert to_bits(np.array([-x]))[0] == nearest_even(x) | 0x8000


@given(st.floats(min_value=0, max_value=2.0**127, width=32))
def test_bfloat16_of_float32_is_nearest(x: float) -> None:
    assert to_bits(np.array([x], np.float32))[0] == nearest_even(x)


@given(st.sampled_from(range(1, 0x7F7F)), st.sampled_from([-1, 0, 1]))
def test_bfloat16_ties_and_their_neighbours(bits: int, side: int) -> None:
    tie = (float(VALUES[bits]) + float(VALUES[bits + 1])) / 2
    x = np.nextafter(tie, np.inf * side) if side else tie
    assert to_bits(np.array([x]))[0] == nearest_even(float(x))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bfloat16_keeps_special_values(dtype: type) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], dtype)
    back = widen(to_bits(x))
    np.testing.assert_array_equal(back, x.astype(np.float32))
    assert np.array_equal(np.signbit(back[1:]), np.signbit(x[1:]))


def test_bfloat16_keeps_a_nan_whose_payload_is_in_the_lost_bits() -> None:
    sly = np.array([0x7F800001, 0xFF80FFFF], np.uint32).view(np.float32)
    back = to_bits(sly)
    assert np.isnan(widen(back)).all() and list(back >> 15) == [0, 1]


def test_bfloat16_beyond_the_largest_is_infinite_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = to_bits(np.array([1e300, -1e300, float(VALUES[-1]), 1e-320]))
    assert list(back) == [0x7F80, 0xFF80, 0x7F7F, 0]


def test_bfloat16_widens_every_bit_pattern_and_returns() -> None:
    bits = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
    wide = widen(bits)
    keep = ~np.isnan(wide)
    np.testing.assert_array_equal(to_bits(wide)[keep], bits[keep])
    assert to_bits(wide.reshape(256, 256)).shape == (256, 256)
    assert to_bits(np.ones((), np.float32)).shape == ()
