"""Reading safetensors files: every kind of broken file by name, and the package as the oracle."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from support.broken_safetensors import (
    ENTRIES,
    HEADERS,
    MUTATIONS,
    TEXTS,
    TWO,
    file_of,
    mutated,
    raw_file,
    with_entry,
)

from refimpl.errors import ModelFormatError
from refimpl.files.safetensors import DTYPES, open_safetensors


def refusal(path: Path) -> ModelFormatError:
    """The error that opening gives, after checking that it names the file and left it alone."""
    before = path.read_bytes()
    with pytest.raises(ModelFormatError) as caught:
        open_safetensors(path)
    assert path.read_bytes() == before
    assert caught.value.file == str(path) and str(path) in str(caught.value)
    assert caught.value.offset is not None
    return caught.value


@pytest.mark.parametrize(
    ("changes", "words"), [e[1:] for e in ENTRIES], ids=[e[0] for e in ENTRIES]
)
def test_safetensors_entry_is_refused(tmp_path: Path, changes: dict, words: str) -> None:
    path = file_of(tmp_path / "m.safetensors", with_entry(**changes), 16)
    error = refusal(path)
    assert error.key == "a" and error.offset == 9  # the key's text, after 8 bytes and a brace
    with pytest.raises(ModelFormatError, match=words):
        open_safetensors(path)


@pytest.mark.parametrize(
    ("header", "size", "words"), [h[1:] for h in HEADERS], ids=[h[0] for h in HEADERS]
)
def test_safetensors_layout_is_refused(tmp_path: Path, header: dict, size: int, words: str) -> None:
    error = refusal(file_of(tmp_path / "m.safetensors", header, size))
    assert words in str(error)


@pytest.mark.parametrize(
    ("text", "words", "offset"), [t[1:] for t in TEXTS], ids=[t[0] for t in TEXTS]
)
def test_safetensors_header_text_is_refused(
    tmp_path: Path, text: bytes, words: str, offset: int | None
) -> None:
    error = refusal(raw_file(tmp_path / "m.safetensors", text, b""))
    assert words in str(error)
    assert offset is None or error.offset == offset


@pytest.mark.parametrize("content", [b"", b"\x02", b"\x02" + bytes(6), b"\x02" + bytes(7)])
def test_safetensors_file_without_a_header_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    assert refusal(path).offset == 0


@pytest.mark.parametrize("length", [11, 100_000_001, 2**63, 2**64 - 1])
def test_safetensors_header_length_is_capped_before_it_is_read(tmp_path: Path, length: int) -> None:
    path = raw_file(tmp_path / "m.safetensors", b"{}", b"12345678", length)
    if length == 100_000_001:  # a sparse file that is long enough, so that only the cap refuses
        with open(path, "r+b") as stream:
            stream.truncate(length + 8)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFormatError, match="the header should have") as caught:
            open_safetensors(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20  # less than 1 % of the lie
    finally:
        tracemalloc.stop()
    assert caught.value.offset == 0


def test_safetensors_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(ModelFormatError, match="cannot be read") as caught:
            open_safetensors(path)
        assert caught.value.file == str(path)


def test_safetensors_huge_shape_allocates_nothing(tmp_path: Path) -> None:
    header = with_entry(shape=[2**40], data_offsets=[0, 2**42])
    path = file_of(tmp_path / "m.safetensors", header, 16)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFormatError, match="truncated"):
            open_safetensors(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_safetensors_views_are_read_only_and_shared(tmp_path: Path) -> None:
    path = file_of(tmp_path / "m.safetensors", TWO, 12)
    tensor = open_safetensors(path)["a"]
    view, same = tensor.array(), tensor.astype(np.float32)
    assert not np.shares_memory(view, same), "what is computed with is read"
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    assert tensor.astype(np.float64).dtype == np.float64


def test_safetensors_integers_are_no_floats(tmp_path: Path) -> None:
    tensor = open_safetensors(file_of(tmp_path / "m.safetensors", TWO, 12))["b"]
    assert tensor.array().dtype == np.uint8
    with pytest.raises(ModelFormatError, match="U8 holds no floats") as caught:
        tensor.astype(np.float32)
    assert caught.value.key == "b" and caught.value.offset == tensor.offset


# -- against the safetensors package --------------------------------------------------------------


def package_reading(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]] | None:
    """Name -> type, shape, bytes as the package reads them, or None when it refuses."""
    try:
        with safe_open(path, "numpy") as file:
            out = {}
            for name in file.keys():
                view = file.get_slice(name)
                code, shape = view.get_dtype(), tuple(view.get_shape())
                array = file.get_tensor(name) if code != "BF16" else None
                out[name] = (code, shape, b"" if array is None else array.tobytes())
            return out
    except SafetensorError:
        return None


def check_against_package(path: Path) -> bool:
    """Reads it as the package does, or refuses it. True when it was read."""
    try:
        ours = open_safetensors(path)
    except ModelFormatError:
        return False
    theirs = package_reading(path)
    assert theirs is not None, "read what the package refuses"
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        code, shape, content = theirs[name]
        assert (tensor.dtype, tensor.shape) == (code, shape)
        assert code == "BF16" or tensor.array().tobytes() == content
    return True


shapes = st.lists(st.integers(0, 4), max_size=3)


@st.composite
def headers(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """A right header, and the size of its data."""
    header: dict[str, Any] = {}
    position = 0
    for name in draw(st.lists(st.text(max_size=4), unique=True, max_size=4)):
        shape, code = draw(shapes), draw(st.sampled_from(sorted(DTYPES)))
        end = position + int(np.prod(shape, dtype=int)) * DTYPES[code].itemsize
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [position, end]}
        position = end
    if draw(st.booleans()):
        header["__metadata__"] = {"format": "np"}
    return header, position


@given(headers())
def test_safetensors_right_files_are_read_as_the_package_reads_them(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[dict, int]
) -> None:
    header, size = case
    path = tmp_path_factory.mktemp("right") / "m.safetensors"
    raw_file(path, json.dumps(header).encode(), bytes(i % 2 for i in range(size)))
    assert check_against_package(path)


@given(headers(), MUTATIONS, st.booleans())
def test_safetensors_mutated_files_are_refused_or_read_as_the_package_reads_them(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[dict, int],
    mutations: list,
    honest_length: bool,
) -> None:
    header, size = case
    text, data = json.dumps(header).encode(), bytes(i % 2 for i in range(size))
    path = tmp_path_factory.mktemp("mutated") / "m.safetensors"
    if honest_length:  # only the text is wrong: the faults that the length would hide are seen
        raw_file(path, mutated(text, mutations), data)
    else:
        whole = len(text).to_bytes(8, "little") + text + data
        path.write_bytes(mutated(whole, mutations))
    check_against_package(path)
