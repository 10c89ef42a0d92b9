"""Model folders through the C interface: read as Python reads them, refused where Python refuses.

Every broken folder is shown to both readers; the refusals have the same words.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.broken_safetensors import (
    ENTRIES,
    HEADERS,
    MUTATIONS,
    TEXTS,
    file_of,
    mutated,
    raw_file,
)
from support.broken_safetensors import with_entry as entry_with
from support.c_interface import BAD_FILE, Failed, Model, input_of
from support.folders import Params, change_json, change_tensors, make_folder

from refimpl.backends.engine import Engine
from refimpl.errors import ModelFormatError
from refimpl.files.bfloat16 import to_bits
from refimpl.files.checkpoint import read_checkpoint
from refimpl.files.safetensors import write_safetensors
from refimpl.reference.config_keys import NEUTRAL
from refimpl.reference.heads import HEADS

MLM = HEADS["masked_lm"]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
EMBEDDING, KEY = "embeddings.tok_embeddings.weight", "layers.1.attn.Wqkv.weight"
OWN, BASE = "sentence_transformers.models", "sentence_transformers.base.modules"
IDS = np.array([1, 7, 3, 0, 19, 2], np.int64)


def hidden(folder: Path) -> np.ndarray:
    return Model.open(folder).forward(input_of([0, 4, 6], ids=IDS), 6)


def expected(folder: Path) -> np.ndarray:
    found = read_checkpoint(folder, kind=None)
    engine = Engine(found.config, {n: np.array(x) for n, x in found.params.items()}, 1)
    return engine.packed(IDS, np.array([0, 4, 6]))


def c_refusal(folder: Path) -> str | None:
    """The text of the refusal; None when the folder is read."""
    try:
        Model.open(folder)
    except Failed as failed:
        assert failed.status == BAD_FILE, failed
        return str(failed)
    return None


def python_refusal(folder: Path) -> str | None:
    try:
        read_checkpoint(folder, kind=None)
    except ModelFormatError as error:
        return str(error)
    return None


def assert_both_refuse(folder: Path) -> None:
    assert c_refusal(folder) == python_refusal(folder) is not None


# -- what is read ---------------------------------------------------------------------------------

READ: dict[str, dict[str, Any]] = {
    "plain": {},
    "masked_lm": dict(head=MLM),
    "untied": dict(head=MLM, tie_word_embeddings=False),
    "answers": dict(head=HEADS["question_answering"]),
    "biases": dict(attention_bias=True, mlp_bias=True, norm_bias=True, hidden_activation="silu"),
    "types": dict(type_vocab_size=2),
    "shards": dict(head=MLM, max_shard_size=1500),
    "bfloat16": dict(dtype="bfloat16"),
    "float16": dict(dtype="float16"),
    "float64": dict(dtype="float64"),
}


@pytest.mark.parametrize("what", READ)
def test_folder_is_read_as_python_reads_it(tmp_path: Path, what: str) -> None:
    make_folder(tmp_path, **READ[what])
    np.testing.assert_array_equal(hidden(tmp_path), expected(tmp_path))


SPELLINGS: dict[str, dict[str, Any]] = {
    "v4 alone": dict(layer_types=..., rope_parameters=..., global_attn_every_n_layers=2),
    "v4 defaults": dict(
        layer_types=..., rope_parameters=..., global_attn_every_n_layers=...,
        global_rope_theta=..., local_rope_theta=..., local_attention=...,
    ),
    "local theta null": dict(rope_parameters=None, local_rope_theta=None, global_rope_theta=500),
    "v5 wins": dict(global_rope_theta=5, global_attn_every_n_layers=1),
    "half window": dict(local_attention=..., sliding_window=1),
    "total and half": dict(local_attention=5, sliding_window=2),
    "huge window": dict(local_attention=10**18),
    "one theta": dict(rope_parameters={"full_attention": {"rope_theta": 77.5}}),
    "rope scaling": dict(rope_parameters={}, rope_scaling={"type": "default", "rope_theta": 99}),
    "head_dim": dict(head_dim=4),
    "nulls": dict(head_dim=None, sliding_window=None, rope_scaling=None),
    "nulls of heads": dict(
        classifier_pooling=None, architectures=None, tie_word_embeddings=None, problem_type=None,
        pad_token_id=None, eos_token_id=[1, 2], id2label=None, label2id={"a": "0", "b": 1},
        num_labels=None,
    ),
    "labels in any order": dict(id2label={"1": "a", "00": 3}, num_labels=2),
}  # fmt: skip


@pytest.mark.parametrize("what", SPELLINGS)
def test_config_is_read_in_every_spelling(tmp_path: Path, what: str) -> None:
    make_folder(tmp_path, local_attention=2)
    change_json(tmp_path / "config.json", **SPELLINGS[what])
    np.testing.assert_array_equal(hidden(tmp_path), expected(tmp_path))


@pytest.mark.parametrize(
    "prefix",
    ["", "model.", "bert.", "model.bert.", "_orig_mod.model.", "module._orig_mod.model.",
     "model._orig_mod.", "module.model.module.bert."],
)  # fmt: skip
def test_names_are_read_in_every_spelling(tmp_path: Path, prefix: str) -> None:
    make_folder(tmp_path, MLM)

    def respell(tensors: Params) -> None:
        for key in [k for k in tensors if k.startswith("model.")]:
            plain = key.removeprefix("model.")
            plain = plain.replace("layers.", "encoder.layers.", 1) if "bert" in prefix else plain
            tensors[prefix + plain] = tensors.pop(key)

    change_tensors(tmp_path / WEIGHTS, respell)
    np.testing.assert_array_equal(hidden(tmp_path), expected(tmp_path))


def test_misaligned_tensors_are_read(tmp_path: Path) -> None:
    _, params = make_folder(tmp_path)
    header: dict[str, Any] = {"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    header = {"embeddings.position_ids": header["x"]}
    position, data = 1, b"\0"
    for i, (name, x) in enumerate(params.items()):
        raw = x.tobytes() if i % 2 else to_bits(x).tobytes()
        header[name] = {
            "dtype": "F32" if i % 2 else "BF16",
            "shape": list(x.shape),
            "data_offsets": [position, position + len(raw)],
        }
        position, data = position + len(raw), data + raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    raw_file(tmp_path / WEIGHTS, text, data)
    np.testing.assert_array_equal(hidden(tmp_path), expected(tmp_path))


def test_decoder_alone_fills_the_embedding(tmp_path: Path) -> None:
    make_folder(tmp_path, MLM)
    before = hidden(tmp_path)
    change_tensors(
        tmp_path / WEIGHTS, lambda t: t.update({"decoder.weight": t.pop("model." + EMBEDDING)})
    )
    np.testing.assert_array_equal(hidden(tmp_path), before)


def test_sentence_transformers_folder_is_read_by_its_first_module(tmp_path: Path) -> None:
    inner = tmp_path / "0_Transformer"
    inner.mkdir()
    make_folder(inner)
    modules = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": f"{OWN}.Transformer"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    np.testing.assert_array_equal(hidden(tmp_path), hidden(inner))
    for path in ("../0_Transformer", "/0_Transformer", 3):
        (tmp_path / "modules.json").write_text(json.dumps([{**modules[0], "path": path}]))
        assert "modules.json" in str(c_refusal(tmp_path))
    for kind in (
        f"{OWN}.transformer.Transformer",
        "sentence_transformers.base.modules.Transformer",
    ):
        (tmp_path / "modules.json").write_text(json.dumps([{**modules[0], "type": kind}]))
        np.testing.assert_array_equal(hidden(tmp_path), hidden(inner))
    for kind in (f"{OWN}.Pooling", "my_package.models.Transformer", f"{OWN}.a.b.Transformer",
                 f"{OWN}Transformer", f"{OWN}..Transformer", "Transformer"):  # fmt: skip
        (tmp_path / "modules.json").write_text(json.dumps([{**modules[0], "type": kind}]))
        assert_both_refuse(tmp_path)


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_no_json_file_is_opened_twice(tmp_path: Path) -> None:
    """In C, seen from outside: folders with modules.json and with shards."""
    make_folder(tmp_path / "0_Transformer", MLM, max_shard_size=1500)
    modules = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": f"{OWN}.Transformer"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from support.c_interface import Model; "
        "Model.open(sys.argv[2])"
    )
    log = tmp_path / "log"
    subprocess.run(
        ["strace", "-f", "-e", "trace=open,openat", "-o", log, sys.executable, "-c", script,
         Path(__file__).parents[1], tmp_path],
        check=True, cwd=tmp_path,
    )  # fmt: skip
    opened = re.findall(rf'"{tmp_path}/([^"]*\.json)"[^\n]*= \d', log.read_text())
    names = ("modules.json", "0_Transformer/config.json", f"0_Transformer/{INDEX}")
    assert sorted(opened) == sorted(names)


# Every key of config.json that is supported only where it does nothing, doing something.
DOES_SOMETHING: dict[str, Any] = {
    "quantization_config": {"bits": 8},
    "pruned_heads": {"0": [1]},
    "is_decoder": True,
    "is_encoder_decoder": True,
    "add_cross_attention": 0,
    "cross_attention_hidden_size": 8,
    "tie_encoder_decoder": "no",
    "causal_mask": True,
}


def test_keys_that_must_do_nothing_are_the_same_in_both():
    assert set(DOES_SOMETHING) == set(NEUTRAL)


@pytest.mark.parametrize("key", NEUTRAL)
def test_key_that_does_nothing_is_read_by_both(tmp_path: Path, key: str) -> None:
    make_folder(tmp_path)
    plain = hidden(tmp_path)
    for value in (None, *NEUTRAL[key][0]):
        change_json(tmp_path / "config.json", **{key: value})
        np.testing.assert_array_equal(hidden(tmp_path), plain)
        np.testing.assert_array_equal(expected(tmp_path), plain)


# -- what is refused ------------------------------------------------------------------------------

CONFIGS: dict[str, dict[str, Any]] = {
    "activation": dict(hidden_activation="mish"),
    "activation null": dict(hidden_activation=None),
    "rope type": dict(rope_parameters={"full_attention": {"rope_type": "yarn"}}),
    "rope factor": dict(rope_parameters={"sliding_attention": {"factor": 2}}),
    "rope of another kind": dict(rope_parameters={"rope_theta": 1e4}),
    "rope list": dict(rope_parameters=[1]),
    "rope scaling": dict(rope_scaling={"type": "linear", "factor": 2}),
    "theta zero": dict(rope_parameters=None, global_rope_theta=0),
    "theta text": dict(rope_parameters=None, local_rope_theta="1e4"),
    "theta of a rope text": dict(rope_parameters={"full_attention": {"rope_theta": "x"}}),
    "theta negative": dict(rope_parameters={"full_attention": {"rope_theta": -1}}),
    "another model": dict(model_type="bert"),
    "model null": dict(model_type=None),
    "size as text": dict(hidden_size="8"),
    "size null": dict(vocab_size=None),
    "size real": dict(intermediate_size=6.0),
    "size boolean": dict(num_attention_heads=True),
    "size zero": dict(vocab_size=0),
    "size negative": dict(intermediate_size=-6),
    "another size": dict(hidden_size=16),
    "positions zero": dict(max_position_embeddings=0),
    "heads do not divide": dict(num_attention_heads=3),
    "odd head": dict(num_attention_heads=8),
    "head_dim": dict(head_dim=3),
    "head_dim text": dict(head_dim="4"),
    "eps zero": dict(norm_eps=0.0),
    "eps null": dict(norm_eps=None),
    "eps that float32 takes for 0": dict(norm_eps=1e-50),
    "eps beyond float32": dict(norm_eps=1e39),
    "bias as number": dict(norm_bias=1),
    "bias null": dict(mlp_bias=None),
    "types negative": dict(type_vocab_size=-1),
    "layers without end": dict(num_hidden_layers=10**9, layer_types=...),
    "layers zero": dict(num_hidden_layers=0, layer_types=...),
    "layer types short": dict(layer_types=["full_attention"]),
    "layer types empty": dict(layer_types=[]),
    "layer types text": dict(layer_types="full_attention"),
    "layer types unknown": dict(layer_types=["full_attention", "chunked", "sliding_attention"]),
    "layer types nested": dict(layer_types=[["full_attention"]] * 3),
    "interval zero": dict(layer_types=..., global_attn_every_n_layers=0),
    "interval text": dict(layer_types=..., global_attn_every_n_layers="3"),
    "window negative": dict(local_attention=-2),
    "window real": dict(local_attention=128.0),
    "half is another": dict(sliding_window=3),
    "half negative": dict(local_attention=..., sliding_window=-3),
    "half text": dict(local_attention=..., sliding_window="3"),
    "extra of text": dict(extra="x"),
    "text beyond ASCII": dict(hidden_activation="gelü\t'\u200b\U0001f600\""),
    "a long value": dict(rope_parameters=[{"a": [1.5, -2, 1e22, 1e-7, True, None]}] * 9),
    "rope of a type is no object": dict(rope_parameters={"full_attention": 3}),
    "rope scaling of text": dict(rope_scaling="x"),
    "size of huge": dict(vocab_size=2**31 + 1),
    # Keys of heads, of training and of special tokens.
    "pooling": dict(classifier_pooling="max"),
    "pooling list": dict(classifier_pooling=["cls"]),
    "classifier activation": dict(classifier_activation=3),
    "problem": dict(problem_type="x"),
    "problem list": dict(problem_type=["regression"]),
    "architecture": dict(architectures=["BertModel"]),
    "architecture of a number": dict(architectures=[[3]]),
    "architecture text": dict(architectures="ModernBertModel"),
    "dropout": dict(attention_dropout=1),
    "dropout text": dict(mlp_dropout="0"),
    "dropout negative": dict(classifier_dropout=-0.25),
    "dropout boolean": dict(embedding_dropout=False),
    "range": dict(initializer_range=0),
    "cutoff": dict(initializer_cutoff_factor=-3),
    "pad": dict(pad_token_id=[3]),
    "eos": dict(eos_token_id=[1, "2"]),
    "cls": dict(cls_token_id="x"),
    "flag": dict(decoder_bias=1),
    "flag null": dict(classifier_bias=None),
    "tie": dict(tie_word_embeddings="yes"),
    "sparse": dict(sparse_prediction=0),
    "ignored": dict(sparse_pred_ignore_index=1.5),
    "labels": dict(id2label=["a"]),
    "labels of words": dict(id2label={"x": "a"}),
    "labels with a hole": dict(id2label={"0": "a", "2": "b"}),
    "labels below zero": dict(id2label={"-1": "a", "0": "b"}),
    "labels of long numbers": dict(id2label={"1" * 19: "a"}),
    "no labels": dict(id2label={}),
    "labels by word": dict(id2label=None, label2id={"a": 1, "b": 2}),
    "labels by word alone": dict(id2label=..., label2id={"a": [0]}),
    "words of a list": dict(id2label=..., label2id=["a"]),
    "number of labels": dict(num_labels=3),
    "number of labels zero": dict(num_labels=0),
    "number of labels text": dict(num_labels="2"),
    "number of labels huge": dict(num_labels=10**8),
    **{f"{key} set": {key: value} for key, value in DOES_SOMETHING.items()},
}


@pytest.mark.parametrize("what", CONFIGS)
def test_config_is_refused_by_both(tmp_path: Path, what: str) -> None:
    make_folder(tmp_path)
    change_json(tmp_path / "config.json", **CONFIGS[what])
    assert_both_refuse(tmp_path)


def test_size_beyond_any_model_is_refused_before_the_weights_are_opened(tmp_path: Path) -> None:
    make_folder(tmp_path)
    change_json(tmp_path / "config.json", hidden_size=10**18)
    (tmp_path / WEIGHTS).unlink()
    assert "config.json: hidden_size: is 1000000000000000000; at most" in str(c_refusal(tmp_path))
    assert_both_refuse(tmp_path)


CONFIG_TEXTS = {
    "list": b"[]", "null": b"null", "number": b"3", "empty": b"", "open": b"{",
    "twice": b'{"hidden_size": 8, "hidden_size": 8}', "NaN": b'{"norm_eps": NaN}',
    "minus infinity": b'{"norm_eps": -Infinity}', "not utf-8": b'{"model_type": "\xff"}',
    "overlong": b'{"a": "\xc0\xaf"}', "surrogate in utf-8": b'{"a": "\xed\xa0\x80"}',
    "bom": b"\xef\xbb\xbf{}", "long number": b'{"a": ' + b"1" * 20 + b"}",
    "beyond float64": b'{"a": 1e999}', "control character": b'{"a": "\n"}', "tail": b"{} {}",
    "comma at the end": b'{"a": 1,}', "leading zero": b'{"a": 01}', "plus": b'{"a": +1}',
    "no digits": b'{"a": -}', "point": b'{"a": 1.}', "exponent": b'{"a": 1e}',
    "single quotes": b"{'a': 1}", "comment": b"{} // x", "word": b'{"a": nul}',
    "escape": b'{"a": "\\x"}', "escape cut": b'{"a": "\\u12"}', "string cut": b'{"a": "x',
    "no colon": b'{"a" 1}', "no key": b"{1: 2}", "nul": b'{"a": 1}\0',
}  # fmt: skip


@pytest.mark.parametrize("what", CONFIG_TEXTS)
def test_config_text_is_refused_by_both(tmp_path: Path, what: str) -> None:
    make_folder(tmp_path)
    (tmp_path / "config.json").write_bytes(CONFIG_TEXTS[what])
    assert_both_refuse(tmp_path)


def test_config_nested_without_end_and_half_surrogates_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    for text in (b'{"a": ' + b"[" * 100_000, b'{"a": "\\ud800"}', b'{"a": "\\ud800\\u0041"}'):
        (tmp_path / "config.json").write_bytes(text)
        assert_both_refuse(tmp_path)


def changed(change: Callable[[Params], object]) -> Callable[[Path], None]:
    return lambda folder: change_tensors(folder / WEIGHTS, change)


def poisoned(value: float, dtype: str) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        params = {n: np.array(x) for n, x in read_checkpoint(folder).params.items()}
        params[KEY][7, 5] = value
        write_safetensors(folder / WEIGHTS, params, dtype=dtype)

    return break_it


BROKEN: dict[str, Callable[[Path], object]] = {
    "no folder": shutil.rmtree,
    "no config": lambda f: (f / "config.json").unlink(),
    "no weights": lambda f: (f / WEIGHTS).unlink(),
    "config is a folder": lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()),
    "cut": lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-1]),
    "empty": lambda f: (f / WEIGHTS).write_bytes(b""),
    "missing": changed(lambda t: t.pop(KEY)),
    "missing norm": changed(lambda t: t.pop("layers.1.attn_norm.weight")),
    "norm of layer 0": changed(lambda t: t.update({"layers.0.attn_norm.weight": np.ones(8)})),
    "layer too many": changed(lambda t: t.update({"layers.3.mlp.Wi.weight": np.ones(8)})),
    "bias": changed(lambda t: t.update({KEY.replace("weight", "bias"): np.ones(24)})),
    "no head's": changed(lambda t: t.update({"head.extra": np.ones(8)})),
    "buffer of a buffer": changed(lambda t: t.update({"rotary_emb.inv_freq.x": np.ones(8)})),
    "twice": changed(lambda t: t.update({"bert.final_norm.weight": np.ones(8)})),
    "transposed": changed(lambda t: t.update({KEY: t[KEY].T.copy()})),
    "rank": changed(lambda t: t.update({KEY: t[KEY].reshape(24, 8, 1)})),
    "integers": changed(lambda t: t.update({KEY: t[KEY].astype(np.int8)})),
    "boolean": changed(lambda t: t.update({KEY: t[KEY] > 0})),
    **{
        f"{value} in {dtype}": poisoned(value, dtype)
        for value in (np.nan, np.inf, -np.inf)
        for dtype in ("float32", "float16", "bfloat16", "float64")
    },
    "float64 beyond float32": poisoned(1e300, "float64"),
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("what", BROKEN)
def test_broken_folder_is_refused_by_both(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "model"
    if what == "float64 beyond float32":
        make_folder(folder, dtype="float64")
        params = {n: x.astype(np.float64) for n, x in read_checkpoint(folder).params.items()}
        params[KEY][7, 5] = 1e300
        write_safetensors(folder / WEIGHTS, params)
    else:
        make_folder(folder)
        BROKEN[what](folder)
    assert_both_refuse(folder)


def test_place_of_a_value_that_is_not_finite_is_told(tmp_path: Path) -> None:
    make_folder(tmp_path, vocab_size=140_000)
    change_tensors(tmp_path / WEIGHTS, lambda t: t[EMBEDDING].__setitem__((-1, -1), np.nan))
    assert "at (139999, 7)" in str(c_refusal(tmp_path))
    assert_both_refuse(tmp_path)


HARMLESS = [
    "layers.0.attn.rotary_emb.inv_freq", "rotary_emb.full_attention_inv_freq",
    "model.rotary_emb.sliding_attention_original_inv_freq", "embeddings.position_ids",
    "rotary_emb.inv_freq", "layers.x.attn.rotary_emb.inv_freq", "rotary_emb._inv_freq",
    "rotary_emb.xinv_freq", "rotary_emb.a-b_inv_freq", "rotary_emb.__inv_freq", "inv_freq",
    "layers.0.attn.embeddings.position_ids", "embeddings.position_ids.x",
]  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_computed_buffers_are_told_apart_as_python_does(tmp_path: Path, name: str) -> None:
    make_folder(tmp_path)
    change_tensors(tmp_path / WEIGHTS, lambda t: t.update({name: np.arange(4)}))
    assert (c_refusal(tmp_path) is None) == (python_refusal(tmp_path) is None)


# -- shards ---------------------------------------------------------------------------------------


def weight_map(folder: Path) -> dict[str, str]:
    return json.loads((folder / INDEX).read_text())["weight_map"]


def placed(name: Any) -> Callable[[Path], object]:
    return lambda f: change_json(f / INDEX, weight_map={**weight_map(f), EMBEDDING: name})


def first_shard(folder: Path) -> Path:
    return folder / weight_map(folder)[EMBEDDING]


def twice(folder: Path) -> None:
    last = folder / weight_map(folder)["final_norm.weight"]
    change_tensors(last, lambda t: t.update({EMBEDDING: np.ones((20, 8))}))


BAD_SHARDS: dict[str, Callable[[Path], object]] = {
    **{f"place {n!r}": placed(n) for n in ("../x", "/etc/x", "a/b", "", ".", "..", 3, None)},
    "no file": lambda f: first_shard(f).unlink(),
    "no map": lambda f: (f / INDEX).write_text("{}"),
    "list for a map": lambda f: (f / INDEX).write_text('{"weight_map": []}'),
    "list": lambda f: (f / INDEX).write_text("[]"),
    "key elsewhere": lambda f: change_json(
        f / INDEX, weight_map={**weight_map(f), "final_norm.weight": first_shard(f).name}
    ),
    "key nowhere": lambda f: change_tensors(first_shard(f), lambda t: t.pop(EMBEDDING)),
    "key not named": lambda f: change_json(
        f / INDEX, weight_map={n: s for n, s in weight_map(f).items() if n != EMBEDDING}
    ),
    "in two shards": twice,
}


@pytest.mark.parametrize("what", BAD_SHARDS)
def test_shards_are_refused_by_both(tmp_path: Path, what: str) -> None:
    make_folder(tmp_path, max_shard_size=2000)
    assert first_shard(tmp_path).name != weight_map(tmp_path)["final_norm.weight"]
    BAD_SHARDS[what](tmp_path)
    assert_both_refuse(tmp_path)


# -- safetensors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [e[1] for e in ENTRIES], ids=[e[0] for e in ENTRIES])
def test_entry_of_a_header_is_refused_by_both(tmp_path: Path, changes: dict) -> None:
    make_folder(tmp_path)
    file_of(tmp_path / WEIGHTS, entry_with(**changes), 16)
    assert_both_refuse(tmp_path)


@pytest.mark.parametrize("header", [h[1:3] for h in HEADERS], ids=[h[0] for h in HEADERS])
def test_layout_is_refused_by_both(tmp_path: Path, header: tuple[Any, int]) -> None:
    make_folder(tmp_path)
    file_of(tmp_path / WEIGHTS, *header)
    assert_both_refuse(tmp_path)


@pytest.mark.parametrize("text", [t[1] for t in TEXTS], ids=[t[0] for t in TEXTS])
def test_header_text_is_refused_by_both(tmp_path: Path, text: bytes) -> None:
    make_folder(tmp_path)
    raw_file(tmp_path / WEIGHTS, text, b"")
    assert_both_refuse(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 11, 100_000_001, 2**63, 2**64 - 1])
def test_length_of_a_header_is_refused_by_both(tmp_path: Path, length: int) -> None:
    make_folder(tmp_path)
    path = raw_file(tmp_path / WEIGHTS, b"{}", b"12345678", length)
    if length == 100_000_001:  # a sparse file that is long enough: only the cap refuses
        with open(path, "r+b") as stream:
            stream.truncate(length + 8)
    assert_both_refuse(tmp_path)


@given(mutations=MUTATIONS, of_config=st.booleans())
def test_mutated_files_are_read_by_both_or_refused_by_both(
    tmp_path_factory: pytest.TempPathFactory, mutations: list, of_config: bool
) -> None:
    folder = tmp_path_factory.mktemp("mutated")
    make_folder(folder, num_hidden_layers=1, vocab_size=4)
    path = folder / ("config.json" if of_config else WEIGHTS)
    path.write_bytes(mutated(path.read_bytes(), mutations))
    ours, theirs = c_refusal(folder), python_refusal(folder)
    assert (ours is None) == (theirs is None), (ours, theirs)
    if not of_config:  # whose faults, where there are several, are looked for in another order
        assert ours == theirs
