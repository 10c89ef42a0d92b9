"""int8 through the C interface: what int8.json keeps, in a folder and in memory, and of which
weights it is, as in Python."""

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
from refimpl.files.certificate import CERTIFICATE, digest_of_weights, read_certificate
from refimpl.files.checkpoint import read_checkpoint, write_checkpoint
from refimpl.files.folder import ModelFolder
from refimpl.reference.int8 import KEPT_IN

IDS = np.array([1, 7, 3, 0, 19, 2], np.int64)
KEPT = {
    "layers.0.attn.Wqkv": "bfloat16",
    "layers.2.mlp.Wo": "float32",
    "layers.2.attn.Wo": "bfloat16",
    "layers.1.mlp.Wi": "float32",
}
ONE = {"layers.0.attn.Wqkv": "bfloat16"}


def hidden(folder: Path) -> np.ndarray:
    return Model.open(folder, dtype=ffi.new("char[]", b"int8")).forward(
        input_of([0, 4, 6], ids=IDS), 6
    )


def certify(folder: Path, **values: Any) -> None:
    content = {"format": 1, "weights": "", "kept": {}, "balanced": True, "measured": {}}
    content |= {"figures": {}, "gate": {}}
    seen = {"count": 1, "tokens": 1, "digest": ""}
    content |= {"texts": seen, "calibration": seen} | values
    content = {key: value for key, value in content.items() if value != "missing"}
    (folder / CERTIFICATE).write_text(json.dumps(content))


@pytest.mark.parametrize("kept", [None, {}, ONE, KEPT])
def test_a_folder_keeps_what_its_certificate_says(
    tmp_path: Path, kept: dict[str, str] | None
) -> None:
    config, params = make_folder(tmp_path)
    if kept is not None:
        certify(tmp_path, kept=kept)
    engine = Engine(config, params, 1, dtype="int8", kept=kept)
    expected = engine.packed(IDS, np.array([0, 4, 6]))
    np.testing.assert_array_equal(hidden(tmp_path), expected)
    if kept:
        others = [{}, *({**kept, name: dtype} for name in kept for dtype in KEPT_IN)]
        for other in (x for x in others if x != kept):
            engine = Engine(config, params, 1, dtype="int8", kept=other)
            assert not np.array_equal(engine.packed(IDS, np.array([0, 4, 6])), expected), other


@pytest.mark.parametrize(
    "content",
    [
        {"kept": "missing"},
        {"kept": None},
        {"kept": "layers.0.mlp.Wo"},
        {"kept": ["layers.0.mlp.Wo"]},
        {"kept": {"layers.0.mlp.Wo": "bfloat16", "a": "bfloat16"}},
        {"kept": {"layers.3.mlp.Wo": "float32"}},
        {"kept": {"layers.00.mlp.Wo": "float32"}},
        {"kept": {"layers.0.mlp.Wo": "float16"}},
        {"kept": {"layers.0.mlp.Wo": 3}},
        {"kept": {"layers.0.mlp.Wo": ["bfloat16"]}},
        {"format": "missing"},
        {"format": 2},
        {"format": -1},
        {"format": 1.0},
        {"format": True},
        {"format": None},
        {"weights": "missing"},
        {"weights": 3},
        {"weights": {"a": "b"}},
    ],
)
def test_a_wrong_certificate_is_refused_by_both_in_the_same_words(
    tmp_path: Path, content: Any
) -> None:
    make_folder(tmp_path)
    certify(tmp_path, **content)
    with pytest.raises(ModelFormatError) as python:
        read_certificate(ModelFolder(tmp_path), 3)
    with pytest.raises(Failed) as c:
        hidden(tmp_path)
    assert c.value.status == BAD_FILE and str(c.value).endswith(str(python.value))
    Model.open(tmp_path)  # float32 does not ask


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("packed", [False, True])
def test_whether_it_is_of_these_weights_is_told(tmp_path: Path, dtype: str, packed: bool) -> None:
    """By the digest that Python makes, whatever the file stores, and over a pack too."""
    make_folder(tmp_path, dtype=dtype)
    digest = digest_of_weights(read_checkpoint(tmp_path).params, 3)

    int8 = ffi.new("char[]", b"int8")

    def told() -> int:
        pack = lib.MODERNBERT_PACK_TAKEN
        if packed:
            check(lib.modernbert_pack(str(tmp_path).encode(), struct("options", dtype=int8)))
            pack = lib.MODERNBERT_PACK_NEEDED
        return Model.open(tmp_path, dtype=int8, pack=pack).facts().certificate

    assert told() == lib.MODERNBERT_NOT_MEASURED
    certify(tmp_path, weights=digest)
    assert told() == lib.MODERNBERT_MEASURED
    assert Model.open(tmp_path).facts().certificate == lib.MODERNBERT_NOT_MEASURED  # of float32
    certify(tmp_path, weights=digest[:-1] + ("0" if digest[-1] != "0" else "1"))
    assert told() == lib.MODERNBERT_OTHERS_MEASURED


@pytest.mark.parametrize("row", [0, 1, -1])
def test_weights_that_change_are_others(tmp_path: Path, row: int) -> None:
    config, params = make_folder(tmp_path)
    certify(tmp_path, weights=digest_of_weights(params, 3))
    changed = {n: np.array(x) for n, x in params.items()}
    weight = changed["layers.2.mlp.Wi.weight"]
    weight[len(weight) // 2 if row == 1 else row, -1] += 1
    write_checkpoint(tmp_path, config, changed, None)
    certificate = Model.open(tmp_path, dtype=ffi.new("char[]", b"int8")).facts().certificate
    assert certificate == lib.MODERNBERT_OTHERS_MEASURED


def test_a_model_in_memory_keeps_what_it_is_told(tmp_path: Path) -> None:
    config, params = make_folder(tmp_path)
    names = ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
    bits = ffi.new("uint32_t[]", [1, 16 * 4, 2 + 16 * 8])

    def created(bits: Any) -> Model:
        out = ffi.new("modernbert_model **")
        tensors, alive = tensors_of(params)
        options = struct("options", dtype=ffi.new("char[]", b"int8"))
        given = config_of(config, kept=bits)
        check(lib.modernbert_create(given, tensors, len(params), options, out))
        return Model(out[0], alive)

    kept = {
        f"layers.{i}.{n}": dtype
        for i in range(3)
        for m, n in enumerate(names)
        for d, dtype in enumerate(KEPT_IN)
        if bits[i] >> m + 4 * d & 1
    }
    assert kept == KEPT
    expected = Engine(config, params, 1, dtype="int8", kept=kept).packed(IDS, np.array([0, 6]))
    np.testing.assert_array_equal(created(bits).forward(input_of([0, 6], ids=IDS), 6), expected)
    for wrong, words in ((256, "it must be in 0 .. 255"), (17 * 4, "not in both")):
        with pytest.raises(Failed, match=rf"config->kept\[1\] is {wrong}.*{words}") as refused:
            created(ffi.new("uint32_t[]", [0, wrong, 0]))
        assert refused.value.status == INVALID
