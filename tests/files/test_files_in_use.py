"""Files that a model was read from, and that change while it is in use: the old numbers or an
OSError, on every backend, never a mixture of two models and never the end of the process."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.children import in_child
from support.folders import make_folder

from refimpl.backends.backend import dtypes_of, present
from refimpl.errors import ModelFormatError
from refimpl.files.safetensors import SETTLED, in_memory, open_safetensors
from refimpl.models.task_model import load
from refimpl.reference.heads import HEADS

MLM, WEIGHTS, EMBEDDING = (
    HEADS["masked_lm"],
    "model.safetensors",
    "model.embeddings.tok_embeddings.weight",
)
IDS = np.array([[1, 5, 19, 2]])
CHOICES = [(backend, dtype) for backend in present() for dtype in dtypes_of(backend)]
on_every_backend = pytest.mark.parametrize(("backend", "dtype"), CHOICES)

# What a model is asked; each gives arrays.
ASKED: dict[str, Callable[[Any], Any]] = {
    "its outputs": lambda model: model(IDS),
    "hidden states": lambda model: model(IDS, output_hidden_states=True)["hidden_states"],
    "attention maps": lambda model: model(IDS, output_attentions=True)["attentions"],
    "the encoder": lambda model: model.encoder(IDS),
    "packed": lambda model: model.encode_packed([1, 5, 2], [0, 3]),
    "its parameters": lambda model: dict(model.params),
}


def arrays_of(found: Any) -> list[np.ndarray]:
    if isinstance(found, np.ndarray):
        return [found]
    parts = found.values() if isinstance(found, dict) else found
    return [x for part in parts for x in arrays_of(part)]


def overwrite(file: Path, other: Path) -> None:
    """As cp and rsync --inplace do it."""
    with open(other, "rb") as new, open(file, "r+b") as old:
        old.write(new.read())


def cut(file: Path, other: Path) -> None:
    os.truncate(file, 4096)


def cut_to_nothing(file: Path, other: Path) -> None:
    os.truncate(file, 0)


def cut_and_filled(file: Path, other: Path) -> None:
    """As a shell's `cat new > old` does it."""
    file.write_bytes(other.read_bytes())


CHANGES = [overwrite, cut, cut_to_nothing, cut_and_filled]


def two_models(folder: Path, dtype: str) -> tuple[Path, Path]:
    """Folders of the same sizes whose tensors differ; large enough that a cut file lacks pages."""
    sizes = dict(vocab_size=4000, hidden_size=64, intermediate_size=96, dtype=dtype)
    make_folder(folder / "old", MLM, **sizes)
    make_folder(folder / "new", MLM, **sizes)
    tensors = {
        n: np.array(t.array()) for n, t in open_safetensors(folder / "new" / WEIGHTS).items()
    }
    rng = np.random.default_rng(0)
    file = folder / "new" / WEIGHTS
    raw = bytearray(file.read_bytes())
    for name, tensor in open_safetensors(file).items():
        x = rng.permutation(tensors[name].reshape(-1))
        raw[tensor.offset : tensor.offset + tensor.nbytes] = x.tobytes()
    file.write_bytes(raw)
    return folder / "old", folder / "new"


@on_every_backend
@pytest.mark.parametrize("used", [False, True], ids=["never used", "used before"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("on_disk", ["float32", "bfloat16"])
def test_file_that_is_changed_gives_the_old_numbers_or_an_error(
    tmp_path: Path, backend: str, dtype: str, used: bool, change: Any, on_disk: str
) -> None:
    old, new = two_models(tmp_path, on_disk)
    wanted = {}
    for what, ask in ASKED.items():
        wanted[what] = arrays_of(ask(load(old, backend=backend, dtype=dtype)))
    models = {what: load(old, backend=backend, dtype=dtype) for what in ASKED}
    if used:
        for what, ask in ASKED.items():
            ask(models[what])
    saved = load(old, backend=backend, dtype=dtype)
    change(old / WEIGHTS, new / WEIGHTS)

    def answers() -> bool:
        for what, ask in ASKED.items():
            for _ in range(2):
                try:
                    got = arrays_of(ask(models[what]))
                except OSError as error:
                    assert error.errno != 2 and ("changed" in str(error) or "cut" in str(error)), (
                        error
                    )
                    continue
                assert used, f"{what}: {change.__name__} was not noticed"
                assert all(np.array_equal(a, b) for a, b in zip(got, wanted[what], strict=True)), (
                    what
                )
        with pytest.raises(OSError, match="changed"):
            saved.save_pretrained(tmp_path / "saved")
        return not (tmp_path / "saved").exists()

    assert in_child(answers) == 0


@pytest.mark.parametrize("backend", present())
def test_file_that_is_replaced_or_deleted_is_still_read(tmp_path: Path, backend: str) -> None:
    old, new = two_models(tmp_path, "float32")
    wanted = load(old, backend=backend)(IDS)["logits"]
    for gone in (
        lambda: os.replace(shutil.copy(new / WEIGHTS, old / "copy"), old / WEIGHTS),
        lambda: (old / WEIGHTS).unlink(),
    ):
        model = load(old, backend=backend)
        expected = wanted
        wanted = load(new, backend=backend)(IDS)["logits"]
        gone()
        np.testing.assert_array_equal(model(IDS)["logits"], expected)
        model.save_pretrained(tmp_path / "saved")


def test_mode_owner_and_links_of_a_file_change_nothing(tmp_path: Path) -> None:
    old, _ = two_models(tmp_path, "float32")
    model = load(old)
    wanted = model(IDS)["logits"]
    os.chmod(old / WEIGHTS, 0o600)
    os.link(old / WEIGHTS, old / "another")
    os.rename(old / WEIGHTS, old / "moved")
    np.testing.assert_array_equal(model(IDS)["logits"], wanted)


def test_descriptor_that_others_closed_is_an_error(tmp_path: Path) -> None:
    """As programs do that become a daemon; the map is not looked at instead."""
    old, _ = two_models(tmp_path, "float32")

    def daemon() -> bool:
        model = load(old, backend="numpy")
        os.closerange(3, 256)
        with pytest.raises(OSError, match="cannot be read any more"):
            model(IDS)
        os.open(os.devnull, os.O_RDONLY)  # takes a number that was the file's
        with pytest.raises(OSError, match="cannot be read any more"):
            model(IDS)
        return True

    assert in_child(daemon) == 0


def test_file_in_the_same_tick_of_the_clock_is_told_apart(tmp_path: Path) -> None:
    """Written, opened and written again at once: one time of change would do for all of it."""
    old, new = two_models(tmp_path, "float32")
    raw = [(folder / WEIGHTS).read_bytes() for folder in (old, new)]
    for i in range(40):
        (old / WEIGHTS).write_bytes(raw[i % 2])
        found = open_safetensors(old / WEIGHTS)[EMBEDDING].array()
        overwrite(old / WEIGHTS, (new, old)[i % 2] / WEIGHTS if i % 2 == 0 else new / WEIGHTS)
        with pytest.raises(OSError, match="changed"):
            in_memory(found)
    assert SETTLED > 10_000_000  # the longest step of Linux's clock


# -- at random moments ----------------------------------------------------------------------------

WRITER = """
import os, random, sys, time
file, states, seed = sys.argv[1], sys.argv[2:4], int(sys.argv[4])
rng, changes = random.Random(seed), 0
raw = [open(state, "rb").read() for state in states]
while True:
    print(changes, flush=True)
    if not sys.stdin.readline():
        break
    for _ in range(rng.randint(1, 3)):
        time.sleep(rng.random() * 0.004)
        kind, size = rng.randint(0, 3), len(raw[0])
        with open(file, "r+b") as stream:
            if kind == 0:
                stream.truncate(rng.randint(0, size))
            elif kind == 1:
                stream.write(raw[rng.randint(0, 1)])
            else:
                stream.truncate(rng.choice([0, size]))
                stream.write(raw[rng.randint(0, 1)])
        changes += 1
    with open(file, "r+b") as stream:
        stream.write(raw[rng.randint(0, 1)])
        stream.truncate(size)
    changes += 1
"""


def soak(
    folder: Path, backend: str, changes: int, in_c: Callable[[Path], Any] | None = None
) -> dict:
    """Answers while another process changes the file at random moments; what came of them."""
    old, new = two_models(folder, "float32")
    served = folder / "served"
    shutil.copytree(old, served)
    states = [load(place, backend=backend)(IDS)["logits"] for place in (old, new)]
    command = [
        sys.executable,
        "-c",
        WRITER,
        *map(str, (served / WEIGHTS, old / WEIGHTS, new / WEIGHTS, 7)),
    ]
    counts = {"answers": 0, "errors": 0, "refused": 0, "mixtures": 0, "changes": 0}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin and writer.stdout
        rng = random.Random(1)
        model = None
        while counts["changes"] < changes:
            counts["changes"] = int(writer.stdout.readline())
            print(file=writer.stdin, flush=True)
            end = time.monotonic() + rng.random() * 0.03
            while time.monotonic() < end:
                try:
                    model = model or load(served, backend=backend)
                    got = model(IDS)["logits"]
                except ModelFormatError:
                    counts["refused"] += 1
                except OSError:
                    counts["errors"] += 1
                    model = None
                else:
                    counts["answers"] += 1
                    if not any(np.array_equal(got, state) for state in states):
                        counts["mixtures"] += 1
                if rng.random() < 0.3:
                    model = None
        writer.kill()
    return counts


@pytest.mark.parametrize("changes", [100, pytest.param(10_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("backend", present())
def test_changes_at_random_moments_never_give_a_mixture(
    tmp_path: Path, backend: str, changes: int
) -> None:
    counts = soak(tmp_path, backend, changes)
    print(backend, counts)
    assert counts["mixtures"] == 0 and min(counts["answers"], counts["errors"]) > 0, counts
