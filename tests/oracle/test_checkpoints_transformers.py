"""Folders both ways round: transformers and sentence-transformers read what we write, we theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from support.folders import make_folder, small_config, small_params  # noqa: E402

import refimpl  # noqa: E402
from refimpl.files.bfloat16 import to_bits, widen  # noqa: E402
from refimpl.files.checkpoint import read_checkpoint, write_checkpoint  # noqa: E402
from refimpl.reference.heads import HEADS  # noqa: E402
from refimpl.reference.sentence import (  # noqa: E402
    Dense,
    LayerNorm,
    Normalize,
    Pooling,
    SentenceHead,
    Settings,
)

VARIED = dict(
    attention_bias=True, mlp_bias=True, norm_bias=True, classifier_bias=True,
    hidden_activation="silu", global_attn_every_n_layers=2, local_attention=6,
    global_rope_theta=500.0, local_rope_theta=77.0, norm_eps=1e-4, classifier_pooling="mean",
)  # fmt: skip
AUTO = {
    None: "AutoModel",
    "masked_lm": "AutoModelForMaskedLM",
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "question_answering": "AutoModelForQuestionAnswering",
    "multiple_choice": "AutoModelForMultipleChoice",
}
# Config fields that decide numbers, as transformers names them.
FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "hidden_activation", "layer_types", "local_attention", "norm_eps", "norm_bias",
    "attention_bias", "mlp_bias", "decoder_bias", "classifier_bias", "classifier_activation",
    "classifier_pooling", "tie_word_embeddings", "num_labels", "pad_token_id", "cls_token_id",
)  # fmt: skip


def loaded(folder: Path, kind: str | None, **options: Any) -> Any:
    """The model as transformers reads it, after checking that it found every tensor."""
    auto = getattr(transformers, AUTO[kind])
    model, report = auto.from_pretrained(folder, output_loading_info=True, **options)
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[fault], report
    return model.eval()


def state(model: Any) -> dict[str, np.ndarray]:
    """Tensors of a torch model under our names, as float32; a tied decoder is left out."""
    tied = getattr(model.config, "tie_word_embeddings", True)
    out = {}
    for key, tensor in model.state_dict().items():
        if not (key == "decoder.weight" and tied) and "inv_freq" not in key:
            out[key.removeprefix("model.")] = tensor.float().numpy()
    return out


def assert_same_config(ours: Any, theirs: Any) -> None:
    for name in FIELDS:
        mine, its = getattr(ours, name), getattr(theirs, name)
        assert (list(mine) if isinstance(mine, tuple) else mine) == its, name
    rope = theirs.rope_parameters
    assert ours.global_rope_theta == rope["full_attention"]["rope_theta"]
    assert ours.local_rope_theta == rope["sliding_attention"]["rope_theta"]


@pytest.mark.parametrize("options", [{}, VARIED], ids=["plain", "varied"])
@pytest.mark.parametrize("shards", [None, 1500])
@pytest.mark.parametrize("kind", AUTO)
def test_transformers_reads_what_we_write(
    tmp_path: Path, kind: str | None, shards: int | None, options: dict
) -> None:
    head = HEADS[kind] if kind else None
    config, params = make_folder(tmp_path, head, max_shard_size=shards, **options)
    model = loaded(tmp_path, kind)
    assert_same_config(config, model.config)
    theirs = state(model)
    assert set(theirs) == set(params)
    for name, array in params.items():
        np.testing.assert_array_equal(theirs[name], array, err_msg=name)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_transformers_reads_the_dtype_that_we_write(tmp_path: Path, dtype: str) -> None:
    _, params = make_folder(tmp_path, HEADS["masked_lm"], dtype=dtype)
    model = loaded(tmp_path, "masked_lm", dtype="auto")
    assert model.dtype == getattr(torch, dtype)
    for name, array in state(model).items():
        stored = params[name].astype(dtype) if dtype == "float16" else widen(to_bits(params[name]))
        np.testing.assert_array_equal(array, stored.astype(np.float32), err_msg=name)


def test_bfloat16_rounds_as_torch_does() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    x = bits.view(np.float32)[np.isfinite(bits.view(np.float32))]
    theirs = torch.from_numpy(x).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(to_bits(x), theirs)


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_our_decoder_tied_and_untied(tmp_path: Path, tied: bool) -> None:
    _, params = make_folder(tmp_path, HEADS["masked_lm"], tie_word_embeddings=tied)
    model = loaded(tmp_path, "masked_lm")
    embedding = model.get_input_embeddings().weight
    assert (model.decoder.weight.data_ptr() == embedding.data_ptr()) is tied
    expected = params["embeddings.tok_embeddings.weight" if tied else "decoder.weight"]
    np.testing.assert_array_equal(model.decoder.weight.detach().numpy(), expected)


@pytest.mark.parametrize("options", [{}, VARIED], ids=["plain", "varied"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shards", [None, "2KB"])
@pytest.mark.parametrize("kind", AUTO)
def test_we_read_what_transformers_writes(
    tmp_path: Path, kind: str | None, shards: str | None, dtype: str, options: dict
) -> None:
    content = small_config(**options).to_dict()
    content = {k: v for k, v in content.items() if k not in ("model_type", "architectures")}
    config = transformers.ModernBertConfig(**content)
    torch.manual_seed(1)
    model = getattr(transformers, AUTO[kind]).from_config(config).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path, **({"max_shard_size": shards} if shards else {}))
    assert (tmp_path / "model.safetensors.index.json").exists() is (shards is not None)
    found = read_checkpoint(tmp_path)
    assert found.head is (HEADS[kind] if kind else None)
    assert_same_config(found.config, config)
    theirs = state(model)
    assert set(found.params) == set(theirs)
    for name, array in theirs.items():
        np.testing.assert_array_equal(found.params[name], array, err_msg=name)


def test_we_read_an_untied_decoder_of_transformers(tmp_path: Path) -> None:
    content = small_config(tie_word_embeddings=False).to_dict()
    config = transformers.ModernBertConfig(**content)
    transformers.ModernBertForMaskedLM(config).save_pretrained(tmp_path)
    found = read_checkpoint(tmp_path)
    assert not found.config.tie_word_embeddings and "decoder.weight" in found.params


# -- sentence-transformers ------------------------------------------------------------------------

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
EMBEDDER = (
    Pooling(8, ("max", "mean")), Dense(16, 5), LayerNorm(5), Dense(5, 4, False, "gelu"), Normalize()
)  # fmt: skip
RERANKER = (
    Pooling(8, ("cls",)), Dense(8, 8, True, "silu"), LayerNorm(8), Dense(8, 1, True, "linear", True)
)  # fmt: skip
HEADS_OF_SENTENCES = {
    "embedder": SentenceHead(EMBEDDER, Settings({"query": "q: "}, "query", "dot", 40, True)),
    "reranker": SentenceHead(RERANKER),
    **{mode: SentenceHead((Pooling(8, (mode,)), Normalize())) for mode in MODES},
    "reversed": SentenceHead((Pooling(8, ("mean", "cls")),)),
}
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0]])


def with_tokenizer(folder: Path, vocab: int) -> None:
    """A tokenizer that transformers accepts; no test here tokenizes."""
    from tokenizers import Tokenizer, models

    words = {f"w{i}": i for i in range(vocab)}
    Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "w3"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def modules_of(folder: Path, scores: bool) -> Any:
    """The folder as sentence-transformers loads it."""
    library = pytest.importorskip("sentence_transformers")
    loader = library.CrossEncoder if scores else library.SentenceTransformer
    return loader(str(folder), device="cpu").eval()


def after_the_transformer(model: Any, hidden: np.ndarray) -> np.ndarray:
    """Their modules behind the Transformer on given hidden states."""
    features = {
        "token_embeddings": torch.from_numpy(hidden),
        "attention_mask": torch.from_numpy(MASK),
    }
    with torch.no_grad():
        for module in list(model.children())[1:]:
            features = module.double()(features)
    return features.get("scores", features["sentence_embedding"]).numpy()


def assert_close(ours: np.ndarray, theirs: np.ndarray, norms: int) -> None:
    """Within the roundings of 300 float64 operations, each norm amplifying by up to 1 / sigma."""
    bound = 300 * np.finfo(np.float64).eps * (1 / np.sqrt(1e-5)) ** norms
    assert np.abs(ours - theirs).max() <= bound * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("name", HEADS_OF_SENTENCES)
def test_sentence_transformers_reads_what_we_write(tmp_path: Path, name: str) -> None:
    head = HEADS_OF_SENTENCES[name]
    config = small_config()
    params = small_params(config, head, np.float64)
    write_checkpoint(tmp_path, config, params, head)
    with_tokenizer(tmp_path, config.vocab_size)
    model = modules_of(tmp_path, head.makes_scores)
    if name == "embedder":
        assert model.prompts["query"] == "q: " and model.default_prompt_name == "query"
        assert model.similarity_fn_name == "dot" and model.max_seq_length == 40
    hidden = np.random.default_rng(2).standard_normal((4, 6, 8))
    rounded = {n: x.astype(np.float32).astype(np.float64) for n, x in params.items()}
    ours = next(iter(head.forward(rounded, config, hidden, MASK).values()))
    theirs = after_the_transformer(model, hidden)
    norms = sum(isinstance(m, LayerNorm) for m in head.modules)
    assert_close(ours, theirs, norms)


@pytest.mark.parametrize("name", HEADS_OF_SENTENCES)
def test_we_read_what_sentence_transformers_writes(tmp_path: Path, name: str) -> None:
    head = HEADS_OF_SENTENCES[name]
    make_folder(tmp_path / "ours", head)
    with_tokenizer(tmp_path / "ours", 20)
    model = modules_of(tmp_path / "ours", head.makes_scores)
    model.save_pretrained(str(tmp_path / "theirs"))
    written, found = read_checkpoint(tmp_path / "ours"), read_checkpoint(tmp_path / "theirs")
    assert isinstance(found.head, SentenceHead) and found.head.modules == head.modules
    assert set(found.params) == set(written.params)
    for key, array in written.params.items():
        np.testing.assert_array_equal(found.params[key], array, err_msg=key)
    if name == "embedder":
        settings = found.head.settings
        assert settings.prompts["query"] == "q: " and settings.default_prompt_name == "query"
        assert settings.similarity_fn_name == "dot"


def test_we_read_and_rewrite_a_reranker_of_sentence_transformers(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    make_folder(tmp_path / "plain", HEADS["sequence_classification"], num_labels=1)
    with_tokenizer(tmp_path / "plain", 20)
    identity = torch.nn.Identity()
    model = library.CrossEncoder(str(tmp_path / "plain"), device="cpu", activation_fn=identity)
    model.save_pretrained(str(tmp_path / "theirs"))
    found = read_checkpoint(tmp_path / "theirs")
    assert found.head is HEADS["sequence_classification"] and found.config.num_labels == 1
    write_checkpoint(
        tmp_path / "again", found.config, found.params, found.head, source=found.source
    )
    again = library.CrossEncoder(str(tmp_path / "again"), device="cpu")
    assert isinstance(again.activation_fn, torch.nn.Identity)
    for key, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key]), key


@pytest.mark.parametrize("kind", [None, "masked_lm"])
def test_hidden_states_are_theirs_place_by_place(tmp_path: Path, kind: str | None) -> None:
    make_folder(tmp_path, kind and HEADS[kind], **VARIED)
    ids = np.array([[1, 5, 7, 2, 9, 2], [4, 4, 19, 0, 3, 2]])
    mask = np.array([[1] * 6, [1, 1, 1, 1, 0, 0]])
    theirs = loaded(tmp_path, kind, dtype=torch.float64, attn_implementation="sdpa")
    with torch.no_grad():
        out = theirs(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask),
            output_hidden_states=True,
        )  # fmt: skip
    ours = refimpl.load(tmp_path, dtype="float64")(ids, mask, output_hidden_states=True)
    assert len(ours["hidden_states"]) == len(out.hidden_states)
    for a, b in zip(ours["hidden_states"], out.hidden_states, strict=True):
        # Their rotary tables are float32.
        np.testing.assert_allclose(a[mask > 0], b.numpy()[mask > 0], rtol=1e-5, atol=1e-5)
