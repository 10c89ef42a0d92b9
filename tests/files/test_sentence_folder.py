"""sentence-transformers folders: both generations of every file, the forward pass, refusals."""

from __future__ import annotations

import json
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.broken_sentence import BROKEN, HEAD, LISTS, NEW, OLD, RERANKER
from support.folders import (
    change_json,
    change_tensors,
    make_folder,
    small_config,
    small_params,
    snapshot,
)

from refimpl.errors import ModelFormatError
from refimpl.files.checkpoint import read_checkpoint, write_checkpoint
from refimpl.files.folder import ModelFolder
from refimpl.reference.heads import HEADS
from refimpl.reference.sentence import (
    Normalize,
    Pooling,
    SentenceHead,
    Settings,
    normalize,
    pooled,
)


def refusal(folder: Path, file: str, key: str | None = None) -> str:
    before = snapshot(folder)
    with pytest.raises(ModelFormatError) as caught:
        read_checkpoint(folder)
    assert snapshot(folder) == before
    assert Path(caught.value.file) == folder / file and caught.value.key == key
    return str(caught.value)


@pytest.mark.parametrize("head", [HEAD, RERANKER], ids=["embedding", "reranker"])
def test_sentence_folder_round_trip(tmp_path: Path, head: SentenceHead) -> None:
    config, params = make_folder(tmp_path, head)
    found = read_checkpoint(tmp_path)
    assert found.head == head and found.config == config.replace(architectures=("ModernBertModel",))
    assert set(found.params) == set(params)
    for name, array in params.items():
        np.testing.assert_array_equal(found.params[name], array)


def test_sentence_folder_without_settings_has_defaults(tmp_path: Path) -> None:
    make_folder(tmp_path, HEAD)
    (tmp_path / "config_sentence_transformers.json").unlink()
    (tmp_path / "sentence_bert_config.json").unlink()
    found = read_checkpoint(tmp_path).head
    assert isinstance(found, SentenceHead) and found.settings == Settings()


def test_sentence_folder_encoder_alone(tmp_path: Path) -> None:
    make_folder(tmp_path, HEAD)
    found = read_checkpoint(tmp_path, kind=None)
    assert found.head is None and not any("Dense" in name for name in found.params)


def test_sentence_folder_with_the_transformer_in_a_folder_of_its_own(tmp_path: Path) -> None:
    make_folder(tmp_path / "0_Transformer", HEADS["masked_lm"])  # its head is not the folder's
    modules = [
        {"idx": 0, "name": "0", "path": "0_Transformer", "type": OLD + "Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": OLD + "Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": OLD + "Normalize"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 8}')
    found = read_checkpoint(tmp_path)
    assert found.head == SentenceHead((Pooling(8), Normalize()))
    assert ModelFolder(tmp_path).root == tmp_path / "0_Transformer"
    assert not any(name.startswith(("head.", "decoder.")) for name in found.params)


def test_sentence_folder_of_a_lone_transformer_has_the_named_head(tmp_path: Path) -> None:
    head = HEADS["sequence_classification"]
    config, params = make_folder(tmp_path, head, num_labels=1)
    modules = [{"idx": 0, "name": "0", "path": "", "type": NEW + "transformer.Transformer"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    settings = '{"activation_fn": "torch.nn.modules.linear.Identity"}'
    (tmp_path / "config_sentence_transformers.json").write_text(settings)
    assert read_checkpoint(tmp_path).head is head
    target = tmp_path / "copy"
    write_checkpoint(target, config, params, head, source=ModelFolder(tmp_path))
    assert (target / "config_sentence_transformers.json").read_text() == settings
    assert read_checkpoint(target).head is head


# -- spellings of each file -----------------------------------------------------------------------

POOLINGS: list[tuple[dict, Pooling]] = [
    ({"word_embedding_dimension": 8, "pooling_mode_cls_token": True}, Pooling(8, ("cls",))),
    ({"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True,
      "pooling_mode_cls_token": True, "pooling_mode_max_tokens": False},
     Pooling(8, ("cls", "mean"))),
    ({"word_embedding_dimension": 8, "pooling_mode_lasttoken": True, "include_prompt": False},
     Pooling(8, ("lasttoken",), False)),
    ({"word_embedding_dimension": 8, "pooling_mode_mean_tokens": False}, Pooling(8, ("mean",))),
    ({"embedding_dimension": 8, "pooling_mode": "max"}, Pooling(8, ("max",))),
    ({"embedding_dimension": 8, "pooling_mode": ["mean", "cls"], "include_prompt": True},
     Pooling(8, ("mean", "cls"))),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), POOLINGS)
def test_sentence_pooling_spellings(tmp_path: Path, content: dict, expected: Pooling) -> None:
    make_folder(tmp_path, SentenceHead((Pooling(8),)))
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(content))
    found = read_checkpoint(tmp_path).head
    assert found == SentenceHead((expected,))
    write_checkpoint(tmp_path, small_config(), small_params(small_config(), found), found)
    assert read_checkpoint(tmp_path).head == found


@pytest.mark.parametrize("prefix", [OLD, NEW + "x.", "sentence_transformers.base.modules.dense."])
def test_sentence_module_is_known_by_all_places_of_its_class(tmp_path: Path, prefix: str) -> None:
    make_folder(tmp_path, HEAD)
    modules = json.loads((tmp_path / "modules.json").read_text())
    for module in modules:
        module["type"] = prefix + module["type"].rpartition(".")[2]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert read_checkpoint(tmp_path).head == HEAD


@pytest.mark.parametrize("prefix", ["my_package.", "", "sentence_transformers.", "torch.nn.",
                                    "sentence_transformers.sparse_encoder.modules.",
                                    "my_package.sentence_transformers.models."])  # fmt: skip
def test_sentence_module_of_another_package_is_refused(tmp_path: Path, prefix: str) -> None:
    make_folder(tmp_path, HEAD)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[1]["type"] = prefix + "Pooling"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert repr(prefix + "Pooling") in refusal(tmp_path, "modules.json", "type")


def test_sentence_dense_without_activation_is_tanh(tmp_path: Path) -> None:
    make_folder(tmp_path, HEAD)
    change_json(tmp_path / "2_Dense" / "config.json", activation_function=...)
    assert read_checkpoint(tmp_path).head == HEAD


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "changes", "key", "words"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN]
)
def test_sentence_file_is_refused(
    tmp_path: Path, file: str, changes: dict, key: str, words: str
) -> None:
    make_folder(tmp_path, HEAD)
    change_json(tmp_path / file, **changes)
    assert words in refusal(tmp_path, file, key)


@pytest.mark.parametrize(
    ("content", "key", "words"), [case[1:] for case in LISTS], ids=[case[0] for case in LISTS]
)
def test_sentence_module_list_is_refused(
    tmp_path: Path, content: Any, key: str | None, words: str
) -> None:
    make_folder(tmp_path, HEAD)
    (tmp_path / "modules.json").write_text(json.dumps(content))
    assert words in refusal(tmp_path, "modules.json", key)


def test_sentence_widths_must_fit(tmp_path: Path) -> None:
    make_folder(tmp_path, HEAD)
    change_json(tmp_path / "3_LayerNorm" / "config.json", dimension=6)
    message = refusal(tmp_path, "modules.json")
    assert "3_LayerNorm takes vectors of 6, it gets 5" in message


def test_sentence_module_weights_are_checked(tmp_path: Path) -> None:
    make_folder(tmp_path, HEAD)
    file = tmp_path / "2_Dense" / "model.safetensors"
    change_tensors(file, lambda t: t.update({"linear.extra": np.ones(2)}))
    assert "no part" in refusal(tmp_path, "2_Dense/model.safetensors", "linear.extra")
    change_tensors(file, lambda t: (t.pop("linear.extra"), t.pop("linear.bias")))
    assert "missing" in refusal(tmp_path, "modules.json", "2_Dense.linear.bias")
    file.rename(tmp_path / "2_Dense" / "pytorch_model.bin")
    assert "pickle" in refusal(tmp_path, "2_Dense/model.safetensors")


# -- the forward pass -----------------------------------------------------------------------------


@pytest.mark.parametrize("head", [HEAD, RERANKER], ids=["embedding", "reranker"])
def test_sentence_forward_is_the_modules_written_out(head: SentenceHead) -> None:
    config = small_config()
    params = small_params(config, head, np.float64)
    hidden = np.random.default_rng(3).standard_normal((3, 4, 8))
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]])
    got = head.forward(params, config, hidden, mask)
    assert list(got) == ["logits" if head is RERANKER else "embeddings"]
    for row in range(3):
        real = hidden[row][mask[row] == 1]
        mean = real.sum(axis=0) / len(real)
        x = mean if head is RERANKER else np.concatenate([real[0], mean])
        x = params["2_Dense.linear.weight"] @ x + params["2_Dense.linear.bias"]
        if head is RERANKER:
            x = np.array([v * (1 + erf(v / np.sqrt(2))) / 2 for v in x])
        else:
            x = np.tanh(x)
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)  # gains are 1, biases 0
        x = params["4_Dense.linear.weight"] @ x + params.get("4_Dense.linear.bias", 0.0)
        if head is HEAD:
            x = x / np.sqrt(x @ x)
        # about 60 roundings on the longest path, each amplified by at most the norm's 1 / sigma
        bound = 60 * np.finfo(np.float64).eps * max(1.0, 1 / np.sqrt(1e-5))
        assert np.abs(next(iter(got.values()))[row] - x).max() <= bound


def test_sentence_pooled_leaves_the_prompt_out_only_when_asked() -> None:
    hidden = np.random.default_rng(3).standard_normal((1, 5, 8))
    config = small_config()
    with_prompt = SentenceHead((Pooling(8, ("mean",)),))
    without = SentenceHead((Pooling(8, ("mean",), include_prompt=False),))
    for head, expected in ((with_prompt, hidden), (without, hidden[:, 2:])):
        got = head.forward({}, config, hidden, None, prompt_length=2)["embeddings"]
        np.testing.assert_array_equal(got, pooled(expected, None, ("mean",)))


def test_sentence_normalize_keeps_zeros_and_dtype() -> None:
    x = np.array([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0]], np.float32)
    got = normalize(x)
    assert got.dtype == np.float32
    exact = np.array([[0.6, 0.8], [0.0, 0.0], [1e-8, 0.0]])  # the last: divided by 1e-12
    assert np.abs(got - exact).max() <= 4 * np.finfo(np.float32).eps
