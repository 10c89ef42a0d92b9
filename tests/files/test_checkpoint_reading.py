"""Reading model folders: spellings, tying, dtypes, and every kind of broken folder by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.folders import Params, change_json, change_tensors, make_folder, snapshot

from refimpl.errors import ModelFormatError
from refimpl.files.bfloat16 import to_bits, widen
from refimpl.files.checkpoint import read_checkpoint
from refimpl.files.safetensors import write_safetensors
from refimpl.reference.heads import HEADS

MLM = HEADS["masked_lm"]
EMBEDDING = "embeddings.tok_embeddings.weight"


def refusal(folder: Path, file: str, key: str | None = None, **options: Any) -> str:
    """The message of the refusal, which names file and key and changes nothing."""
    before = snapshot(folder)
    with pytest.raises(ModelFormatError) as caught:
        read_checkpoint(folder, **options)
    assert snapshot(folder) == before
    assert Path(caught.value.file) == folder / file
    assert caught.value.key == key
    return str(caught.value)


def assert_same(got: Params, expected: Params) -> None:
    assert set(got) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


# -- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, *HEADS])
def test_checkpoint_round_trip_of_every_head(tmp_path: Path, kind: str | None) -> None:
    head = HEADS[kind] if kind else None
    config, params = make_folder(tmp_path, head)
    found = read_checkpoint(tmp_path)
    assert found.head is head
    assert found.config == config.replace(
        architectures=(head.architecture if head else "ModernBertModel",)
    )
    assert_same(found.params, params)


def test_checkpoint_biased_silu_round_trip(tmp_path: Path) -> None:
    switches = dict(
        attention_bias=True, mlp_bias=True, norm_bias=True, classifier_bias=True,
        decoder_bias=False, hidden_activation="silu", type_vocab_size=2,
    )  # fmt: skip
    _, params = make_folder(tmp_path, MLM, **switches)
    assert_same(read_checkpoint(tmp_path).params, params)


def test_checkpoint_float32_is_a_view_of_the_map(tmp_path: Path) -> None:
    make_folder(tmp_path)
    for array in read_checkpoint(tmp_path).params.stored.values():
        assert not array.flags.owndata and not array.flags.writeable


@pytest.mark.parametrize("asked", [np.float32, np.float64])
@pytest.mark.parametrize("on_disk", ["bfloat16", "float16", "float32", "float64"])
def test_checkpoint_dtype_on_disk_to_dtype_asked(tmp_path: Path, on_disk: str, asked: type) -> None:
    _, params = make_folder(tmp_path, dtype=on_disk)
    found = read_checkpoint(tmp_path, dtype=asked).params
    for name, array in params.items():
        stored = widen(to_bits(array)) if on_disk == "bfloat16" else array.astype(on_disk)
        assert found[name].dtype == asked
        np.testing.assert_array_equal(found[name], stored.astype(asked))


@pytest.mark.parametrize(
    ("encoder", "layers"),
    [("", "layers."), ("model.", "layers."), ("bert.", "encoder.layers."),
     ("model.bert.", "encoder.layers.")],
)  # fmt: skip
def test_checkpoint_spellings_of_the_encoder(tmp_path: Path, encoder: str, layers: str) -> None:
    _, params = make_folder(tmp_path, MLM)

    def respell(tensors: Params) -> None:
        for key in [k for k in tensors if k.startswith("model.")]:
            plain = key.removeprefix("model.")
            tensors[encoder + plain.replace("layers.", layers, 1)] = tensors.pop(key)

    change_tensors(tmp_path / "model.safetensors", respell)
    assert_same(read_checkpoint(tmp_path).params, params)


def test_checkpoint_same_tensor_in_two_spellings_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, MLM)

    def twice(tensors: Params) -> None:
        tensors["bert.final_norm.weight"] = tensors["model.final_norm.weight"] * 2

    change_tensors(tmp_path / "model.safetensors", twice)
    message = refusal(tmp_path, "model.safetensors", "model.final_norm.weight")
    assert "the tensor 'bert.final_norm.weight' in another spelling" in message


@pytest.mark.parametrize("kind", ["masked_lm", "sequence_classification"])
def test_checkpoint_encoder_alone_leaves_the_head_out(tmp_path: Path, kind: str) -> None:
    _, params = make_folder(tmp_path, HEADS[kind])
    found = read_checkpoint(tmp_path, kind=None)
    heads = ("head.", "decoder.", "classifier.")
    assert found.head is None
    assert_same(found.params, {n: x for n, x in params.items() if not n.startswith(heads)})


def test_checkpoint_encoder_alone_still_refuses_what_no_head_has(tmp_path: Path) -> None:
    make_folder(tmp_path, MLM)
    change_tensors(tmp_path / "model.safetensors", lambda t: t.update({"head.extra": np.ones(2)}))
    assert "no part" in refusal(tmp_path, "model.safetensors", "head.extra", kind=None)


def test_checkpoint_kind_is_checked(tmp_path: Path) -> None:
    make_folder(tmp_path, MLM)
    assert read_checkpoint(tmp_path, kind="masked_lm").head is MLM
    with pytest.raises(ValueError, match="kind 'mlm' is unknown; known: auto"):
        read_checkpoint(tmp_path, kind="mlm")
    message = refusal(
        tmp_path, "model.safetensors", "classifier.weight", kind="token_classification"
    )
    assert "missing" in message


def test_checkpoint_harmless_buffers_are_left_out(tmp_path: Path) -> None:
    _, params = make_folder(tmp_path, MLM)
    buffers = [
        "model.layers.0.attn.rotary_emb.inv_freq",
        "model.rotary_emb.full_attention_inv_freq",
        "model.embeddings.position_ids",
    ]
    change_tensors(
        tmp_path / "model.safetensors", lambda t: t.update({n: np.arange(4) for n in buffers})
    )
    assert_same(read_checkpoint(tmp_path).params, params)


# -- the decoder: tied, untied, alone -------------------------------------------------------------


@pytest.mark.parametrize("says", [True, False])
def test_checkpoint_without_decoder_is_tied(tmp_path: Path, says: bool) -> None:
    make_folder(tmp_path, MLM)
    change_json(tmp_path / "config.json", tie_word_embeddings=says)
    found = read_checkpoint(tmp_path)
    assert found.config.tie_word_embeddings and "decoder.weight" not in found.params


@pytest.mark.parametrize("says", [True, False])
def test_checkpoint_with_another_decoder_is_untied(tmp_path: Path, says: bool) -> None:
    _, params = make_folder(tmp_path, MLM, tie_word_embeddings=False)
    change_json(tmp_path / "config.json", tie_word_embeddings=says)
    found = read_checkpoint(tmp_path)
    assert not found.config.tie_word_embeddings
    assert_same(found.params, params)


@pytest.mark.parametrize("says", [True, False])
def test_checkpoint_with_an_equal_decoder_is_as_the_config_says(tmp_path: Path, says: bool) -> None:
    _, params = make_folder(tmp_path, MLM)

    def add(tensors: Params) -> None:
        tensors["decoder.weight"] = tensors["model." + EMBEDDING]

    change_tensors(tmp_path / "model.safetensors", add)
    change_json(tmp_path / "config.json", tie_word_embeddings=says)
    found = read_checkpoint(tmp_path)
    assert found.config.tie_word_embeddings is says
    assert ("decoder.weight" in found.params) is not says


@pytest.mark.parametrize("kind", ["auto", None])
def test_checkpoint_decoder_alone_fills_the_embedding(tmp_path: Path, kind: str | None) -> None:
    _, params = make_folder(tmp_path, MLM)

    def move(tensors: Params) -> None:
        tensors["decoder.weight"] = tensors.pop("model." + EMBEDDING)

    change_tensors(tmp_path / "model.safetensors", move)
    found = read_checkpoint(tmp_path, kind=kind)
    assert found.config.tie_word_embeddings
    np.testing.assert_array_equal(found.params[EMBEDDING], params[EMBEDDING])


# -- shards ---------------------------------------------------------------------------------------


def test_checkpoint_shards_are_read_as_one(tmp_path: Path) -> None:
    _, params = make_folder(tmp_path, MLM, max_shard_size=1500)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same(read_checkpoint(tmp_path).params, params)


INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-00003.safetensors"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    make_folder(tmp_path, max_shard_size=2000)
    return tmp_path


def weight_map(folder: Path) -> dict[str, str]:
    return json.loads((folder / INDEX).read_text())["weight_map"]


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x", "a/b.safetensors", "", "..", 3])
def test_checkpoint_index_cannot_leave_the_folder(sharded: Path, name: Any) -> None:
    change_json(sharded / INDEX, weight_map={**weight_map(sharded), EMBEDDING: name})
    assert "no file of this folder" in refusal(sharded, INDEX, EMBEDDING)


def test_checkpoint_missing_shard_is_refused(sharded: Path) -> None:
    first = sorted(set(weight_map(sharded).values()))[0]
    (sharded / first).unlink()
    assert "cannot be read" in refusal(sharded, first)


def test_checkpoint_key_in_another_shard_is_refused(sharded: Path) -> None:
    places = weight_map(sharded)
    first, last = places[EMBEDDING], places["final_norm.weight"]
    assert first != last
    change_json(sharded / INDEX, weight_map={**places, "final_norm.weight": first})
    assert f"in {first}, but it is here" in refusal(sharded, last, "final_norm.weight")


def test_checkpoint_key_the_shard_lacks_is_refused(sharded: Path) -> None:
    places = weight_map(sharded)
    shard = places[EMBEDDING]
    change_tensors(sharded / shard, lambda t: t.pop(EMBEDDING))
    assert "the file has it not" in refusal(sharded, shard, EMBEDDING)


def test_checkpoint_key_in_two_shards_is_refused(sharded: Path) -> None:
    last = weight_map(sharded)["final_norm.weight"]
    change_tensors(sharded / last, lambda t: t.update({EMBEDDING: np.ones((20, 8))}))
    assert "but it is here" in refusal(sharded, last, EMBEDDING)


@pytest.mark.parametrize("content", [{}, {"weight_map": []}])
def test_checkpoint_index_without_map_is_refused(sharded: Path, content: dict) -> None:
    (sharded / INDEX).write_text(json.dumps(content))
    assert "must map tensors to files" in refusal(sharded, INDEX, "weight_map")


# -- tensors --------------------------------------------------------------------------------------

KEY = "model.layers.1.attn.Wqkv.weight"


@pytest.mark.parametrize("gone", [KEY, "model.layers.1.attn_norm.weight", "head.dense.weight"])
def test_checkpoint_missing_tensor_is_refused(tmp_path: Path, gone: str) -> None:
    make_folder(tmp_path, MLM)
    change_tensors(tmp_path / "model.safetensors", lambda t: t.pop(gone))
    assert "missing" in refusal(tmp_path, "model.safetensors", gone.removeprefix("model."))


@pytest.mark.parametrize(
    "extra", ["model.layers.0.attn_norm.weight", "model.layers.3.mlp.Wi.weight", "classifier.bias",
              KEY.replace("weight", "bias"), "rotary_emb.inv_freq.weight",
              "head.embeddings.position_ids"],
)  # fmt: skip
def test_checkpoint_extra_tensor_is_refused(tmp_path: Path, extra: str) -> None:
    make_folder(tmp_path, MLM)
    change_tensors(tmp_path / "model.safetensors", lambda t: t.update({extra: np.ones(8)}))
    assert "no part of the model" in refusal(tmp_path, "model.safetensors", extra)


def test_checkpoint_misshapen_tensor_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, MLM)
    change_tensors(tmp_path / "model.safetensors", lambda t: t.update({KEY: t[KEY].T}))
    assert "its shape is [8, 24], not [24, 8]" in refusal(tmp_path, "model.safetensors", KEY)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_checkpoint_non_finite_tensor_is_refused(tmp_path: Path, value: float, dtype: str) -> None:
    _, params = make_folder(tmp_path)
    params["layers.1.mlp.Wo.weight"] = params["layers.1.mlp.Wo.weight"].copy()
    params["layers.1.mlp.Wo.weight"][7, 5] = value
    write_safetensors(tmp_path / "model.safetensors", params, dtype=dtype)
    message = refusal(tmp_path, "model.safetensors", "layers.1.mlp.Wo.weight")
    assert "at (7, 5)" in message and str(value) in message


def test_checkpoint_non_finite_value_is_found_beyond_the_first_chunk(tmp_path: Path) -> None:
    make_folder(tmp_path, vocab_size=140_000)  # 1.12 million values, a chunk is 2**20

    def poison(tensors: Params) -> None:
        tensors[EMBEDDING][-1, -1] = np.nan

    change_tensors(tmp_path / "model.safetensors", poison)
    assert "at (139999, 7)" in refusal(tmp_path, "model.safetensors", EMBEDDING)


def test_checkpoint_integer_weights_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, MLM)
    change_tensors(
        tmp_path / "model.safetensors", lambda t: t.update({KEY: t[KEY].astype(np.int8)})
    )
    assert "I8 holds no floats" in refusal(tmp_path, "model.safetensors", KEY)


def test_checkpoint_broken_weights_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelFormatError, match="truncated"):
        read_checkpoint(tmp_path)


def test_checkpoint_pickles_are_never_read(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    message = refusal(tmp_path, "model.safetensors")
    assert "pytorch_model.bin is a pickle, which is never read" in message


# -- config.json and the folder -------------------------------------------------------------------

CONFIGS = [
    ("unknown activation", dict(hidden_activation="mish"), None, "mish"),
    ("unknown rope type", dict(rope_parameters={"full_attention": {"rope_type": "yarn"}}), None,
     "yarn"),
    ("unknown architecture", dict(architectures=["BertModel"]), "architectures",
     "known: ModernBertModel, ModernBertForMaskedLM"),
    ("another model", dict(model_type="bert"), None, "model_type is 'bert'"),
    ("a size as text", dict(hidden_size="8"), None, "hidden_size"),
    ("layers without end", dict(num_hidden_layers=10**9, layer_types=...), "num_hidden_layers",
     "at most"),
    ("labels without end", dict(num_labels=10**9, id2label=..., label2id=...), "num_labels",
     "at most"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "key", "words"), [c[1:] for c in CONFIGS], ids=[c[0] for c in CONFIGS]
)
def test_checkpoint_config_is_refused(
    tmp_path: Path, changes: dict, key: str | None, words: str
) -> None:
    make_folder(tmp_path)
    change_json(tmp_path / "config.json", **changes)
    assert words in refusal(tmp_path, "config.json", key)


TEXTS = [
    (b"[]", "an object"),
    (b"null", "holds null"),
    (b"3", "holds a number"),
    (b"{", "wrong json"),
    (b'{"hidden_size": 8, "hidden_size": 8}', "given twice"),
    (b'{"norm_eps": NaN}', "NaN"),
    (b'{"model_type": "\xff"}', "UTF-8"),
    (b"", "wrong json"),
]


@pytest.mark.parametrize(("text", "words"), TEXTS)
def test_checkpoint_wrong_json_is_refused(tmp_path: Path, text: bytes, words: str) -> None:
    make_folder(tmp_path)
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ModelFormatError, match=words) as caught:
        read_checkpoint(tmp_path)
    assert caught.value.file == str(tmp_path / "config.json")


def test_checkpoint_wrong_number_of_labels_for_answers_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, HEADS["question_answering"])
    labels = {str(i): f"L{i}" for i in range(3)}
    change_json(tmp_path / "config.json", id2label=labels, label2id=...)
    assert "question answering needs 2" in refusal(tmp_path, "config.json")


def test_checkpoint_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="this folder is missing"):
        read_checkpoint(tmp_path / "absent")
    assert "this file is missing" in refusal(tmp_path, "config.json")
    make_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert "this file is missing" in refusal(tmp_path, "model.safetensors")
