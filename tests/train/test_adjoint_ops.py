"""Every equation's adjoint by the dot-product test, in float64; and dtypes, masks and edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.adjoint import check, derivative, directions, normal

from refimpl.reference import ops, sentence
from refimpl.reference.pooling import POOLINGS, pool
from refimpl.train import adjoints
from refimpl.train import pooling as pool_adjoint
from refimpl.train import sentence as sentence_adjoint

seeds = st.integers(0, 2**16)
sizes = st.integers(1, 9)
leading = st.lists(st.integers(1, 4), min_size=0, max_size=3).map(tuple)


@given(leading, sizes, sizes, seeds, st.booleans())
def test_linear(axes, n_in, n_out, seed, bias):
    x = {"x": normal(seed, *axes, n_in), "W": normal(seed, n_out, n_in), "b": normal(seed, n_out)}
    if not bias:
        del x["b"]

    def back(u):
        found = dict(zip("xWb", adjoints.linear(u, x["x"], x["W"]), strict=True))
        return {name: found[name] for name in x}

    check(lambda a: ops.linear(a["x"], a["W"], a.get("b")), back, x, seed)


@given(leading, st.integers(3, 9), seeds, st.booleans())  # two numbers become +1 and -1
def test_layer_norm(axes, n, seed, bias):
    x = {"x": normal(seed, *axes, n) + 3.0, "w": normal(seed, n, 1)[:, 0], "b": normal(seed, n)}
    if not bias:
        del x["b"]

    def back(u):
        found = dict(zip("xwb", adjoints.layer_norm(u, x["x"], x["w"], 1e-5), strict=True))
        return {name: found[name] for name in x}

    check(lambda a: ops.layer_norm(a["x"], a["w"], a.get("b"), 1e-5), back, x, seed)


def test_every_activation_has_a_slope():
    assert list(adjoints.SLOPES) == list(ops.ACTIVATIONS)


@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_activation(name):
    x = {"x": np.concatenate([normal(1, 300) * 3, [40.0, -40.0, 8.0, -8.0, 1e-9]])}
    back = lambda u: {"x": adjoints.activate(u, x["x"], name)}  # noqa: E731
    check(lambda a: ops.activate(a["x"], name), back, x)
    slope = derivative(lambda a: ops.activate(a["x"], name), x, {"x": np.ones(305)})
    got = adjoints.activate(np.ones(305), x["x"], name)
    np.testing.assert_allclose(got, slope, rtol=1e-13, atol=1e-14)


@given(leading, sizes, seeds, st.sampled_from(sorted(ops.ACTIVATIONS)))
def test_glu(axes, inter, seed, name):
    x = {"u": normal(seed, *axes, 2 * inter)}
    check(lambda a: ops.glu(a["u"], name), lambda u: {"u": adjoints.glu(u, x["u"], name)}, x, seed)


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), seeds)
def test_rope(batch, seq, heads, half, seed):
    cos, sin = ops.rope_table(np.arange(seq), 2 * half, 10.0, np.float64)
    x = {"x": normal(seed, batch, seq, heads, 2 * half)}
    back = lambda u: {"x": adjoints.rope(u, cos, sin)}  # noqa: E731
    check(lambda a: ops.rope(a["x"], cos, sin), back, x, seed)
    turned = ops.rope(x["x"], cos, sin)
    np.testing.assert_allclose(adjoints.rope(turned, cos, sin), x["x"], atol=1e-14)


@given(leading, st.integers(1, 4), st.integers(1, 4), seeds)
def test_split_qkv(axes, heads, head_dim, seed):
    x = {"x": normal(seed, *axes, 3 * heads * head_dim)}
    f = lambda a: np.concatenate(ops.split_qkv(a["x"], heads), axis=-1)  # noqa: E731
    back = lambda u: {"x": adjoints.split_qkv(*np.split(u, 3, axis=-1))}  # noqa: E731
    check(f, back, x, seed)


@given(leading, sizes, seeds)
def test_softmax_with_hidden_entries_and_empty_rows(axes, n, seed):
    x, mask = {"s": normal(seed, *axes, n)}, normal(seed + 1, *axes, n) > 0
    probs = ops.softmax(x["s"], mask)
    f = lambda a: ops.softmax(a["s"], mask)  # noqa: E731
    check(f, lambda u: {"s": adjoints.softmax(u, probs)}, x, seed)


@st.composite
def attentions(draw):
    """q, k, v, a mask that may leave rows empty, and a window: sizes straddle the blocks of 16."""
    batch, heads, head_dim = draw(st.integers(1, 2)), draw(st.integers(1, 3)), 4
    seq = draw(st.sampled_from([1, 2, 15, 16, 17, 33, 50]) | st.integers(1, 60))
    window = draw(st.none() | st.sampled_from([0, 1, 2, 7, 16, 17, 100]))
    seed = draw(seeds)
    shape = (batch, seq, heads, head_dim)
    x = {name: normal(seed + n, *shape) for n, name in enumerate("qkv")}
    seen = np.random.default_rng(seed).random((batch, seq)) < draw(st.sampled_from([1.0, 0.6, 0.1]))
    return x, seen, window, seed


@given(attentions())
def test_attention(case):
    x, seen, window, seed = case
    f = lambda a: ops.attention(a["q"], a["k"], a["v"], seen, window)  # noqa: E731

    def back(u):
        return dict(zip("qkv", adjoints.attention(u, *x.values(), seen, window), strict=True))

    check(f, back, x, seed)


@given(attentions())
def test_attention_in_small_blocks_of_queries(case):
    x, seen, window, seed = case
    whole = adjoints.attention(
        normal(seed, *seen.shape, 4 * x["q"].shape[2]), *x.values(), seen, None
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "MAX_BLOCK_SCORES", 3 * x["q"].shape[2] * seen.shape[1])
        u = normal(seed, *seen.shape, 4 * x["q"].shape[2])
        parts = adjoints.attention(u, *x.values(), seen, None)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@given(attentions(), st.integers(1, 4))
def test_attention_packed(case, pieces):
    x, seen, window, seed = case
    x = {name: a[0] for name, a in x.items()}
    total = len(x["q"])
    cuts = np.random.default_rng(seed).integers(1, total + 1, pieces)
    cu = np.unique(np.concatenate([[0], cuts, [total]]))
    f = lambda a: ops.attention_packed(a["q"], a["k"], a["v"], cu, window)  # noqa: E731

    def back(u):
        return dict(zip("qkv", adjoints.attention_packed(u, *x.values(), cu, window), strict=True))

    check(f, back, x, seed)


def test_attention_never_reads_a_masked_key():
    q, k, v = (normal(n, 1, 40, 2, 4) for n in range(3))
    seen = np.arange(40)[None, :] % 3 > 0
    u = normal(4, 1, 40, 8)
    clean = adjoints.attention(u, q, k, v, seen, 5)
    k[~seen], v[~seen] = np.nan, np.inf
    for a, b in zip(clean, adjoints.attention(u, q, k, v, seen, 5), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not clean[1][~seen].any() and not clean[2][~seen].any()


def test_windowed_attention_costs_seq_times_window():
    """The blocks hold O(seq * window) weights; all of them, seq^2."""
    q, k = normal(0, 1, 2048, 1, 2), normal(1, 1, 2048, 1, 2)
    seen = np.ones((1, 2048), bool)

    def held(window):
        return sum(b[3].size for b in adjoints.attention_blocks(q, k, seen, window, None))

    assert held(None) == 2048**2
    assert held(64) <= 2048 * 3 * 64 and held(8) <= 2048 * (16 + 2 * 8)


@given(leading, st.integers(1, 6), st.integers(1, 5), seeds)
def test_rows_of_a_table(axes, rows, hidden, seed):
    ids = np.random.default_rng(seed).integers(0, rows, axes)
    x = {"E": normal(seed, rows, hidden)}
    check(lambda a: a["E"][ids], lambda u: {"E": adjoints.take(u, ids, rows)}, x, seed)


@given(st.sampled_from(sorted(POOLINGS)), st.integers(1, 3), st.integers(1, 8), seeds,
       st.integers(0, 3), st.booleans())  # fmt: skip
def test_pooling(how, batch, seq, seed, prompt, masked):
    mask = np.random.default_rng(seed).random((batch, seq)) < 0.6 if masked else None
    x = {"h": normal(seed, batch, seq, 5)}
    f = lambda a: pool(a["h"], mask, how, prompt_length=prompt)  # noqa: E731
    back = lambda u: {"h": pool_adjoint.pool(u, x["h"], mask, how, prompt_length=prompt)}  # noqa: E731
    check(f, back, x, seed)


def test_max_gives_a_tie_to_the_first_token():
    hidden = np.array([[[2.0], [5.0], [5.0]]])
    d = pool_adjoint.pool(np.ones((1, 1)), hidden, None, "max")
    assert d[0, :, 0].tolist() == [0.0, 1.0, 0.0]


@given(st.integers(1, 4), st.integers(2, 6), seeds)  # one number has no direction to turn
def test_normalize(batch, width, seed):
    x = {"x": normal(seed, batch, width)}
    back = lambda u: {"x": sentence_adjoint.normalize(u, x["x"])}  # noqa: E731
    check(lambda a: sentence.normalize(a["x"]), back, x, seed)


def test_normalize_of_a_zero_vector_is_a_division_by_the_floor():
    d = sentence_adjoint.normalize(np.ones((1, 3)), np.zeros((1, 3)))
    np.testing.assert_array_equal(d, np.full((1, 3), 1e12))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adjoints_keep_the_dtype(dtype):
    x, w = normal(1, 2, 5, 8).astype(dtype), normal(2, 8, 8).astype(dtype)
    heads = x.reshape(2, 5, 2, 4)
    cos, sin = ops.rope_table(np.arange(5), 4, 10.0, dtype)
    keys = np.array([[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]], bool)
    found = {
        "linear": adjoints.linear(x, x, w),
        "layer_norm": adjoints.layer_norm(x, x, w[0], 1e-5),
        "over_tokens": [adjoints.over_tokens(x)],
        "activate": [adjoints.activate(x, x, name) for name in ops.ACTIVATIONS],
        "glu": [adjoints.glu(x[..., :4], x, "gelu")],
        "rope": [adjoints.rope(heads, cos, sin)],
        "split_qkv": [adjoints.split_qkv(heads, heads, heads)],
        "softmax": [adjoints.softmax(x, ops.softmax(x, np.ones(8, bool)))],
        "attention": adjoints.attention(x, heads, heads, heads, keys, 1),
        "attention_packed": adjoints.attention_packed(
            x[0], *(heads[0],) * 3, np.array([0, 2, 5]), None
        ),
        "take": [adjoints.take(x, np.zeros((2, 5), np.int64), 3)],
        "pool": [pool_adjoint.pool(x[:, 0], x, keys, how) for how in POOLINGS],
        "normalize": [sentence_adjoint.normalize(x, x)],
    }
    for name, arrays in found.items():
        for a in arrays:
            assert a.dtype == dtype and np.isfinite(a).all(), name


def test_every_equation_that_has_a_gradient_has_an_adjoint():
    """A new function of `ops` needs an adjoint, or its name here: no gradient passes through it."""
    none = {"visible", "query_blocks", "packed_positions", "rope_table", "Activation"}
    within = {"attention_probs", "weighted", "rotate_half"}  # part of attention's, of rope's
    own = {n for n, f in vars(ops).items() if getattr(f, "__module__", "") == ops.__name__}
    assert own - none - within <= set(vars(adjoints))


def test_a_wrong_adjoint_is_seen():
    x = {"x": normal(1, 3, 4)}
    right = lambda u: {"x": adjoints.activate(u, x["x"], "gelu")}  # noqa: E731
    wrong = lambda u: {"x": right(u)["x"] * (1 + 1e-11)}  # noqa: E731
    f = lambda a: ops.activate(a["x"], "gelu")  # noqa: E731
    assert check(f, right, x) <= 1e-14
    with pytest.raises(AssertionError):
        check(f, wrong, x)
    assert set(directions(x, 0)) == {"x"}
