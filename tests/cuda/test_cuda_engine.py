"""The device engine, its kernels run on this processor: budgets, steps, bits, memory and errors.

The library is that of csrc/cuda, compiled for this processor (support/cuda.py). What it shows of a
device: all but speed, and whether documents describe devices rightly. Nothing here has run on one.
"""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import parity
from support.budget import FACTOR
from support.cases import CASES, Case, integers, mixed
from support.cuda import order, stand_in, usable, used
from support.kit_budget import kit_share
from support.last_hidden import kept, within_figures
from support.strategies import batches, lengths, models

from refimpl.backends import cuda
from refimpl.backends.engine import Engine
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.reference.taps import record
from refimpl.verify.truth.passes import Pass

# A minute to build, and a kernel is slow here.
pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("its_library")]
if not usable():
    pytest.skip("no sources of the engine, or no C++ compiler, here", allow_module_level=True)

DTYPES = ("float32", "bf16x3", "bfloat16")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
# As the conformance kit names what is computed.
OF_THE_KIT = {"float32": "float32", "bf16x3": "float32+bf16x3", "bfloat16": "bfloat16"}
# Unit roundoffs of the products, over float32's: how much wider than its budget a step may be.
WIDER = {"float32": 1, "bf16x3": 2.0**8, "bfloat16": 2.0**16}


def engine_of(case: Case, dtype: str = "float32") -> Engine:
    config = ModernBertConfig.from_dict(case.config())
    return Engine(config, case.params(dtype=np.float32), dtype=dtype, backend="cuda")


def packed(engine: Engine, sequences: list[np.ndarray]) -> list[np.ndarray]:
    cu_seqlens = np.cumsum([0, *map(len, sequences)])
    out = engine.packed(np.concatenate(sequences), cu_seqlens)
    return np.split(out, cu_seqlens[1:-1])


# -- budgets --------------------------------------------------------------------------------------


def share(case: Case, dtype: str, batch) -> float:
    """observed / budget: of the float32 family, or of the kit's in the other dtypes."""
    inputs = case.inputs(batch)
    got = engine_of(case, dtype).padded(inputs.input_ids, None, inputs.mask, None, None)
    if dtype == "float32":
        truth = parity.run(case, inputs, kinds=())["hidden"][-1]
        assert np.isfinite(got).all()
        return within_figures(got, truth, case, batch, kept(inputs.mask))
    config = ModernBertConfig.from_dict(case.config())
    given_inputs = {"input_ids": inputs.input_ids, "attention_mask": inputs.mask}
    worst = kit_share(Pass(config, case.params(), given_inputs), got, OF_THE_KIT[dtype])
    assert worst <= 1
    return worst


@every_dtype
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden_cases_stay_within_the_budget(case: Case, dtype: str, record_property):
    worst = max(share(case, dtype, batch) for batch in case.batches)
    record_property("observed / budget", f"{worst:.2f}")


@given(st.data())
@settings(max_examples=15)
def test_any_model_and_padding_stays_within_the_float32_budget(data: st.DataObject):
    case = data.draw(models())
    share(case, "float32", data.draw(batches(case.half_window)))


# -- steps ----------------------------------------------------------------------------------------

LENGTHS = (1, 7, 66, 40)
CU_SEQLENS = np.cumsum([0, *LENGTHS])
NOT_OBSERVABLE = ("q", "k", "v", "q_rot", "k_rot", "attn_out", "wi", "mlp_out")


def trace(engine: Engine, ids: np.ndarray, fused: bool) -> dict[str, np.ndarray]:
    store: dict[str, list[np.ndarray]] = {}

    def tap(step, layer, first_row, rows):
        pieces = store.setdefault(step if layer is None else f"layers.{layer}.{step}", [])
        assert first_row == sum(map(len, pieces))
        pieces.append(rows)

    nothing = None, None, None
    given = ids, None, CU_SEQLENS, *nothing
    store["last"] = [engine.opened.trace(*given, fused=fused, tap=tap)]
    return {name: np.concatenate(pieces) for name, pieces in store.items()}


@every_dtype
@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case.name)
def test_unfused_run_gives_every_step_and_the_bits_of_the_fused(case: Case, dtype: str):
    ids = np.random.default_rng(case.seed).integers(0, case.vocab, sum(LENGTHS))
    truth: dict[str, np.ndarray] = {}
    config = ModernBertConfig.from_dict(case.config())
    encode(case.params(dtype=np.float64), config, ids, cu_seqlens=CU_SEQLENS, tap=record(truth))
    # numpy's float32 is one honest evaluation; some cases lose more than their depth says.
    numpy32: dict[str, np.ndarray] = {}
    encode(case.params(dtype=np.float32), config, ids, cu_seqlens=CU_SEQLENS, tap=record(numpy32))
    engine = engine_of(case, dtype)
    plain = engine.packed(ids, CU_SEQLENS)
    every, fused = trace(engine, ids, False), trace(engine, ids, True)
    np.testing.assert_array_equal(every["last"], plain)
    np.testing.assert_array_equal(every.pop("final_norm"), every.pop("last"))
    assert set(every) == set(truth) - {"final_norm"}
    for name, got in every.items():
        exact = truth[name].reshape(got.shape)
        size = np.linalg.norm(exact)
        legitimate = np.linalg.norm(numpy32[name].reshape(got.shape) - exact) / size
        usual = 2.0**-24 * 8 * (case.layers + 1)
        off = np.linalg.norm(got - exact) / size
        assert off < WIDER[dtype] * max(FACTOR * legitimate, usual), name
    np.testing.assert_array_equal(fused.pop("last"), plain)
    missing = {n for n in every if n.rpartition(".")[2] in NOT_OBSERVABLE and "rope" not in n}
    assert set(fused) - {"final_norm"} == set(every) - missing
    for name in set(fused) & set(every):
        np.testing.assert_array_equal(fused[name], every[name])


# -- bits -----------------------------------------------------------------------------------------


def check_bits(data: st.DataObject, dtype: str) -> None:
    """A sequence alone, and in drawn company, order and padding; threads of blocks go in other
    orders at every launch."""
    case = data.draw(models())
    counts = data.draw(st.lists(lengths(case.half_window, 150), min_size=1, max_size=4))
    sequences = [
        integers((n,), case.vocab, case.seed, f"sequence {i}") for i, n in enumerate(counts)
    ]
    order = data.draw(st.permutations(range(len(sequences))))
    engine = engine_of(case, dtype)
    expected = [packed(engine, [s])[0] for s in sequences]
    mixed_up = [sequences[i] for i in order]
    if data.draw(st.booleans()):
        got = packed(engine, mixed_up)
    else:
        seq = max(map(len, sequences)) + data.draw(st.integers(0, 70))
        ids = np.stack([np.pad(s, (0, seq - len(s)), constant_values=3) for s in mixed_up])
        mask = np.arange(seq) < np.array([[len(s)] for s in mixed_up])
        out = engine.padded(ids, None, mask, None, None)
        got = [row[: len(s)] for row, s in zip(out, mixed_up, strict=True)]
    for i, y in zip(order, got, strict=True):
        np.testing.assert_array_equal(y.view(np.uint32), expected[i].view(np.uint32))


@every_dtype
def test_the_order_of_threads_and_blocks_changes_nothing(here: Path, dtype: str):
    check_orders(here, dtype, 10)


@pytest.mark.soak
@every_dtype
def test_three_hundred_orders_change_nothing(here: Path, dtype: str):
    check_orders(here, dtype, 300)


def check_orders(path: Path, dtype: str, orders: int) -> None:
    """A pass and every step of it, in other orders each time."""
    case = CASES[0]
    ids = integers((sum(LENGTHS),), case.vocab, case.seed, "ids")
    engine = engine_of(case, dtype)
    plain, steps = engine.packed(ids, CU_SEQLENS), trace(engine, ids, False)
    for seed in range(1, orders):
        with order(path, 0x9E3779B97F4A7C15 * seed % 2**64):
            np.testing.assert_array_equal(engine.packed(ids, CU_SEQLENS), plain)
            if seed % 5 == 1:
                for name, rows in trace(engine, ids, False).items():
                    np.testing.assert_array_equal(rows, steps[name])


@every_dtype
@settings(max_examples=15)
@given(st.data())
def test_same_bits_in_any_company_order_and_padding(dtype: str, data: st.DataObject):
    check_bits(data, dtype)


@pytest.mark.soak
@every_dtype
@settings(max_examples=700)
@given(st.data())
def test_same_bits_over_two_thousand_draws(dtype: str, data: st.DataObject):
    check_bits(data, dtype)


# -- what else goes in ----------------------------------------------------------------------------

MIXED = mixed(90, (64, "left"), (20, "right"), (90, "none"), (70, "inside"), (0, "empty"))
CASE = CASES[0]


def close(got: np.ndarray, truth: np.ndarray, layers: int = 4) -> None:
    off = np.linalg.norm(got - truth) / np.linalg.norm(truth)
    assert off < 2.0**-24 * 8 * (layers + 1)


def test_positions_types_embeddings_and_nan_in_padding():
    inputs, config = CASE.inputs(MIXED), ModernBertConfig.from_dict(CASE.config())
    positions = np.cumsum(1 + (inputs.input_ids % 3 == 0), axis=1)
    engine, which = engine_of(CASE), kept(inputs.mask)
    ids = inputs.input_ids
    got = engine.padded(ids, None, inputs.mask, None, positions)
    where = dict(attention_mask=inputs.mask, position_ids=positions)
    close(got[which], encode(CASE.params(), config, ids, **where)[which], CASE.layers)
    plain = engine.padded(ids, None, inputs.mask, None, None)
    default = np.broadcast_to(np.arange(90), inputs.mask.shape)
    np.testing.assert_array_equal(engine.padded(ids, None, inputs.mask, None, default), plain)
    rows = CASE.params(dtype=np.float32)["embeddings.tok_embeddings.weight"][ids]
    rows[inputs.mask == 0] = np.nan
    real = inputs.mask != 0
    np.testing.assert_array_equal(
        engine.padded(None, rows, inputs.mask, None, None)[real], plain[real]
    )
    typed = ModernBertConfig.from_dict({**CASE.config(), "type_vocab_size": 2})
    name = "embeddings.token_type_embeddings.weight"
    table = np.random.default_rng(0).normal(size=(2, CASE.hidden)).astype(np.float32)
    params = {**CASE.params(dtype=np.float32), name: table}
    with_types = Engine(typed, params, backend="cuda")
    for types in (ids % 2, None):
        truth = encode(
            {n: x.astype(np.float64) for n, x in params.items()}, typed, ids,
            token_type_ids=types, attention_mask=inputs.mask,
        )  # fmt: skip
        got = with_types.padded(ids, None, inputs.mask, types, None)
        close(got[which], truth[which], CASE.layers)


@pytest.mark.parametrize("stored", [np.float16, "bfloat16"])
def test_weights_are_taken_as_they_are_stored(stored):
    from refimpl.files.bfloat16 import BFLOAT16

    config = ModernBertConfig.from_dict(CASE.config())
    params = {}
    for name, x in CASE.params(dtype=np.float32).items():
        if stored == "bfloat16":
            bits = (x.view(np.uint32) >> 16).astype(np.uint16)
            params[name] = bits.view(BFLOAT16)
        else:
            params[name] = x.astype(np.float16)
    wide = {
        n: (x["bits"].astype(np.uint32) << 16).view(np.float32)
        if x.dtype == BFLOAT16
        else x.astype(np.float32)
        for n, x in params.items()
    }
    ids, cu = np.arange(40) % CASE.vocab, np.array([0, 40])
    got = Engine(config, params, backend="cuda").packed(ids, cu)
    np.testing.assert_array_equal(got, Engine(config, wide, backend="cuda").packed(ids, cu))


# Of a head, 34, 128, 16 and 64 columns; and every activation that kernels have.
SIZES = [(68, 2, "silu"), (256, 2, "gelu"), (96, 6, "relu"), (64, 1, "gelu_new")]
SIZES += [(64, 2, name) for name in ("quick_gelu", "tanh", "sigmoid", "linear")]


@pytest.mark.parametrize(("hidden", "heads", "activation"), SIZES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_head_sizes_and_activations(hidden: int, heads: int, activation: str, dtype: str):
    values = {**CASE.config(), "hidden_size": hidden, "num_attention_heads": heads}
    values |= {"intermediate_size": 50, "hidden_activation": activation}
    config = ModernBertConfig.from_dict(values)
    from refimpl.reference.params import encoder_shapes, initialise

    params = initialise(encoder_shapes(config), config, 1, np.dtype("float32"))
    ids, cu = integers((150,), CASE.vocab, 1, "ids"), np.array([0, 130, 150])
    got = Engine(config, params, dtype=dtype, backend="cuda").packed(ids, cu)
    wide = {n: x.astype(float) for n, x in params.items()}
    p = Pass(config, wide, {"input_ids": ids, "cu_seqlens": cu})
    assert kit_share(p, got, OF_THE_KIT[dtype]) <= 1


def test_a_head_that_is_too_large_is_refused():
    values = {**CASE.config(), "hidden_size": 130, "num_attention_heads": 1}
    config = ModernBertConfig.from_dict(values)
    from refimpl.reference.params import encoder_shapes, initialise

    params = initialise(encoder_shapes(config), config, 1, np.dtype("float32"))
    with pytest.raises(ValueError, match="heads have 130 columns; the device computes up to 128"):
        Engine(config, params, backend="cuda")


# -- memory, errors, threads ----------------------------------------------------------------------


def tables_bytes(case: Case, longest: int) -> int:
    rows = 512
    while rows < longest:
        rows *= 2
    return 2 * 2 * rows * (case.hidden // case.heads // 2) * 4


@every_dtype
def test_a_pass_takes_what_the_formula_says(here: Path, dtype: str):
    gc.collect()
    before = used(here)
    engine = engine_of(CASE, dtype)
    weights = engine.opened.facts.weight_bytes
    assert weights <= used(here) - before <= weights + 2 * 4096
    longest = 0
    for counts in ([1], [700], [64, 1, 300, 5], [3] * 40):
        longest = max(longest, *counts)  # whose tables stay
        engine.opened.trim()
        used(here, most=True)
        packed(engine, [integers((n,), CASE.vocab, 1, "ids") for n in counts])
        formula = engine.opened.workspace_bytes(sum(counts), len(counts))
        most = used(here, most=True) - before - weights
        assert formula <= most <= formula + tables_bytes(CASE, longest) + 4 * 4096
    engine.opened.trim()
    assert used(here) - before <= weights + tables_bytes(CASE, 700) + 3 * 4096
    del engine
    assert used(here) == before


def test_what_is_missing_is_told(here: Path):
    with (
        stand_in(here, devices=-1),
        pytest.raises(ValueError, match="'cuda' is not available: no CUDA driver"),
    ):
        engine_of(CASE)
    with stand_in(here, devices=0), pytest.raises(ValueError, match="device 0 is not there"):
        engine_of(CASE)
    with (
        stand_in(here, major=7, minor=5),
        pytest.raises(ValueError, match="compute capability 7.5; 8.0 or later is needed"),
    ):
        engine_of(CASE)
    with stand_in(here, devices=-1):
        facts = cuda.facts()
    assert facts["built"] and facts["devices"] == [] and "no CUDA driver" in facts["reason"]
    with stand_in(here, devices=2):
        assert [d[:6] for d in cuda.facts()["devices"]] == ["cuda:0", "cuda:1"]


def test_a_device_that_is_full_leaves_nothing_half_done(here: Path):
    gc.collect()
    before = used(here)
    with stand_in(here, memory=before + 4096), pytest.raises(MemoryError, match="are free"):
        engine_of(CASE)
    assert used(here) == before
    engine = engine_of(CASE)
    ids, cu = integers((300,), CASE.vocab, 1, "ids"), np.array([0, 300])
    expected = engine.packed(ids[:20], np.array([0, 20]))
    engine.opened.trim()
    small = engine.opened.workspace_bytes(20, 1)
    with stand_in(here, memory=used(here) + small + 4096):
        with pytest.raises(MemoryError, match="out of memory: [0-9]+ bytes of device 0; [0-9]+ of"):
            engine.packed(ids, cu)
        np.testing.assert_array_equal(engine.packed(ids[:20], np.array([0, 20])), expected)


def test_an_error_in_a_callback_is_raised_and_nothing_is_left(here: Path):
    gc.collect()
    before = used(here)
    engine = engine_of(CASE)

    def tap(*_):
        raise KeyError("here")

    nothing = None, None, None
    with pytest.raises(KeyError, match="here"):
        engine.opened.trace(np.arange(5), None, np.array([0, 5]), *nothing, tap=tap)
    del engine
    gc.collect()  # the traceback knew it
    assert used(here) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.array([0, 99999]), None, [0, 2]), r"ids\[1\] is 99999; it must be in 0"),
        ((np.array([0, 1]), None, [0, 3]), r"ids has shape \[2\]; it must be \[3\]"),
        ((None, None, [0, 2]), "exactly one of input->ids and input->embeddings is needed"),
        ((np.array([0, 1]), None, [0, 3, 2]), "cu_seqlens falls from 3 to 2"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    ids, embeds, cu = arguments
    with pytest.raises(ValueError, match=message):
        engine_of(CASE).opened.forward(ids, embeds, np.array(cu))


def test_several_threads_share_a_model():
    from concurrent.futures import ThreadPoolExecutor

    engine = engine_of(CASE)
    sequences = [integers((n,), CASE.vocab, n, "ids") for n in (5, 70, 129, 33)]
    expected = [packed(engine, [s])[0] for s in sequences]
    with ThreadPoolExecutor(4) as pool:
        for got, e in zip(
            pool.map(lambda s: packed(engine, [s])[0], sequences * 3), expected * 3, strict=True
        ):
            np.testing.assert_array_equal(got, e)
