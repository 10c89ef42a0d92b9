"""The exported kit as a stranger reads it: written from kit.md alone, with struct and json."""

import json
import math
import struct

import numpy as np

FORMATS = {"<f8": "d", "<f4": "f", "<i8": "q", "F64": "d", "F32": "f", "I64": "q"}


def numbers(code, shape, data):
    n = math.prod(shape)
    return np.array(struct.unpack(f"<{n}{FORMATS[code]}", data)).reshape(shape)


def read_npy(path):
    data = path.read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    n = struct.unpack("<H", data[8:10])[0]
    text = data[10 : 10 + n].decode()
    assert "'fortran_order': False" in text
    code = text.split("'descr': '")[1].split("'")[0]
    shape = [int(i) for i in text.split("(")[1].split(")")[0].split(",") if i.strip()]
    return numbers(code, shape, data[10 + n :])


def read_safetensors(path):
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + n])
    header.pop("__metadata__")
    return {
        name: numbers(t["dtype"], t["shape"], data[8 + n :][slice(*t["data_offsets"])])
        for name, t in header.items()
    }


def verdict(folder, port, dtype, column):
    """The recipe of kit.md: names of the steps that are over their budget, of those in `port`."""
    expected = {f.name.removesuffix(".npy"): read_npy(f) for f in (folder / "expected").iterdir()}
    wrong = []
    for step in json.loads((folder / "case.json").read_text())["steps"]:
        name = step["tap"]
        if name not in port:
            continue
        rows, want = expected[step["rows"]], expected[name]
        axes = len(step["shape"]) - (want.ndim - 1)
        got = port[name].reshape(-1, *step["shape"][axes:])[rows]
        errors = []
        for g, w in zip(got, want, strict=True):
            scale = np.linalg.norm(w) or 1.0
            if name.startswith("rope."):
                scale = math.sqrt(w.size / 2)
            if w.size == 1:
                scale = math.sqrt(np.mean(want**2))
            errors.append(np.linalg.norm(g - w) / scale)
        budget = step["budget"][dtype][column]
        seen = {"mean": np.mean(errors), "p95": np.quantile(errors, 0.95), "max": np.max(errors)}
        if not all(seen[s] <= budget[s] for s in seen):
            wrong.append(name)
    return wrong
