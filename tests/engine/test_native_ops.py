"""Every kernel of every tier that this machine has, against float64 in derived bounds.

A sum of n products is off by at most n + 1 roundings of the sum of magnitudes; what else is rounded
adds to that. Sizes straddle vectors, panels and tiles. A kernel that wrote past a row's end would
spoil the next row's beginning, which is done before it: the split tests compare every bit.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import bounded
from support.cases import unit
from support.dense_attention import assert_within, naive
from support.native import BOTH_SIDES, SIZES, extension, misplaced, tiers

from refimpl.reference import ops

native = extension()
every_tier = pytest.mark.parametrize("tier", tiers())
sizes = st.sampled_from(SIZES) | st.integers(1, 140)
HALF_ULP = float(np.finfo(np.float32).eps) / 2

LENGTHS = (1, 2, 5, 8, 23, 24, 25, 56, 57, 63, 64, 65, 66, 127, 128, 129, 130)
HEAD_DIMS = (2, 4, 6, 14, 16, 18, 30, 32, 34, 64, 66, 100, 128, 250, 256)
ACTIVATION_INPUTS = np.concatenate(
    [
        np.linspace(-12, 12, 1501),
        np.geomspace(1e-30, 1e4, 400),
        -np.geomspace(1e-30, 1e4, 400),
        # where one formula takes over from another
        *(edge + np.linspace(-1e-4, 1e-4, 41) for edge in (-5.5154, -3.9, -0.4, 0.4, 3.9, 5.5154)),
        [0.0, -0.0, -87.2, -87.3, -87.4, -104.0, 87.3, 88.3, 100.0],
    ]
).astype(np.float32)


def draw(name: str, *shape: int, seed: int = 0) -> np.ndarray:
    return unit(shape, seed, name).astype(np.float32)


# -- linear ---------------------------------------------------------------------------------------


def linear_exactly(x, weight, bias=None, residual=None):
    """Value in float64, and the largest legitimate error in float32."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    value, size = x @ weight.T, np.abs(x) @ np.abs(weight).T
    for term in (bias, residual):
        if term is not None:
            value, size = value + term, size + np.abs(term)
    roundings = (x.shape[1] + 3) * HALF_ULP
    return value, size * roundings / (1 - roundings)


@every_tier
@given(sizes, sizes, sizes | st.sampled_from([255, 256, 257, 511, 513, 600]), st.data())
def test_linear_is_the_sum_of_products(tier, m, n, k, data):
    x, weight = draw("x", m, k), draw("w", n, k)
    bias = draw("b", n) if data.draw(st.booleans()) else None
    residual = draw("r", m, n) if data.draw(st.booleans()) else None
    if data.draw(st.booleans()):
        x[m // 2, k // 2] = 2.5e4
    got = native.linear(tier, x, weight, bias, residual)
    value, bound = linear_exactly(x, weight, bias, residual)
    assert got.dtype == np.float32 and got.shape == (m, n)
    assert (np.abs(got - value) <= bound).all()


@every_tier
@given(sizes, sizes, st.integers(1, 600), st.integers(1, 70), st.integers(1, 9))
def test_linear_has_the_same_bits_however_it_is_split(tier, m, n, k, rows, panels):
    x, weight, bias, residual = draw("x", m, k), draw("w", n, k), draw("b", n), draw("r", m, n)
    whole = native.linear(tier, x, weight, bias, residual, m, n)
    parts = native.linear(tier, x, weight, bias, residual, rows, panels)
    np.testing.assert_array_equal(parts, whole)
    alone = np.concatenate(
        [native.linear(tier, x[i : i + 1], weight, bias, residual[i : i + 1]) for i in range(m)]
    )
    np.testing.assert_array_equal(alone, whole)


@every_tier
def test_linear_without_rows_or_outputs_is_empty(tier):
    assert native.linear(tier, draw("x", 0, 5), draw("w", 3, 5)).shape == (0, 3)
    assert native.linear(tier, draw("x", 4, 5), draw("w", 0, 5)).shape == (4, 0)


# -- rows -----------------------------------------------------------------------------------------


@every_tier
@given(sizes, st.integers(2, 300), st.sampled_from([1e-12, 1e-7, 1e-5, 1e-2]), st.booleans())
def test_layer_norm_of_plain_offset_and_outlier_rows(tier, rows, n, eps, with_bias):
    x = draw("x", rows, n)
    x[0::4] += 1000.0
    x[1::4, n // 2] = 2.5e4
    x[2::4] *= 1e-4
    weight, bias = draw("w", n), draw("b", n) if with_bias else None
    got = native.layer_norm(tier, x, weight, bias, eps)
    expected = bounded.layer_norm(bounded.exactly(x), weight, bias, float(np.float32(eps)))
    assert expected.agrees(got)


@every_tier
def test_layer_norm_of_equal_entries_is_the_bias(tier):
    x, weight, bias = np.full((3, 37), 4.0, np.float32), draw("w", 37), draw("b", 37)
    got = native.layer_norm(tier, x, weight, bias, 1e-5)
    np.testing.assert_array_equal(got, np.broadcast_to(bias, (3, 37)))


def activated(name, x):
    """Value and bound of one activation, by the first-order rules of `bounded`."""
    a = bounded.exactly(x)
    constant = lambda c: bounded.exactly(np.full(x.shape, c, np.float32))  # noqa: E731
    if name == "gelu":
        return bounded.gelu(a)
    if name in ("gelu_new", "gelu_pytorch_tanh"):
        cube = bounded.times(bounded.times(a, a), a)
        inner = bounded.minus(a, bounded.times(constant(-0.044715), cube))
        inner.error += np.abs(inner.value) * inner.eps  # the constants themselves are rounded
        t = bounded.tanh(bounded.times(constant(np.sqrt(2 / np.pi)), inner))
        one = bounded.minus(t, constant(-1.0))
        return bounded.times(bounded.times(constant(0.5), a), one)
    if name in ("silu", "swish"):
        return bounded.times(a, bounded.sigmoid(a))
    if name == "quick_gelu":
        scaled = bounded.times(constant(1.702), a)
        scaled.error += np.abs(scaled.value) * scaled.eps
        return bounded.times(a, bounded.sigmoid(scaled))
    if name == "tanh":
        return bounded.tanh(a)
    if name == "sigmoid":
        return bounded.sigmoid(a)
    return bounded.exactly(np.maximum(x, 0)) if name == "relu" else a


@every_tier
@pytest.mark.parametrize("name", sorted(ops.ACTIVATIONS))
def test_glu_activates_the_first_half_and_multiplies_by_the_second(tier, name):
    a = ACTIVATION_INPUTS
    g = np.random.default_rng(0).normal(size=a.size).astype(np.float32)
    got = native.glu(tier, np.concatenate([a, g])[None], name)[0]
    with np.errstate(over="ignore"):  # exp(1e4) is infinite, and 1 / inf the right 0
        expected = bounded.times(activated(name, a), bounded.exactly(g))
    off = np.abs(got - expected.value)
    worst = int((off - 2 * expected.error).argmax())
    assert expected.agrees(got), (a[worst], g[worst], expected.value[worst], got[worst])
    # `bounded` holds to what ops.py computes, too
    truth = ops.activate(a.astype(np.float64), name) * g
    assert (np.abs(truth - expected.value) <= 2 * expected.error).all()


@every_tier
@given(st.integers(0, 9), sizes, st.sampled_from(sorted(ops.ACTIVATIONS)))
def test_glu_has_the_same_bits_in_any_row_and_column(tier, rows, inter, name):
    a, g = draw("a", rows, inter) * 4, draw("g", rows, inter)
    got = native.glu(tier, np.concatenate([a, g], axis=1), name)
    assert got.shape == (rows, inter)
    flat = native.glu(tier, np.concatenate([a.ravel(), g.ravel()])[None], name) if rows else got
    np.testing.assert_array_equal(got.ravel(), flat.ravel())


@every_tier
@pytest.mark.parametrize("name", sorted(ops.ACTIVATIONS))
def test_glu_lets_no_nan_disappear(tier, name):
    a = np.array([np.nan, 1.0, np.nan] + [0.5] * 30, np.float32)
    got = native.glu(tier, np.concatenate([a, np.ones_like(a)])[None], name)[0]
    np.testing.assert_array_equal(np.isnan(got), np.isnan(a))


@every_tier
@given(st.integers(1, 20), st.integers(1, 4), st.sampled_from(HEAD_DIMS))
def test_rope_rotates_halves(tier, seq, heads, head_dim):
    x = draw("x", seq, heads, head_dim)
    cos, sin = ops.rope_table(np.arange(seq) * 37, head_dim, 10000.0, np.float32)
    half = head_dim // 2
    got = native.rope(tier, x, cos[:, :half], sin[:, :half])
    wide = [t.astype(np.float64) for t in (x, cos, sin)]
    exact, size = ops.rope(*wide), np.abs(wide[0]) * np.abs(wide[1][:, None])
    size += np.abs(ops.rotate_half(wide[0])) * np.abs(wide[2][:, None])
    assert (np.abs(got - exact) <= 3 * HALF_ULP * size).all()


# -- attention ------------------------------------------------------------------------------------


@every_tier
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("window", [0, 1, 7, 16, 64, None])
def test_attention_equals_dense_masked_attention(tier, length, window):
    q, k, v = (draw(name, length, 2, 16, seed=length) for name in "qkv")
    visible = draw("mask", length) > -0.5
    for mask in (None, visible):
        got = native.attention(tier, q, k, v, window, mask)
        key_mask = np.ones(length, bool) if mask is None else mask
        exact, bound = naive(q[None], k[None], v[None], key_mask[None], window)
        assert_within(got.reshape(1, length, -1), exact, bound)
        assert (got.reshape(1, length, -1)[exact == 0] == 0).all()


@every_tier
@given(
    st.sampled_from(HEAD_DIMS),
    st.integers(1, 70),
    st.integers(0, 80) | st.none(),
    st.sampled_from([1.0, 30.0, 300.0]),
    st.data(),
)
def test_attention_of_any_head_size_mask_and_score(tier, head_dim, length, window, scale, data):
    q, k, v = (draw(name, length, 1, head_dim, seed=length) for name in "qkv")
    q = q * np.float32(scale)
    visible = np.array(data.draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    exact, bound = naive(q[None], k[None], v[None], visible[None], window)
    got = native.attention(tier, q, k, v, window, visible)
    assert_within(got.reshape(1, length, -1), exact, bound)
    # neither keys nor values under the mask are read
    poison = np.where(visible, 0.0, np.nan).astype(np.float32)[:, None, None]
    np.testing.assert_array_equal(
        native.attention(tier, q, k + poison, v + poison, window, visible), got
    )


@every_tier
@pytest.mark.parametrize("length", [300, 515])
def test_attention_over_several_blocks_of_keys(tier, length):
    q, k, v = (draw(name, length, 1, 8) for name in "qkv")
    k *= np.linspace(1, 20, length, dtype=np.float32)[:, None, None]  # the maximum keeps rising
    for window in (None, 100, 290):
        exact, bound = naive(q[None], k[None], v[None], np.ones((1, length), bool), window)
        got = native.attention(tier, q, k, v, window)
        assert_within(got.reshape(1, length, -1), exact, bound)


@every_tier
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("window", [0, 1, 7, 16, 64])
def test_what_a_key_outside_the_window_holds_reaches_no_row(tier, window, bad):
    for dtype in native.dtypes(tier):
        for length, at in ((2, 0), (33, 20), (65, 64), (200, 100), (515, 301)):
            q, k, v = (draw(name, length, 2, 8) for name in "qkv")
            clean = native.attention(tier, q, k, v, window, dtype=dtype)
            v[at, 1, 5] = bad
            near = np.abs(np.arange(length) - at) <= window
            for k_too in (False, True):
                if k_too:
                    k[at, 1, 2] = bad
                got = native.attention(tier, q, k, v, window, dtype=dtype)
                if (
                    dtype == "bfloat16" and tier in BOTH_SIDES
                ):  # sums what it has to sum anew otherwise
                    np.testing.assert_allclose(got[~near], clean[~near], rtol=0.02, atol=0.02)
                else:
                    np.testing.assert_array_equal(got[~near], clean[~near])
                np.testing.assert_array_equal(got[:, 0], clean[:, 0])
                assert not np.isfinite(got[near, 1, 5]).any(), "those that see it are not spared"


@every_tier
def test_attention_without_a_visible_key_is_zero(tier):
    q, k, v = (draw(name, 70, 2, 8) for name in "qkv")
    assert not native.attention(tier, q, k, v, None, np.zeros(70, bool)).any()
    far = np.arange(70) > 40
    got = native.attention(tier, q, k, v, 10, far)
    assert not got[:31].any() and got[31:].any(axis=(1, 2)).all()


# -- what goes in ---------------------------------------------------------------------------------


@every_tier
def test_any_memory_layout_gives_the_same_bits(tier):
    x, weight = draw("x", 9, 20), draw("w", 11, 20)
    q = draw("q", 9, 2, 10)
    half = draw("cos", 9, 5)
    linear, norm = native.linear(tier, x, weight), native.layer_norm(tier, x, weight[0])
    glu, rope = native.glu(tier, x, "gelu"), native.rope(tier, q, half, half)
    attention = native.attention(tier, q, q, q)
    for odd_x, odd_w, odd_q, odd_half in zip(
        *(misplaced(a).values() for a in (x, weight, q, half)), strict=True
    ):
        np.testing.assert_array_equal(native.linear(tier, odd_x, odd_w), linear)
        np.testing.assert_array_equal(native.layer_norm(tier, odd_x, odd_w[0]), norm)
        np.testing.assert_array_equal(native.glu(tier, odd_x, "gelu"), glu)
        np.testing.assert_array_equal(native.rope(tier, odd_q, odd_half, odd_half), rope)
        np.testing.assert_array_equal(native.attention(tier, odd_q, odd_q, odd_q), attention)


ONE, TWO = np.ones((2, 3), np.float32), np.ones((2, 2, 4), np.float32)
REFUSED = {
    "unknown tier": (lambda: native.linear("sse", ONE, ONE), ValueError),
    "empty tier": (lambda: native.linear("", ONE, ONE), ValueError),
    "depth differs": (lambda: native.linear("scalar", ONE, ONE[:, :2]), ValueError),
    "no depth": (lambda: native.linear("scalar", ONE[:, :0], ONE[:, :0]), ValueError),
    "one axis": (lambda: native.linear("scalar", ONE[0], ONE), ValueError),
    "bias": (lambda: native.linear("scalar", ONE, ONE, ONE[0]), ValueError),
    "residual": (lambda: native.linear("scalar", ONE, ONE, None, ONE), ValueError),
    "float64": (lambda: native.linear("scalar", ONE.astype(float), ONE), TypeError),
    "complex": (lambda: native.linear("scalar", ONE.astype(complex), ONE), TypeError),
    "text": (lambda: native.linear("scalar", "x", ONE), TypeError),
    "row split 0": (lambda: native.linear("scalar", ONE, ONE, row_split=0), ValueError),
    "panel split -1": (lambda: native.linear("scalar", ONE, ONE, panel_split=-1), ValueError),
    "norm weight": (lambda: native.layer_norm("scalar", ONE, ONE[0, :2]), ValueError),
    "norm of nothing": (lambda: native.layer_norm("scalar", ONE[:, :0], ONE[0, :0]), ValueError),
    "odd glu": (lambda: native.glu("scalar", ONE, "gelu"), ValueError),
    "activation": (lambda: native.glu("scalar", TWO[0], "mish"), ValueError),
    "odd head": (lambda: native.rope("scalar", TWO[..., :3], ONE, ONE), ValueError),
    "table": (lambda: native.rope("scalar", TWO, TWO[0], TWO[0]), ValueError),
    "keys differ": (lambda: native.attention("scalar", TWO, TWO[:1], TWO), ValueError),
    "window": (lambda: native.attention("scalar", TWO, TWO, TWO, -1), ValueError),
    "huge window": (lambda: native.attention("scalar", TWO, TWO, TWO, 2**80), TypeError),
    "mask": (lambda: native.attention("scalar", TWO, TWO, TWO, 1, np.ones(3, bool)), ValueError),
    "wide mask": (lambda: native.attention("scalar", TWO, TWO, TWO, 1, np.ones(2)), TypeError),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_argument_of_an_operation_raises(what):
    call, error = REFUSED[what]
    with pytest.raises(error):
        call()


def test_huge_window_is_full():
    np.testing.assert_array_equal(
        native.attention("scalar", TWO, TWO, TWO, 2**62), native.attention("scalar", TWO, TWO, TWO)
    )
