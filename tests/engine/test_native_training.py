"""The adjoints, sums and updates of every tier against float64 in derived bounds.

A sum of n products is off by at most n + 1 roundings of the sum of magnitudes; what else is rounded
is followed through the equations to first order. Sums over rows are drawn in several sequences, and
must have the same bits in any two calls that share them.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import unit
from support.native import SIZES, extension, tiers

from refimpl.reference import ops
from refimpl.train import AdamW, StableAdamW, adjoints
from refimpl.train.losses import cross_entropy

native = extension()
every_tier = pytest.mark.parametrize("tier", tiers())
sizes = st.sampled_from(SIZES) | st.integers(1, 140)
U = float(np.finfo(np.float32).eps) / 2
HALF = 2.0**-8  # a rounding to bfloat16
# Tiers that multiply bfloat16 by bfloat16, on the way back too; others round weights alone.
BY_HALVES = ("amx", "avx512bf16")
every_product = pytest.mark.parametrize(
    ("tier", "dtype"), [(t, d) for t in tiers() for d in ("float32", "bfloat16")]
)
RULE = {"lr": 1e-3, "weight_decay": 0.01, "eps": 1e-6, "beta1": 0.9, "beta2": 0.98}
ACTIVATIONS = ("gelu", "gelu_new", "quick_gelu", "silu", "relu", "tanh", "sigmoid", "linear")


def draw(name: str, *shape: int, seed: int = 0) -> np.ndarray:
    return unit(shape, seed, name).astype(np.float32)


def wide(*arrays: np.ndarray) -> list[np.ndarray]:
    return [x.astype(np.float64) for x in arrays]


def assert_within(got: np.ndarray, want: np.ndarray, bound: np.ndarray) -> None:
    miss = np.abs(got - want) - bound
    at = np.unravel_index(np.argmax(miss), miss.shape)
    allowed = np.broadcast_to(bound, miss.shape)[at]
    assert miss[at] <= 0, f"at {at}: {got[at]} for {want[at]}, bound {allowed}"


def summed(tier: str, dtype: str, ends: list[int], dy, x, weight, threads: int = 1):
    dw, db = np.zeros_like(weight), np.zeros(len(weight), np.float32)
    dx = native.rows_linear_adjoint(tier, dtype, ends, dy, x, weight, dw, db, threads)
    return dx, dw, db


# -- linear maps and norms ------------------------------------------------------------------------


@every_product
@given(sizes | st.sampled_from([256, 257, 600, 1025, 1300]), sizes, sizes, st.integers(0, 99))
def test_linear_adjoint_is_three_sums_of_products(tier, dtype, m, n, k, seed):
    dy, x, w = draw("dy", m, n, seed=seed), draw("x", m, k, seed=seed), draw("w", n, k, seed=seed)
    dx, dw, db = summed(tier, dtype, [m // 3, m], dy, x, w, 2)
    d, x, w = wide(dy, x, w)
    half, halves = HALF * (dtype == "bfloat16"), HALF * (dtype == "bfloat16" and tier in BY_HALVES)
    of_factors = (half + halves + half * halves, halves * (2 + halves), 0)
    for got, want, size, terms, rounded in zip(
        (dx, dw, db), adjoints.linear(d, x, w), adjoints.linear(abs(d), abs(x), abs(w)), (n, m, m),
        of_factors, strict=True,
    ):  # fmt: skip
        assert_within(got, want, size * ((terms + 4) * U * (1 + rounded) + rounded))


@every_product
@settings(max_examples=30)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), sizes, sizes, st.data())
def test_sums_over_rows_have_the_same_bits_however_calls_share_the_sequences(
    tier, dtype, lengths, n, k, data
):
    ends, m = np.cumsum(lengths), sum(lengths)
    dy, x, w = draw("dy", m, n), draw("x", m, k), draw("w", n, k)
    whole = summed(tier, dtype, ends, dy, x, w)
    dw, db, start = np.zeros_like(w), np.zeros(n, np.float32), 0
    cuts = sorted(data.draw(st.sets(st.sampled_from(range(1, len(lengths) + 1)))) | {len(lengths)})
    dx = []
    for cut in cuts:
        first, rows = int(ends[start - 1]) if start else 0, slice(None)
        rows = slice(first, int(ends[cut - 1]))
        threads = data.draw(st.integers(1, 5))
        dx.append(
            native.rows_linear_adjoint(
                tier, dtype, ends[start:cut] - first, dy[rows], x[rows], w, dw, db, threads
            )
        )
        start = cut
    for got, want in zip((np.concatenate(dx), dw, db), whole, strict=True):
        assert got.tobytes() == want.tobytes()


@every_tier
@given(sizes, sizes, st.floats(-50, 50, width=32), st.integers(0, 99))
def test_layer_norm_adjoint(tier, rows, n, mean, seed):
    dy, w = draw("dy", rows, n, seed=seed), 1 + draw("w", n, seed=seed)
    x, eps = draw("x", rows, n, seed=seed) + np.float32(mean), 1e-5
    dw, db = np.zeros(n, np.float32), np.zeros(n, np.float32)
    dx = native.rows_layer_norm_adjoint(tier, [rows // 2, rows], dy, x, w, eps, dw, db)
    d, x, w = wide(dy, x, w)
    want = adjoints.layer_norm(d, x, w, eps)
    centred = x - x.mean(-1, keepdims=True)
    s = np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    normed, g, c = centred / s, d * w, (n + 8) * U

    def mean_of(x):
        return x.mean(-1, keepdims=True)

    # The row's mean errs by c mean|x|, s by c s and by the mean's error squared; n by both.
    off = c * mean_of(np.abs(x)) / s
    dn = off + np.abs(normed) * (c + off**2)
    along = np.abs(mean_of(g * normed))
    spread = np.abs(g) + mean_of(np.abs(g)) + np.abs(normed) * mean_of(np.abs(g * normed))
    bound = 2 * (c * spread + dn * along + (np.abs(normed) + dn) * mean_of(np.abs(g) * dn)) / s
    assert_within(dx, want[0], bound + (c + off**2) * np.abs(want[0]))
    terms = (rows + 4) * U
    assert_within(dw, want[1], (np.abs(d) * dn).sum(0) + terms * (np.abs(d * normed)).sum(0))
    assert_within(db, want[2], terms * np.abs(d).sum(0))


@every_tier
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_glu_adjoint(tier, activation):
    gates = np.concatenate([np.linspace(-12, 12, 2001), np.geomspace(1e-30, 80, 99)])
    gates = np.concatenate([gates, -gates]).astype(np.float32)[None]
    up, dy = draw("up", *gates.shape), draw("dy", *gates.shape)
    u = np.concatenate([gates, up], axis=-1)
    got = native.rows_glu_adjoint(tier, dy, u, activation)
    d, u, a, g = wide(dy, u, gates, up)
    want, slope = adjoints.glu(d, u, activation), adjoints.SLOPES[activation](a)
    act = np.abs(ops.activate(a, activation))
    # A sum of two terms, of an argument that errs by U |x|: some eight roundings.
    low = 8 * U * (1 + np.abs(slope) + np.abs(a) * (np.abs(a) < 9))
    bound = np.concatenate([np.abs(d * g) * low, np.abs(d) * 8 * U * (np.abs(a) + act)], axis=-1)
    assert_within(got, want, bound + 1e-37)


# -- attention ------------------------------------------------------------------------------------


def attention_bounds(dy, q, k, v, visible, window, half=0.0):
    """The errors of an evaluation, followed through MODEL.md (26') - (28'), those of float32 to
    first order. half: what products multiply is rounded by as much, and exponentials err by 1e-4.
    Arrays [heads, seq, head_dim]."""
    n, width = q.shape[1:]
    scale, axis = width**-0.5, np.arange(n)
    mask = ops.visible(axis, axis, window)[None] & visible[None, None, :]
    k, v = (np.where(visible[None, :, None], x, 0) for x in (k, v))

    def times(a, b):
        return np.abs(a) @ np.abs(b).swapaxes(-1, -2)

    p = ops.softmax((q @ k.swapaxes(-1, -2)) * scale, mask)
    two = half * (2 + half)  # of a product whose factors are rounded
    of_scores = (width + 3) * U * (1 + two) + two + half * (1 + two)  # the scale's own among them
    e_s = of_scores * times(q, k) * scale
    low = (n + 12) * U + 2e-4 * (half > 0)
    if half:  # all of the exponential, as scores may err by a tenth
        e_p = p * (np.expm1(e_s + (e_s * mask).max(-1, keepdims=True)) * (1 + low) + low)
    else:
        e_p = p * (e_s + (p * e_s).sum(-1, keepdims=True) + low)
    dp, e_dp = dy @ v.swapaxes(-1, -2), ((width + 2) * U * (1 + two) + two) * times(dy, v)
    total = (dp * p).sum(-1, keepdims=True)
    e_total = (p * e_dp + e_p * np.abs(dp) + (n + 2) * U * np.abs(dp * p)).sum(-1, keepdims=True)
    ds = p * (dp - total)
    e_ds = e_p * np.abs(dp - total) + p * (e_dp + e_total) + 3 * U * p * (abs(dp) + abs(total))
    if half:  # products of errors, which first order leaves out
        e_ds = e_ds + e_p * (e_dp + e_total)
    sums = (n + 4) * U + two
    e_ds = e_ds * (1 + sums) + sums * np.abs(ds)
    e_dv = ((e_p * (1 + sums) + sums * p).swapaxes(-1, -2)) @ np.abs(dy)
    e_dk = (e_ds + half * np.abs(ds)).swapaxes(-1, -2) @ np.abs(q) * scale
    return e_ds @ np.abs(k) * scale, e_dk, e_dv


@every_product
@settings(max_examples=40)
@given(
    st.sampled_from([1, 2, 5, 16, 31, 32, 33, 56, 57, 64, 130, 200, 333]),
    st.integers(1, 3),
    st.sampled_from([2, 6, 14, 16, 30, 32, 34, 64, 66]),
    st.none() | st.integers(0, 90),
    st.booleans(),
    st.integers(0, 99),
)
def test_attention_adjoint(tier, dtype, seq, heads, width, window, masked, seed):
    dy, q, k, v = (draw(x, seq, heads, width, seed=seed) * 2 for x in ("dy", "q", "k", "v"))
    visible = np.ones(seq, bool)
    if masked:
        visible = draw("visible", seq, seed=seed) > -0.5
        k[~visible], v[~visible] = np.nan, np.inf  # nobody reads them
    seen = visible.astype(np.uint8) if masked else None
    got = native.rows_attention_adjoint(tier, dtype, dy, q, k, v, window, seen)
    wide_ones = wide(dy.reshape(1, seq, -1), q[None], k[None], v[None])
    want = adjoints.attention(*wide_ones, visible[None], window)
    first = (x.swapaxes(0, 1) for x in wide(dy, q, k, v))
    half = HALF * (dtype == "bfloat16" and tier in BY_HALVES)
    bounds = attention_bounds(*first, visible, window, half)
    for mine, right, bound in zip(got, want, bounds, strict=True):
        assert_within(mine, right[0], 1.5 * bound.swapaxes(0, 1) + 1e-30)


# -- the loss of a decoder ------------------------------------------------------------------------


@every_tier
@settings(max_examples=20)
@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=3), st.integers(1, 70),
    st.sampled_from([1, 2, 33, 511, 512, 513, 1100]), st.sampled_from([0.0, 0.1]), st.booleans(),
)  # fmt: skip
def test_cross_entropy_of_a_decoder(tier, lengths, k, n, smoothing, biased):
    m, ends = sum(lengths), np.cumsum(lengths)
    x, w, b = draw("x", m, k), draw("w", n, k), draw("b", n)
    labels = np.random.default_rng(m).integers(0, n, m)
    dw, db = np.zeros_like(w), np.zeros_like(b)
    losses, dx = native.rows_cross_entropy(
        tier, "float32", ends, x, w, b if biased else None, labels, smoothing, 0.25, dw, db, 2
    )
    x, w, b = wide(x, w, b)
    logits = x @ w.T + (b if biased else 0)
    want = cross_entropy(logits, labels, label_smoothing=float(np.float32(smoothing)))
    g = want.gradient * 0.25
    # A logit errs by its sum; p by that, and by the sum of its row; the target is exact.
    e = (k + 3) * U * (np.abs(x) @ np.abs(w).T + np.abs(b)) + 2 * U * np.abs(logits)
    p = ops.softmax(logits, np.ones_like(logits, bool))
    e_g = 0.25 * (p * (e + (p * e).sum(-1, keepdims=True) + 40 * U) + 4 * U)
    assert abs(losses.sum() - want.total) <= (2 * e.max(-1) + 40 * U).sum()
    terms = U * (m + 4)
    assert_within(dx, g @ w, e_g @ np.abs(w) + (n + 4) * U * (np.abs(g) @ np.abs(w)))
    assert_within(dw, g.T @ x, e_g.T @ np.abs(x) + terms * (np.abs(g).T @ np.abs(x)))
    assert_within(db, g.sum(0), e_g.sum(0) + terms * np.abs(g).sum(0))


# -- gradients as memory --------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 31, 32768, 100_003])
@pytest.mark.parametrize("threads", [1, 3])
def test_all_finite_sees_each_number_and_clear_leaves_none(n, threads):
    x = draw("x", n + 1, 1)[:, 0]
    assert native.all_finite(x, threads)
    for at in {0, n // 2, n}:
        for odd in (np.inf, -np.inf, np.nan):
            kept, x[at] = x[at], odd
            assert not native.all_finite(x, threads)
            x[at] = kept
    native.clear(x[:n], threads)
    assert not x[:n].any() and x[n] == draw("x", n + 1, 1)[n, 0]


# -- updates --------------------------------------------------------------------------------------


@every_tier
@given(sizes | st.sampled_from([32767, 32768, 70001]), st.integers(1, 4), st.integers(0, 99))
def test_adamw_has_the_bits_of_numpy_and_stable_adamw_nearly(tier, n, threads, seed):
    start = draw("p", n, 1, seed=seed)
    for stable in (False, True):
        mine, theirs = start.copy(), start.copy()
        m, v = np.zeros_like(mine), np.zeros_like(mine)
        betas = RULE["beta1"], RULE["beta2"]
        given_ = betas, RULE["eps"], RULE["weight_decay"]
        optimiser = StableAdamW(2e-3, *given_) if stable else AdamW(*given_)
        for t in (1, 2, 3):
            g = draw(f"g{t}", n, 1, seed=seed) * np.float32(4.0**t)
            rule = {**RULE, "step": t, **({"peak": 2e-3} if stable else {})}
            native.update(tier, mine, g, m, v, rule, threads)
            optimiser.update({"p": theirs}, {"p": g}, RULE["lr"])
        assert m.tobytes() == optimiser.moments["p"].first.tobytes()
        assert v.tobytes() == optimiser.moments["p"].second.tobytes()
        if stable:  # the mean of squares is summed in another order: 256 numbers in float32
            moved = np.abs(theirs - start) * 300 * U + 4 * U * np.abs(theirs)
            assert_within(mine, theirs, moved + 4 * U * np.abs(start))
        else:
            assert mine.tobytes() == theirs.tobytes()


# -- refusals -------------------------------------------------------------------------------------

X, W = np.zeros((4, 3), np.float32), np.zeros((3, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: summed("scalar", "float32", [3], X, X, W), "ends stop at 3"),
        (lambda: summed("scalar", "float32", [3, 2, 4], X, X, W), r"ends\[1\] is 2"),
        (lambda: summed("scalar", "float32", [4], X[:3], X, W), "dy has shape"),
        (
            lambda: native.update("scalar", X, X, X, X[::-1], {**RULE, "step": 1}),
            "v must be a float32 array, C-contiguous",
        ),
        (lambda: native.update("scalar", X, X, X, X, {**RULE, "step": 0}), "step is 0"),
        (lambda: native.update("scalar", X, X, X, X, {**RULE, "step": 1, "peak": 0}), "peak is 0"),
        (
            lambda: native.rows_cross_entropy(
                "scalar", "float32", [4], X, X, None, [0, 1, 2, 4], 0.0, 1.0
            ),
            r"labels\[3\] is 4; it must be in 0 .. 3",
        ),
        (lambda: native.rows_glu_adjoint("scalar", X, X, "gelu"), "u has shape"),
        (lambda: native.rows_linear("scalar", "int8", X, W), "dtype is 'int8'; training computes"),
        (lambda: native.rows_glu_adjoint("none", X, np.zeros((4, 6), np.float32), "gelu"), "tier"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
