"""A folder is read once: no JSON file of it is opened twice in a load, whatever the load is for."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.folders import change_json, make_folder
from support.text_folders import model_folder, sentence_folder

import refimpl
from refimpl.files.folder import ModelFolder
from refimpl.reference.heads import HEADS

CLASSES = "sentence_transformers.models"
POOLING = (f"{CLASSES}.Pooling", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
DENSE = (f"{CLASSES}.Dense", {"in_features": 32, "out_features": 8})
NORMALIZE = (f"{CLASSES}.Normalize", {})

_listening: list[Counter] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _listening and isinstance(args[0], (str, bytes, Path)):
        _listening[-1][str(args[0])] += 1


sys.addaudithook(_hook)  # it cannot be taken off again, and does nothing while nobody listens


def opened(folder: Path, function: Callable[[], Any]) -> dict[str, int]:
    """Relative name -> how often Python opened that JSON file of the folder."""
    counts: Counter = Counter()
    _listening.append(counts)
    try:
        function()
    finally:
        _listening.pop()
    return {
        str(Path(name).relative_to(folder)): n
        for name, n in counts.items()
        if name.startswith(str(folder)) and name.endswith(".json")
    }


def test_an_opening_is_seen(tmp_path: Path):
    (tmp_path / "a.json").write_text("{}")
    twice = opened(tmp_path, lambda: [(tmp_path / "a.json").read_text() for _ in range(2)])
    assert twice == {"a.json": 2}


@pytest.mark.parametrize("load", [refimpl.load, refimpl.ModernBERT.from_pretrained])
def test_plain_folder_is_opened_once(tmp_path: Path, load):
    make_folder(tmp_path, HEADS["masked_lm"])
    assert opened(tmp_path, lambda: load(tmp_path)) == {"config.json": 1}


def test_shards_and_index_are_opened_once(tmp_path: Path):
    make_folder(tmp_path, HEADS["masked_lm"], max_shard_size=1500)
    found = opened(tmp_path, lambda: refimpl.load(tmp_path))
    assert found == {"config.json": 1, "model.safetensors.index.json": 1}


def test_cached_hub_id_is_opened_once(tmp_path: Path, monkeypatch):
    commit = "0" * 40
    snapshot = tmp_path / "models--org--name" / "snapshots" / commit
    make_folder(snapshot, HEADS["masked_lm"], max_shard_size=1500)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = opened(snapshot, lambda: refimpl.load(f"org/name@{commit}"))
    assert found == {"config.json": 1, "model.safetensors.index.json": 1}


def test_sentence_transformers_folder_is_opened_once(tmp_path: Path):
    sentence_folder(
        tmp_path,
        [POOLING, DENSE, NORMALIZE],
        settings={"prompts": {"q": "q: "}},
        transformer={"max_seq_length": 64},
    )
    found = opened(tmp_path, lambda: refimpl.SentenceEncoder(tmp_path).encode("a text"))
    names = {"modules.json", "config.json", "config_sentence_transformers.json",
             "sentence_bert_config.json", "tokenizer_config.json"}  # fmt: skip
    assert names <= set(found) and set(found.values()) == {1}
    assert {name for name in found if "_Dense" in name or "_Pooling" in name}


def test_nested_transformer_is_opened_once(tmp_path: Path):
    inner = tmp_path / "0_Transformer"
    model_folder(inner, None)
    listed = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": f"{CLASSES}.Transformer"}]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    with pytest.warns(UserWarning, match="lists the Transformer alone"):
        found = opened(tmp_path, lambda: refimpl.SentenceEncoder(tmp_path).encode("a text"))
    assert set(found.values()) == {1} and "0_Transformer/tokenizer_config.json" in found


@pytest.mark.parametrize("settings", [False, True])
def test_reranker_folder_is_opened_once(tmp_path: Path, settings: bool):
    model_folder(tmp_path, "sequence_classification", id2label={0: "score"})
    if settings:
        listed = [{"idx": 0, "name": "0", "path": "", "type": f"{CLASSES}.Transformer"}]
        (tmp_path / "modules.json").write_text(json.dumps(listed))
        (tmp_path / "config_sentence_transformers.json").write_text("{}")
    found = opened(tmp_path, lambda: refimpl.Reranker(tmp_path).predict([("a", "b")]))
    assert set(found.values()) == {1} and ("modules.json" in found) == settings


def test_pipeline_is_opened_once(tmp_path: Path):
    model_folder(tmp_path, "masked_lm")
    found = opened(tmp_path, lambda: refimpl.pipeline("fill-mask", tmp_path)("a [MASK]"))
    assert found == {"config.json": 1, "tokenizer_config.json": 1}


def test_what_was_read_stays_what_it_was(tmp_path: Path):
    model_folder(tmp_path, None)
    source = ModelFolder(tmp_path)
    before = source.entry(tmp_path / "config.json").values
    change_json(tmp_path / "config.json", hidden_size=7)
    assert source.entry(tmp_path / "config.json").values == before
