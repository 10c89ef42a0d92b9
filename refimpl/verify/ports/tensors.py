"""Tensors in files that nobody vouches for: .npy, .npz and .safetensors, in a folder or alone.

`stored(path)` yields one `Stored` per tensor, with name, dtype and shape from its header; nothing
of its content is read before `read()` is called, so a caller refuses 10 GB by their shape. Never
pickle, never a pipe or a device, never more bytes than the header's shape says. Whatever is wrong
with a file is an `Unreadable` in the stream, in words, in the place of the tensor.
"""

from __future__ import annotations

import itertools
import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from ...files.safetensors import open_safetensors

Array = np.ndarray
SUFFIXES = (".npy", ".npz", ".safetensors")
# A trace of a 28-layer model has about 400 steps; a folder of more files is something else.
MAX_FILES = 10_000


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    dtype: numpy's name or "bfloat16"; read() gives it in native byte order, bfloat16 and float16
    widened to float32, and raises Unreadable.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Array]


class Unreadable(Exception):
    """A file or tensor that cannot be read; the message says which and why."""


def stored(path: Path) -> Iterator[Stored | Unreadable]:
    """Every tensor of a file or of the files of a folder (not of its subfolders), by name."""
    files = [path]
    if path.is_dir():
        with os.scandir(path) as entries:
            names = sorted(e.name for e in itertools.islice(entries, MAX_FILES + 1))
        if len(names) > MAX_FILES:
            yield Unreadable(f"{path.name} holds more than {MAX_FILES} files; nothing was read")
            return
        files = [path / name for name in names if name.endswith(SUFFIXES)]
    for file in files:
        try:
            if not stat.S_ISREG(file.stat().st_mode):
                raise Unreadable(f"{file.name} is not a regular file")
            yield from READERS[file.suffix](file)
        except Unreadable as error:
            yield error
        except Exception as error:  # a hostile header can raise nearly anything in a parser
            yield Unreadable(f"{file.name} cannot be read: {type(error).__name__}: {error}")


# -- formats --------------------------------------------------------------------------------------


def _npy(path: Path) -> Iterator[Stored]:
    with path.open("rb") as file:
        shape, order, dtype = _npy_header(file, path.name)
        start = file.tell()
    size = path.stat().st_size - start
    if size != _nbytes(shape, dtype):
        raise Unreadable(
            f"{path.name} holds {size} bytes of data; its header says {dtype} {list(shape)}, "
            f"which is {_nbytes(shape, dtype)}"
        )

    def read() -> Array:
        with path.open("rb") as file:
            file.seek(start)
            return _read_npy(file, shape, order, dtype, path.name)

    yield Stored(path.name.removesuffix(".npy"), _label(dtype), shape, read)


def _npz(path: Path) -> Iterator[Stored | Unreadable]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            where = f"{path.name}: {member}"
            try:
                with archive.open(member) as stream:
                    header = _npy_header(stream, where)  # type: ignore[arg-type]
            except Unreadable as error:
                yield error
                continue
            except Exception as error:  # zlib, zip and header parsers each have their own errors
                yield Unreadable(f"{where} cannot be read: {type(error).__name__}: {error}")
                continue
            name = member.removesuffix(".npy")
            yield Stored(name, _label(header[2]), header[0], _npz_reader(path, member, where))


def _npz_reader(path: Path, member: str, where: str) -> Callable[[], Array]:
    def read() -> Array:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
                shape, order, dtype = _npy_header(stream, where)  # type: ignore[arg-type]
                return _read_npy(stream, shape, order, dtype, where)  # type: ignore[arg-type]
        except Unreadable:
            raise
        except Exception as error:
            raise Unreadable(f"{where} cannot be read: {type(error).__name__}: {error}") from None

    return read


def _safetensors(path: Path) -> Iterator[Stored]:
    names = {"F32": "float32", "F64": "float64", "F16": "float16", "BF16": "bfloat16",
             "I64": "int64", "I32": "int32", "BOOL": "bool", "U8": "uint8"}  # fmt: skip
    file = open_safetensors(path)
    for name, tensor in file.items():
        dtype = names.get(tensor.dtype, tensor.dtype)
        as_given = dtype in ("float64", "int64", "int32", "bool", "uint8")

        def read(tensor=tensor, as_given=as_given) -> Array:  # type: ignore[no-untyped-def]
            return tensor.array() if as_given else tensor.astype(np.float32)

        yield Stored(name, dtype, tuple(tensor.shape), read)


READERS: dict[str, Callable[[Path], Iterator[Stored | Unreadable]]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
}


# -- .npy -----------------------------------------------------------------------------------------


def _npy_header(stream: BinaryIO, where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, column-major?, dtype); the stream then stands at the data."""
    version = npy.read_magic(stream)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise Unreadable(f"{where} has .npy version {version}; 1.0 and 2.0 are read")
    shape, order, dtype = readers[version](stream)
    if any(n < 0 for n in shape):
        raise Unreadable(f"{where} has the shape {list(shape)}")
    return shape, order, dtype


def _read_npy(
    stream: BinaryIO, shape: tuple[int, ...], column_major: bool, dtype: np.dtype, where: str
) -> Array:
    if dtype.hasobject:
        raise Unreadable(f"{where} holds Python objects (pickle), which are never read")
    data = stream.read(_nbytes(shape, dtype))
    if len(data) != _nbytes(shape, dtype):
        raise Unreadable(f"{where} ends after {len(data)} of {_nbytes(shape, dtype)} bytes")
    x = np.frombuffer(data, dtype).reshape(shape, order="F" if column_major else "C")
    native = x.astype(dtype.newbyteorder("="))
    return native.astype(np.float32) if dtype.kind == "f" and dtype.itemsize == 2 else native


def _nbytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


def _label(dtype: np.dtype) -> str:
    return dtype.newbyteorder("=").name if dtype.kind in "fiub" else str(dtype)
