"""The engine in bfloat16, on every tier that this machine has, and what it may and may not round.

Where a tier computes on float32 activations, nothing but the layers' matrices is rounded: against
the float64 reference with matrices rounded alike it must keep within the float32 budget. On every
tier it must keep within the bfloat16 budget of the unrounded reference (verify/rounding.py).
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.budget import FACTOR, family_figures, relative_l2
from support.cases import CASES, Batch, Case, mixed
from support.heavy import heavy_but_first
from support.native import BOTH_SIDES, engine_of, extension, tiers_and_dtypes
from support.strategies import batches, models
from test_native_engine import kept, run_padded, within_figures

from refimpl.backends.engine import Engine
from refimpl.files.bfloat16 import BFLOAT16, to_bits, widen
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.verify.truth.compare import compare
from refimpl.verify.truth.passes import Pass

extension()
TIERS = [tier for tier, dtype in tiers_and_dtypes() if dtype == "bfloat16"]
every_tier = pytest.mark.parametrize("tier", TIERS)
mostly_the_best = pytest.mark.parametrize("tier", heavy_but_first(TIERS))
on_float32_rows = pytest.mark.parametrize(
    "tier", heavy_but_first(tier for tier in TIERS if tier not in BOTH_SIDES)
)

Params = dict[str, np.ndarray]


def is_matrix(name: str) -> bool:
    return name.endswith(("Wqkv.weight", "Wo.weight", "Wi.weight"))


def rounded(params: Params) -> Params:
    """The layers' matrices as bfloat16 has them, all else as it is."""
    return {
        name: widen(to_bits(x)).astype(x.dtype) if is_matrix(name) else x
        for name, x in params.items()
    }


def run(case: Case, batch: Batch, params: Params) -> np.ndarray:
    """Last hidden state of the reference, in the dtype of params."""
    inputs, config = case.inputs(batch), ModernBertConfig.from_dict(case.config())
    return encode(params, config, inputs.input_ids, attention_mask=inputs.mask)


def check_rounds_matrices_alone(case: Case, batch: Batch, tier: str) -> None:
    inputs = case.inputs(batch)
    got = run_padded(engine_of(case, tier, dtype="bfloat16"), inputs)
    assert got.dtype == np.float32 and np.isfinite(got).all()
    truth = run(case, batch, rounded(case.params()))
    within_figures(got, truth, case, batch, kept(inputs.mask))


def check_within_bfloat16(case: Case, batch: Batch, tier: str) -> None:
    inputs, config = case.inputs(batch), ModernBertConfig.from_dict(case.config())
    got = run_padded(engine_of(case, tier, dtype="bfloat16"), inputs)
    given_inputs = {"input_ids": inputs.input_ids, "attention_mask": inputs.mask}
    p = Pass(config, case.params(), given_inputs)
    assert compare(p, {"final_norm": got.astype(np.float64)}, "bfloat16").ratio <= 1


@on_float32_rows
@pytest.mark.parametrize("case", heavy_but_first(CASES, 4), ids=lambda case: case.name)
def test_golden_cases_round_matrices_and_nothing_else(case: Case, tier: str):
    for batch in case.batches:
        check_rounds_matrices_alone(case, batch, tier)


@on_float32_rows
@given(st.data())
def test_any_model_and_padding_rounds_matrices_and_nothing_else(tier: str, data: st.DataObject):
    case = data.draw(models())
    check_rounds_matrices_alone(case, data.draw(batches(case.half_window)), tier)


@mostly_the_best
@pytest.mark.parametrize("case", heavy_but_first(CASES, 4), ids=lambda case: case.name)
def test_golden_cases_stay_within_the_bfloat16_budget(case: Case, tier: str):
    check_within_bfloat16(case, case.batches[-1], tier)


@mostly_the_best
@given(st.data())
def test_any_model_and_padding_stays_within_the_bfloat16_budget(tier: str, data: st.DataObject):
    case = data.draw(models())
    check_within_bfloat16(case, data.draw(batches(case.half_window)), tier)


MIXED = mixed(90, (64, "left"), (20, "right"), (90, "none"))


@every_tier
@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case.name)
def test_rounding_shows(case: Case, tier: str):
    """So that a tier that forgets to round, or rounds twice, is seen."""
    inputs = case.inputs(MIXED)
    got = run_padded(engine_of(case, tier, dtype="bfloat16"), inputs)
    which = inputs.mask != 0
    errors = relative_l2(got[which], run(case, MIXED, case.params())[which])
    figures = family_figures(case, MIXED, "float32")[f"hidden[{case.layers + 1}]"]
    assert errors.mean() > FACTOR * figures["mean"]


@every_tier
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("on_disk", ["float16", "bfloat16"])
def test_file_in_half_precision_has_the_bits_of_its_float32_values(tier, dtype, on_disk):
    case = CASES[0]
    config, inputs = ModernBertConfig.from_dict(case.config()), case.inputs(MIXED)
    params = case.params(dtype=np.float32)
    if on_disk == "float16":
        held = {name: x.astype(np.float16) for name, x in params.items()}
        values = {name: x.astype(np.float32) for name, x in held.items()}
    else:
        held = {name: to_bits(x).view(BFLOAT16) for name, x in params.items()}
        values = {name: widen(to_bits(x)) for name, x in params.items()}
    one, two = (Engine(config, p, 1, tier, dtype) for p in (held, values))
    np.testing.assert_array_equal(run_padded(one, inputs), run_padded(two, inputs))
