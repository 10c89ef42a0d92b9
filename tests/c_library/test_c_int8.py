"""int8 through the C interface: what int8.json keeps, in a folder and in memory, as in Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.c_interface import (
    BAD_FILE,
    INVALID,
    Failed,
    Model,
    check,
    config_of,
    ffi,
    input_of,
    lib,
    struct,
    tensors_of,
)
from support.folders import make_folder

from refimpl.backends.engine import Engine
from refimpl.errors import ModelFormatError
from refimpl.files.certificate import CERTIFICATE, read_certificate
from refimpl.files.folder import ModelFolder

IDS = np.array([1, 7, 3, 0, 19, 2], np.int64)
KEPT = ["layers.0.attn.Wqkv", "layers.2.mlp.Wo", "layers.2.attn.Wo", "layers.1.mlp.Wi"]


def hidden(folder: Path) -> np.ndarray:
    return Model.open(folder, dtype=ffi.new("char[]", b"int8")).forward(
        input_of([0, 4, 6], ids=IDS), 6
    )


@pytest.mark.parametrize("kept", [None, [], KEPT[:1], KEPT])
def test_a_folder_keeps_what_its_certificate_says(tmp_path: Path, kept: list[str] | None) -> None:
    config, params = make_folder(tmp_path)
    if kept is not None:
        (tmp_path / CERTIFICATE).write_text(json.dumps({"kept": kept}))
    engine = Engine(config, params, 1, dtype="int8", kept=kept or ())
    expected = engine.packed(IDS, np.array([0, 4, 6]))
    np.testing.assert_array_equal(hidden(tmp_path), expected)
    if kept:
        plain = Engine(config, params, 1, dtype="int8").packed(IDS, np.array([0, 4, 6]))
        assert not np.array_equal(plain, expected)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"kept": None},
        {"kept": "layers.0.mlp.Wo"},
        {"kept": {"a": 1}},
        {"kept": ["layers.3.mlp.Wo"]},
        {"kept": ["layers.00.mlp.Wo"]},
        {"kept": ["layers.0.mlp.Wo", 3]},
        {"kept": [["x"]]},
        [],
    ],
)
def test_a_wrong_certificate_is_refused_by_both_in_the_same_words(
    tmp_path: Path, content: Any
) -> None:
    make_folder(tmp_path)
    (tmp_path / CERTIFICATE).write_text(json.dumps(content))
    with pytest.raises(ModelFormatError) as python:
        read_certificate(ModelFolder(tmp_path), 3)
    with pytest.raises(Failed) as c:
        hidden(tmp_path)
    assert c.value.status == BAD_FILE and str(c.value).endswith(str(python.value))
    Model.open(tmp_path)  # float32 does not ask


def test_a_model_in_memory_keeps_what_it_is_told(tmp_path: Path) -> None:
    config, params = make_folder(tmp_path)
    names = ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
    bits = ffi.new("uint32_t[]", [1, 4, 2 + 8])

    def created(bits: Any) -> Model:
        out = ffi.new("modernbert_model **")
        tensors, alive = tensors_of(params)
        options = struct("options", dtype=ffi.new("char[]", b"int8"))
        given = config_of(config, kept=bits)
        check(lib.modernbert_create(given, tensors, len(params), options, out))
        return Model(out[0], alive)

    kept = [f"layers.{i}.{n}" for i in range(3) for m, n in enumerate(names) if bits[i] >> m & 1]
    assert sorted(kept) == sorted(KEPT)
    expected = Engine(config, params, 1, dtype="int8", kept=kept).packed(IDS, np.array([0, 6]))
    np.testing.assert_array_equal(created(bits).forward(input_of([0, 6], ids=IDS), 6), expected)
    with pytest.raises(Failed, match=r"config->kept\[1\] is 16; it must be in 0 .. 15") as refused:
        created(ffi.new("uint32_t[]", [0, 16, 0]))
    assert refused.value.status == INVALID
