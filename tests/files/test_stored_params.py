"""Parameters stay as they are in the file: nothing is widened unasked, nothing stays in memory."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
from support.folders import make_folder, small_config, small_params
from support.process_memory import in_linux, resident

from refimpl import ModernBERT
from refimpl.backends.backend import why_not_native
from refimpl.files import stored as stored_module
from refimpl.files.bfloat16 import BFLOAT16, to_bits, widen
from refimpl.files.checkpoint import read_checkpoint, write_checkpoint
from refimpl.files.safetensors import open_safetensors
from refimpl.files.stored import ForProducts, StoredParams, any_infinite, widened
from refimpl.models.task_model import load
from refimpl.reference import ops
from refimpl.reference.heads import HEADS

MLM = HEADS["masked_lm"]
EMBEDDING, WI = "embeddings.tok_embeddings.weight", "layers.1.mlp.Wi.weight"
STORED = {"float32": np.float32, "float16": np.float16, "bfloat16": BFLOAT16}
on_disk = pytest.mark.parametrize("dtype", STORED)


def as_stored(x: np.ndarray, dtype: str) -> np.ndarray:
    return to_bits(x).view(BFLOAT16) if dtype == "bfloat16" else x.astype(dtype)


X = np.arange(-6, 6, dtype=np.float32).reshape(4, 3)  # exact in every dtype


# -- looking --------------------------------------------------------------------------------------


@on_disk
@pytest.mark.parametrize("asked", [np.float32, np.float64])
def test_stored_array_is_seen_in_the_dtype_asked(dtype, asked):
    params = StoredParams({"w": as_stored(X, dtype)}, asked)
    assert params["w"].dtype == asked and params.get("v") is None
    np.testing.assert_array_equal(params["w"], X)
    assert params["w"] is params["w"], "a wider copy is made once"
    assert (params["w"] is params.stored["w"]) == (STORED[dtype] == asked)


def test_wider_copy_is_not_kept_where_it_must_not_be():
    params = StoredParams(dict.fromkeys("vw", as_stored(X, "bfloat16")), np.float32, "w")
    assert params["w"] is not params["w"] and params["v"] is params["v"]
    assert params.only("v")["v"] is params["v"]
    assert list(params.only("v")) == ["v"]


def test_nothing_is_widened_to_learn_what_there_is(monkeypatch):
    params = StoredParams({"w": as_stored(X, "float16")}, np.float32)
    monkeypatch.setattr(stored_module, "widened", None)
    assert "w" in params and "v" not in params and list(params) == ["w"] and len(params) == 1
    with pytest.raises(TypeError):
        params["w"] = X  # changed weights are another model


@on_disk
@pytest.mark.parametrize("unkept", ["", "w"])
def test_product_by_blocks_of_rows_is_that_of_the_whole_matrix(dtype, unkept, monkeypatch):
    monkeypatch.setattr(stored_module, "BLOCK", 5)  # one row
    params = StoredParams({"w": as_stored(X, dtype)}, np.float32, unkept)
    matrix = ForProducts(params)["w"]
    x = np.stack([X[:2], X[2:]])
    for bias in (None, np.arange(4, dtype=np.float32)):
        y = ops.linear(x, matrix, bias)
        np.testing.assert_array_equal(y, ops.linear(x, X, bias))  # integers: exact
    seen = []
    monkeypatch.setattr(
        stored_module, "widened", lambda w, to: seen.append(len(w)) or widened(w, to)
    )
    ops.linear(x, matrix)
    assert seen == ([1, 1, 1, 1] if unkept == "w" and dtype != "float32" else [])


@pytest.mark.parametrize("dtype", [*STORED, "float64", ">f4"])
def test_infinities_and_nan_are_told_from_all_that_is_finite(dtype):
    largest = {"float16": 65504.0, "bfloat16": float(widen(np.uint16([0x7F7F]))[0])}
    most = largest.get(dtype) or float(np.finfo(dtype).max)
    finite = np.array([0.0, -0.0, most, -most, 1e-7], np.float64)
    make = (lambda x: as_stored(x, dtype)) if dtype in STORED else (lambda x: x.astype(dtype))
    assert not any_infinite(make(finite)) and not any_infinite(make(finite[:0]))
    for bad in (np.inf, -np.inf, np.nan):
        for i in range(5):
            x = finite.copy()
            x[i] = bad
            assert any_infinite(make(x))


# -- models ---------------------------------------------------------------------------------------


@on_disk
def test_model_from_a_file_holds_what_the_file_holds(tmp_path: Path, dtype):
    _, params = make_folder(tmp_path, MLM, dtype=dtype)
    model = load(tmp_path, backend="numpy")
    for name, x in params.items():
        assert model.params.stored[name].dtype == STORED[dtype]
        np.testing.assert_array_equal(model.params[name], widened(as_stored(x, dtype), np.float32))
    ids = np.array([[1, 5, 7, 2]])
    expected = load(tmp_path, backend="numpy").encoder(ids)["last_hidden_state"]
    np.testing.assert_array_equal(model.encoder(ids)["last_hidden_state"], expected)
    assert model.encoder.params[WI] is model.params[WI], "widened once for both"


@on_disk
def test_model_from_a_file_is_saved_as_it_was_read(tmp_path: Path, dtype):
    make_folder(tmp_path / "a", MLM, dtype=dtype)
    load(tmp_path / "a", dtype="float64").save_pretrained(tmp_path / "b")
    one, two = (open_safetensors(tmp_path / n / "model.safetensors") for n in "ab")
    assert list(one) == list(two)
    for name in one:
        assert one[name].dtype == two[name].dtype
        np.testing.assert_array_equal(one[name].array(), two[name].array())
    ModernBERT.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "c", dtype="float32")
    wide = read_checkpoint(tmp_path / "c").params
    assert wide.stored[WI].dtype == np.float32
    np.testing.assert_array_equal(wide[WI], read_checkpoint(tmp_path / "a").params[WI])


def test_model_of_several_dtypes_keeps_each(tmp_path: Path):
    config = small_config()
    params = small_params(config, None)
    mixed = {n: as_stored(x, "bfloat16") if x.ndim == 2 else x for n, x in params.items()}
    write_checkpoint(tmp_path, config, StoredParams(mixed, np.float32), None)
    found = read_checkpoint(tmp_path).params
    assert {x.dtype for x in found.stored.values()} == {np.dtype(np.float32), BFLOAT16}
    assert all(np.array_equal(found.stored[n], x) for n, x in mixed.items())


def test_dtype_that_the_parameters_do_not_have_is_refused():
    config = small_config()
    with pytest.raises(ValueError, match="'float64', which takes params in float64; these are"):
        ModernBERT(config, small_params(config, None), dtype="float64")


# -- memory ---------------------------------------------------------------------------------------


BIG = dict(vocab_size=400_000)  # 3.2 million values, and small tensors around them


@in_linux
@on_disk
def test_pages_that_the_checks_read_do_not_stay(tmp_path: Path, dtype):
    make_folder(tmp_path, MLM, dtype=dtype, tie_word_embeddings=True, **BIG)
    file = tmp_path / "model.safetensors"
    found = read_checkpoint(tmp_path)
    few = 4 * mmap.PAGESIZE * len(found.params)  # each tensor may leave its edges, and a chunk's
    assert resident(file) < few < file.stat().st_size // 4
    found.params.stored[EMBEDDING].view(np.uint8).sum()
    assert resident(file) > few, "reading brings pages in, so there was something to let go of"


@in_linux
@on_disk
def test_engine_leaves_no_page_that_it_packed_and_widens_nothing(
    tmp_path: Path, dtype, monkeypatch
):
    if why_not_native() is not None:
        pytest.skip(why_not_native())
    sizes = dict(hidden_size=256, intermediate_size=512, num_attention_heads=4)
    make_folder(tmp_path, dtype=dtype, **sizes)
    monkeypatch.setattr(stored_module, "widened", None)
    model = ModernBERT.from_pretrained(tmp_path, backend="native")
    file = tmp_path / "model.safetensors"
    model([[1, 5, 7, 2]])
    # The edges of tensors stay, small ones with their neighbours, and what reading them brings in.
    assert resident(file) < file.stat().st_size // 4
    assert not model.params._kept
