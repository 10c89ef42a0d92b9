"""Vectors with the ids of their texts in one file: .npz of numpy, read without pickle.

    vectors [rows, dimension] float; ids [rows] int64 or text; about: JSON text, how they were made

`modernbert embed` writes them and `modernbert search` reads them; so does numpy.load. An .npy holds
the vectors alone, and stays on the disk. Not here: what the vectors mean.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .safetensors import FileMap, settled

Array = np.ndarray
MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY")  # zip, empty zip, npy


@dataclass(frozen=True)
class Vectors:
    """vectors [rows, dimension] float; ids [rows], None where the file has none; about: see
    above."""

    vectors: Array
    ids: Array | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


def write_vectors(
    stream: BinaryIO, vectors: Array, ids: Array, about: Mapping[str, Any] | None = None
) -> None:
    """An .npz on a stream, which need not be able to seek."""
    np.savez(stream, ids=ids, vectors=vectors, about=np.array(json.dumps(about or {})))


def read_vectors(path: str | Path) -> Vectors:
    """An .npz with `vectors`, and `ids` if it has any, or an .npy of them; an .npy stays on the
    disk: its values are to be had by `in_memory`, which is an OSError where the file was cut or
    written to. Raises OSError, and ValueError that names the file."""
    with open(path, "rb") as stream:
        start = stream.read(8)
        if not start.startswith(MAGIC):
            raise ValueError(f"{path}: no vectors: it is neither .npz nor .npy")
    try:
        if start.startswith(MAGIC[2]):
            out = Vectors(_in_place(path))
        else:
            with np.load(path, allow_pickle=False) as found:
                if "vectors" not in found:
                    raise ValueError(f"it holds {sorted(found)}; 'vectors' is missing")
                ids = found["ids"] if "ids" in found else None
                about = json.loads(str(found["about"])) if "about" in found else {}
                out = Vectors(found["vectors"], ids, about)
        _check(out)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: no vectors: {error}") from None
    return out


def _in_place(path: str | Path) -> Array:
    """The array of an .npy, a view of its file where rows follow one another there."""
    with open(path, "rb") as stream:
        facts = settled(stream.fileno())
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0}.get(version)  # fmt: skip
        shape: tuple[int, ...] = (0,)
        by_column, dtype = True, np.dtype(object)
        if read is not None:
            shape, by_column, dtype = read(stream)
        count = math.prod(shape)
        if by_column or dtype.hasobject or not count:
            out: Array = np.load(path, allow_pickle=False)
            return out
        buffer = FileMap.of(stream, path, facts)
        return np.frombuffer(buffer, dtype, count, stream.tell()).reshape(shape)


def _check(v: Vectors) -> None:
    if v.vectors.ndim != 2 or v.vectors.dtype.kind != "f":
        raise ValueError(
            f"they are {v.vectors.dtype} {list(v.vectors.shape)}; they must be floats [rows, "
            "dimension]"
        )
    if v.ids is not None and v.ids.shape != v.vectors.shape[:1]:
        raise ValueError(f"ids has shape {list(v.ids.shape)}; there are {len(v.vectors)} vectors")
    if not isinstance(v.about, dict):
        raise ValueError(f"about is {v.about!r}; it must be an object")


def id_array(ids: Sequence[Any]) -> Array:
    """Ids as one array: int64 where all are integers, else text. What is neither is written as
    JSON: 1.5, true, null."""
    if all(type(x) is int and -(2**63) <= x < 2**63 for x in ids):
        return np.array(ids, np.int64)
    return np.array([x if isinstance(x, str) else json.dumps(x) for x in ids], dtype=str)
