"""Verbs and pipelines with backend cuda, whose device is this processor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.budget import FACTOR, relative_l2
from support.cuda import stand_in, usable

from refimpl import ModernBERT, SentenceEncoder, pipeline
from refimpl.cli import main

# A minute to build, and a kernel is slow here.
pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("its_library")]
if not usable():
    pytest.skip("no sources of the engine, or no C++ compiler, here", allow_module_level=True)

TEXTS = ["for i in range(10):", "def f(x):", "import numpy as np"]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
    assert main([*arguments, "--format", "jsonl"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_bench_measures_a_device_and_says_what_of_it_is_taken(capsys):
    short, long = told(
        capsys, "bench", "--backend", "cuda", "--shapes", "1x16,2x40", "--seconds", "0"
    )
    assert (short["backend"], short["tier"], short["threads"]) == ("cuda", "cuda:0", None)
    model = ModernBERT.from_variant("tiny", pretrained=True, backend="cuda")
    opened = model.engine.opened
    for record, total, texts in ((short, 16, 1), (long, 80, 2)):
        taken = opened.facts.weight_bytes + opened.workspace_bytes(total, texts)
        assert record["device_mib"] == taken / 2**20
        assert 0 < record["error"] < 1e-5
    (here,) = told(capsys, "bench", "--backend", "numpy", "--shapes", "1x16", "--seconds", "0")
    assert here["device_mib"] is None


def test_info_tells_what_was_found(here: Path, capsys):
    with stand_in(here, devices=2):
        (found,) = told(capsys, "info")
    assert found["cuda"]["built"] is True and found["cuda"]["reason"] is None
    assert [d[:6] for d in found["cuda"]["devices"]] == ["cuda:0", "cuda:1"]
    assert found["backends"]["cuda"] == ["float32", "bf16x3", "bfloat16"]


@pytest.mark.parametrize("dtype", ["float32", "bf16x3"])
def test_vectors_of_texts_are_as_near_to_float64_as_numpys(dtype: str):
    vectors = {}
    for backend, how in (("numpy", "float64"), ("numpy", "float32"), ("cuda:0", dtype)):
        encoder = SentenceEncoder(backend=backend, dtype=how)
        vectors[backend, how] = encoder.encode(TEXTS).astype(np.float64)
    truth = vectors["numpy", "float64"]
    legitimate = relative_l2(vectors["numpy", "float32"], truth).max()
    wider = {"float32": 1, "bf16x3": 2.0**8}[dtype]
    assert relative_l2(vectors["cuda:0", dtype], truth).max() <= FACTOR * wider * legitimate


def test_a_pipeline_takes_it():
    found = pipeline("fill-mask", backend="cuda")("for i in [MASK](10):")
    expected = pipeline("fill-mask", backend="numpy")("for i in [MASK](10):")
    assert [f["token_str"] for f in found] == [e["token_str"] for e in expected]


def test_verify_judges_it(capsys):
    arguments = ["--case", "plain-short", "--partial", "--no-runtime"]
    assert main(["verify", "--engine", "cuda", *arguments]) == 0
    assert "1 of 27 cases" in capsys.readouterr().out


def test_threads_are_refused(capsys):
    assert main(["embed", "--backend", "cuda", "--threads", "2", "x"]) in (1, 2)
    assert "a device has threads of its own" in capsys.readouterr().err
