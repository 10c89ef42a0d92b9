"""safetensors files that are broken by name, and mutations of right ones: for both readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

GOOD = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
TWO = {
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "U8", "shape": [4], "data_offsets": [8, 12]},
}


def raw_file(path: Path, header: bytes, data: bytes, length: int | None = None) -> Path:
    size = len(header) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + header + data)
    return path


def file_of(path: Path, header: Any, size: int) -> Path:
    return raw_file(path, json.dumps(header).encode(), bytes(range(size)))


def with_entry(**changes: Any) -> dict:
    return {"a": {**GOOD["a"], **changes}}


ENTRIES = [
    ("unknown dtype", dict(dtype="F7"), "F7.*known: F64"),
    ("dtype is no string", dict(dtype=["F32"]), "dtype"),
    ("negative size", dict(shape=[-2, -2]), "shape"),
    ("fractional size", dict(shape=[2.0, 2]), "shape"),
    ("boolean size", dict(shape=[True, 4]), "shape"),
    ("size as text", dict(shape="22"), "shape"),
    ("size of null", dict(shape=[None]), "shape"),
    ("huge size", dict(shape=[2**62, 2]), "larger than any memory"),
    ("huge size beside a zero", dict(shape=[2**62, 2**62, 0]), "larger than any memory"),
    ("size beyond 64 bits", dict(shape=[2**63]), "shape"),
    ("too many dimensions", dict(shape=[1] * 33), "up to 32"),
    ("shape does not match", dict(shape=[3]), r"shape \[3\] of F32 takes 12"),
    ("dtype does not match", dict(dtype="F64"), "takes 32"),
    ("offsets reversed", dict(data_offsets=[16, 0]), "begin <= end"),
    ("offsets negative", dict(data_offsets=[-16, 0]), "data_offsets"),
    ("offsets boolean", dict(data_offsets=[False, 16]), "data_offsets"),
    ("one offset", dict(data_offsets=[16]), "data_offsets"),
    ("three offsets", dict(data_offsets=[0, 8, 16]), "data_offsets"),
    ("offsets beyond the file", dict(shape=[5], data_offsets=[0, 20]), "truncated"),
    ("data begin late", dict(shape=[3], data_offsets=[4, 16]), "gap"),
    ("unknown field", dict(stride=[1]), "stride"),
]


HEADERS = [
    ("overlap", {**TWO, "b": {**TWO["b"], "shape": [8], "data_offsets": [4, 12]}}, 12, "overlap"),
    ("the same bytes twice", {"a": TWO["a"], "c": TWO["a"], "b": TWO["b"]}, 12, "overlap"),
    ("hole", {**TWO, "b": {"dtype": "U8", "shape": [3], "data_offsets": [9, 12]}}, 12, "gap"),
    ("trailing bytes", TWO, 13, "1 bytes follow the last tensor"),
    ("truncated data", TWO, 11, "truncated"),
    ("metadata is no object", {"__metadata__": ["pt"], **TWO}, 12, "strings to strings"),
    ("metadata of numbers", {"__metadata__": {"n": 1}, **TWO}, 12, "strings to strings"),
    ("metadata nested", {"__metadata__": {"n": {}}, **TWO}, 12, "strings to strings"),
    ("entry is a list", {"a": []}, 0, "must hold dtype"),
    ("entry lacks a field", {"a": {"dtype": "F32", "shape": []}}, 0, "must hold dtype"),
]


TEXTS = [
    ("twice the same tensor", b'{"a":{},"a":{}}', "given twice", 9 + 7),
    ("twice the same field", b'{"a":{"dtype":"F32","dtype":"F32"}}', "given twice", None),
    ("twice the same metadata", b'{"__metadata__":{"k":"1","k":"2"}}', "given twice", None),
    ("no json", b"{nonsense}", "wrong json", 9),
    ("cut json", b'{"a":{"dtype"', "wrong json", 8 + 13),
    ("a list", b"[1,2,3]", "brace", 8),
    ("leading space", b" {}", "brace", 8),
    ("nothing", b"", "brace", 8),
    ("trailing json", b"{}{}", "wrong json", 10),
    ("not utf-8", b'{"\xff":{}}', "UTF-8", 10),
    ("utf-16", '{"a":{}}'.encode("utf-16-le"), "wrong json", 9),
    ("half a surrogate pair", b'{"\\ud800":{}}', "surrogate", 10),
    ("nested without end", b'{"a":' + b"[" * 100_000, "nested", 8 + 5 + 128),
    ("minus zero", b'{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}', "shape", 9),
    ("NaN", b'{"a":NaN}', "NaN", 13),
    ("endless digits", b'{"a":' + b"9" * 5000 + b"}", "beyond float64", 13),
    ("beyond float64", b'{"a":1e999}', "beyond float64", 13),
]


MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 400), st.integers(0, 255)),
        st.tuples(st.just("cut"), st.integers(0, 400), st.integers(1, 9)),
        st.tuples(st.just("put"), st.integers(0, 400), st.sampled_from(
            [b"-", b"0", b"-0", b"1e1", b".0", b",", b"[", b"{", b'"', b"\\u0061", b"null",
             b'"a":1,', b"true", b" ", b"\n", b"\x00", b"99999999999999999999"])),
    ),
    min_size=1,
    max_size=3,
)  # fmt: skip


def mutated(content: bytes, mutations: list) -> bytes:
    for what, where, value in mutations:
        at = where % (len(content) + 1)
        if what == "set":
            content = content[:at] + bytes([value]) + content[at + 1 :]
        elif what == "cut":
            content = content[:at] + content[at + value :]
        else:
            content = content[:at] + value + content[at:]
    return content
