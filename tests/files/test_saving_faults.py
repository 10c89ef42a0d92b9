"""Every system call of a save fails once, with every error that it can give: the folder loads as it
was or as it was to be, and nothing else is left in it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.failing_calls import ERRORS, SystemCalls, where_calls_can_fail
from support.folders import make_folder, small_config, small_params, snapshot

from refimpl.files import atomic
from refimpl.files.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from refimpl.files.folder import ModelFolder
from refimpl.files.safetensors import open_safetensors, write_safetensors
from refimpl.reference.heads import HEADS
from refimpl.reference.sentence import Dense, Normalize, Pooling, SentenceHead

MLM = HEADS["masked_lm"]
SENTENCE = SentenceHead((Pooling(8, ("mean",)), Dense(8, 4, True, "tanh"), Normalize()))
# What a file system answers that has no such call for a folder.
UNSUPPORTED = [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS]


def new_model(head: Any) -> tuple[Any, Any, Any]:
    config = small_config(norm_eps=1e-3)
    return config, small_params(config, head, seed=6), head


def same(found: Checkpoint, config: Any, params: Mapping[str, np.ndarray]) -> bool:
    return found.config.norm_eps == config.norm_eps and all(
        np.array_equal(found.params[name], x) for name, x in params.items()
    )


# Situation: what stands in the folder before, the head and the options of the save over it.
SAVES: dict[str, tuple[Callable[[Path], Any], Any, dict[str, Any]]] = {
    "one file over one": (lambda f: make_folder(f, MLM), MLM, {}),
    "shards over one file": (lambda f: make_folder(f, MLM), MLM, dict(max_shard_size=2000)),
    "one file over shards": (lambda f: make_folder(f, MLM, max_shard_size=2000), MLM, {}),
    "a sentence encoder over one": (lambda f: make_folder(f, SENTENCE), SENTENCE, {}),
}


# Of what a save does the steps whose order matters most: they fail in every run.
ALWAYS = {"rename", "fsync"}


def failures(names: list[str], how: str) -> Iterator[tuple[int, str, int]]:
    """Place, name and error of the calls that are to fail, of all that were made.

    how: "every error" that a call can give; one of them, "in turn"; that for "some" of the calls:
    a fifth, and those of ALWAYS.
    """
    for n, name in enumerate(names):
        errors = ERRORS[name]
        if how == "every error":
            yield from ((n, name, error) for error in errors)
        elif how == "in turn" or n % 5 == 0 or name in ALWAYS:
            yield n, name, errors[n % len(errors)]


every_error = pytest.mark.parametrize(
    "how",
    [
        "some",
        pytest.param("in turn", marks=pytest.mark.heavy),
        pytest.param("every error", marks=pytest.mark.soak),
    ],
)


@where_calls_can_fail
@every_error
@pytest.mark.parametrize("what", SAVES)
def test_save_that_fails_at_any_call_leaves_the_old_or_the_new(
    memory: Path, what: str, how: str
) -> None:
    start, head, options = SAVES[what]
    start(memory / "old")
    (memory / "old" / "tokenizer.json").write_text("{}")
    (memory / "old" / "notes.txt").write_text("mine")
    old, new = read_checkpoint(memory / "old"), new_model(head)
    expected, source = snapshot(memory / "old"), ModelFolder(memory / "old")
    folder = memory / "model"

    def run(fail: tuple[int, int] | None = None) -> SystemCalls:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(memory / "old", folder)
        return SystemCalls.of(
            lambda: write_checkpoint(folder, *new, source=source, **options), fail
        )

    calls = run()
    assert calls.error == ""
    written = snapshot(folder)
    assert same(read_checkpoint(folder), *new[:2])
    assert {"openat", "write", "fsync", "rename", "unlink"} <= set(calls.names), calls.names
    outcomes = {"old": 0, "new": 0}
    for n, name, error in failures(calls.names, how):
        done = run((n, error))
        where = f"{n}: {name} {errno.errorcode[error]} {done.error}"
        assert done.names[: n + 1] == calls.names[: n + 1], where
        outcome = "old" if done.error else "new"
        assert snapshot(folder) == (expected if done.error else written), where
        assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == [], where
        if done.error:
            assert same(read_checkpoint(folder), old.config, old.params), where
        outcomes[outcome] += 1
    assert min(outcomes.values()) > (5 if how == "some" else 20), outcomes
    print(f"{what}: {len(calls.names)} calls, {sum(outcomes.values())} failures, {outcomes}")


@where_calls_can_fail
@every_error
def test_save_of_a_new_folder_that_fails_at_any_call_leaves_no_trace(
    memory: Path, how: str
) -> None:
    folder = memory / "new" / "deep"

    def run(fail: tuple[int, int] | None = None) -> SystemCalls:
        shutil.rmtree(memory / "new", ignore_errors=True)
        return SystemCalls.of(lambda: write_checkpoint(folder, *new_model(MLM)), fail)

    calls = run()
    written = snapshot(memory)
    for n, name, error in failures(calls.names, how):
        done = run((n, error))
        where = f"{n}: {name} {errno.errorcode[error]} {done.error}"
        assert snapshot(memory) == ({} if done.error else written), where
        assert (memory / "new").exists() is (done.error == ""), where


@where_calls_can_fail
@pytest.mark.parametrize("how", ["in turn", pytest.param("every error", marks=pytest.mark.heavy)])
@pytest.mark.parametrize("there", [False, True])
def test_file_that_is_replaced_is_whole_whatever_call_fails(
    memory: Path, there: bool, how: str
) -> None:
    file = memory / "m.safetensors"

    def run(fail: tuple[int, int] | None = None) -> SystemCalls:
        file.unlink(missing_ok=True)
        if there:
            file.write_bytes(b"old")
        return SystemCalls.of(lambda: write_safetensors(file, {"x": np.ones(3)}), fail)

    calls = run()
    for n, name, error in failures(calls.names, how):
        done = run((n, error))
        where = f"{n}: {name} {errno.errorcode[error]} {done.error}"
        left = [p.name for p in memory.iterdir()]
        if done.error:
            assert left == ([file.name] if there else []), where
            assert not there or file.read_bytes() == b"old", where
        else:
            assert left == [file.name] and list(open_safetensors(file)) == ["x"], where


# -- what a file system does not offer ------------------------------------------------------------


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("number", UNSUPPORTED)
@pytest.mark.parametrize("what", ["folders", "anything"])
def test_file_system_that_cannot_sync_is_saved_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, there: bool, what: str
) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if what == "anything" or stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        real(handle)

    if there:
        make_folder(tmp_path, MLM)
    monkeypatch.setattr(os, "fsync", fsync)
    new = new_model(MLM)
    write_checkpoint(tmp_path, *new)
    assert same(read_checkpoint(tmp_path), *new[:2])
    assert sorted(snapshot(tmp_path)) == ["config.json", "model.safetensors"]
    write_safetensors(tmp_path / "other", {"x": np.ones(3)})
    assert list(open_safetensors(tmp_path / "other")) == ["x"]


def test_file_that_may_not_be_on_the_disk_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is advice for a folder is none for a file: its bytes may be lost."""

    def fsync(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    make_folder(tmp_path, MLM)
    before = snapshot(tmp_path)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        write_checkpoint(tmp_path, *new_model(MLM))
    assert snapshot(tmp_path) == before


def test_disk_that_refuses_every_name_from_there_on_keeps_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that the system makes read-only after a fault: the error says where they are."""
    make_folder(tmp_path, MLM)
    weights = (tmp_path / "model.safetensors").read_bytes()
    real, done = os.replace, []

    def replace(origin: Any, target: Any) -> None:
        if len(done) == 2:
            raise OSError(errno.EROFS, "Read-only file system")
        real(origin, target)
        done.append(target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="could not be put back: they are") as raised:
        write_checkpoint(tmp_path, *new_model(MLM))
    assert raised.value.errno == errno.EROFS
    (kept,) = tmp_path.glob(".model.safetensors.*.old")
    assert str(kept) in str(raised.value) and kept.read_bytes() == weights


def test_folder_where_a_file_is_to_stand_is_refused_and_kept(tmp_path: Path) -> None:
    make_folder(tmp_path, MLM)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").mkdir()
    (tmp_path / "model.safetensors" / "mine").write_text("kept")
    before = snapshot(tmp_path)
    with pytest.raises(IsADirectoryError, match="model.safetensors"):
        write_checkpoint(tmp_path, *new_model(MLM))
    assert snapshot(tmp_path) == before


def test_saves_into_one_folder_at_once_are_never_mixed(tmp_path: Path) -> None:
    models = []
    for seed in range(4):
        config = small_config(norm_eps=(seed + 1) * 1e-3)
        models.append((config, small_params(config, MLM, seed=seed)))

    def save(seed: int) -> None:
        for _ in range(5):
            write_checkpoint(tmp_path, *models[seed], MLM)

    threads = [threading.Thread(target=save, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert any(same(read_checkpoint(tmp_path), *model) for model in models)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_hung_save_holds_no_other_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    make_folder(tmp_path, MLM)
    monkeypatch.setattr(atomic, "PATIENCE", 0.05)
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        new = new_model(MLM)
        write_checkpoint(tmp_path, *new)
        assert same(read_checkpoint(tmp_path), *new[:2])
    finally:
        os.close(handle)
