"""ModernBERT-base by the kernels of csrc/cuda on this processor, 300 tokens: minutes a dtype.

`pytest -m soak tests/cuda/test_cuda_base.py -s` prints how much of its budget each needs.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from support.cuda import usable
from support.kit_budget import kit_share

from refimpl.backends.engine import Engine
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.params import encoder_shapes, initialise
from refimpl.verify.truth.passes import Pass

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("its_library")]
if not usable():
    pytest.skip("no sources of the engine, or no C++ compiler, here", allow_module_level=True)

DTYPES = {"bfloat16": "bfloat16", "bf16x3": "float32+bf16x3", "float32": "float32"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_base_stays_within_the_derived_budget(dtype: str):
    config = ModernBertConfig.from_variant("base", vocab_size=1000)  # the table is looked up only
    params = initialise(encoder_shapes(config), config, 1, np.dtype("float32"))
    ids = np.random.default_rng(0).integers(0, config.vocab_size, 300)
    cu = np.array([0, 300])
    start = time.process_time()
    got = Engine(config, params, dtype=dtype, backend="cuda").packed(ids, cu)
    took = time.process_time() - start
    wide = {n: x.astype(np.float64) for n, x in params.items()}
    p = Pass(config, wide, {"input_ids": ids, "cu_seqlens": cu})
    share = kit_share(p, got, DTYPES[dtype])
    print(f"\nbase, 300 tokens, {dtype}: {share:.2f} of its budget, {took:.0f} s of processor time")
    assert share <= 1
