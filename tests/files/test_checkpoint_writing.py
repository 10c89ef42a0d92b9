"""Writing model folders: what is in them, what goes along, and failures that change nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.children import end_of
from support.folders import make_folder, small_config, small_params, snapshot

from refimpl.errors import ModelFormatError
from refimpl.files.checkpoint import TOKENIZER_FILES, read_checkpoint, write_checkpoint
from refimpl.files.folder import ModelFolder
from refimpl.files.safetensors import open_safetensors
from refimpl.reference.heads import HEADS

MLM = HEADS["masked_lm"]


@pytest.mark.parametrize("dtype", [None, "float32", "float16", "bfloat16"])
def test_checkpoint_config_tells_the_dtype_on_disk(tmp_path: Path, dtype: str | None) -> None:
    make_folder(tmp_path, MLM, dtype=dtype)
    config = json.loads((tmp_path / "config.json").read_text())
    codes = {None: "F32", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    assert {t.dtype for t in open_safetensors(tmp_path / "model.safetensors").values()} == {
        codes[dtype]
    }
    assert config["dtype"] == config["torch_dtype"] == (dtype or "float32")


def test_checkpoint_config_has_both_spellings(tmp_path: Path) -> None:
    make_folder(tmp_path, global_attn_every_n_layers=2, local_rope_theta=500.0)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["ModernBertModel"] and config["model_type"] == "modernbert"
    assert config["layer_types"] == ["full_attention", "sliding_attention", "full_attention"]
    assert config["global_attn_every_n_layers"] == 2
    assert config["local_rope_theta"] == 500.0
    assert config["rope_parameters"]["sliding_attention"]["rope_theta"] == 500.0


def test_checkpoint_keys_have_the_prefix_under_a_head_only(tmp_path: Path) -> None:
    for head, prefix in ((None, ""), (MLM, "model.")):
        folder = tmp_path / (prefix or "bare")
        make_folder(folder, head)
        keys = set(open_safetensors(folder / "model.safetensors"))
        assert f"{prefix}layers.0.mlp.Wi.weight" in keys
        assert ("head.dense.weight" in keys) is (head is not None)


def test_checkpoint_shards_stay_within_the_limit(tmp_path: Path) -> None:
    limit = 1500
    _, params = make_folder(tmp_path, MLM, max_shard_size=limit, dtype="bfloat16")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert not (tmp_path / "model.safetensors").exists()
    total = 0
    for shard in sorted(set(index["weight_map"].values())):
        sizes = [t.nbytes for t in open_safetensors(tmp_path / shard).values()]
        assert sum(sizes) <= limit or len(sizes) == 1
        total += sum(sizes)
    assert index["metadata"]["total_size"] == total == sum(2 * x.size for x in params.values())


def test_checkpoint_saving_again_leaves_nothing_of_the_old_layout(tmp_path: Path) -> None:
    make_folder(tmp_path, MLM, max_shard_size=1500)
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "notes.txt").write_text("kept")
    single, _ = make_folder(tmp_path, MLM)
    assert sorted(snapshot(tmp_path)) == ["config.json", "model.safetensors", "notes.txt"]
    make_folder(tmp_path, MLM, max_shard_size=1500)
    assert "model.safetensors" not in snapshot(tmp_path)
    assert read_checkpoint(tmp_path).config == single.replace(architectures=(MLM.architecture,))


def test_checkpoint_tokenizer_goes_along_and_the_rest_does_not(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    config, params = make_folder(source, MLM)
    for name in (*TOKENIZER_FILES, "README.md", "pytorch_model.bin", "run.py"):
        (source / name).write_text(name)
    write_checkpoint(target, config, params, MLM, source=ModelFolder(source))
    copied = set(snapshot(target)) - {"config.json", "model.safetensors"}
    assert copied == set(TOKENIZER_FILES)
    assert all((target / name).read_text() == name for name in copied)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_checkpoint_can_be_saved_over_the_mapped_source(tmp_path: Path, dtype: str | None) -> None:
    _, params = make_folder(tmp_path, MLM)
    (tmp_path / "tokenizer.json").write_text("{}")
    found = read_checkpoint(tmp_path)
    write_checkpoint(
        tmp_path, found.config, found.params, MLM, dtype=dtype, source=ModelFolder(tmp_path)
    )
    for name, array in params.items():
        np.testing.assert_array_equal(found.params[name], array)  # the old map is intact
    again = read_checkpoint(tmp_path)
    assert set(again.params) == set(params) and (tmp_path / "tokenizer.json").exists()


# -- failures -------------------------------------------------------------------------------------


def overflowing(config: Any, params: dict) -> dict:
    return {**params, "final_norm.weight": params["final_norm.weight"] * 1e5}


def diverged(config: Any, params: dict) -> dict:
    values = params["final_norm.weight"].copy()
    values[1] = np.nan
    return {**params, "final_norm.weight": values}


REFUSED = [
    ("not finite", diverged, {}, r"params\['final_norm.weight'\] holds nan at \(1,\)"),
    ("overflow", overflowing, dict(dtype="float16"), "'model.final_norm.weight' holds"),
    ("unknown dtype", lambda c, p: p, dict(dtype="int8"), "dtype 'int8' is unknown"),
    ("a tensor too few", lambda c, p: {k: p[k] for k in list(p)[1:]}, {}, "do not fit"),
    ("a tensor too many", lambda c, p: {**p, "x": np.ones(1)}, {}, "'x' has shape"),
    ("a wrong shape", lambda c, p: {**p, "decoder.bias": np.ones(3)}, {}, "decoder.bias"),
    ("not a number", lambda c, p: {**p, "decoder.bias": np.full(20, "a")}, {}, "cannot hold"),
]


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    ("change", "options", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_checkpoint_refused_save_changes_nothing(
    tmp_path: Path, change: Any, options: dict, words: str, there: bool
) -> None:
    folder = tmp_path / "new" / "deep"
    if there:
        make_folder(folder, MLM)
    before = snapshot(tmp_path)
    config = small_config()
    params = change(config, small_params(config, MLM, seed=6))
    with pytest.raises(ValueError, match=words):
        write_checkpoint(folder, config, params, MLM, **options)
    assert snapshot(tmp_path) == before
    assert folder.exists() == there == (tmp_path / "new").exists()


def steps_of_a_save(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    shards: int | None,
    stop: Callable[[], None],
    at: int | None = None,
) -> int:
    """Save another model over the folder, calling `stop` before the n-th change of a name."""
    count = 0
    replace, unlink = os.replace, Path.unlink

    def stop_or_go() -> None:
        nonlocal count
        count += 1
        if count == at:
            stop()

    def counted_replace(a: Any, b: Any) -> None:
        stop_or_go()
        replace(a, b)

    def counted_unlink(path: Path, missing_ok: bool = False) -> None:
        stop_or_go()
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted_replace)
        patch.setattr(Path, "unlink", counted_unlink)
        config = small_config(norm_eps=1e-3)
        params = small_params(config, MLM, seed=6)
        write_checkpoint(folder, config, params, MLM, max_shard_size=shards)
    return count


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["dies", "is interrupted"])
@pytest.mark.parametrize("shards", [None, 1500])
def test_checkpoint_save_that_ends_early_never_leaves_a_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int | None, how: str
) -> None:
    _, old = make_folder(tmp_path / "full", MLM)
    steps = steps_of_a_save(tmp_path / "full", monkeypatch, shards, interrupt)
    new = read_checkpoint(tmp_path / "full")
    assert steps > 5
    outcomes = set()
    for n in range(1, steps + 1):
        folder = tmp_path / str(n)
        make_folder(folder, MLM)
        if how == "dies":
            child = os.fork()
            if child == 0:
                try:
                    steps_of_a_save(folder, monkeypatch, shards, lambda: os._exit(0), n)
                finally:
                    os._exit(1)
            assert end_of(child) == 0
        else:
            with pytest.raises(KeyboardInterrupt):
                steps_of_a_save(folder, monkeypatch, shards, interrupt, n)
            assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []
        try:
            found = read_checkpoint(folder)
        except ModelFormatError:
            outcomes.add("does not load")
            continue
        whole = new.params if found.config.norm_eps == 1e-3 else old
        outcomes.add("new" if whole is new.params else "old")
        assert all(np.array_equal(found.params[name], whole[name]) for name in whole)
    assert outcomes == {"old", "new"} | ({"does not load"} if how == "dies" else set())
