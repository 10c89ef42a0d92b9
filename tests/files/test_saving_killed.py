"""A save that is killed: at every system call, and at random. The folder loads as old, as new, or,
while files are exchanged, not at all; the next save removes what was left, and nothing that lives.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.failing_calls import SystemCalls, kill, where_calls_can_fail
from support.folders import make_folder
from support.heavy import heavy_but_first
from test_saving_faults import MLM, SENTENCE, new_model, same

from refimpl.errors import ModelFormatError
from refimpl.files import abandoned
from refimpl.files.atomic import replacing, staged
from refimpl.files.checkpoint import read_checkpoint, write_checkpoint


def hidden(folder: Path) -> list[str]:
    """Every temporary file."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob(".*"))


def outcome(folder: Path, old: Any, new: Any) -> str:
    """old, new, or none where the folder has no config.json. Fails for a mixture."""
    try:
        found = read_checkpoint(folder)
    except ModelFormatError as error:
        assert "config.json: this file is missing" in str(error) and hidden(folder)
        return "none"
    assert same(found, *old[:2]) or same(found, *new[:2])
    return "new" if same(found, *new[:2]) else "old"


@where_calls_can_fail
@pytest.mark.parametrize("head", heavy_but_first([MLM, SENTENCE]), ids=["one file", "modules"])
def test_save_killed_at_any_call_is_cleaned_up_by_the_next(
    memory: Path, monkeypatch: pytest.MonkeyPatch, head: Any
) -> None:
    monkeypatch.setattr("refimpl.files.checkpoint.PAUSE", 0.0)
    folder, new = memory / "model", new_model(head)
    old = (*make_folder(folder, head), head)
    calls = SystemCalls.of(lambda: write_checkpoint(folder, *new)).names
    clean = sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))
    outcomes = {"old": 0, "new": 0, "none": 0}
    for n in range(len(calls)):
        write_checkpoint(folder, *old)
        SystemCalls.of(lambda: write_checkpoint(folder, *new), at=(n, kill))
        outcomes[outcome(folder, old, new)] += 1
        write_checkpoint(folder, *old)
        assert outcome(folder, old, new) == "old"
        assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) == clean, (n, calls[n])
    assert min(outcomes.values()) > 5, outcomes
    print(f"{len(calls)} kills, {outcomes}")


@where_calls_can_fail
def test_file_whose_writer_is_killed_at_any_call_is_cleaned_up_by_the_next(memory: Path) -> None:
    def write(text: bytes) -> None:
        with replacing(memory / "x[1].bin") as stream:
            stream.write(text)

    write(b"old")
    left = 0
    for n in range(len(SystemCalls.of(lambda: write(b"new")).names)):
        write(b"old")
        SystemCalls.of(lambda: write(b"new"), at=(n, kill))
        assert (memory / "x[1].bin").read_bytes() in (b"old", b"new")
        left += len(hidden(memory))
        write(b"old")
        assert [p.name for p in memory.iterdir()] == ["x[1].bin"]
    assert left > 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kills", [20, pytest.param(1000, marks=pytest.mark.soak)])
def test_saves_killed_at_random_lose_nothing_that_is_there(memory: Path, kills: int) -> None:
    folder, new, draws = memory / "model", new_model(MLM), random.Random(0)
    old = (*make_folder(folder, MLM), MLM)
    outcomes = {"old": 0, "new": 0, "none": 0}
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            try:
                while True:
                    write_checkpoint(folder, *new)
                    write_checkpoint(folder, *old)
            finally:
                os._exit(1)
        time.sleep(0.02 + 0.05 * draws.random())
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        outcomes[outcome(folder, old, new)] += 1
    write_checkpoint(folder, *new)
    assert outcome(folder, old, new) == "new" and hidden(folder) == []
    print(f"{kills} kills, {outcomes}")


def test_stage_of_a_living_save_is_left_alone(memory: Path) -> None:
    folder, new = memory / "model", new_model(MLM)
    make_folder(folder, MLM)
    with staged(folder, last="config.json") as create:
        with create("mine") as stream:
            stream.write(b"mine")
        (stage,) = folder.glob(".saving.*")
        write_checkpoint(folder, *new)
        assert (stage / "mine").read_bytes() == b"mine"
        with create("config.json") as stream:
            stream.write(b"{}")
    assert (folder / "mine").read_bytes() == b"mine" and hidden(folder) == []


def test_file_of_a_living_writer_is_left_alone(memory: Path) -> None:
    with replacing(memory / "x") as stream:
        with replacing(memory / "x") as other:
            other.write(b"other")
        stream.write(b"mine")
    assert (memory / "x").read_bytes() == b"mine" and hidden(memory) == []


@pytest.mark.parametrize("when", ["before", "while"])
def test_stage_that_is_taken_before_it_is_held_is_made_anew(
    memory: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """By a remover that comes between its making and its lock, or that has the lock just then."""
    real, taken, others = abandoned.hold, [], []

    def hold(path: Path) -> int | None:
        if not taken:
            taken.append(path)
            if when == "before":
                abandoned.remove_abandoned(path.parent.parent, f".saving.{abandoned.TOKEN}")
            else:
                others.append(real(path))
        return real(path)

    monkeypatch.setattr("refimpl.files.atomic.hold", hold)
    monkeypatch.setattr(abandoned, "hold", real)
    new = new_model(MLM)
    write_checkpoint(memory / "model", *new)
    assert taken and same(read_checkpoint(memory / "model"), *new[:2])
    for handle in others:
        os.close(handle)
    write_checkpoint(memory / "model", *new)
    assert hidden(memory / "model") == []


def test_foreign_files_are_never_removed(memory: Path) -> None:
    folder, new = memory / "model", new_model(MLM)
    make_folder(folder, MLM)
    (folder / ".saving.notes").write_bytes(b"mine, and in use")
    (folder / ".saving.mine").mkdir()
    (folder / ".saving.mine" / "file").write_bytes(b"no lock: nobody can tell")
    (folder / ".config.json.mine.old").write_bytes(b"kept")
    write_checkpoint(folder, *new)
    kept = [".config.json.mine.old", ".saving.mine", ".saving.mine/file", ".saving.notes"]
    assert [name for name in hidden(folder) if "file" not in name] == [kept[0], kept[1], kept[3]]
    assert (folder / kept[2]).is_file()
    np.testing.assert_equal(read_checkpoint(folder).config.norm_eps, new[0].norm_eps)
