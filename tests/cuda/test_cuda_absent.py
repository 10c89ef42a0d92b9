"""Without the library for CUDA all else is as it was, and who asks for a device is told why."""

from __future__ import annotations

import subprocess
import sys

import pytest

import refimpl
from refimpl.backends import backend, cuda


@pytest.fixture(autouse=True)
def _no_library(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("REFIMPL_CUDA_LIBRARY", str(tmp_path / "libmodernbert_cuda.so"))


def test_info_says_why_there_is_none():
    facts = refimpl.info()["cuda"]
    assert facts["built"] is False and facts["architectures"] == facts["devices"] == []
    assert facts["reason"].startswith("the library for CUDA was not built: ")
    assert "cuda" not in refimpl.info()["backends"]


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_model_on_a_device_is_refused(name):
    with pytest.raises(ValueError, match="backend 'cuda' is not available: the library for CUDA"):
        refimpl.ModernBERT.from_variant("tiny", backend=name)


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1", "cuda1", "cuda:1:2"])
def test_a_device_without_a_number_is_refused(name):
    with pytest.raises(ValueError, match="is not available"):
        backend.resolve(name, "float32")


def test_a_library_that_does_not_load_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path):
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    monkeypatch.setenv("REFIMPL_CUDA_LIBRARY", str(broken))
    facts = cuda.facts()
    assert facts["built"] is False and "does not load" in facts["reason"]


def test_a_stream_needs_arrays_of_a_device():
    model = refimpl.ModernBERT.from_variant("tiny", backend="numpy")
    with pytest.raises(ValueError, match="stream is 7, but input_ids are not on a device"):
        model.encode_packed([1, 2], [0, 2], stream=7)


def test_nobody_loads_it_who_does_not_ask():
    code = (
        "import sys, refimpl; refimpl.ModernBERT.from_variant('tiny', backend='numpy')([[1, 2]]); "
        "print([n for n in sys.modules if n.startswith('refimpl.backends.') and 'cuda' in n "
        "or n == 'refimpl.backends.device_arrays'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
