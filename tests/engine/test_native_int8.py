"""The engine in int8: each tier's products to the bits of the twin, the pass within its budget, and
what is kept. tests/native/cases.h holds every kernel to its integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import CASES
from support.heavy import heavy_but_first
from support.native import BOTH_SIDES, engine_of, extension, tiers
from support.strategies import models
from test_native_engine import run_padded

from refimpl.backends.engine import Engine
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.reference.int8 import (
    KEPT_IN,
    MOST_OF_WEIGHTS,
    Int8Ops,
    Int8Params,
    integers,
    linear,
    matrix_names,
)
from refimpl.verify.truth.compare import compare
from refimpl.verify.truth.passes import Pass

native = extension()
every_tier = pytest.mark.parametrize("tier", tiers())
mostly_the_best = pytest.mark.parametrize("tier", heavy_but_first(tiers()))
sizes = st.tuples(st.integers(1, 40), st.integers(1, 50), st.integers(1, 300))


def drawn(seed: int, rows: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, k)).astype(np.float32)
    x[rng.integers(rows), rng.integers(k)] = 2e4
    return x, rng.standard_normal((n, k)).astype(np.float32)


@every_tier
@given(sizes, st.integers(0, 2**32 - 1), st.booleans())
def test_products_have_the_bits_of_the_twin(tier, size, seed, with_bias):
    x, w = drawn(seed, *size)
    rng = np.random.default_rng(seed)
    bias = rng.standard_normal(len(w)).astype(np.float32) if with_bias else None
    got = native.linear(tier, x, w, bias, dtype="int8", row_split=1 + seed % 50)
    np.testing.assert_array_equal(got, linear(x, integers(w, MOST_OF_WEIGHTS), bias))


@every_tier
def test_the_largest_integers_everywhere_are_not_cut(tier):
    """Where a sum of products in 16 bits would end at 32767."""
    for sign in (1, -1):
        x, w = np.full((9, 1152), 5.0, np.float32), np.full((40, 1152), sign * 0.3, np.float32)
        got = native.linear(tier, x, w, dtype="int8")
        np.testing.assert_array_equal(got, linear(x, integers(w, MOST_OF_WEIGHTS)))
        np.testing.assert_allclose(got, sign * 1152 * 1.5, rtol=1e-6)


@every_tier
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_nan_and_no_other(tier, wrong):
    x, w = drawn(1, 7, 20, 65)
    w[4, 64] = wrong
    x[2, 3] = wrong
    y = native.linear(tier, x, w, dtype="int8")
    np.testing.assert_array_equal(y, linear(x, integers(w, MOST_OF_WEIGHTS)))
    assert np.isnan(y[2]).all() and np.isnan(y[:, 4]).all() and np.isnan(y).sum() == 20 + 7 - 1


@mostly_the_best
@pytest.mark.parametrize("case", heavy_but_first(CASES, 4), ids=lambda case: case.name)
def test_a_pass_is_within_the_budget_of_int8(tier, case):
    config = ModernBertConfig.from_dict(case.config())
    for batch in case.batches:
        inputs = case.inputs(batch)
        got = run_padded(engine_of(case, tier, dtype="int8"), inputs)
        assert got.dtype == np.float32 and np.isfinite(got).all()
        given_inputs = {"input_ids": inputs.input_ids, "attention_mask": inputs.mask}
        p = Pass(config, case.params(), given_inputs)
        assert compare(p, {"final_norm": got.astype(np.float64)}, "float32+int8").ratio <= 1


@mostly_the_best
def test_a_pass_is_nearer_to_its_twin_than_int8_is_to_float32(tier):
    """What differs is a rounding here and there that falls to the other side."""
    for case in CASES[:4]:
        config = ModernBertConfig.from_dict(case.config())
        params = {n: x.astype(np.float32) for n, x in case.params().items()}
        ids = np.random.default_rng(0).integers(0, case.vocab, (2, 30))
        truth = encode(params, config, ids)
        twin = encode(Int8Params(params), config, ids, ops=Int8Ops())
        got = engine_of(case, tier, dtype="int8").padded(ids, None, None, None, None)
        far, near = (np.linalg.norm(x - twin) for x in (truth, got))
        assert 0 < near < far / 3 or near == 0


@every_tier
@given(models(), st.data())
def test_what_is_kept_is_kept(tier, case, data):
    """All kept: the bits of bfloat16, or float32, with float32 rows. Some: the same bits in any
    company."""
    config = ModernBertConfig.from_dict(case.config())
    params = {n: x.astype(np.float32) for n, x in case.params().items()}
    names = matrix_names(config.num_hidden_layers)
    ids = np.random.default_rng(1).integers(0, case.vocab, 17)
    cu = np.array([0, 17])
    narrow = "avx512" if tier in BOTH_SIDES else tier
    for dtype in KEPT_IN:
        expected = Engine(config, params, 1, narrow, dtype).packed(ids, cu)
        got = Engine(config, params, 1, tier, "int8", kept=dict.fromkeys(names, dtype))
        np.testing.assert_array_equal(got.packed(ids, cu), expected)

    some = data.draw(st.dictionaries(st.sampled_from(names), st.sampled_from(KEPT_IN)))
    engine = Engine(config, params, 1, tier, "int8", kept=some)
    engine.num_threads = 3
    np.testing.assert_array_equal(
        engine.packed(np.tile(ids, 2), np.array([0, 17, 34]))[17:], engine.packed(ids, cu)
    )


def test_a_quarter_of_the_memory_and_what_it_needs_beside_it():
    config = ModernBertConfig.from_variant("tiny", hidden_size=256, vocab_size=50)
    from refimpl.reference.params import encoder_shapes, initialise

    params = initialise(encoder_shapes(config), config, 0, np.dtype("f4"))
    whole, small = (Engine(config, params, 1, None, d)._native for d in ("float32", "int8"))
    assert small.packed_bytes() < whole.packed_bytes() * 0.26
    assert small.workspace_bytes(300, 2, 1) > whole.workspace_bytes(300, 2, 1) - 10**6
