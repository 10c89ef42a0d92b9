"""What an ONNX file keeps its weights in, read from the file without the onnx package.

An ONNX file is a protocol buffer: ModelProto.graph is field 7, GraphProto.initializer field 5,
TensorProto.dims field 1 and data_type field 2. Only these are looked at; data is stepped over, so a
file of any size costs its headers. Graphs inside nodes are not entered.
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

GRAPH, INITIALIZER, DIMS, DATA_TYPE = 7, 5, 1, 2
TYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16",
         11: "float64", 16: "bfloat16"}  # fmt: skip
Buffer = bytes | memoryview | mmap.mmap


def weight_types(path: Path) -> Counter[str]:
    """Type -> how many numbers of the file's initializers are of it. Empty for another file."""
    out: Counter[str] = Counter()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            for graph in _parts(data, 0, len(data), GRAPH):
                for tensor in _parts(data, *graph, INITIALIZER):
                    kind, shape = _tensor(data, *tensor)
                    out[TYPES.get(kind, f"type {kind}")] += math.prod(shape)
        except (IndexError, ValueError):
            return Counter()
    return out


def compute_dtype(types: Counter[str]) -> str | None:
    """The float type of most of the weights, None when there is none."""
    floats = {t: n for t, n in types.items() if "float" in t and n}
    return max(floats, key=floats.__getitem__, default=None)


def _fields(data: Buffer, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field, wire type, start, end) of each; a number's value is at start, a part's bytes span."""
    while at < end:
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        start = at
        if wire == 0:
            _, at = _varint(data, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, start = _varint(data, at)
            at = start + size
        else:
            raise ValueError(f"wire type {wire}")
        if at > end:
            raise ValueError("a field ends beyond its message")
        yield field, wire, start, at


def _parts(data: Buffer, at: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    for field, wire, start, stop in _fields(data, at, end):
        if (field, wire) == (wanted, 2):
            yield start, stop


def _tensor(data: Buffer, at: int, end: int) -> tuple[int, list[int]]:
    """(data_type, dims)."""
    kind, shape = 0, []
    for field, wire, start, stop in _fields(data, at, end):
        if (field, wire) == (DATA_TYPE, 0):
            kind, _ = _varint(data, start)
        elif field == DIMS:
            while start < stop:
                n, start = _varint(data, start)
                shape.append(n)
    return kind, shape


def _varint(data: Buffer, at: int) -> tuple[int, int]:
    """(value, where it ends). IndexError beyond the data, ValueError for more than 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")
