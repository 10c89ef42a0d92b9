"""Rows of the token embedding are read from their file: same bits, no memory, and typed errors."""

from __future__ import annotations

import gc
import mmap
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.c_interface import (
    BAD_FILE,
    INVALID,
    Failed,
    Model,
    config_of,
    ffi,
    input_of,
    lib,
    tensors_of,
)
from support.children import in_child
from support.folders import Params, make_folder
from support.process_memory import anonymous, in_linux, resident

from refimpl import ModernBERT
from refimpl.backends.engine import Engine
from refimpl.files.bfloat16 import BFLOAT16
from refimpl.files.safetensors import in_file, open_safetensors
from refimpl.reference.config import ModernBertConfig

WEIGHTS, EMBEDDING = "model.safetensors", "embeddings.tok_embeddings.weight"
IDS, CU = np.array([1, 5, 19, 0, 5, 7]), np.array([0, 2, 6])
# Wider than what is read at a time, in float32 and in half of it.
WIDE: dict[str, Any] = dict(hidden_size=2052, num_attention_heads=2, num_hidden_layers=1)
SIZES = {"narrow": {}, "wide": WIDE, "token types": dict(type_vocab_size=2)}
every_dtype_on_disk = pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])


# -- Python ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
@every_dtype_on_disk
def test_rows_of_a_file_have_the_bits_of_rows_in_memory(tmp_path: Path, dtype: str, sizes: str):
    make_folder(tmp_path, dtype=dtype, **SIZES[sizes])
    model = ModernBERT.from_pretrained(tmp_path, backend="native")
    copies = {name: np.array(x) for name, x in model.params.stored.items()}
    place = in_file(model.params.stored[EMBEDDING])
    assert place is not None and in_file(copies[EMBEDDING]) is None
    assert place[1] == open_safetensors(tmp_path / WEIGHTS)[EMBEDDING].offset
    in_memory = Engine(model.config, copies)
    np.testing.assert_array_equal(model.encode_packed(IDS, CU), in_memory.packed(IDS, CU))


@in_linux
@every_dtype_on_disk
def test_rows_that_were_read_take_no_memory(tmp_path: Path, dtype: str):
    make_folder(tmp_path, dtype=dtype, vocab_size=400_000)
    file = tmp_path / WEIGHTS
    model = ModernBERT.from_pretrained(tmp_path, backend="native")
    model.encode_packed(np.arange(0, 400_000, 97), [0, *range(60, 4124, 508), 4124])
    few = 4 * mmap.PAGESIZE * len(model.params)  # each tensor may leave its edges
    assert resident(file) < few < file.stat().st_size // 4
    model.params.stored[EMBEDDING].view(np.uint8).sum()
    assert resident(file) > few, "the mapping brings pages in, so there was something to gain"


CHANGES: dict[str, Any] = {
    "cut": lambda file: os.truncate(file, file.stat().st_size - 1),
    "cut to nothing": lambda file: os.truncate(file, 0),
    "longer": lambda file: os.truncate(file, file.stat().st_size + 1),
    "written over": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "written over with itself": lambda file: file.write_bytes(file.read_bytes()),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_that_was_changed_is_an_error_of_every_pass_with_ids(tmp_path: Path, what: str):
    make_folder(tmp_path, vocab_size=4000)
    model = ModernBERT.from_pretrained(tmp_path, backend="native", num_threads=3)
    in_c = Model.open(tmp_path)
    rows = {"inputs_embeds": np.ones((1, 3, 8), np.float32)}
    before = model(rows)["last_hidden_state"]
    model.encode_packed([0, 1], [0, 2])
    CHANGES[what](tmp_path / WEIGHTS)
    for ids in ([3999], [0, 1], [*range(1500), 2000, *range(500)]):
        with pytest.raises(OSError, match="token embedding cannot be read .* or was changed"):
            model.encode_packed(ids, [0, len(ids)])
        with pytest.raises(Failed, match="token embedding cannot be read .* or was changed") as f:
            in_c.forward(input_of([0, len(ids)], ids=np.array(ids)), len(ids))
        assert f.value.status == BAD_FILE
    np.testing.assert_array_equal(model(rows)["last_hidden_state"], before)


@pytest.mark.parametrize("when", ["before the first pass", "between two"])
@pytest.mark.parametrize("what", ["replaced", "deleted"])
def test_a_file_that_was_replaced_or_deleted_is_still_read(tmp_path: Path, what: str, when: str):
    _, params = make_folder(tmp_path)
    before = ModernBERT.from_pretrained(tmp_path, backend="native").encode_packed(IDS, CU)
    model = ModernBERT.from_pretrained(tmp_path, backend="native")
    if when == "between two":
        model.encode_packed(IDS, CU)
    if what == "replaced":
        ModernBERT(model.config, {n: x + 1 for n, x in params.items()}).save_pretrained(tmp_path)
    else:
        (tmp_path / WEIGHTS).unlink()
    np.testing.assert_array_equal(model.encode_packed(IDS, CU), before)


def test_a_descriptor_that_others_closed_and_took_is_not_read(tmp_path: Path):
    """As by programs that close all descriptors to become a daemon."""
    make_folder(tmp_path, dtype="float16")
    (tmp_path / "other").write_bytes(bytes((tmp_path / WEIGHTS).stat().st_size))
    model = Model.open(tmp_path)
    links = {n: Path(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}
    ours = [int(n) for n, x in links.items() if x.exists() and x.samefile(tmp_path / WEIGHTS)]
    with open(tmp_path / "other", "rb") as stream:
        for n in ours:
            os.dup2(stream.fileno(), n)
        with pytest.raises(Failed, match="token embedding cannot be read"):
            model.forward(input_of(CU, ids=IDS), len(IDS))
        del model
        gc.collect()
        for n in ours:  # what took its number was left alone
            os.close(n)


@in_linux
def test_no_file_stays_open(tmp_path: Path):
    def descriptors() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    make_folder(tmp_path)
    before = descriptors()
    model = ModernBERT.from_pretrained(tmp_path, backend="native")
    model.encode_packed(IDS, CU)
    assert descriptors() == before + 3  # the mapping's, the one beside it and the engine's
    del model
    assert descriptors() == before
    model_in_c = Model.open(tmp_path)
    assert descriptors() == before + 1
    del model_in_c
    assert descriptors() == before


def test_views_know_their_place_in_the_file(tmp_path: Path):
    make_folder(tmp_path, dtype="bfloat16")
    tensor = open_safetensors(tmp_path / WEIGHTS)[EMBEDDING]
    x, raw = tensor.array(), (tmp_path / WEIGHTS).read_bytes()
    for view in (x, x[3:], x[0, 5:], x.view(BFLOAT16), x[:0]):
        place = in_file(view)
        assert place is not None
        with place[0].opened() as handle:
            assert os.pread(handle, view.nbytes, place[1]) == view.tobytes()
            assert raw[place[1] :][: view.nbytes] == view.tobytes()
        with pytest.raises(OSError):
            os.fstat(handle)
    for other in (x[::2], x[:, :3], x.T, x[::-1], x.copy(), np.zeros(3)):
        assert in_file(other) is None


@in_linux
@every_dtype_on_disk
def test_rows_that_are_not_aligned_are_not_copied(tmp_path: Path, dtype: str):
    make_folder(tmp_path, dtype=dtype, vocab_size=400_000)
    aligned = ModernBERT.from_pretrained(tmp_path, backend="native").encode_packed(IDS, CU)
    raw = (tmp_path / WEIGHTS).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header, data = raw[8 : 8 + size], raw[8 + size :]
    (tmp_path / WEIGHTS).write_bytes((size + 1).to_bytes(8, "little") + header + b" " + data)
    model = ModernBERT.from_pretrained(tmp_path, backend="native")
    place = in_file(model.params.stored[EMBEDDING])
    assert place is not None and place[1] % 2
    before = anonymous()
    np.testing.assert_array_equal(model.encode_packed(IDS, CU), aligned)
    assert anonymous() - before < 2**20 < model.params.stored[EMBEDDING].nbytes
    model_in_c = Model.open(tmp_path)
    np.testing.assert_array_equal(model_in_c.forward(input_of(CU, ids=IDS), len(IDS)), aligned)


# -- the C interface ------------------------------------------------------------------------------


@in_linux
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_a_folder_is_not_mapped_any_more_once_it_is_open(tmp_path: Path, dtype: str):
    make_folder(tmp_path, dtype=dtype)
    model = Model.open(tmp_path)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    wanted = ModernBERT.from_pretrained(tmp_path, backend="native").encode_packed(IDS, CU)
    np.testing.assert_array_equal(model.forward(input_of(CU, ids=IDS), len(IDS)), wanted)
    (tmp_path / WEIGHTS).unlink()
    np.testing.assert_array_equal(model.forward(input_of(CU, ids=IDS), len(IDS)), wanted)


def made(
    folder: tuple[ModernBertConfig, Params], descriptor: int, offset: int, name: str = EMBEDDING,
    data: bool = False,
) -> Model:  # fmt: skip
    """A model whose tensor of that name is to stand in a file."""
    config, params = folder
    tensors, kept = tensors_of(params)
    tensor = tensors[list(params).index(name)]
    kept.append(ffi.new("modernbert_file *", {"descriptor": descriptor, "offset": offset}))
    tensor.file = kept[-1]
    if not data:
        tensor.data = ffi.NULL
    out = ffi.new("modernbert_model **")
    status = lib.modernbert_create(config_of(config), tensors, len(params), ffi.NULL, out)
    if status:
        assert out[0] == ffi.NULL
        raise Failed(status)
    return Model(out[0], kept)


def test_rows_in_a_file_of_the_caller(tmp_path: Path):
    folder = make_folder(tmp_path)
    table = folder[1][EMBEDDING]
    (tmp_path / "rows").write_bytes(b"abc" + table.tobytes())  # not aligned, and to the last byte
    with open(tmp_path / "rows", "rb") as stream:
        model = made(folder, stream.fileno(), 3)
    input = input_of(CU, ids=IDS)
    wanted = Model.create(*folder).forward(input, len(IDS))
    np.testing.assert_array_equal(model.forward(input, len(IDS)), wanted)
    os.truncate(tmp_path / "rows", 3 + table[:7].nbytes)
    with pytest.raises(Failed, match="token embedding cannot be read") as failed:
        model.forward(input, len(IDS))
    assert failed.value.status == BAD_FILE


def test_bad_files_of_a_tensor_are_refused(tmp_path: Path):
    folder = make_folder(tmp_path)
    size = folder[1][EMBEDDING].nbytes
    with open(tmp_path / WEIGHTS, "rb") as stream:
        number = stream.fileno()
        end = os.fstat(number).st_size
        made(folder, number, end - size)
        bad: dict[str, tuple[Any, ...]] = {
            "byte -1 on: that must be at least 0": (number, -1),
            "descriptor -1 .* not open": (-1, 0),
            "descriptor 99999 .* not open": (99999, 0),
            "both data and a file": (number, 0, EMBEDDING, True),
            "embedding alone": (number, 0, "final_norm.weight"),
        }
        for words, arguments in bad.items():
            with pytest.raises(Failed, match=words) as failed:
                made(folder, *arguments)
            assert failed.value.status == INVALID
        for offset in (end - size + 1, end + 1, 2**63 - 1):
            with pytest.raises(Failed, match=f"its {size} bytes do not fit into") as failed:
                made(folder, number, offset)
            assert failed.value.status == BAD_FILE
    writing = os.open(tmp_path / WEIGHTS, os.O_WRONLY)
    for descriptor in (*os.pipe(), writing):
        with pytest.raises(Failed, match="no file, or not open for reading"):
            made(folder, descriptor, 0)
        os.close(descriptor)


@in_linux
def test_no_descriptor_left_falls_back_to_the_mapping_and_is_a_status_in_c(tmp_path: Path):
    """In a child, whose descriptors end at those that it has."""
    folder = make_folder(tmp_path)
    model = ModernBERT.from_pretrained(tmp_path, backend="native")
    wanted = Model.create(*folder).forward(input_of(CU, ids=IDS), len(IDS))

    def without_descriptors() -> bool:
        with open(tmp_path / WEIGHTS, "rb") as stream:
            lowest = os.dup(stream.fileno())
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, lowest))
            with pytest.raises(Failed, match="Too many open files") as failed:
                made(folder, stream.fileno(), 0)
            assert failed.value.status == BAD_FILE
            return np.array_equal(model.encode_packed(IDS, CU), wanted)

    assert in_child(without_descriptors) == 0
