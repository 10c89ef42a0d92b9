"""Balanced columns: the same model to the bit in float32, and less lost in int8."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import models

from refimpl.reference.config import ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.reference.int8 import Int8Ops, Int8Params
from refimpl.reference.int8_balance import Peaks, balanced


def made(case, seed=0):
    config = ModernBertConfig.from_dict(case.config())
    params = {n: x.astype(np.float32) for n, x in case.params().items()}
    ids = np.random.default_rng(seed).integers(0, case.vocab, (3, 12))
    peaks = Peaks()
    encode(params, config, ids, tap=peaks)
    return config, params, ids, balanced(params, config, peaks)


@given(models(), st.integers(0, 99))
def test_a_balanced_model_has_the_same_bits_in_float32(case, seed):
    config, params, ids, found = made(case, seed)
    a, b = encode(params, config, ids), encode(found, config, ids)
    np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))
    for name, x in found.items():
        mantissa = np.frexp(x)[0] - np.frexp(params[name])[0]
        assert not mantissa.any(), f"{name} changed by more than a power of two"


@given(models())
def test_balancing_changes_what_int8_concerns_and_nothing_else(case):
    _, params, _, found = made(case)
    changed = {n for n in params if not np.array_equal(params[n], found[n])}
    for name in changed:
        assert name.startswith("layers.") and not name.startswith("layers.0.attn_norm")


@pytest.mark.parametrize("where", ["layers.1.mlp_norm.weight", "layers.2.attn_norm.weight"])
def test_columns_that_stand_out_cost_less(where):
    """One column of what a matrix reads is 300 times the others, its weights as much smaller."""
    from support.cases import CASES

    case = next(c for c in CASES if c.layers > 2 and c.shapes()["final_norm.weight"][0] >= 32)
    config = ModernBertConfig.from_dict(case.config())
    params = {n: x.astype(np.float32) for n, x in case.params().items()}
    matrix = where.replace("mlp_norm", "mlp.Wi").replace("attn_norm", "attn.Wqkv")
    params[where] = params[where].copy()
    params[where][3] *= 300
    params[matrix] = params[matrix].copy()
    params[matrix][:, 3] /= 300
    ids = np.random.default_rng(0).integers(0, case.vocab, (4, 20))
    peaks, truth = Peaks(), encode(params, config, ids)
    encode(params, config, ids, tap=peaks)
    lost = []
    for some in (params, balanced(params, config, peaks)):
        got = encode(Int8Params(some), config, ids, ops=Int8Ops())
        lost.append(np.linalg.norm(got - truth) / np.linalg.norm(truth))
    assert lost[1] < lost[0] / 2
