"""A folder is saved into while it is read, at every system call of the reader: what is read is the
old model or the new one, in Python and in C, never config.json of one with weights of the other.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.c_interface import Model, input_of
from support.failing_calls import SystemCalls, where_calls_can_fail
from support.folders import small_config, small_params
from support.heavy import heavy_but_first
from support.native import extension
from support.text_folders import model_folder

import refimpl
from refimpl.errors import ModelFormatError
from refimpl.files import checkpoint
from refimpl.files.checkpoint import read_checkpoint, write_checkpoint
from refimpl.reference.heads import HEADS
from refimpl.reference.sentence import Dense, Pooling, SentenceHead
from refimpl.text.tokenizer import Tokenizer

extension()
MLM = HEADS["masked_lm"]
SENTENCE = SentenceHead((Pooling(8, ("mean",)), Dense(8, 4, True, "tanh")))
WHOLE, IDS = [0, 6], np.array([1, 7, 3, 0, 19, 2], np.int64)
BOTH = pytest.mark.parametrize("reader", ["Python", "C"])


def models(head: Any) -> list[tuple[Any, Any, Any]]:
    """Two, of the same shapes; norm_eps, which config.json has, changes what weights give."""
    out = []
    for seed, eps in (5, 1e-5), (6, 1e-1):
        config = small_config(norm_eps=eps)
        out.append((config, small_params(config, head, seed=seed), head))
    return out


def mixed(reader: str, folder: Path, known: list[Any]) -> str | None:
    """What was read, where it is none of the models that are known: in Python config and tensors,
    in C the hidden states."""
    if reader == "C":
        got = Model.open(folder).forward(input_of(WHOLE, ids=IDS), 6)
        return None if any(np.array_equal(got, x) for x in known) else "other hidden states"
    found = read_checkpoint(folder)
    for config, params, _ in known:
        if found.config.norm_eps == config.norm_eps:
            same = all(np.array_equal(found.params[n], x) for n, x in params.items())
            return None if same else "config.json and weights of two models"
    return "another config.json"


def hidden(model: tuple[Any, Any, Any]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(folder, *model)
        return Model.open(folder).forward(input_of(WHOLE, ids=IDS), 6)


@where_calls_can_fail
@pytest.mark.parametrize("reader", heavy_but_first(["C", "Python"]))
@pytest.mark.parametrize(
    ("head", "options"),
    [
        pytest.param(MLM, {}, id="one file"),
        pytest.param(MLM, {"max_shard_size": 2000}, id="shards", marks=pytest.mark.heavy),
        pytest.param(SENTENCE, {}, id="modules", marks=pytest.mark.heavy),
    ],
)
def test_save_at_any_moment_of_a_load_is_seen(
    memory: Path, monkeypatch: pytest.MonkeyPatch, reader: str, head: Any, options: dict
) -> None:
    monkeypatch.setattr(checkpoint, "PAUSE", 0.0)
    old, new = models(head)
    known = [hidden(old), hidden(new)] if reader == "C" else [old, new]
    folder = memory / "model"

    def load() -> None:
        if what := mixed(reader, folder, known):
            raise AssertionError(what)

    def run(at: int | None) -> SystemCalls:
        write_checkpoint(folder, *old, **options)
        save = lambda child: write_checkpoint(folder, *new, **options)  # noqa: E731
        return SystemCalls.of(load, at=None if at is None else (at, save))

    calls = run(None)
    assert calls.error == ""
    longest = 0
    for n in range(len(calls.names)):
        done = run(n)
        assert done.error == "", (n, calls.names[n], done.error)
        longest = max(longest, len(done.names))
    assert longest > 1.5 * len(calls.names)  # it was read once more


def test_folder_that_is_saved_into_all_the_time_is_refused_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = models(MLM)
    write_checkpoint(tmp_path, *old)
    turns: list[int] = []
    real = checkpoint.take_tensors

    def take(*arguments: Any) -> Any:
        turns.append(len(turns))
        write_checkpoint(tmp_path, *(new, old)[len(turns) % 2])
        return real(*arguments)

    monkeypatch.setattr(checkpoint, "take_tensors", take)
    monkeypatch.setattr(checkpoint, "PAUSE", 0.0)
    with pytest.raises(ModelFormatError, match="config.json: was replaced while the folder was"):
        read_checkpoint(tmp_path)
    assert len(turns) == checkpoint.READINGS


def test_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    """It is read after the model, whose folder may have become another's."""
    pytest.importorskip("tokenizers")
    folder = model_folder(tmp_path / "model", None)
    model = refimpl.ModernBERT.from_pretrained(folder)
    Tokenizer.from_folder(model.source)
    model.save_pretrained(folder)  # by itself: its tokenizer is still its own
    Tokenizer.from_folder(model.source)
    other = refimpl.ModernBERT.from_pretrained(folder)
    other.save_pretrained(folder)
    with pytest.raises(ModelFormatError, match="was replaced since the folder was read"):
        Tokenizer.from_folder(model.source)
