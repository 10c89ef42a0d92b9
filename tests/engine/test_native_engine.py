"""The engine's whole forward pass, on every tier that this machine has, against float64.

Error per token of the last hidden state against the budget of the float32 family (budget.py). What
a family cannot run (types, positions) is held to the figures of the same batch without them, large
shapes to twice what numpy's float32 shows on the same input. Heads are numpy's on any backend.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import parity
from support.budget import FACTOR, STATISTICS, relative_l2
from support.cases import CASES, Batch, Case, Inputs, mixed, single, unit
from support.heavy import heavy_but_first
from support.last_hidden import kept, within_figures
from support.native import engine_of, extension, misplaced, tiers
from support.strategies import batches, models

from refimpl.backends.engine import Engine, lengths_to_last
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.encoder import encode

native = extension()
every_tier = pytest.mark.parametrize("tier", tiers())


def run_padded(engine: Engine, inputs: Inputs) -> np.ndarray:
    return engine.padded(inputs.input_ids, None, inputs.mask, None, None)


def check_family(case: Case, batch: Batch, tier: str) -> float:
    """Padding before and between real tokens is compared too: heads may pool its first column."""
    inputs = case.inputs(batch)
    truth = parity.run(case, inputs, kinds=())["hidden"][-1]
    got = run_padded(engine_of(case, tier), inputs)
    assert got.dtype == np.float32 and np.isfinite(got).all()
    return within_figures(got, truth, case, batch, kept(inputs.mask))


@every_tier
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden_cases_stay_within_the_float32_budget(case: Case, tier: str, record_property):
    worst = max(check_family(case, batch, tier) for batch in case.batches)
    record_property("observed / budget", f"{worst:.2f}")


@pytest.mark.parametrize("tier", heavy_but_first(tiers()))
@given(st.data())
def test_any_model_and_padding_stays_within_the_float32_budget(tier: str, data: st.DataObject):
    case = data.draw(models())
    check_family(case, data.draw(batches(case.half_window)), tier)


MIXED = mixed(90, (64, "left"), (20, "right"), (90, "none"), (70, "inside"), (0, "empty"))
case_of_options = pytest.mark.parametrize("case", [CASES[0], CASES[2]], ids=lambda c: c.name)


@every_tier
@case_of_options
def test_explicit_positions_turn_the_rotation_only(case: Case, tier: str):
    inputs, config = case.inputs(MIXED), ModernBertConfig.from_dict(case.config())
    positions = np.cumsum(1 + (inputs.input_ids % 3 == 0), axis=1)
    engine = engine_of(case, tier)
    got = engine.padded(inputs.input_ids, None, inputs.mask, None, positions)
    truth = encode(
        case.params(), config, inputs.input_ids, attention_mask=inputs.mask, position_ids=positions
    )
    within_figures(got, truth, case, MIXED, kept(inputs.mask))
    default = np.broadcast_to(np.arange(90), inputs.mask.shape)
    np.testing.assert_array_equal(
        engine.padded(inputs.input_ids, None, inputs.mask, None, default),
        run_padded(engine, inputs),
    )


@every_tier
@case_of_options
def test_token_types_are_added_before_the_norm(case: Case, tier: str):
    table = unit((2, case.hidden), 1, "types")
    name = "embeddings.token_type_embeddings.weight"
    inputs = case.inputs(MIXED)
    types = inputs.input_ids % 2
    config = ModernBertConfig.from_dict({**case.config(), "type_vocab_size": 2})
    params = {**case.params(dtype=np.float32), name: table.astype(np.float32)}
    engine = Engine(config, params, 1, tier)
    for given_types in (types, None):
        got = engine.padded(inputs.input_ids, None, inputs.mask, given_types, None)
        truth = encode(
            {n: x.astype(np.float64) for n, x in params.items()},
            config,
            inputs.input_ids,
            token_type_ids=given_types,
            attention_mask=inputs.mask,
        )
        within_figures(got, truth, case, MIXED, kept(inputs.mask))


@every_tier
def test_token_types_of_a_model_without_any_change_nothing(tier: str):
    inputs, engine = SMALL.inputs(MIXED), engine_of(SMALL, tier)
    zeros = np.zeros_like(inputs.input_ids)
    np.testing.assert_array_equal(
        engine.padded(inputs.input_ids, None, inputs.mask, zeros, None),
        engine.padded(inputs.input_ids, None, inputs.mask, None, None),
    )


@every_tier
@case_of_options
def test_embeddings_given_instead_of_ids_have_the_same_bits(case: Case, tier: str):
    inputs, engine = case.inputs(MIXED), engine_of(case, tier)
    rows = case.params(dtype=np.float32)["embeddings.tok_embeddings.weight"][inputs.input_ids]
    got = engine.padded(None, rows, inputs.mask, None, None)
    np.testing.assert_array_equal(got, run_padded(engine, inputs))


@every_tier
@case_of_options
def test_padding_that_is_nan_is_never_read(case: Case, tier: str):
    """Trailing padding is dropped; a token masked on the way is seen by its own row of queries."""
    inputs, engine = case.inputs(MIXED), engine_of(case, tier)
    rows = case.params(dtype=np.float32)["embeddings.tok_embeddings.weight"][inputs.input_ids]
    rows[inputs.mask == 0] = np.nan
    got = engine.padded(None, rows, inputs.mask, None, None)
    real = inputs.mask != 0
    np.testing.assert_array_equal(got[real], run_padded(engine, inputs)[real])


@every_tier
def test_rows_without_a_token_and_what_follows_the_last_one_are_zero(tier: str):
    case = CASES[0]
    inputs, engine = case.inputs(MIXED), engine_of(case, tier)
    got = run_padded(engine, inputs)
    lengths = lengths_to_last(inputs.mask != 0)
    assert list(lengths) == [90, 20, 90, 90, 0]
    for row, length in zip(got, lengths, strict=True):
        assert row[:length].any(axis=-1).all() and not row[length:].any()
    assert not engine.padded(inputs.input_ids, None, 0 * inputs.mask, None, None).any()


@every_tier
def test_weights_in_any_memory_layout_give_the_same_bits(tier: str):
    case = CASES[2]
    inputs, plain = case.inputs(MIXED), engine_of(case, tier)
    laid_out = {n: misplaced(x) for n, x in case.params(dtype=np.float32).items()}
    for how in ("misaligned", "strided", "transposed", "reversed"):
        engine = engine_of(case, tier, **{n: x[how] for n, x in laid_out.items()})
        np.testing.assert_array_equal(run_padded(engine, inputs), run_padded(plain, inputs))


# The layers of base: its widths and both kinds of attention, fewer of them and fewer words.
BASE = Case(
    "native-base", "v5", "sf", 768, 12, 1152, 997, 128, 160000.0, 10000.0, batches=(single(300),)
)


# Plain C++ takes too long for the longer one.
LENGTHS = [(tier, n) for tier in tiers() for n in (300, 2048) if (tier, n) != ("scalar", 2048)]


@pytest.mark.parametrize(("tier", "length"), heavy_but_first(LENGTHS))
def test_base_layers_are_as_close_to_float64_as_numpy(tier: str, length: int):
    config = ModernBertConfig.from_dict(BASE.config())
    ids = BASE.inputs(single(length)).input_ids
    truth = encode(BASE.params(), config, ids)[0]
    numpy = relative_l2(encode(BASE.params(dtype=np.float32), config, ids)[0], truth)
    hidden = engine_of(BASE, tier, 2).padded(ids, None, np.ones_like(ids), None, None)[0]
    got = relative_l2(hidden, truth)
    for name, statistic in STATISTICS.items():
        assert statistic(got) <= FACTOR * statistic(numpy), name


# -- what goes in ---------------------------------------------------------------------------------

SMALL = CASES[0]
CONFIG = ModernBertConfig.from_dict(SMALL.config())
IDS = np.arange(5)


def small_native() -> Any:
    return engine_of(SMALL, "scalar")._native


REFUSED = {
    "both": lambda e: e.forward(IDS, np.ones((5, 64), np.float32), [0, 5]),
    "neither": lambda e: e.forward(None, None, [0, 5]),
    "id -1": lambda e: e.forward(IDS - 1, None, [0, 5]),
    "id at vocab": lambda e: e.forward(IDS + SMALL.vocab - 4, None, [0, 5]),
    "id 2**62": lambda e: e.forward(IDS + 2**62, None, [0, 5]),
    "ids [1, 5]": lambda e: e.forward(IDS[None], None, [0, 5]),
    "embeds [5, 63]": lambda e: e.forward(None, np.ones((5, 63), np.float32), [0, 5]),
    "cu empty": lambda e: e.forward(IDS, None, np.zeros(0, int)),
    "cu from 1": lambda e: e.forward(IDS, None, [1, 5]),
    "cu falls": lambda e: e.forward(IDS, None, [0, 5, 3, 5]),
    "cu negative": lambda e: e.forward(IDS, None, [0, -5]),
    "cu beyond": lambda e: e.forward(IDS, None, [0, 6]),
    "cu huge": lambda e: e.forward(IDS, None, [0, 2**62]),
    "cu [1, 2]": lambda e: e.forward(IDS, None, [[0, 5]]),
    "no token types": lambda e: e.forward(IDS, None, [0, 5], IDS),
    "token types": lambda e: e.forward(IDS, None, [0, 5], IDS[:4]),
    "positions": lambda e: e.forward(IDS, None, [0, 5], positions=IDS[:4]),
    "visible": lambda e: e.forward(IDS, None, [0, 5], visible=np.ones(4, bool)),
    "threads 0": lambda e: e.forward(IDS, None, [0, 5], threads=0),
    "threads -1": lambda e: e.forward(IDS, None, [0, 5], threads=-1),
}
REFUSED_TYPES = {
    "float ids": lambda e: e.forward(IDS.astype(float), None, [0, 5]),
    "unsigned ids": lambda e: e.forward(IDS.astype(np.uint64), None, [0, 5]),
    "float64 embeds": lambda e: e.forward(None, np.ones((5, 64)), [0, 5]),
    "float cu": lambda e: e.forward(IDS, None, np.array([0.0, 5.0])),
    "cu 2**80": lambda e: e.forward(IDS, None, [0, 2**80]),
    "no cu": lambda e: e.forward(IDS, None, None),
    "wide mask": lambda e: e.forward(IDS, None, [0, 5], visible=np.ones(5, int)),
    "float positions": lambda e: e.forward(IDS, None, [0, 5], positions=IDS * 1.0),
    "float token types": lambda e: e.forward(IDS, None, [0, 5], IDS * 1.0),
    "threads 2**80": lambda e: e.forward(IDS, None, [0, 5], threads=2**80),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_value_of_a_forward_is_a_value_error(what: str):
    with pytest.raises(ValueError):
        REFUSED[what](small_native())


@pytest.mark.parametrize("what", REFUSED_TYPES)
def test_bad_type_of_a_forward_is_a_type_error(what: str):
    with pytest.raises(TypeError):
        REFUSED_TYPES[what](small_native())


def test_empty_sequences_and_no_tokens_are_legal():
    engine = small_native()
    assert engine.forward(IDS[:0], None, [0]).shape == (0, 64)
    assert engine.forward(IDS[:0], None, [0, 0, 0]).shape == (0, 64)
    with_empty = engine.forward(IDS, None, [0, 0, 2, 2, 5, 5])
    np.testing.assert_array_equal(with_empty, engine.forward(IDS, None, [0, 2, 5]))
    more_threads = engine.forward(IDS, None, [0, 2, 5], threads=2**40)
    np.testing.assert_array_equal(more_threads, with_empty)


PLAN = {
    "vocab": SMALL.vocab, "hidden": SMALL.hidden, "inter": SMALL.inter, "heads": SMALL.heads,
    "types": 0, "norm_eps": 1e-5, "activation": "gelu", "windows": [None, 3, 3, None],
    "thetas": [1e4] * 4, "modules": [], "kept": [0] * 4,
    "labels": 0, "classifier_pooling": "cls", "classifier_activation": "gelu",
}  # fmt: skip
BAD_PLANS: dict[str, dict[str, Any]] = {
    "vocab": {"vocab": SMALL.vocab + 1},
    "negative vocab": {"vocab": -1},
    "hidden": {"hidden": 2 * SMALL.hidden},
    "hidden 0": {"hidden": 0},
    "huge hidden": {"hidden": 2**62},
    "inter": {"inter": SMALL.inter + 1},
    "inter 0": {"inter": 0},
    "heads 0": {"heads": 0},
    "heads 3": {"heads": 3},
    "odd head": {"heads": 64},
    "activation": {"activation": "mish"},
    "negative window": {"windows": [None, -3, 3, None]},
    "layers": {"thetas": [1e4] * 3},
    "more layers": {"windows": [None] * 5, "thetas": [1e4] * 5, "kept": [0] * 5},
    "theta 0": {"thetas": [1e4, 0.0, 1e4, 1e4]},
    "theta nan": {"thetas": [1e4, float("nan"), 1e4, 1e4]},
}


@pytest.mark.parametrize("what", BAD_PLANS)
def test_bad_plan_raises(what: str):
    params = SMALL.params(dtype=np.float32)
    assert native.Engine(PLAN, params, "scalar").tier == "scalar"
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        native.Engine(PLAN | BAD_PLANS[what], params, "scalar")


def test_bad_params_raise():
    params = SMALL.params(dtype=np.float32)
    name = "layers.1.mlp.Wi.weight"
    for bad in (params[name].astype(np.float64), params[name][:-1], params[name].T, "weight", None):
        with pytest.raises(ValueError, match="layers.1.mlp.Wi.weight"):
            native.Engine(PLAN, params | {name: bad}, "scalar")
    with pytest.raises(ValueError, match="'final_norm.weight' is missing"):
        native.Engine(PLAN, {n: x for n, x in params.items() if n != "final_norm.weight"}, "scalar")
    with pytest.raises(KeyError):
        native.Engine({n: x for n, x in PLAN.items() if n != "heads"}, params, "scalar")
    with pytest.raises(ValueError, match="tier 'sse' is unknown"):
        native.Engine(PLAN, params, "sse")


def test_engine_outlives_the_parameters_that_it_was_given():
    params = {n: x.copy() for n, x in SMALL.params(dtype=np.float32).items()}
    engine = native.Engine(PLAN, params, "scalar")
    before = engine.forward(IDS, None, [0, 5])
    for name in list(params):
        if name != "embeddings.tok_embeddings.weight":
            params[name][...] = np.nan  # the matrices were copied
    params.clear()
    np.testing.assert_array_equal(engine.forward(IDS, None, [0, 5]), before)


def test_sizes_in_bytes_are_those_of_the_formula():
    engine = engine_of(SMALL, "scalar")._native
    d, inter = SMALL.hidden, SMALL.inter
    assert engine.packed_bytes() == 4 * SMALL.layers * (4 * d * d + 3 * d * inter)
    one, two = (engine.workspace_bytes(n, 1) for n in (1000, 2000))
    assert two - one == 4 * 1000 * 3 * d  # q, k, v; what lies between matrices is of fixed size


def test_layers_are_packed_in_order_and_told():
    params = SMALL.params(dtype=np.float32)
    told: list[int] = []
    native.Engine(PLAN, params, "scalar", "float32", told.append)
    assert told == list(range(SMALL.layers))

    def refuse(layer):
        raise KeyError(layer)

    with pytest.raises(KeyError):
        native.Engine(PLAN, params, "scalar", "float32", refuse)
