"""The C interface against the Python engine, bit for bit, and every refusal of its arguments."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.c_interface import (
    INTERRUPTED,
    INVALID,
    LIBRARY,
    OK,
    Failed,
    Model,
    config_of,
    data_of,
    ffi,
    input_of,
    last_error,
    lib,
    struct,
    tensors_of,
)
from support.cases import CASES, Case, unit
from support.native import engine_of, tiers

import refimpl
from refimpl.backends import backend
from refimpl.backends.engine import Engine
from refimpl.files.bfloat16 import to_bits, widen
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.reference.ops import ACTIVATIONS
from refimpl.reference.taps import record

every_tier = pytest.mark.parametrize("tier", tiers())
CU = np.cumsum([0, 1, 7, 0, 66, 40])
TOTAL = int(CU[-1])


def config_and_params(case: Case) -> tuple[ModernBertConfig, dict[str, np.ndarray]]:
    return ModernBertConfig.from_dict(case.config()), case.params(dtype=np.float32)


def ids_of(case: Case, total: int = TOTAL) -> np.ndarray:
    return np.random.default_rng(case.seed).integers(0, case.vocab, total)


@pytest.fixture(scope="module")
def small() -> Model:
    return Model.create(*config_and_params(CASES[0]), tier_cap="scalar", threads=1)


# -- against Python -------------------------------------------------------------------------------


@every_tier
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_forward_has_the_bits_of_the_python_engine(case: Case, tier: str) -> None:
    model = Model.create(*config_and_params(case), tier_cap=tier)
    ids, visible = ids_of(case), (np.arange(TOTAL) % 5 != 2).astype(np.uint8)
    positions = 3 * np.arange(TOTAL)
    engine = engine_of(case, tier)
    np.testing.assert_array_equal(
        model.forward(input_of(CU, ids=ids), TOTAL), engine.packed(ids, CU)
    )
    np.testing.assert_array_equal(
        model.forward(input_of(CU, ids=ids, positions=positions, visible=visible), TOTAL),
        engine.packed(ids, CU, position_ids=positions, key_mask=visible != 0),
    )
    rows = case.params(dtype=np.float32)["embeddings.tok_embeddings.weight"][ids]
    np.testing.assert_array_equal(
        model.forward(input_of(CU, embeddings=rows), TOTAL), engine.packed(ids, CU)
    )


@every_tier
@pytest.mark.parametrize("threads", [0, 1, 3, 10**6])
def test_threads_change_no_bit(tier: str, threads: int) -> None:
    case = CASES[0]
    model = Model.create(*config_and_params(case), tier_cap=tier, threads=2)
    run = struct("run", threads=threads)
    np.testing.assert_array_equal(
        model.forward(input_of(CU, ids=ids_of(case)), TOTAL, run),
        engine_of(case, tier).packed(ids_of(case), CU),
    )


@every_tier
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_taken_as_they_are_stored(tier: str, dtype: str) -> None:
    config, params = config_and_params(CASES[2])
    stored = {
        n: to_bits(x) if dtype == "bfloat16" else x.astype(np.float16) for n, x in params.items()
    }
    wide = {n: widen(x) if dtype == "bfloat16" else x.astype(np.float32) for n, x in stored.items()}
    got = Model.create(config, stored, tier_cap=tier)
    ids = ids_of(CASES[2])
    np.testing.assert_array_equal(
        got.forward(input_of(CU, ids=ids), TOTAL), Engine(config, wide, 1, tier).packed(ids, CU)
    )


@every_tier
def test_token_types_are_added_before_the_norm(tier: str) -> None:
    case = CASES[0]
    config, params = config_and_params(case)
    name = "embeddings.token_type_embeddings.weight"
    params |= {name: unit((2, case.hidden), 1, "types").astype(np.float32)}
    config = config.replace(type_vocab_size=2)
    model, engine = Model.create(config, params, tier_cap=tier), Engine(config, params, 1, tier)
    assert model.facts().types == 2
    ids, types = ids_of(case), np.arange(TOTAL) % 2
    for given in ({}, {"token_types": types}):
        np.testing.assert_array_equal(
            model.forward(input_of(CU, ids=ids, **given), TOTAL),
            engine.packed(ids, CU, token_type_ids=given.get("token_types")),
        )
    rows = params["embeddings.tok_embeddings.weight"][ids]
    np.testing.assert_array_equal(
        model.forward(input_of(CU, embeddings=rows, token_types=types), TOTAL),
        engine.packed(ids, CU, token_type_ids=types),
    )


@every_tier
@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case.name)
def test_trace_gives_every_step_and_the_bits_of_forward(case: Case, tier: str) -> None:
    config, params = config_and_params(case)
    model, ids = Model.create(config, params, tier_cap=tier), ids_of(case)
    truth: dict[str, np.ndarray] = {}
    encode(params, config, ids, cu_seqlens=CU, tap=record(truth))
    plain = model.forward(input_of(CU, ids=ids), TOTAL)
    out, every = model.trace(input_of(CU, ids=ids), TOTAL, fused=False)
    np.testing.assert_array_equal(out, plain)
    np.testing.assert_array_equal(every.get("final_norm", out), plain)
    assert set(every) | {"final_norm"} == set(truth)
    for name, got in every.items():
        assert got.size == truth[name].size and np.isfinite(got).all(), name
    again, some = model.trace(input_of(CU, ids=ids), TOTAL, fused=True)
    np.testing.assert_array_equal(again, plain)
    assert set(some) < set(every)
    for name, got in some.items():
        np.testing.assert_array_equal(got, every[name], err_msg=name)


def test_facts_are_those_of_the_model(small: Model) -> None:
    case, facts = CASES[0], small.facts()
    assert (facts.vocab, facts.hidden, facts.inter) == (case.vocab, case.hidden, case.inter)
    assert (facts.heads, facts.layers, facts.types) == (case.heads, case.layers, 0)
    assert (ffi.string(facts.tier), ffi.string(facts.dtype)) == (b"scalar", b"float32")
    assert facts.threads == 1
    engine = engine_of(case, "scalar")._native
    assert facts.packed_bytes == engine.packed_bytes()
    bytes_ = ffi.new("uint64_t *")
    assert lib.modernbert_workspace_bytes(small.handle, 1000, 3, 2, bytes_) == OK
    assert bytes_[0] == engine.workspace_bytes(1000, 3, 2)


def test_workspace_counts_sequences_with_tokens(small: Model) -> None:
    def workspace(model: Model, total: int, sequences: int) -> int:
        bytes_ = ffi.new("uint64_t *")
        assert lib.modernbert_workspace_bytes(model.handle, total, sequences, 1, bytes_) == OK
        return bytes_[0]

    assert workspace(small, 7, 2**31) == workspace(small, 7, 7) > workspace(small, 7, 1)


@pytest.mark.parametrize("shift", ["", "a"])
def test_a_message_that_is_cut_ends_with_a_whole_character(shift: str) -> None:
    tier, name = ffi.new("const char **"), shift + "\u00e9" * 700
    assert lib.modernbert_best_tier(name.encode(), ffi.NULL, tier) == INVALID
    assert last_error().startswith("tier '" + name[:400])  # as UTF-8
    config, params = config_and_params(CASES[0])
    with pytest.raises(Failed, match=f"tensor '{name[:90]}.*belongs to no part"):
        Model.create(config, params | {name: params["final_norm.weight"]})


def test_facts_of_the_build_are_those_of_info() -> None:
    facts = refimpl.info()["native"]
    assert ffi.string(lib.modernbert_version()).decode() == refimpl.__version__
    assert ffi.string(lib.modernbert_compiler()).decode() == facts["compiler"]
    assert lib.modernbert_default_threads() == facts["threads"]
    assert facts["library"] == str(LIBRARY)
    missing, i = {}, 0
    while (name := lib.modernbert_tier_name(i)) != ffi.NULL:
        missing[ffi.string(name).decode()] = ffi.string(lib.modernbert_tier_missing(i)).decode()
        i += 1
    assert [tier for tier, why in missing.items() if not why] == tiers()
    assert {t: why for t, why in missing.items() if why} == backend.native().missing_tiers()
    assert lib.modernbert_tier_missing(i) == ffi.NULL
    tier = ffi.new("const char **")
    assert lib.modernbert_best_tier(ffi.NULL, ffi.NULL, tier) == OK
    assert ffi.string(tier[0]).decode() == tiers()[0]
    for cap in tiers():
        assert lib.modernbert_best_tier(cap.encode(), b"float32", tier) == OK
        assert ffi.string(tier[0]).decode() == cap
    assert lib.modernbert_best_tier(b"mmx", ffi.NULL, tier) == INVALID
    assert "'mmx' is unknown" in last_error()
    assert lib.modernbert_best_tier(b"scalar", b"bf16x3", tier) == INVALID
    assert "'bf16x3' is not available" in last_error()
    assert last_error().endswith("on tier 'scalar' or below: float32, bfloat16, int8")


# -- callbacks ------------------------------------------------------------------------------------


def test_interrupt_stops_a_pass_and_the_model_lives_on(small: Model) -> None:
    asked = []

    @ffi.callback("int(void *)")
    def interrupt(user: Any) -> int:
        asked.append(user)
        return 1

    total = 30_000
    input = input_of([0, total], ids=ids_of(CASES[0], total))
    with pytest.raises(Failed) as caught:
        small.forward(input, total, struct("run", interrupt=interrupt))
    assert caught.value.status == INTERRUPTED and asked
    assert small.forward(input_of([0, 3], ids=ids_of(CASES[0], 3)), 3).any()


def test_tap_stops_a_trace(small: Model) -> None:
    seen = []

    @ffi.callback("modernbert_tap")
    def tap(user: Any, piece: Any) -> int:
        seen.append(ffi.string(piece.step).decode())
        return len(seen) == 2

    out = np.zeros((3, CASES[0].hidden), np.float32)
    input = input_of([0, 3], ids=ids_of(CASES[0], 3))
    status = lib.modernbert_trace(small.handle, input, 1, 0, tap, ffi.NULL, data_of(out), out.size)
    assert status == INTERRUPTED and len(seen) == 2


def test_layers_are_told_when_they_are_packed() -> None:
    told = []

    @ffi.callback("void(void *, int64_t)")
    def packed(user: Any, layer: int) -> None:
        told.append(layer)

    Model.create(*config_and_params(CASES[0]), packed=packed)
    assert told == list(range(CASES[0].layers))


# -- refusals of a forward pass -------------------------------------------------------------------

IDS = np.arange(5)
MANY = 2**40


def forward(model: Model, input: Any, count: int = 5 * CASES[0].hidden, **run: Any) -> int:
    out = np.zeros(5 * CASES[0].hidden, np.float32)
    given = struct("run", **run) if run else ffi.NULL
    status = lib.modernbert_forward(model.handle, input, given, data_of(out), count)
    assert not out.any()
    return status


def of_size(kind: str, size: int, **fields: Any) -> Any:
    return struct(kind, **fields, struct_size=size)


FLOATS = np.ones((5, CASES[0].hidden), np.float32)
INPUTS: dict[str, tuple[Callable[[], Any], str]] = {
    "null": (lambda: ffi.NULL, "input is NULL"),
    "size 0": (lambda: of_size("input", 0), "struct_size is 0"),
    "size beyond": (lambda: of_size("input", 10**6), "struct_size is 1000000"),
    "no lengths": (lambda: struct("input", sequences=1, ids=IDS), "cu_seqlens is NULL"),
    "negative batch": (lambda: struct("input", sequences=-1, cu_seqlens=IDS), "sequences is -1"),
    "huge batch": (lambda: struct("input", sequences=2**62, cu_seqlens=IDS), "any memory"),
    "both": (lambda: input_of([0, 5], ids=IDS, embeddings=FLOATS), "exactly one"),
    "neither": (lambda: input_of([0, 5]), "exactly one"),
    "cu from 1": (lambda: input_of([1, 5], ids=IDS), "starts with 1"),
    "cu falls": (lambda: input_of([0, 5, 3, 5], ids=IDS), "falls from 5 to 3"),
    "cu negative": (lambda: input_of([0, -5], ids=IDS), "falls from 0 to -5"),
    "cu huge": (lambda: input_of([0, 2**62], ids=IDS), "any memory"),
    "cu beyond out": (lambda: input_of([0, 6], ids=IDS), "out_count is"),
    "id -1": (lambda: input_of([0, 5], ids=IDS - 1), r"ids\[0\] is -1"),
    "id at vocab": (lambda: input_of([0, 5], ids=IDS + CASES[0].vocab - 4), r"ids\[4\] is"),
    "id 2**62": (lambda: input_of([0, 5], ids=IDS + 2**62), "must be in 0"),
    "types": (lambda: input_of([0, 5], ids=IDS, token_types=IDS), "no token types"),
}


@pytest.mark.parametrize("what", INPUTS)
def test_bad_input_of_a_forward_is_refused(small: Model, what: str) -> None:
    make, words = INPUTS[what]
    assert forward(small, make()) == INVALID
    pytest.raises(Failed, lambda: small.forward(make(), 5)).match(words)


def test_other_bad_arguments_of_a_forward_are_refused(small: Model) -> None:
    input, hidden = input_of([0, 5], ids=IDS), CASES[0].hidden
    out = np.zeros((5, hidden), np.float32)
    assert forward(small, input, count=5 * hidden - 1) == INVALID
    assert forward(small, input, count=2**63) == INVALID
    assert forward(small, input, threads=-1) == INVALID and "threads is -1" in last_error()
    assert forward(small, input, struct_size=1) == INVALID
    null = ffi.NULL
    assert lib.modernbert_forward(null, input, null, data_of(out), out.size) == INVALID
    assert lib.modernbert_forward(small.handle, input, null, null, out.size) == INVALID
    assert last_error() == "out is NULL"
    tap = ffi.cast("modernbert_tap", 0)
    assert lib.modernbert_trace(small.handle, input, 1, 0, tap, null, data_of(out), 0) == INVALID
    status = lib.modernbert_trace(small.handle, input, 1, 0, tap, null, data_of(out), out.size)
    assert status == INVALID and last_error() == "tap is NULL"
    bytes_ = ffi.new("uint64_t *")
    for total, batch, threads in ((-1, 1, 1), (1, -1, 1), (2**62, 1, 1), (1, 2**62, 1), (1, 1, -1)):
        status = lib.modernbert_workspace_bytes(small.handle, total, batch, threads, bytes_)
        assert status == INVALID
    assert lib.modernbert_workspace_bytes(small.handle, 1, -2, 1, bytes_) == INVALID
    assert last_error() == "1 tokens in -2 sequences: neither may be negative"
    assert lib.modernbert_workspace_bytes(small.handle, 1, 1, 1, null) == INVALID
    assert lib.modernbert_model_facts(null, struct("facts")) == INVALID
    assert lib.modernbert_model_facts(small.handle, null) == INVALID
    assert lib.modernbert_model_facts(small.handle, of_size("facts", 8)) == INVALID
    lib.modernbert_close(null)


def test_no_tokens_are_legal(small: Model) -> None:
    for cu in ([0], [0, 0, 0]):
        assert small.forward(input_of(cu, ids=IDS), 0).shape == (0, CASES[0].hidden)


OUT_OF_ROOM = """
import resource, sys
sys.path.insert(0, {tests!r})
import numpy as np
from support.c_interface import *
from support.cases import CASES
from refimpl.reference.config import ModernBertConfig
case = CASES[0]
config, params = ModernBertConfig.from_dict(case.config()), case.params(dtype=np.float32)
model = Model.create(config, params, threads=1)
total = 2**20
rows, out = (np.zeros((total, case.hidden), np.float32) for _ in range(2))
input = input_of([0, total], embeddings=rows)
few = input_of([0, 2], ids=np.array([1, 2]))
before = model.forward(few, 2)
pages = int(open("/proc/self/statm").read().split()[0])
room = pages * resource.getpagesize() + 2**26
resource.setrlimit(resource.RLIMIT_AS, (room, room))
status = lib.modernbert_forward(model.handle, input, ffi.NULL, data_of(out), out.size)
assert status == OUT_OF_MEMORY and "memory" in last_error(), (status, last_error())
config = config_of(config.replace(vocab_size=2**31 // case.hidden, type_vocab_size=2**20))
name = "embeddings.token_type_embeddings.weight"
table = np.broadcast_to(np.float32(0), (2**20, case.hidden))
given = params | {{"embeddings.tok_embeddings.weight": np.broadcast_to(
    np.float32(0), (2**31 // case.hidden, case.hidden)), name: table}}
tensors, kept = tensors_of(given)
made = ffi.new("modernbert_model **")
status = lib.modernbert_create(config, tensors, len(given), ffi.NULL, made)
assert status == OUT_OF_MEMORY and made[0] == ffi.NULL, (status, last_error())
assert (model.forward(few, 2) == before).all()
"""


def test_memory_that_is_not_there_is_a_status(tmp_path: Path) -> None:
    """In a child, whose address space ends 64 MiB above what it has; not in the checkout, whose own
    package would come before the one under test."""
    script = OUT_OF_ROOM.format(tests=str(Path(__file__).parents[1]))
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stderr


# -- refusals of a model --------------------------------------------------------------------------


def create(changes: dict[str, Any], params: dict[str, np.ndarray] | None = None) -> None:
    config, own = config_and_params(CASES[0])
    tensors, kept = tensors_of(own if params is None else params)
    out = ffi.new("modernbert_model **")
    given = config_of(config, **changes)
    n = len(own if params is None else params)
    status = lib.modernbert_create(given, tensors, n, ffi.NULL, out)
    assert status == OK or out[0] == ffi.NULL
    del kept
    if status == OK:
        lib.modernbert_close(out[0])
    elif status != INVALID:
        raise AssertionError(last_error())
    else:
        raise Failed(status)


THETAS = ffi.new("double[4]", [1e4, 1e4, float("nan"), 1e4])
INFINITE = ffi.new("double[4]", [1e4, 1e4, float("inf"), 1e4])
BAD_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "size": ({"struct_size": 3}, "struct_size is 3"),
    "vocab": (
        {"vocab": CASES[0].vocab + 1},
        rf"another shape than \[{CASES[0].vocab + 1}, \d+\]: \[{CASES[0].vocab}, \d+\]",
    ),
    "no vocab": ({"vocab": 0}, "vocab is 0"),
    "negative vocab": ({"vocab": -1}, "vocab is -1"),
    "huge vocab": ({"vocab": 2**62}, "vocab is"),
    "hidden": ({"hidden": 2 * CASES[0].hidden}, "another shape"),
    "huge hidden": ({"hidden": 2**31}, "any memory"),
    "overflowing hidden": ({"hidden": 2**62}, "hidden is"),
    "inter 0": ({"inter": 0}, "inter is 0"),
    "inter": ({"inter": 7}, "another shape"),
    "heads 0": ({"heads": 0}, "heads is 0"),
    "heads 3": ({"heads": 3}, "even head size"),
    "odd head": ({"heads": CASES[0].hidden}, "even head size"),
    "negative types": ({"types": -1}, "types is -1"),
    "types": ({"types": 2}, "token_type_embeddings.weight' is missing"),
    "layers": ({"layers": CASES[0].layers - 1}, "belongs to no part"),
    "negative layers": ({"layers": -1}, "layers is -1"),
    "layers without end": ({"layers": 2**40}, "layers is"),
    "no windows": ({"windows": ffi.NULL}, "windows is NULL"),
    "no thetas": ({"thetas": ffi.NULL}, "thetas is NULL"),
    "theta nan": ({"thetas": THETAS}, r"thetas\[2\] is nan"),
    "theta inf": ({"thetas": INFINITE}, r"thetas\[2\] is inf"),
    "eps 0": ({"norm_eps": 0.0}, "norm_eps is 0"),
    "eps": ({"norm_eps": -1e-9}, "norm_eps is -1e-09;"),
    "eps nan": ({"norm_eps": float("nan")}, "norm_eps is nan"),
    "activation": ({"activation": "mish"}, "activation is 'mish'"),
}


@pytest.mark.parametrize("what", BAD_CONFIGS)
def test_bad_config_is_refused(what: str) -> None:
    changes, words = BAD_CONFIGS[what]
    create({})
    with pytest.raises(Failed, match=words):
        create(changes)


def test_bad_tensors_are_refused() -> None:
    params = config_and_params(CASES[0])[1]
    name = "layers.1.mlp.Wi.weight"
    bad = {
        "another shape": {name: params[name][:-1]},
        "has another shape": {name: params[name].T.copy()},
        "than": {name: params[name].reshape(-1)},
        "belongs to no part": {"head.norm.weight": params["final_norm.weight"]},
        "no part": {"layers.0.attn_norm.weight": params["final_norm.weight"]},
    }
    for words, changes in bad.items():
        with pytest.raises(Failed, match=f"{next(iter(changes))}.* {words}"):
            create({}, params | changes)
    with pytest.raises(Failed, match="tensor 'final_norm.weight' is missing"):
        create({}, {n: x for n, x in params.items() if n != "final_norm.weight"})
    with pytest.raises(Failed, match="is missing"):
        create({}, {})


TENSORS: dict[str, tuple[Callable[[Any], object], str]] = {
    "no name": (lambda t: setattr(t, "name", ffi.NULL), "name is NULL"),
    "no data": (lambda t: setattr(t, "data", ffi.NULL), "has no data"),
    "no shape": (lambda t: setattr(t, "shape", ffi.NULL), "its shape is NULL"),
    "rank": (lambda t: setattr(t, "rank", -1), "its rank is -1"),
    "huge rank": (lambda t: setattr(t, "rank", 2**31 - 1), "its rank is 2147483647"),
    "storage": (lambda t: setattr(t, "storage", 3), "storage 3"),
    "misaligned": (
        lambda t: setattr(t, "data", ffi.cast("char *", t.data) + 1), "not aligned"
    ),
    "twice": (
        lambda t: (setattr(t, "name", t[1].name), setattr(t, "shape", t[1].shape),
                   setattr(t, "rank", t[1].rank)),
        "given twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TENSORS)
def test_bad_tensor_struct_is_refused(what: str) -> None:
    config, params = config_and_params(CASES[0])
    tensors, kept = tensors_of(params)
    out = ffi.new("modernbert_model **")
    TENSORS[what][0](tensors + 0)
    status = lib.modernbert_create(config_of(config), tensors, len(params), ffi.NULL, out)
    assert status == INVALID and TENSORS[what][1] in last_error()
    del kept


def test_bad_options_are_refused() -> None:
    config, params = config_and_params(CASES[0])
    bad: dict[str, dict[str, Any]] = {
        "dtype 'float64' is unknown": {"dtype": "float64"},
        "tier 'mmx' is unknown": {"tier_cap": "mmx"},
        "threads is -2": {"threads": -2},
        "struct_size is 7": {"struct_size": 7},
    }
    for words, options in bad.items():
        with pytest.raises(Failed, match=words) as caught:
            Model.create(config, params, **options)
        assert caught.value.status == INVALID
    out = ffi.new("modernbert_model **")
    tensors, kept = tensors_of(params)
    null = ffi.NULL
    assert lib.modernbert_create(null, tensors, len(params), null, out) == INVALID
    assert lib.modernbert_create(config_of(config), null, len(params), null, out) == INVALID
    assert lib.modernbert_create(config_of(config), tensors, len(params), null, null) == INVALID
    assert lib.modernbert_open(null, null, out) == INVALID
    assert lib.modernbert_open(b"x", null, null) == INVALID
    assert last_error() == "model is NULL"
    del kept


# -- single operations ----------------------------------------------------------------------------

ROOM = np.ones(64, np.float32)
P = data_of(ROOM)
S, F, N = b"scalar", b"float32", ffi.NULL
OPS: dict[str, tuple[Callable[[], int], str]] = {
    "tier": (lambda: lib.modernbert_op_offered(b"sse", F), "'sse' is unknown"),
    "no tier": (lambda: lib.modernbert_op_offered(N, F), "tier is NULL"),
    "dtype": (lambda: lib.modernbert_op_offered(S, b"int4"), "'int4' is unknown"),
    "depth 0": (lambda: lib.modernbert_op_linear(S, F, 1, 1, 0, P, P, 0, N, N, 1, 1, P), "is 0"),
    "split 0": (lambda: lib.modernbert_op_linear(S, F, 1, 1, 1, P, P, 0, N, N, 0, 1, P), "is 0"),
    "huge": (
        lambda: lib.modernbert_op_linear(S, F, MANY, MANY, 1, P, P, 0, N, N, 1, 1, P), "memory"
    ),
    "overflow": (
        lambda: lib.modernbert_op_linear(S, F, 2**63, 2, 1, P, P, 0, N, N, 1, 1, P), "memory"
    ),
    "no weight": (lambda: lib.modernbert_op_linear(S, F, 1, 1, 1, P, N, 0, N, N, 1, 1, P), "NULL"),
    "no x": (lambda: lib.modernbert_op_linear(S, F, 1, 1, 1, N, P, 0, N, N, 1, 1, P), "NULL"),
    "storage": (lambda: lib.modernbert_op_linear(S, F, 1, 1, 1, P, P, 9, N, N, 1, 1, P), "9"),
    "odd gate": (
        lambda: lib.modernbert_op_linear_glu(S, F, b"gelu", 1, 3, 1, P, P, 0, N, 1, 1, P), "even"
    ),
    "norm of 0": (lambda: lib.modernbert_op_layer_norm(S, F, 1, 0, P, P, N, 1, P), "is 0"),
    "activation": (
        lambda: lib.modernbert_op_glu(S, F, b"mish", 1, 1, P, P),
        f"'mish' is unknown; supported: {', '.join(ACTIVATIONS)}",
    ),
    "no activation": (lambda: lib.modernbert_op_glu(S, F, N, 1, 1, P, P), "NULL"),
    "odd head": (lambda: lib.modernbert_op_rope(S, F, 1, 1, 3, P, P, P, P), "even"),
    "no values": (lambda: lib.modernbert_op_attention(S, F, 1, 1, 2, -1, P, P, N, N, P), "NULL"),
}  # fmt: skip


@pytest.mark.parametrize("what", OPS)
def test_bad_argument_of_an_operation_is_refused(what: str) -> None:
    call, words = OPS[what]
    assert call() == INVALID and words in last_error()


def test_negative_positions_are_refused() -> None:
    model = Model.create(*config_and_params(CASES[0]))
    for positions, words in (([0, 1, -1], r"positions\[2\] is -1"), ([-(2**62), 1, 2], r"\[0\]")):
        input = input_of([0, 3], ids=IDS[:3], positions=np.array(positions))
        with pytest.raises(Failed, match=f"{words}.*must not be negative") as failed:
            model.forward(input, 3)
        assert failed.value.status == INVALID


@pytest.mark.parametrize("eps", [1e-50, 1e-40, 1e39])
def test_norm_eps_that_float32_cannot_hold_is_refused(eps: float) -> None:
    config, params = config_and_params(CASES[0])
    with pytest.raises(Failed, match="config->norm_eps is .*; norms are computed in float32") as f:
        Model.create(config.replace(norm_eps=eps), params)
    assert f.value.status == INVALID
