"""safetensors files: read piece by piece, written atomically, bfloat16 included.

    file = header length (8 bytes, little-endian) | json header | data without gaps

Promise: opening copies nothing and allocates only the header; every malformed file is a
ModelFormatError with file, key and byte offset; values that `in_memory` gives are all of the file
that was opened, or an OSError. Views of the mapped file (`Tensor.array`) show what becomes of it.
Writing gives sorted, aligned tensors, goes through a temporary file, and works in chunks, so it
holds no second copy of the model. Not here: what the tensors mean (checkpoint.py). Long because
reader and writer share the one table of types.
"""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from ..errors import ModelFormatError, shown
from .atomic import replacing
from .bfloat16 import BFLOAT16, to_bits, widen
from .identity import Path_, Seen, identity_of, ignored
from .strictjson import MAX_JSON_BYTES, parse_json

# On disk everything is little-endian; bfloat16 is read as its bits.
DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
FLOATS = ("F64", "F32", "F16", "BF16")
# Names of float types as configs and callers spell them.
FLOAT_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}

MAX_RANK = 32  # the most dimensions that every supported numpy can hold
CHUNK = 2**20  # elements converted at a time: at most 8 MiB in flight
LARGEST_READ = 2**30  # bytes at a time; Linux gives less than 2**31
SETTLED = 20_000_000  # nanoseconds after which a file's time of change tells the next one apart
LENGTH_BYTES = 8
ALIGNMENT = 8  # of the data, as the format asks of writers


# -- reading --------------------------------------------------------------------------------------


class FileMap(mmap.mmap):
    """A file mapped read-only, and open: what is computed with is read from it, not looked at in
    the map, as a map of a file that is cut short ends the process (SIGBUS).

    path: absolute, for errors. Values that were read are those of the file that was opened: one
    that was written to or cut since then, which its size and its time of change tell, is an
    OSError. It may be replaced or deleted.
    """

    path: str
    _handle: int
    _facts: tuple[int, ...]

    @classmethod
    def of(cls, stream: BinaryIO, path: Path_, facts: tuple[int, ...]) -> FileMap:
        try:
            self = cls(stream.fileno(), facts[2], access=mmap.ACCESS_READ)
        except ValueError:  # it is shorter by now
            raise OSError(errno.ESTALE, "was changed while it was opened", path) from None
        self.path, self._facts = os.path.abspath(os.fspath(path)), facts
        self._handle = os.dup(stream.fileno())
        weakref.finalize(self, _close, self._handle, facts[:2])
        return self

    def check(self) -> None:
        """OSError unless the file is as it was when it was opened."""
        try:
            now = identity_of(self._handle)
        except OSError as error:
            raise OSError(
                error.errno, f"cannot be read any more: {error.strerror}", self.path
            ) from None
        if now[:2] != self._facts[:2]:
            raise OSError(
                errno.EBADF, "cannot be read any more: its descriptor was closed", self.path
            )
        if now != self._facts:
            raise OSError(errno.ESTALE, "was changed since it was opened", self.path)

    def read_into(self, out: np.ndarray, offset: int) -> None:
        """Fill a contiguous array with the bytes from `offset` on. OSError."""
        self.check()
        left = out.reshape(-1).view(np.uint8).data
        while left:
            count = os.preadv(self._handle, [left[:LARGEST_READ]], offset)
            if count == 0:
                self.check()
                raise OSError(errno.EIO, "ends before its tensors do", self.path)
            left, offset = left[count:], offset + count
        self.check()

    @contextmanager
    def opened(self) -> Iterator[int | None]:
        """A descriptor of the file for the length of the block; None when there is none left."""
        self.check()
        try:
            handle = os.dup(self._handle)
        except OSError:
            yield None
            return
        try:
            yield handle
        finally:
            os.close(handle)


def in_file(array: np.ndarray) -> tuple[FileMap, int] | None:
    """The file that an array is a contiguous view of, and the byte that it begins at."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    if not isinstance(owner, FileMap) or not array.flags.c_contiguous:
        return None
    return owner, _address(array) - _address(np.frombuffer(owner, np.uint8))


def in_memory(array: np.ndarray) -> np.ndarray:
    """The values of an array in memory: itself, but where it is a view of a file they are read.

    OSError when the file was written to, cut or closed since it was opened.
    """
    place = in_file(array)
    if place is None:
        return array
    file, offset = place
    if not hasattr(os, "preadv"):  # where this is missing, files in use cannot be cut
        file.check()
        return np.array(array)
    out = np.empty_like(array)
    file.read_into(out, offset)
    return out


def settled(handle: int) -> tuple[int, ...]:
    """What tells a file from what it may become: device, number, size and time of change.

    The clock that stamps files goes in steps of up to 10 ms, within which two states of a file have
    one time: it is asked when that is over. A write stamps the file when it begins; one that is
    under way is waited for, where the file system locks files, by asking for a hole.
    """
    age = time.time_ns() - os.fstat(handle).st_mtime_ns
    if 0 <= age < SETTLED:
        time.sleep((SETTLED - age) / 1e9)
    facts = identity_of(handle)
    if hasattr(os, "SEEK_HOLE"):
        with suppress(OSError):  # advice; the answer does not matter
            os.lseek(handle, 0, os.SEEK_HOLE)
        os.lseek(handle, 0, os.SEEK_SET)
    return facts


def _close(handle: int, file: tuple[int, ...]) -> None:
    """Close a descriptor, unless somebody closed it before and its number is another file's."""
    with suppress(OSError):
        if identity_of(handle)[:2] == file:
            os.close(handle)


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a mapped file: `dtype` as in the header, `offset` in the file, in bytes."""

    file: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    _buffer: FileMap = field(repr=False)

    def array(self) -> np.ndarray:
        """A read-only view of the map, no copy; BF16 as its uint16 bits. Looking at it where the
        file was cut short ends the process; `in_memory` is an OSError then."""
        dtype = DTYPES[self.dtype]
        count = self.nbytes // dtype.itemsize
        view = np.frombuffer(self._buffer, dtype, count=count, offset=self.offset)
        return view.reshape(self.shape)

    def astype(self, dtype: np.dtype | type) -> np.ndarray:
        """As float32 or float64, in memory. A float64 beyond float32 becomes inf.

        ModelFormatError when the tensor holds no floats; OSError as for in_memory.
        """
        array = in_memory(self.floats())
        with np.errstate(over="ignore", under="ignore"):
            return (widen(array["bits"]) if self.dtype == "BF16" else array).astype(
                dtype, copy=False
            )

    def floats(self) -> np.ndarray:
        """`array`, but BF16 in the dtype BFLOAT16; ModelFormatError when it holds no floats."""
        if self.dtype not in FLOATS:
            raise self.error(f"dtype {self.dtype} holds no floats")
        return self.array().view(BFLOAT16) if self.dtype == "BF16" else self.array()

    def error(self, message: str) -> ModelFormatError:
        """A ModelFormatError that names this tensor and where its data begin."""
        return ModelFormatError(message, file=self.file, key=self.name, offset=self.offset)


class SafetensorsFile(Mapping[str, Tensor]):
    """Name -> Tensor of one mapped file, in header order, and its `metadata`."""

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        self._tensors = dict(tensors)
        self.metadata = dict(metadata)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def open_safetensors(path: Path_, seen: Seen = ignored) -> SafetensorsFile:
    """Map a file and check its whole header. Raises ModelFormatError, also for a missing file.

    seen: is told which file that was (identity.py).
    """
    file = os.fspath(path)
    try:
        with open(file, "rb") as stream:
            facts = settled(stream.fileno())
            size = facts[2]
            text, header = _read_header(stream, size, file)
            start = LENGTH_BYTES + len(text)
            buffer = FileMap.of(stream, file, facts)
            buffer.check()
            seen(path, facts)
    except OSError as error:
        raise ModelFormatError(f"cannot be read: {error.strerror}", file=file) from error

    def refuse(message: str, key: str) -> ModelFormatError:
        spelled = json.dumps(key, ensure_ascii=False).encode()
        at = max(text.find(spelled), 0)
        return ModelFormatError(message, file=file, key=key, offset=LENGTH_BYTES + at)

    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for x in metadata.values()):
        raise refuse("metadata must map strings to strings", "__metadata__")
    tensors = {}
    for name, entry in header.items():
        try:
            dtype, shape, begin, end = _checked(entry)
        except ValueError as error:
            raise refuse(str(error), name) from None
        tensors[name] = Tensor(file, name, dtype, shape, start + begin, end - begin, buffer)

    # Data must follow each other without overlap or gap, and end with the file.
    position = start
    for tensor in sorted(tensors.values(), key=lambda t: (t.offset, t.offset + t.nbytes)):
        if tensor.offset != position:
            fault = "overlap those of another tensor" if tensor.offset < position else "leave a gap"
            raise refuse(
                f"its data begin at byte {tensor.offset - start} of the data, where "
                f"{position - start} was due: they {fault}",
                tensor.name,
            )
        position += tensor.nbytes
        if position > size:
            raise refuse(
                f"its data end at byte {position} of a file of {size} bytes: truncated, or the "
                "header lies",
                tensor.name,
            )
    if position != size:
        raise ModelFormatError(
            f"{size - position} bytes follow the last tensor; there must be none",
            file=file,
            offset=position,
        )
    return SafetensorsFile(tensors, metadata)


def _read_header(stream: BinaryIO, size: int, file: str) -> tuple[bytes, dict[str, Any]]:
    """The header's text, and what it says."""
    prefix = stream.read(LENGTH_BYTES)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < LENGTH_BYTES or length > size - LENGTH_BYTES or length > MAX_JSON_BYTES:
        raise ModelFormatError(
            f"the header should have {length} bytes, in a file of {size} bytes (a header has at "
            f"most {MAX_JSON_BYTES}): truncated, or no safetensors file",
            file=file,
            offset=0,
        )
    text = stream.read(length)
    if not text.startswith(b"{"):
        raise ModelFormatError(
            "the header does not begin with a brace", file=file, offset=LENGTH_BYTES
        )
    return text, parse_json(text, file=file, offset=LENGTH_BYTES)


def _checked(entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """dtype, shape, begin, end of a header entry; ValueError says what is wrong with it."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        got = shown(sorted(entry) if isinstance(entry, dict) else entry)
        raise ValueError(f"the entry must hold dtype, shape and data_offsets; it holds {got}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"dtype {shown(dtype)} is unknown; known: {', '.join(DTYPES)}")
    if not _are_sizes(shape) or len(shape) > MAX_RANK:
        raise ValueError(f"shape {shown(shape)} is not a list of up to {MAX_RANK} sizes")
    if math.prod(n for n in shape if n) * DTYPES[dtype].itemsize >= 2**63:
        raise ValueError(f"shape {shape} is larger than any memory")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"data_offsets {shown(offsets)} are not [begin, end], begin <= end")
    needed = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != needed:
        raise ValueError(
            f"data_offsets {offsets} span {offsets[1] - offsets[0]} bytes; shape {shape} of "
            f"{dtype} takes {needed}"
        )
    return dtype, tuple(shape), offsets[0], offsets[1]


def _are_sizes(values: Any) -> bool:
    """A list of integers >= 0 that fit in 64 bits (bool is no integer here)."""
    return isinstance(values, list) and all(type(n) is int and 0 <= n < 2**63 for n in values)


# -- writing --------------------------------------------------------------------------------------


def write_safetensors(
    path: Path_,
    tensors: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str] | None = None,
    dtype: str | None = None,
) -> None:
    """Replace `path` by a file of these tensors, atomically; see dump_safetensors."""
    with replacing(path) as stream:
        dump_safetensors(stream, tensors, metadata=metadata, dtype=dtype)


def dump_safetensors(
    stream: BinaryIO,
    tensors: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str] | None = None,
    dtype: str | None = None,
) -> None:
    """Write tensors into an open binary file.

    dtype: float64, float32, float16 or bfloat16 that floats are cast to (nearest, ties to even;
    other arrays stay); None keeps each array's own; BFLOAT16 is one of floats. metadata: {"format":
    "pt"} unless given, which transformers asks for. ValueError: unknown dtype, an array of no
    supported type, or a finite value that the cast would make infinite, by tensor name.
    """
    if "__metadata__" in tensors:
        raise ValueError("no tensor can be called '__metadata__'")
    codes = {name: disk_dtype(name, x, dtype) for name, x in tensors.items()}
    order = sorted(tensors, key=lambda name: (-DTYPES[codes[name]].itemsize, name))
    header: dict[str, Any] = {
        "__metadata__": {"format": "pt"} if metadata is None else dict(metadata)
    }
    position = 0
    for name in order:
        end = position + tensors[name].size * DTYPES[codes[name]].itemsize
        header[name] = {
            "dtype": codes[name],
            "shape": list(tensors[name].shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    stream.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
    for name in order:
        flat = tensors[name].reshape(-1)
        for start in range(0, flat.size, CHUNK):
            chunk = in_memory(flat[start : start + CHUNK])
            stream.write(_cast(name, chunk, codes[name]).tobytes())


def disk_dtype(name: str, array: np.ndarray, dtype: str | None) -> str:
    """The header's name for the type that `array` is written in. ValueError when there is none."""
    if dtype is not None and dtype not in FLOAT_NAMES:
        raise ValueError(f"dtype {shown(dtype)} is unknown; known: {', '.join(FLOAT_NAMES)}")
    bfloat16 = array.dtype == BFLOAT16
    if dtype is not None and (bfloat16 or array.dtype.kind == "f"):
        return FLOAT_NAMES[dtype]
    if bfloat16:
        return "BF16"
    for code, known in DTYPES.items():
        if code != "BF16" and known == array.dtype.newbyteorder("<"):
            return code
    raise ValueError(f"tensor {name!r} has dtype {array.dtype}, which safetensors cannot hold")


def _cast(name: str, chunk: np.ndarray, code: str) -> np.ndarray:
    """A chunk in its type on disk. ValueError when a finite value becomes infinite."""
    if chunk.dtype == BFLOAT16:
        if code == "BF16":
            return chunk
        chunk = widen(chunk["bits"])
    if code == "BF16":
        out = to_bits(chunk)
        values = widen(out)
    else:
        with np.errstate(over="ignore", under="ignore"):
            out = values = chunk.astype(DTYPES[code], copy=False)
    if code in FLOATS:
        lost = np.isinf(values) & np.isfinite(chunk)
        if lost.any():
            raise ValueError(f"tensor {name!r} holds {chunk[lost][0]}, too large for {code}")
    return out
