"""Writing safetensors files: round trips, casts, alignment, and failures that change nothing."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from refimpl.files.bfloat16 import to_bits, widen
from refimpl.files.safetensors import open_safetensors, write_safetensors

DTYPES = [
    np.dtype(c) for c in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")
]
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    )
)
tensor_dicts = st.dictionaries(
    st.text(max_size=5).filter(lambda name: name != "__metadata__"), arrays, max_size=4
)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@given(tensor_dicts)
def test_safetensors_round_trip(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("trip") / "m.safetensors"
    write_safetensors(path, tensors)
    ours, theirs = open_safetensors(path), load_file(path)
    assert set(ours) == set(theirs) == set(tensors)
    for name, array in tensors.items():
        for back in (ours[name].array(), theirs[name]):
            assert back.dtype == array.dtype and back.shape == array.shape
            np.testing.assert_array_equal(back, array)


@given(tensor_dicts)
def test_safetensors_reads_what_the_package_writes(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("trip") / "m.safetensors"
    save_file(tensors, path, {"format": "np"})
    ours = open_safetensors(path)
    assert set(ours) == set(tensors) and ours.metadata == {"format": "np"}
    for name, array in tensors.items():
        np.testing.assert_array_equal(ours[name].array(), array)


def test_safetensors_layout_is_aligned_and_says_pt(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    tensors = {"c": np.zeros(3, np.uint8), "b": np.zeros(3, np.float32), "a": np.zeros(3, np.uint8)}
    write_safetensors(path, tensors | {"d": np.zeros(1)})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert list(header) == ["d", "b", "a", "c"]  # widest first, then by name
    for name, tensor in open_safetensors(path).items():
        assert tensor.offset % tensor.array().dtype.itemsize == 0, name


@pytest.mark.parametrize("order", ["C", "F"])
def test_safetensors_writes_strided_and_big_endian_arrays(tmp_path: Path, order: str) -> None:
    grid = np.arange(24, dtype=np.float32).reshape(4, 6)
    odd = np.asarray(grid, order=order)[::2, ::-1]
    write_safetensors(tmp_path / "m", {"odd": odd, "big": grid.astype(">f4")})
    back = open_safetensors(tmp_path / "m")
    np.testing.assert_array_equal(back["odd"].array(), odd)
    np.testing.assert_array_equal(back["big"].array(), grid)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_safetensors_cast_to_bfloat16(tmp_path: Path, dtype: type) -> None:
    x = np.random.default_rng(1).standard_normal(3_000_000).astype(dtype)  # several chunks
    x[:3] = [np.nan, np.inf, -np.inf]
    write_safetensors(tmp_path / "m", {"x": x, "n": np.arange(3)}, dtype="bfloat16")
    back = open_safetensors(tmp_path / "m")
    assert back["x"].dtype == "BF16" and back["n"].dtype == "I64"
    np.testing.assert_array_equal(back["x"].array(), to_bits(x))
    np.testing.assert_array_equal(back["x"].astype(np.float64), widen(to_bits(x)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_safetensors_cast_to_ieee_types(tmp_path: Path, dtype: str) -> None:
    x = np.array([0.1, -0.0, np.nan, -np.inf, 1e-30, 65504.0])
    write_safetensors(tmp_path / "m", {"x": x}, dtype=dtype)
    with np.errstate(under="ignore"):
        np.testing.assert_array_equal(load_file(tmp_path / "m")["x"], x.astype(dtype))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float16", 65520.0), ("float16", -1e5), ("bfloat16", 3.4e38), ("float32", 1e39)],
)
@pytest.mark.parametrize("there", [False, True])
def test_safetensors_overflow_is_refused_and_changes_nothing(
    tmp_path: Path, dtype: str, value: float, there: bool
) -> None:
    if there:
        write_safetensors(tmp_path / "m", {"old": np.ones(3)})
    before = files(tmp_path)
    x = np.zeros(2_000_000)
    x[-1] = value
    with pytest.raises(ValueError, match="tensor 'wide' holds .* too large for"):
        write_safetensors(tmp_path / "m", {"fine": np.ones(5), "wide": x}, dtype=dtype)
    assert files(tmp_path) == before


REFUSED = [
    ({"x": np.array([1j])}, None, "'x' has dtype complex"),
    ({"x": np.array(["a"])}, None, "'x' has dtype"),
    ({"__metadata__": np.zeros(1)}, None, "__metadata__"),
    ({"x": np.zeros(1)}, "int8", "dtype 'int8' is unknown; known: float64"),
]


@pytest.mark.parametrize(("tensors", "dtype", "words"), REFUSED)
def test_safetensors_refused_writes_change_nothing(
    tmp_path: Path, tensors: dict, dtype: str | None, words: str
) -> None:
    write_safetensors(tmp_path / "m", {"old": np.ones(3)})
    before = files(tmp_path)
    with pytest.raises(ValueError, match=words):
        write_safetensors(tmp_path / "m", tensors, dtype=dtype)
    assert files(tmp_path) == before


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_safetensors_failing_disk_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_safetensors(tmp_path / "m", {"old": np.ones(3)})
    before = files(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_safetensors(tmp_path / "m", {"new": np.zeros(3)})
    assert files(tmp_path) == before


def test_safetensors_is_synced_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b))[1])
    write_safetensors(tmp_path / "m", {"x": np.zeros(3)})
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder


def test_safetensors_replaces_the_file_that_its_arrays_are_views_of(tmp_path: Path) -> None:
    path = tmp_path / "m"
    x = np.arange(1000, dtype=np.float32)
    write_safetensors(path, {"x": x, "y": x[:10]})
    views = {name: tensor.array() for name, tensor in open_safetensors(path).items()}
    write_safetensors(path, {"x": views["y"], "y": views["x"]})
    np.testing.assert_array_equal(views["x"], x)
    np.testing.assert_array_equal(open_safetensors(path)["y"].array(), x)


def test_safetensors_cast_holds_no_second_copy(tmp_path: Path) -> None:
    x = np.ones(2**24, np.float32)  # 64 MiB
    tracemalloc.start()
    try:
        write_safetensors(tmp_path / "m", {"x": x}, dtype="bfloat16")
        # a chunk of 2**20 elements with a handful of temporaries of at most 8 bytes each
        assert tracemalloc.get_traced_memory()[1] < x.nbytes / 2
    finally:
        tracemalloc.stop()
