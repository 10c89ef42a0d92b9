"""Products from weights as files store them, and in every dtype that a tier offers.

Where a tier widens bfloat16 weights in registers, a product is the float32 one of the rounded
weights: the same bound, from the rounded weights, and the same bits as if they had been rounded
before.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.native import BOTH_SIDES, extension, tiers
from test_native_ops import draw, linear_exactly, sizes

from refimpl.files import bfloat16
from refimpl.reference import ops

native = extension()
every_tier = pytest.mark.parametrize("tier", tiers())


def rounded(x: np.ndarray) -> np.ndarray:
    return bfloat16.widen(bfloat16.to_bits(x))


STORED = {  # how a file keeps numbers, and the float32 values of what it keeps
    "float32": lambda w: (w, w),
    "float16": lambda w: (w.astype(np.float16), w.astype(np.float16).astype(np.float32)),
    "bfloat16": lambda w: (bfloat16.to_bits(w), rounded(w)),
}


@every_tier
@pytest.mark.parametrize("storage", STORED)
@given(sizes, sizes, sizes)
def test_stored_weights_are_widened_exactly(tier, storage, m, n, k):
    x, weight = draw("x", m, k), draw("w", n, k)
    stored, value = STORED[storage](weight)
    for dtype in native.dtypes(tier):
        np.testing.assert_array_equal(
            native.linear(tier, x, stored, dtype=dtype), native.linear(tier, x, value, dtype=dtype)
        )


@pytest.mark.parametrize("storage", STORED)
def test_the_other_byte_order_is_refused(storage):
    stored, _ = STORED[storage](np.ones((2, 3), np.float32))
    swapped = stored.astype(stored.dtype.newbyteorder())
    np.testing.assert_array_equal(swapped, stored)
    with pytest.raises(ValueError, match="weight must be .* byte order"):
        native.linear("scalar", np.ones((1, 3), np.float32), swapped)


def test_every_float16_is_widened_exactly():
    bits = np.arange(2**16, dtype=np.uint16).view(np.float16)
    weight = bits[np.isfinite(bits)][:, None]
    got = native.linear("scalar", np.ones((1, 1), np.float32), weight)[0]
    np.testing.assert_array_equal(got, weight[:, 0].astype(np.float32))


@every_tier
def test_infinite_weights_stay_infinite_and_nan_stays_nan(tier):
    weight = np.array([[np.inf], [-np.inf], [np.nan]], np.float16)
    for stored in (weight, bfloat16.to_bits(weight.astype(np.float32))):
        got = native.linear(tier, np.ones((1, 1), np.float32), stored)[0]
        np.testing.assert_array_equal(got, weight[:, 0].astype(np.float32))


def widens_in_registers(tier: str) -> bool:
    return tier not in BOTH_SIDES and "bfloat16" in native.dtypes(tier)


@pytest.mark.parametrize("tier", [t for t in tiers() if widens_in_registers(t)])
@given(sizes, sizes, sizes | st.sampled_from([255, 256, 257, 600]), st.booleans())
def test_bfloat16_is_float32_on_rounded_weights(tier, m, n, k, with_bias):
    x, weight = draw("x", m, k), draw("w", n, k)
    bias = draw("b", n) if with_bias else None
    got = native.linear(tier, x, weight, bias, dtype="bfloat16")
    value, bound = linear_exactly(x, rounded(weight), bias)
    assert (np.abs(got - value) <= bound).all()
    np.testing.assert_array_equal(got, native.linear(tier, x, rounded(weight), bias))


@every_tier
@given(sizes, sizes, sizes, st.sampled_from(sorted(ops.ACTIVATIONS)), st.booleans(), st.data())
def test_fused_glu_has_the_bits_of_its_parts(tier, m, inter, k, name, with_bias, data):
    x, weight = draw("x", m, k), draw("w", 2 * inter, k)
    bias = draw("b", 2 * inter) if with_bias else None
    rows, panels = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 9))
    parts = native.glu(tier, native.linear(tier, x, weight, bias), name)
    got = native.linear_glu(tier, x, weight, name, bias, rows, panels)
    np.testing.assert_array_equal(got, parts)


REFUSED = {
    "float64 weight": lambda w: native.linear("scalar", w, w.astype(np.float64)),
    "integer weight": lambda w: native.linear("scalar", w, w.astype(np.int16)),
    "dtype": lambda w: native.linear("scalar", w, w, dtype="float16"),
    "bf16x3 without matrix units": lambda w: native.linear("scalar", w, w, dtype="bf16x3"),
    "odd number of rows": lambda w: native.linear_glu("scalar", w, w[:1], "gelu"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_computed_with_is_refused(what):
    with pytest.raises(ValueError):
        REFUSED[what](draw("w", 2, 3))
