"""Products of integers, the numpy twin: within a derived bound of float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.files.bfloat16 import to_bits, widen
from refimpl.reference.int8 import (
    MATRICES,
    MOST_OF_ROW,
    MOST_OF_WEIGHTS,
    Int8Params,
    exact_sums,
    integers,
    linear,
    to_bfloat16,
)

sizes = st.tuples(st.integers(1, 40), st.integers(1, 50), st.integers(1, 300))


def drawn(seed: int, rows: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """x [rows, k] with an outlier, weights [n, k]; some rows all of one size, or zero, or tiny."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, k)).astype(np.float32)
    w = rng.standard_normal((n, k)).astype(np.float32)
    x[rng.integers(rows), rng.integers(k)] = 2e4
    for what in (0.0, 1e-38, -7.5):
        if rng.integers(3) == 0:
            x[rng.integers(rows)] = what
    if rng.integers(3) == 0:
        w[rng.integers(n)] = 3.0
    return x, w


@given(sizes, st.integers(0, 2**32 - 1))
def test_twin_is_within_its_derived_bound_of_float64(size, seed):
    """|x - s i| <= s / 2, and so for weights: the bound of a sum of products, plus a few roundings
    of the float steps."""
    x, w = drawn(seed, *size)
    exact = x.astype(np.float64) @ w.astype(np.float64).T
    step_x = np.maximum(np.abs(x).max(1), 1e-30)[:, None] / MOST_OF_ROW
    step_w = np.maximum(np.abs(w).max(1), 1e-30)[None] / MOST_OF_WEIGHTS
    size_x, size_w = np.abs(x).sum(1)[:, None], np.abs(w).sum(1)[None]
    k = x.shape[1]
    bound = size_x * step_w / 2 + size_w * step_x / 2 + k * step_x * step_w / 4
    bound = bound * (1 + 1e-5) + 1e-5 * np.abs(exact) + 2.0**-120
    assert (np.abs(linear(x, integers(w, MOST_OF_WEIGHTS)) - exact) <= bound).all()


@given(sizes, st.integers(0, 2**32 - 1))
def test_integers_are_the_nearest_and_reach_their_most(size, seed):
    x, _ = drawn(seed, *size)
    found = integers(x, MOST_OF_ROW)
    big = np.abs(x).max(1) > 1e-28
    assert (np.abs(found.whole[big]).max(1) == MOST_OF_ROW).all()
    back = found.whole * found.scale[:, None].astype(np.float64)
    assert (np.abs(back - x) <= found.scale[:, None] * 0.50001).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_nan_and_no_other(wrong):
    x, w = drawn(1, 7, 20, 65)
    w[4, 64] = wrong
    x[2, 3] = wrong
    y = linear(x, integers(w, MOST_OF_WEIGHTS))
    bad = np.zeros(y.shape, bool)
    bad[2], bad[:, 4] = True, True
    np.testing.assert_array_equal(np.isnan(y), bad)


@pytest.mark.parametrize("k", [2096, 2097, 5000])
def test_sums_are_exact_at_any_depth(k):
    x = np.full((2, k), 127, np.int8)
    w = np.array([np.full(k, 63), np.where(np.arange(k) == k - 1, 62, 63)], np.int8)
    expected = x.astype(np.int64) @ w.astype(np.int64).T
    np.testing.assert_array_equal(exact_sums(x, w).astype(np.int64), expected)


def test_kept_matrices_are_floats_and_the_rest_of_a_model_is_itself():
    rng = np.random.default_rng(0)
    names = [f"layers.0.{name}.weight" for name in MATRICES]
    params = {name: rng.standard_normal((6, 8)).astype(np.float32) for name in names}
    params |= {
        "layers.0.mlp_norm.weight": np.ones(8, np.float32),
        "head.dense.weight": params[names[0]],
    }
    found = Int8Params(params, {"layers.0.mlp.Wo": "bfloat16", "layers.0.attn.Wo": "float32"})
    assert found["layers.0.attn.Wo.weight"] is params["layers.0.attn.Wo.weight"]
    assert found["head.dense.weight"] is params["head.dense.weight"]
    assert found["layers.0.mlp_norm.weight"] is params["layers.0.mlp_norm.weight"]
    kept = params["layers.0.mlp.Wo.weight"]
    np.testing.assert_array_equal(found["layers.0.mlp.Wo.weight"], widen(to_bits(kept)))
    assert found["layers.0.mlp.Wi.weight"].whole.dtype == np.int8
    assert found["layers.0.mlp.Wi.weight"] is found["layers.0.mlp.Wi.weight"]
    assert dict(found).keys() == params.keys()


def test_rounding_to_bfloat16_is_that_of_files():
    x = np.random.default_rng(0).standard_normal(5000).astype(np.float32) * np.float32(1e3)
    np.testing.assert_array_equal(to_bfloat16(x), widen(to_bits(x)))
    assert np.isnan(to_bfloat16(np.array([np.nan], np.float32)))[0]
