"""Which backend and tier are taken, what the environment may say, and what is told about it."""

from __future__ import annotations

import importlib.machinery
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.native import extension, tiers

import refimpl
from refimpl.backends import backend
from refimpl.backends.engine import Engine
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.params import encoder_shapes, initialise
from refimpl.reference.taps import record

WHY = "the extension was not built: no compiler"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("REFIMPL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def without(monkeypatch):
    """No extension here."""
    monkeypatch.setattr(backend, "_import_native", lambda: (None, WHY))


@pytest.fixture
def pretended(monkeypatch):
    """An extension that says it has three tiers, one of them out of reach, one of few dtypes."""

    def best_tier(cap):
        if cap not in ("", "big", "middle", "small"):
            raise ValueError(f"tier '{cap}' is unknown")
        return "small" if cap == "small" else "middle"

    module = SimpleNamespace(
        best_tier=best_tier,
        tiers=lambda: ["middle", "small"],
        missing_tiers=lambda: {"big": "the processor is small"},
        dtypes={"middle": ["float32", "bfloat16"], "small": ["float32"]}.__getitem__,
        default_threads=lambda: 3,
        compiler="cc 1",
    )
    monkeypatch.setattr(backend, "_import_native", lambda: (module, None))


# -- which backend --------------------------------------------------------------------------------


def test_auto_is_native_for_float32_and_numpy_for_the_rest(pretended, monkeypatch):
    assert backend.resolve("auto", "float32") == ("native", "float32")
    assert backend.resolve("auto", "bfloat16") == ("native", "bfloat16")
    assert backend.resolve("auto", "float64") == ("numpy", "float64")
    assert backend.resolve("auto", np.float64) == ("numpy", "float64")
    assert backend.resolve("numpy", "float32")[0] == "numpy"
    monkeypatch.setenv("REFIMPL_BACKEND", "numpy")
    assert backend.resolve("auto", "float32")[0] == "numpy"
    assert backend.resolve("native", "float32")[0] == "native"
    monkeypatch.setenv("REFIMPL_BACKEND", "native")
    assert backend.resolve("auto", "float32")[0] == "native"
    assert backend.resolve("auto", "float64")[0] == "numpy"
    monkeypatch.setenv("REFIMPL_BACKEND", "tpu")
    told = "REFIMPL_BACKEND is 'tpu': backend 'tpu' is not available; available: native, numpy"
    with pytest.raises(ValueError, match=told):
        backend.resolve("auto", "float32")


def test_refusal_names_the_variable_that_chose_the_backend(pretended, monkeypatch):
    monkeypatch.setenv("REFIMPL_BACKEND", "numpy")
    with pytest.raises(ValueError, match="^REFIMPL_BACKEND is 'numpy': dtype 'bfloat16' is not"):
        backend.resolve("auto", "bfloat16")
    with pytest.raises(ValueError, match="^dtype 'bfloat16' is not available on backend numpy"):
        backend.resolve("numpy", "bfloat16")


def test_without_the_extension_auto_is_numpy_unless_it_is_required(without, monkeypatch):
    assert backend.resolve("auto", "float32")[0] == "numpy"
    for name, value in (("REFIMPL_REQUIRE_NATIVE", "1"), ("REFIMPL_BACKEND", "native")):
        with monkeypatch.context() as m:
            m.setenv(name, value)
            with pytest.raises(ValueError, match=WHY):
                backend.resolve("auto", "float32")
            assert backend.resolve("auto", "float64")[0] == "numpy"
            assert backend.resolve("numpy", "float32")[0] == "numpy"
    for wanted, dtype in (("native", "float32"), ("auto", "bfloat16")):
        with pytest.raises(ValueError, match=f"'native' is not available: {WHY}; available: numpy"):
            backend.resolve(wanted, dtype)
    with pytest.raises(ValueError, match="available: numpy$"):
        backend.resolve("tpu", "float32")


@pytest.mark.parametrize(
    ("wanted", "dtype", "told"),
    [
        ("native", "float64", "'float64' is not available on backend native: float32, bfloat16$"),
        ("auto", "bf16x3", r"native: float32, bfloat16 \(bf16x3: tier middle lacks it, amx has it"),
        (
            "numpy",
            "bfloat16",
            "'bfloat16' is not available on backend numpy: float32, float64, int8$",
        ),
        (
            "auto",
            "float16",
            "'float16' is not available; available: float32, bfloat16, float64, int8$",
        ),
        (
            "numpy",
            "float16",
            "'float16' is not available on backend numpy: float32, float64, int8$",
        ),
    ],
)
def test_dtype_that_a_backend_or_tier_lacks_is_refused(pretended, wanted, dtype, told):
    with pytest.raises(ValueError, match=told):
        backend.resolve(wanted, dtype)


def test_dtype_follows_the_tier_that_is_left(pretended, monkeypatch):
    monkeypatch.setenv("REFIMPL_ISA", "small")
    with pytest.raises(ValueError, match=r"native: float32 \(bfloat16: tier small lacks it\)"):
        backend.resolve("auto", "bfloat16")


@pytest.mark.parametrize("name", ["auto", "numpy"])
def test_dtype_is_never_guessed(name, pretended):
    with pytest.raises(ValueError, match="dtype is None; available: float32, bfloat16, float64"):
        backend.resolve(name, None)


@pytest.mark.parametrize("value", ["0", "-3", "abc", "3.7", "2,4", "1e3", "two"])
def test_threads_variable_that_is_no_number_is_refused(pretended, monkeypatch, value):
    monkeypatch.setenv("REFIMPL_THREADS", value)
    told = f"REFIMPL_THREADS is {value!r}; it must be an int of at least 1"
    for refused in (lambda: backend.resolve("auto", "float32"), backend.info):
        with pytest.raises(ValueError, match=re.escape(told)):
            refused()
    assert backend.resolve("auto", "float32", 2)[0] == "native"  # not asked
    assert backend.resolve("auto", "float64")[0] == "numpy"


@pytest.mark.parametrize("value", ["", "2", " 02 "])
def test_threads_variable_may_be_empty_or_a_number(pretended, monkeypatch, value):
    monkeypatch.setenv("REFIMPL_THREADS", value)
    assert backend.info()["native"]["threads"] == 3


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_number_of_threads_is_checked(pretended, threads):
    assert backend.resolve("native", "float32", 2)[0] == "native"
    with pytest.raises(ValueError, match="num_threads is"):
        backend.resolve("native", "float32", threads)
    with pytest.raises(ValueError, match="threads of its BLAS"):
        backend.resolve("numpy", "float32", 2)


# -- what is told ---------------------------------------------------------------------------------


def test_info_tells_the_tier_and_why_others_are_left_out(pretended, monkeypatch):
    facts = backend.info()
    assert facts["backend"] == "native"
    assert facts["backends"]["native"] == ["float32", "bfloat16"]
    assert facts["native"] == {
        "available": True,
        "tier": "middle",
        "tiers": ["middle", "small"],
        "left_out": {"big": "the processor is small"},
        "dtypes_left_out": {
            "bf16x3": "tier middle lacks it, amx has it",
            "int8": "tier middle lacks it",
        },
        "threads": 3,
        "compiler": "cc 1",
        "library": str(backend.library()),
    }
    monkeypatch.setenv("REFIMPL_ISA", "small")
    capped = backend.info()["native"]
    assert capped["tier"] == "small"
    assert capped["left_out"]["middle"] == "REFIMPL_ISA is small"
    assert set(capped["dtypes_left_out"]) == {"bf16x3", "bfloat16", "int8"}
    monkeypatch.setenv("REFIMPL_ISA", "sse")
    with pytest.raises(ValueError, match="REFIMPL_ISA is 'sse': tier 'sse' is unknown"):
        backend.info()


def test_numpy_in_place_of_the_engine_is_told_once(without):
    backend._tell_once.cache_clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            assert backend.resolve("auto", "float32") == ("numpy", "float32")
        backend.resolve("numpy", "float32")
        backend.resolve("auto", "float64")
    assert [str(w.message) for w in told] == [f"{WHY}; numpy computes instead, slower"]
    assert [w.filename for w in told] == [__file__]


def test_info_tells_why_there_is_no_engine(without):
    facts = backend.info()
    assert facts["backend"] == "numpy" and list(facts["backends"]) == ["numpy"]
    assert facts["native"] == {"available": False, "why": f"{WHY}; numpy computes"}


def test_reason_that_the_build_left_is_told(tmp_path):
    package = Path(refimpl.__file__).parent
    room = tmp_path / "refimpl" / "backends"
    leave_out = shutil.ignore_patterns("*.so", "bundled", "__pycache__", "native_not_built.txt")
    shutil.copytree(package, tmp_path / "refimpl", ignore=leave_out)

    def told() -> str:
        code = "from refimpl import info; print(info()['native']['why'])"
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=env, check=True,
            capture_output=True, text=True,
        ).stdout  # fmt: skip

    assert told().startswith("the extension was not built: ")
    (room / "native_not_built.txt").write_text("command 'g++' failed\n")
    assert told() == "the extension was not built: command 'g++' failed; numpy computes\n"
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (room / f"_native{suffix}").write_text("no library")
    assert told().startswith("the extension does not load: ")


# -- with the engine ------------------------------------------------------------------------------


def tiny(**options):
    return refimpl.ModernBERT.from_variant("tiny", pretrained=True, **options)


@pytest.fixture
def native():
    return extension()


IDS = [[1, 17, 42, 2], [1, 17, 2, 3]]


def test_cap_is_obeyed(native, monkeypatch):
    config = ModernBertConfig.from_variant("tiny", num_hidden_layers=1)
    params = initialise(encoder_shapes(config), config, 0, np.dtype("float32"))
    for tier in tiers():
        monkeypatch.setenv("REFIMPL_ISA", tier)
        assert Engine(config, params).tier == tier == backend.info()["native"]["tier"]
        model = tiny()
        model(IDS)
        assert model._engine.get().tier == tier
    # of a cap that is not here, the best of the machine's below it
    order = ["amx", "avx512bf16", "avx512", "avx2", "neon", "scalar"]
    for tier in native.missing_tiers():
        below = order[order.index(tier) :]
        assert native.best_tier(tier) == next(t for t in native.tiers() if t in below)
    with pytest.raises(ValueError, match="tier 'sse' is unknown; this build has .*scalar"):
        native.best_tier("sse")


def test_steps_states_and_maps_are_the_references(native):
    model, plain = tiny(), tiny(backend="numpy")
    steps, same = {}, {}
    ours = model(IDS, output_hidden_states=True, output_attentions=True, tap=record(steps))
    theirs = plain(IDS, output_hidden_states=True, output_attentions=True, tap=record(same))
    assert model._engine._engine is None, "it was packed, and nobody needed it"
    assert steps.keys() == same.keys()
    for name in same:
        np.testing.assert_array_equal(steps[name], same[name])
    for a, b in zip(ours["attentions"] + ours["hidden_states"],
                    theirs["attentions"] + theirs["hidden_states"], strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)


def test_encoder_of_a_task_shares_its_engine(native):
    model = refimpl.load(refimpl.models.model.BUNDLED)
    expected = model(IDS)["logits"]
    assert model.encoder._engine is model._engine
    assert expected.shape == (2, 4, model.config.vocab_size)
    model.encoder(IDS)
    assert model.encoder._engine.get() is model._engine.get()


def test_predict_and_packing_run_on_the_engine(native):
    model = tiny(num_threads=2)
    whole = model({"input_ids": IDS})["last_hidden_state"]
    steps = model.predict({"input_ids": IDS}, batch_size=1)["last_hidden_state"]
    np.testing.assert_array_equal(steps, whole)
    packed = model.encode_packed([*IDS[0], *IDS[1]], [0, 4, 8])
    np.testing.assert_array_equal(packed, whole.reshape(8, -1))
    assert model._engine.get().num_threads == 2
