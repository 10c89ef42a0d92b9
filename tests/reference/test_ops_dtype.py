"""Every op gives back the dtype that it was given: a float64 run is float64 throughout."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import unit

from refimpl.reference import ops
from refimpl.reference.erf import erf
from refimpl.reference.pooling import POOLINGS, pool


def calls(dtype: type) -> dict[str, object]:
    """Name of every public function of `ops` that computes -> its result on small arrays."""
    x = unit((2, 5, 3, 8), 1, "x").astype(dtype)
    flat, weight, bias = x.reshape(2, 5, 24), unit((24, 24), 1, "w").astype(dtype), x[0, 0].ravel()
    cos, sin = ops.rope_table(np.arange(5), 8, 10.0, dtype)
    mask, keys = np.array([1, 1, 0, 1, 0], bool), np.array([[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]], bool)
    heads_first = x.swapaxes(1, 2)
    return {
        "linear": ops.linear(flat, weight, bias),
        "layer_norm": ops.layer_norm(flat, bias, bias, 1e-5),
        "gelu": ops.gelu(x),
        "gelu_tanh": ops.gelu_tanh(x),
        "sigmoid": ops.sigmoid(x),
        "silu": ops.silu(x),
        "activate": [ops.activate(x, name) for name in ops.ACTIVATIONS],
        "glu": ops.glu(flat, "gelu"),
        "rope_table": [cos, sin],
        "rotate_half": ops.rotate_half(x),
        "rope": ops.rope(x, cos, sin),
        "split_qkv": list(ops.split_qkv(flat, 2)),
        "softmax": ops.softmax(unit((4, 5), 2, "s").astype(dtype), mask),
        "attention_probs": ops.attention_probs(heads_first, heads_first, keys[:, None, None, :]),
        "weighted": ops.weighted(
            ops.attention_probs(heads_first, heads_first, keys[:, None, None, :])[:1],
            heads_first[:1],
            keys[:1, None, None, :] & np.ones((5, 1), bool),
        ),
        "attention": [ops.attention(x, x, x, keys, window) for window in (None, 2)],
        "attention_packed": ops.attention_packed(x[0], x[0], x[0], np.array([0, 2, 5]), 1),
        "erf": erf(x),
        "pool": [pool(flat, keys, how) for how in POOLINGS],
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ops_keep_the_dtype(dtype: type) -> None:
    for name, result in calls(dtype).items():
        for x in result if isinstance(result, list) else [result]:
            assert x.dtype == dtype and np.isfinite(x).all(), name


def test_every_op_is_in_the_list() -> None:
    """A new function of `ops` needs its line above, or here when it gives no floats."""
    no_floats = {"visible", "query_blocks", "packed_positions", "Activation"}
    own = {
        name
        for name, f in vars(ops).items()
        if callable(f) and getattr(f, "__module__", "") == ops.__name__ and name[0] != "_"
    }
    assert own - no_floats == set(calls(np.float64)) - {"erf", "pool"}
