"""modernbert_embed: the vectors of Python on the engine bit for bit, and near float64's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.budget import FACTOR, relative_l2
from support.c_interface import (
    INTERRUPTED,
    INVALID,
    Failed,
    Model,
    check,
    config_of,
    data_of,
    ffi,
    input_of,
    last_error,
    lib,
    struct,
    tensors_of,
)
from support.folders import make_folder, small_config, small_params
from support.native import tiers
from support.text_folders import sentence_folder

from refimpl import SentenceEncoder
from refimpl.backends.engine import Engine
from refimpl.files.checkpoint import read_checkpoint
from refimpl.models.task_model import load
from refimpl.reference.ops import ACTIVATIONS
from refimpl.reference.pooling import named
from refimpl.reference.sentence import Dense, LayerNorm, Normalize, Pooling, SentenceHead

MODES = tuple(named("sentence"))
MODULES = "sentence_transformers.models."
POOLING = (MODULES + "Pooling", {"word_embedding_dimension": 32})
CHAIN = [
    (MODULES + "Pooling", {"embedding_dimension": 32, "pooling_mode": ["mean", "cls"]}),
    (MODULES + "Dense", {"in_features": 64, "out_features": 48}),
    (MODULES + "LayerNorm", {"dimension": 48}),
    (MODULES + "Normalize", {}),
]
ROOT = Path(__file__).resolve().parents[2]
TEXTS = [line.strip() for line in (ROOT / "MODEL.md").read_text("utf-8").splitlines()][:300]
CU = [0, 5, 6, 6, 17]
IDS = np.random.default_rng(3).integers(0, 20, CU[-1])


def embed(model: Model, input: Any, sequences: int, **options: Any) -> np.ndarray:
    how = struct("embedding", **options) if options else ffi.NULL
    out = np.full((sequences, options.get("width") or model.facts().width), np.nan, np.float32)
    check(lib.modernbert_embed(model.handle, input, how, ffi.NULL, data_of(out), out.size))
    return out


# -- against Python -------------------------------------------------------------------------------

FOLDERS: dict[str, dict[str, Any]] = {
    "mean": dict(modules=[POOLING, (MODULES + "Normalize", {})]),
    "chain": dict(modules=CHAIN),
    "truncated": dict(modules=CHAIN, settings={"truncate_dim": 7}),
    "prompt left out": dict(
        modules=[(POOLING[0], {**POOLING[1], "include_prompt": False})],
        settings={"prompts": {"query": "for i in range "}, "default_prompt_name": "query"},
    ),
    **{
        mode: dict(modules=[(POOLING[0], {"embedding_dimension": 32, "pooling_mode": mode})])
        for mode in MODES
    },
}


@pytest.mark.parametrize("what", FOLDERS)
def test_vectors_of_a_folder_have_the_bits_of_sentence_encoder(tmp_path: Path, what: str) -> None:
    folder = sentence_folder(tmp_path / "model", **FOLDERS[what])
    encoder, model = SentenceEncoder(folder, backend="native"), Model.open(folder)
    assert encoder.dimension == model.facts().width
    assert model.facts().modules == len(FOLDERS[what]["modules"])
    prompt = encoder.prompts[encoder.default_prompt_name or "query"] if "prompt" in what else ""
    left_out = encoder._prompt_length(prompt, None) if prompt else 0
    encodings = encoder.tokenizer.encode_batch([prompt + text for text in TEXTS], truncate="never")
    ids = np.concatenate([e.ids for e in encodings]).astype(np.int64)
    cu = np.cumsum([0, *(len(e.ids) for e in encodings)])
    input = input_of(cu, ids=ids)
    got = embed(model, input, len(TEXTS), prompt_tokens=left_out)
    np.testing.assert_array_equal(got, encoder.encode(TEXTS, truncate="never"))
    assert len(np.unique(got, axis=0)) >= len(set(TEXTS)) // 2
    got = embed(model, input, len(TEXTS), prompt_tokens=left_out, normalize=1, width=5)
    expected = encoder.encode(TEXTS, truncate="never", truncate_dim=5, normalize_embeddings=True)
    np.testing.assert_array_equal(got, expected)


def test_model_call_has_the_same_bits(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "model", CHAIN)
    ids = IDS[None, :11]
    got = load(folder, backend="native")({"input_ids": ids})["embeddings"]
    np.testing.assert_array_equal(got, embed(Model.open(folder), input_of([0, 11], ids=ids[0]), 1))


def test_scores_of_a_reranker_are_given(tmp_path: Path) -> None:
    last = {"in_features": 32, "out_features": 1, "module_output_name": "scores"}
    folder = sentence_folder(tmp_path / "model", [POOLING, (MODULES + "Dense", last)])
    model = Model.open(folder)
    assert model.facts().scores and model.facts().width == 1
    expected = load(folder, backend="native")({"input_ids": IDS[None, :5]})["logits"]
    np.testing.assert_array_equal(embed(model, input_of(CU[:2], ids=IDS[:5]), 1), expected)


def test_model_without_modules_gives_the_mean(tmp_path: Path) -> None:
    make_folder(tmp_path)
    model = Model.open(tmp_path)
    assert model.facts().modules == 0 and model.facts().width == 8 and not model.facts().scores
    hidden = model.forward(input_of(CU, ids=IDS), CU[-1]).astype(np.float64)
    rows = [
        hidden[a:b].mean(axis=0) if b > a else np.zeros(8)
        for a, b in zip(CU[:-1], CU[1:], strict=True)
    ]
    got = embed(model, input_of(CU, ids=IDS), 4)
    assert (np.abs(got - rows) <= np.spacing(np.abs(got))).all()


def test_folder_with_a_head_of_its_own_gives_no_vectors(tmp_path: Path) -> None:
    make_folder(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace("{", '{"refimpl_head": {},', 1))
    model = Model.open(tmp_path)
    assert model.facts().width == 0
    with pytest.raises(Failed, match="refimpl_head"):
        embed(model, input_of(CU, ids=IDS), 4)


# -- against float64 ------------------------------------------------------------------------------


def engine_of(head: SentenceHead, tier: str | None = None, threads: int = 1) -> Engine:
    config = small_config()
    return Engine(config, small_params(config, head), threads, tier, "float32", head)


def rows_of(ids: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    names = ("inputs_embeds", "token_type_ids", "position_ids")
    return dict(input_ids=ids, attention_mask=mask) | dict.fromkeys(names)


MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 1, 0, 1, 0], [0] * 5])
PADDED = rows_of(np.random.default_rng(4).integers(0, 20, MASK.shape), MASK)


@pytest.mark.parametrize("prompt_length", [0, 2])
@pytest.mark.parametrize("mode", MODES)
def test_poolings_are_float64s_rounded_once(mode: str, prompt_length: int) -> None:
    head = SentenceHead((Pooling(8, (mode,), include_prompt=False),))
    engine = engine_of(head)
    got = engine.embed(PADDED, prompt_length=prompt_length)
    hidden = engine.padded(**PADDED).astype(np.float64)
    exact = head.forward({}, small_config(), hidden, MASK, prompt_length=prompt_length)
    assert (np.abs(got - exact["embeddings"]) <= np.spacing(np.abs(got))).all()
    assert not got[4].any() and got[0].any()


BEHIND = {"dense": (), "chain": (LayerNorm(33), Dense(33, 7, False, "linear"), Normalize())}


@pytest.mark.parametrize("tier", tiers())
@pytest.mark.parametrize("activation", [n for n, row in ACTIVATIONS.items() if row.torch])
@pytest.mark.parametrize("behind", BEHIND)
def test_modules_stay_within_the_budget_of_float64(behind: str, activation: str, tier: str) -> None:
    rng = np.random.default_rng(5)
    head = SentenceHead((Pooling(8), Dense(8, 33, True, activation), *BEHIND[behind]))
    config = small_config()
    params = small_params(config, head)
    drawn = {n: rng.normal(0, 0.5, x.shape).astype(np.float32)
             for n, x in params.items() if n[0].isdigit()}  # fmt: skip
    engine = Engine(config, params | drawn, 1, tier, "float32", head)
    rows = rows_of(rng.integers(0, 20, (40, 6)), np.ones((40, 6), int))
    hidden = engine.padded(**rows)
    exact = {n: x.astype(np.float64) for n, x in drawn.items()}
    truth = head.forward(exact, config, hidden.astype(np.float64))["embeddings"]
    worst = 0.0
    for _ in range(10):  # float32 in as many orders of every sum
        columns, between = rng.permutation(8), np.arange(33)
        if behind == "chain":
            between = rng.permutation(33)
        other = {n: x[between] if len(x) == 33 else x[:, between] for n, x in drawn.items()}
        other["2_Dense.linear.weight"] = other["2_Dense.linear.weight"][:, columns]
        tokens = hidden[:, rng.permutation(6)][:, :, columns]
        legitimate = head.forward(other, config, tokens)["embeddings"]
        worst = max(worst, relative_l2(legitimate, truth).max())
    assert relative_l2(engine.embed(rows), truth).max() <= FACTOR * worst


@pytest.mark.parametrize("tier", tiers())
def test_same_bits_in_any_company_and_number_of_threads(tier: str) -> None:
    head = SentenceHead((Pooling(8, MODES), Dense(48, 70), LayerNorm(70), Normalize()))
    alone, many = engine_of(head, tier), engine_of(head, tier, threads=3)
    ids = np.random.default_rng(6).integers(0, 20, (60, 9))
    mask = (np.arange(9) < np.random.default_rng(7).integers(1, 10, (60, 1))).astype(int)
    together = many.embed(rows_of(ids, mask))
    for i in range(60):
        one = alone.embed(rows_of(ids[i : i + 1], mask[i : i + 1]))
        np.testing.assert_array_equal(one[0], together[i])


def test_modules_compute_in_float32_whatever_the_dtype(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "model", CHAIN)
    found = read_checkpoint(folder)
    engine = Engine(found.config, found.params.stored, 1, None, "bfloat16", found.head)
    rows = rows_of(IDS[None], np.ones((1, len(IDS)), int))
    exact = {n: x.astype(np.float64) for n, x in found.params.items()}
    hidden = engine.padded(**rows).astype(np.float64)
    truth = found.head.forward(exact, found.config, hidden)["embeddings"]
    assert relative_l2(engine.embed(rows), truth).max() <= 1e-6  # bfloat16 would be off by 1e-3


# -- refusals -------------------------------------------------------------------------------------

OPTIONS: dict[str, tuple[dict[str, int], str]] = {
    "width -1": (dict(width=-1), "width is -1; it must be in 1 .. 8"),
    "width beyond": (dict(width=9), "width is 9"),
    "width huge": (dict(width=2**62), "width is"),
    "prompt": (dict(prompt_tokens=-1), "prompt_tokens is -1"),
    "size": (dict(struct_size=3), "struct_size is 3"),
}


@pytest.mark.parametrize("what", OPTIONS)
def test_bad_option_is_refused(tmp_path: Path, what: str) -> None:
    make_folder(tmp_path)
    model, (options, words) = Model.open(tmp_path), OPTIONS[what]
    out = np.zeros((4, 8), np.float32)
    status = lib.modernbert_embed(
        model.handle, input_of(CU, ids=IDS), struct("embedding", **options), ffi.NULL,
        data_of(out), out.size,
    )  # fmt: skip
    assert status == INVALID and words in last_error() and not out.any()


def test_other_bad_arguments_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    model, input, null = Model.open(tmp_path), input_of(CU, ids=IDS), ffi.NULL
    out = np.zeros((4, 8), np.float32)
    call = lib.modernbert_embed
    assert call(null, input, null, null, data_of(out), out.size) == INVALID
    assert call(model.handle, null, null, null, data_of(out), out.size) == INVALID
    assert call(model.handle, input, null, null, null, out.size) == INVALID
    assert call(model.handle, input, null, null, data_of(out), 31) == INVALID
    assert last_error() == "out_count is 31; 4 sequences of 8 need 32"
    huge = struct("input", sequences=2**62, cu_seqlens=IDS)
    assert call(model.handle, huge, null, null, data_of(out), 31) == INVALID
    assert not out.any()
    assert call(model.handle, input_of([0], ids=IDS), null, null, null, 0) == 0


def test_stop_of_the_caller_stops(tmp_path: Path) -> None:
    make_folder(tmp_path)
    model = Model.open(tmp_path)
    stop = ffi.callback("int(void *)", lambda user: 1)
    out = np.zeros((1, 8), np.float32)
    long = np.zeros(20_000, np.int64)
    status = lib.modernbert_embed(
        model.handle, input_of([0, len(long)], ids=long), ffi.NULL, struct("run", interrupt=stop),
        data_of(out), out.size,
    )  # fmt: skip
    assert status == INTERRUPTED and not out.any()


MODULE_LISTS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no pooling": ([dict(kind=3)], "must be a Pooling"),
    "two poolings": ([dict(kind=0, modes="mean")] * 2, "must be a Pooling"),
    "kind": ([dict(kind=7)], "kind is 7"),
    "no modes": ([dict(kind=0)], "modes is NULL"),
    "empty modes": ([dict(kind=0, modes=" ")], "names 0 poolings"),
    "unknown mode": (
        [dict(kind=0, modes="mean median")], f"has 'median'; supported: {', '.join(MODES)}"
    ),
    "width": ([dict(kind=0, modes="mean"), dict(kind=1, width=0)], "width is 0"),
    "huge": ([dict(kind=0, modes="mean"), dict(kind=1, width=2**62)], "width is"),
    "activation": (
        [dict(kind=0, modes="mean"), dict(kind=1, width=3, activation="mish")], "is 'mish'"
    ),
    "no weight": (
        [dict(kind=0, modes="mean"), dict(kind=1, width=3)], "tensor '2_Dense.linear.weight'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MODULE_LISTS)
def test_bad_modules_of_a_model_from_memory_are_refused(what: str) -> None:
    modules, words = MODULE_LISTS[what]
    config = small_config()
    plain, kept = ffi.new("modernbert_module[]", len(modules)), []
    for module, fields in zip(plain, modules, strict=True):
        for name, value in fields.items():
            kept.append(ffi.new("char[]", value.encode()) if isinstance(value, str) else value)
            setattr(module, name, kept[-1])
    tensors, alive = tensors_of(params := small_params(config, None))
    given = config_of(config, modules=plain, module_count=len(modules))
    out = ffi.new("modernbert_model **")
    assert lib.modernbert_create(given, tensors, len(params), ffi.NULL, out) == INVALID
    assert words in last_error() and out[0] == ffi.NULL and alive
