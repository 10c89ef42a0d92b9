"""sentence-transformers folders through the C interface: refused where Python refuses them.

Every broken folder is shown to both readers; the refusals have the same words.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.broken_safetensors import MUTATIONS, mutated
from support.broken_sentence import BROKEN, HEAD, LISTS, NEW, OLD, RERANKER
from support.c_interface import BAD_FILE, Failed, Model
from support.folders import change_json, change_tensors, make_folder

from refimpl.errors import ModelFormatError
from refimpl.files.checkpoint import read_checkpoint

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
BERT = "sentence_bert_config.json"
DENSE = "2_Dense/model.safetensors"


def c_refusal(folder: Path) -> str | None:
    try:
        Model.open(folder)
    except Failed as failed:
        assert failed.status == BAD_FILE, failed
        return str(failed)
    return None


def python_refusal(folder: Path) -> str | None:
    try:
        read_checkpoint(folder)
    except ModelFormatError as error:
        return str(error)
    return None


def assert_both_refuse(folder: Path) -> None:
    assert c_refusal(folder) == python_refusal(folder) is not None


# -- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [HEAD, RERANKER], ids=["embedding", "reranker"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_folder_with_every_module_is_read(tmp_path: Path, head: Any, dtype: str) -> None:
    make_folder(tmp_path, head, dtype=dtype)
    facts = Model.open(tmp_path).facts()
    assert (facts.modules, facts.width) == (len(head.modules), head.dimension)
    assert bool(facts.scores) == head.makes_scores


SPELLINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "newer pooling": (
        "1_Pooling/config.json",
        {"word_embedding_dimension": ..., "embedding_dimension": 8, "pooling_mode": ["cls", "max"]},
    ),
    "flag and mode": ("1_Pooling/config.json", {"pooling_mode": ["mean", "max"]}),
    "short class": ("2_Dense/config.json", {"activation_function": "torch.nn.GELU"}),
    "no activation": ("2_Dense/config.json", {"activation_function": ...}),
    "prompt is null": (SETTINGS, {"prompts": {"query": "q: ", "x": None}}),
    "nothing is set": (SETTINGS, {"truncate_dim": None, "similarity_fn_name": None}),
    "harmless setting": (SETTINGS, {"__version__": {"torch": "2"}, "model_type": "CrossEncoder"}),
    "no limit": (BERT, {"max_seq_length": 10**30, "query_length": 7.0, "document_length": None}),
    "neutral": (
        BERT,
        {
            "config_args": {},
            "query_expansion": None,
            "module_output_name": "token_embeddings",
            "model_args": {"dtype": "x"},
            "modality_config": {"image": {}, "text": {}},
        },
    ),
    "default prompt": (SETTINGS, {"default_prompt_name": "document"}),
}


@pytest.mark.parametrize("what", SPELLINGS)
def test_spelling_is_read_by_both(tmp_path: Path, what: str) -> None:
    make_folder(tmp_path, HEAD)
    file, changes = SPELLINGS[what]
    change_json(tmp_path / file, **changes)
    assert python_refusal(tmp_path) is None and c_refusal(tmp_path) is None


PREFIXES = [
    OLD, NEW, NEW + "x.", "sentence_transformers.base.modules.dense.", "", "my_package.",
    "sentence_transformers.", "sentence_transformers.models..", OLD + "a.b.", "x" + OLD,
    "sentence_transformers.sparse_encoder.modules.",
]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_class_of_a_module_is_known_by_both_or_refused_by_both(tmp_path: Path, prefix: str) -> None:
    make_folder(tmp_path, HEAD)
    modules = json.loads((tmp_path / MODULES).read_text())
    for module in modules:
        module["type"] = prefix + module["type"].rpartition(".")[2]
    (tmp_path / MODULES).write_text(json.dumps(modules))
    if python_refusal(tmp_path) is not None:
        assert_both_refuse(tmp_path)
    else:
        assert c_refusal(tmp_path) is None and prefix in PREFIXES[:4]


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "changes"), [b[1:3] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_file_is_refused_by_both(tmp_path: Path, file: str, changes: dict) -> None:
    make_folder(tmp_path, HEAD)
    change_json(tmp_path / file, **changes)
    assert_both_refuse(tmp_path)


@pytest.mark.parametrize("content", [c[1] for c in LISTS], ids=[c[0] for c in LISTS])
def test_module_list_is_refused_by_both(tmp_path: Path, content: Any) -> None:
    make_folder(tmp_path, HEAD)
    (tmp_path / MODULES).write_text(json.dumps(content))
    assert_both_refuse(tmp_path)


def tensors(change: Callable[[dict], object]) -> Callable[[Path], object]:
    return lambda folder: change_tensors(folder / DENSE, change)


MORE: dict[str, Callable[[Path], object]] = {
    "extra tensor": tensors(lambda t: t.update({"linear.extra": np.ones(2)})),
    "missing bias": tensors(lambda t: t.pop("linear.bias")),
    "transposed": tensors(lambda t: t.update({"linear.weight": t["linear.weight"].T.copy()})),
    "integers": tensors(lambda t: t.update({"linear.weight": np.ones((5, 16), np.int8)})),
    "nan": tensors(lambda t: t["linear.weight"].__setitem__((1, 2), np.nan)),
    "no weights": lambda f: (f / DENSE).unlink(),
    "a pickle": lambda f: (f / DENSE).rename(f / "2_Dense" / "pytorch_model.bin"),
    "widths": lambda f: change_json(f / "3_LayerNorm/config.json", dimension=6),
    "negative width": lambda f: change_json(f / "3_LayerNorm/config.json", dimension=-5),
    "no config": lambda f: (f / "2_Dense/config.json").unlink(),
    "config is a list": lambda f: (f / "2_Dense/config.json").write_text("[]"),
    "broken json": lambda f: (f / "2_Dense/config.json").write_text('{"a":1,}'),
    "key twice": lambda f: (f / "2_Dense/config.json").write_text('{"bias":true,"bias":true}'),
    "scores in the middle": lambda f: change_json(
        f / "2_Dense/config.json", module_output_name="scores"
    ),
    "truncated to nothing": lambda f: change_json(f / SETTINGS, truncate_dim=0),
    "unknown setting": lambda f: change_json(f / SETTINGS, what=3),
    "unknown kind": lambda f: change_json(f / SETTINGS, model_type="SparseEncoder"),
    "length as text": lambda f: change_json(f / BERT, max_seq_length="9"),
    "half a length": lambda f: change_json(f / BERT, query_length=2.5),
    "unknown key": lambda f: change_json(f / BERT, what=None),
    "arguments": lambda f: change_json(f / BERT, config_args={"a": 1}),
    "expansion": lambda f: change_json(f / BERT, query_expansion=False),
    "task": lambda f: change_json(f / BERT, transformer_task="fill-mask"),
    "method": lambda f: change_json(f / BERT, modality_config={"text": {"method": "x"}}),
    "no modality": lambda f: change_json(f / BERT, modality_config={"text": None}),
    "key of a module": lambda f: (f / MODULES).write_text(
        (f / MODULES).read_text().replace('"idx"', '"index"')
    ),
    "weights of a pooling": lambda f: shutil.copy(f / DENSE, f / "1_Pooling"),
}


@pytest.mark.parametrize("what", MORE)
def test_broken_folder_is_refused_by_both(tmp_path: Path, what: str) -> None:
    make_folder(tmp_path, HEAD)
    MORE[what](tmp_path)
    assert_both_refuse(tmp_path)


FILES = [MODULES, SETTINGS, BERT, "1_Pooling/config.json", "2_Dense/config.json", DENSE]


@given(mutations=MUTATIONS, file=st.sampled_from(FILES))
def test_mutated_files_are_read_by_both_or_refused_by_both(
    tmp_path_factory: pytest.TempPathFactory, mutations: list, file: str
) -> None:
    folder = tmp_path_factory.mktemp("mutated")
    make_folder(folder, HEAD, num_hidden_layers=1, vocab_size=4)
    path = folder / file
    path.write_bytes(mutated(path.read_bytes(), mutations))
    assert c_refusal(folder) == python_refusal(folder)
