"""benchmarks/gpu.py and gpu_floors.py: what they count and read, and all of the first on this
processor. Nothing is timed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.cuda import ROOT, SOURCES, built, lines, usable

from refimpl.reference.config import ModernBertConfig
from refimpl.reference.ops import visible

if not SOURCES:
    pytest.skip("no sources of the engine here", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def _beside_the_benchmarks():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield


@pytest.fixture
def gpu():
    import gpu

    return gpu


@pytest.fixture
def gpu_floors():
    import gpu_floors

    return gpu_floors


# -- floors ---------------------------------------------------------------------------------------


def test_work_counts_weights_once_and_every_pair_that_sees_one_another(gpu_floors):
    config = ModernBertConfig.from_variant(
        "tiny", hidden_size=24, num_attention_heads=2, intermediate_size=10, num_hidden_layers=4,
        local_attention=10,
    )  # fmt: skip
    lengths = (1, 4, 6, 7, 40)
    pairs = 0
    for i in range(4):
        for n in lengths:
            pairs += int(visible(np.arange(n), np.arange(n), config.window(i)).sum())
    numbers = 4 * (3 * 24 * 24 + 24 * 24 + 2 * 10 * 24 + 10 * 24)
    found = gpu_floors.work(config, lengths, 2)
    assert found["bytes"] == 2 * numbers + sum(lengths) * (8 + 4 * 24)
    # Of a pair: a product with a key, and one with a value.
    assert found["flops"] == 2 * sum(lengths) * numbers + 4 * 24 * pairs
    assert found["launches"] == 4 * 7 + 1
    assert gpu_floors.floor_seconds(found, found["bytes"], found["flops"] / 3) == 3.0
    assert gpu_floors.floor_seconds(found, found["bytes"] / 5, found["flops"]) == 5.0


REPORT = """
Fatbin elf code:
================
arch = sm_80
code version = [1,8]

Resource usage:
 Common:
  GLOBAL:0
 Function _ZN7refimpl4cuda14product_kernelINS_4bf16ELj1ELj4ENS0_5GatedINS0_4GeluES2_EEEEvNS0_7ProductIT_T2_EE:
  REG:128 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:448 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _ZN7refimpl4cuda16attention_kernelIfLj3ELj64EEEvNS0_9AttentionIT_EE:
  REG:168 STACK:16 SHARED:8 LOCAL:4 CONSTANT[0]:456 TEXTURE:0 SURFACE:0 SAMPLER:0

Fatbin elf code:
================
arch = sm_90a

 Function _ZN7refimpl4cuda11pool_kernelILNS_7PoolingE2EEEvNS0_4PoolE:
  REG:32 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:592 TEXTURE:0 SURFACE:0 SAMPLER:0
"""  # noqa: E501


def test_resource_report_is_read(gpu_floors):
    product, attention, pool = gpu_floors.kernels_in(REPORT)
    assert (product.architecture, product.registers, product.stack) == ("sm_80", 128, 0)
    assert (product.threads, product.shared) == (256, 3 * 256 * 40 * 2)
    assert gpu_floors.short_name(product) == "product bf16 1 4 Gelu"
    assert (attention.threads, attention.stack) == (128, 20)
    assert attention.shared == 8 + 2 * 64 * 72 * 4
    assert gpu_floors.short_name(attention) == "attention float 3 64"
    assert (pool.architecture, pool.threads, pool.shared) == ("sm_90a", 256, 2208)
    # 65,536 registers, 164 KB of shared memory; of sm_90 228 KB; 2,048 threads.
    assert (product.blocks, attention.blocks, pool.blocks) == (2, 3, 8)
    shown = gpu_floors.table({}, [product, attention, pool])
    assert len(shown.splitlines()) == 6 and "product bf16 1 4 Gelu" in shown
    with pytest.raises(ValueError, match="is no kernel of refimpl::cuda"):
        gpu_floors.launch_of("_Z3foov")


def test_floors_are_printed_without_a_library(gpu_floors, capsys):
    assert gpu_floors.main(["--variant", "base", "--flops", "1e15", "--bytes", "1e12"]) == 0
    first, *shown = capsys.readouterr().out.splitlines()
    found = json.loads(first)["floors"]
    assert len(shown) == 1 + 3 * len(gpu_floors.SHAPES)
    of = found["1x16"]["bfloat16"]
    assert of["bound by"] == "memory" and of["floor_s"] == pytest.approx(of["bytes"] / 1e12)
    of = found["64x512"]["float32"]
    assert of["bound by"] == "products" and of["floor_s"] == pytest.approx(6 * of["flops"] / 1e15)


@pytest.mark.heavy
@pytest.mark.skipif(not usable(), reason="needs a C++ compiler")
def test_blocks_are_started_as_the_report_says(gpu_floors, tmp_path):
    status, told = lines(built(tmp_path / "launches", "launches.cpp"))
    assert status == 0 and len(told) == 2 * 6 + 3
    for line in told:
        name, number, value, threads, shared = line.split()
        code = {"float": "If", "bf16": "INS_4bf16E", "-": "IN"}[number]
        mangled = f"_ZN7refimpl4cuda{len(name)}{name}{code}Lj1ELj{value}E"
        assert gpu_floors.launch_of(mangled) == gpu_floors.Launch(int(threads), int(shared))


# -- the script -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "said", "expected"),
    [
        ("memcheck", "========= ERROR SUMMARY: 0 errors", {"ok": True, "found": 0}),
        ("memcheck", "Invalid read\n=== ERROR SUMMARY: 3 errors", {"ok": False, "found": 3}),
        (
            "racecheck",
            "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)",
            {"ok": True, "found": 0},
        ),
        (
            "racecheck",
            "========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)",
            {"ok": False, "found": 2},
        ),
        ("racecheck", "ERROR SUMMARY: 0 errors", {"ok": False, "why": "ERROR SUMMARY: 0 errors"}),
        ("memcheck", "", {"ok": False, "why": "no output"}),
    ],
)  # fmt: skip
def test_what_the_sanitizer_says_is_read(gpu, tool, said, expected):
    assert gpu.summary_of(tool, said) == expected


def test_a_part_is_what_its_last_line_says(gpu):
    read = gpu.result_of
    assert read(0, 'noise\n{"ok": true, "x": 1}\n', "", 9) == {"ok": True, "x": 1}
    assert read(1, "", "Traceback\nValueError: no device\n", 9) == {
        "ok": False,
        "why": "ValueError: no device",
    }
    assert read(0, "nothing\n", "", 9) == {"ok": False, "why": "nothing"}
    assert read(-11, "", "", 9) == {"ok": False, "why": "no output"}
    assert read(None, "", "", 9) == {"ok": False, "why": "more than 9 s"}
    half = '{"ok": true, "s": {"1x16": 1.0}}\n{"ok": true, "s'
    late = {"ok": True, "s": {"1x16": 1.0}, "late": "more than 9 s"}
    assert read(None, half, "", 9) == late


def test_a_part_that_takes_too_long_is_ended_with_what_it_started(gpu, tmp_path, monkeypatch):
    """In place of the script one that starts a child and waits; its time is up when it has."""
    told, script = tmp_path / "child", tmp_path / "slow.py"
    script.write_text(
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(900)'])\n"
        'print(\'{"ok": true, "s": {}}\', flush=True)\n'
        f"pathlib.Path({str(told)!r}).write_text(str(child.pid))\n"
        "time.sleep(900)\n"
    )
    wait = subprocess.Popen.wait

    def until_it_has(self, timeout=None):
        while timeout is not None:
            if told.exists() and told.read_text():
                raise subprocess.TimeoutExpired("slow.py", timeout)
            time.sleep(0.05)
        return wait(self)

    monkeypatch.setattr(gpu, "__file__", str(script))
    monkeypatch.setattr(gpu.subprocess.Popen, "wait", until_it_has)
    found = gpu.run_part("sdpa", [], 60, None)
    assert found["ok"] is True and found["late"] == "more than 60 s"
    end = time.monotonic() + 60
    while is_alive(int(told.read_text())):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    """A process that nobody has waited for is not."""
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("part", ["packed", "sdpa", "compile", "sentence", "eager"])
def test_a_peer_that_is_not_here_says_so(gpu, part, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert gpu.PARTS[part](SimpleNamespace(limit=9, variant="tiny", rehearse="x", least=0)) == {
        "ok": None,
        "why": "torch is not installed",
    }


def test_of_several_ways_of_a_peer_the_fastest_counts_and_failures_are_told(gpu, monkeypatch):
    there = SimpleNamespace(is_available=lambda: True, synchronize=lambda: None)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=there))
    monkeypatch.setattr(gpu, "seconds_of", lambda run, *_: run())

    def fails(variant, torch):
        raise RuntimeError("no kernel\nfor this card")

    def long_ones_fail(variant, torch):
        return lambda lengths: lambda: 1.0 if lengths == (16,) else 1 / 0

    makers = {"a": lambda *_: lambda lengths: lambda: 2.0, "b": long_ones_fail, "c": fails}
    monkeypatch.setattr(gpu, "MAKERS", makers)
    args = SimpleNamespace(limit=60, variant="tiny", rehearse="x", least=0)
    assert gpu.timed_peers(args, "a", "b", "c") == {
        "ok": True,
        "s": {"1x16": 1.0, "2 queries": 2.0},
        "why": {
            "b, 2 queries": "ZeroDivisionError: division by zero",
            "c": "RuntimeError: no kernel",
        },
    }  # fmt: skip
    assert gpu.timed_peers(args, "c")["ok"] is None


def test_table_sets_a_shape_beside_its_floor_and_the_best_peer(gpu):
    took = {"took_s": 1.0}
    shape = {"s": 4e-3, "device_s": 2e-3, "no_graphs_s": 5e-3, "flops": 1e12, "bytes": 1e9}
    results = {
        "build": {"ok": True, **took},
        "bits": {"ok": False, "draws": 3, **took},
        "memcheck": {"ok": None, "why": "there is no compute-sanitizer here", **took},
        "ceilings": {"ok": True, "flops_per_s": 1e15, "bytes_per_s": 1e12, **took},
        "speed": {"ok": True, "64x512": shape, **took},
        "sdpa": {"ok": True, "s": {"64x512": 6e-3}, "why": {}, **took},
        "packed": {"ok": True, "s": {"64x512": 3e-3}, "why": {}, **took},
        "eager": {"ok": None, "why": "torch is not installed", **took},
    }
    *parts, last = gpu.table(results).splitlines()
    assert len(parts) == len(results)
    assert "FAILED" in parts[1] and "left out" in parts[2] and "compute-sanitizer" in parts[2]
    assert "2000 us on the device" in last and "5000 us kernel by kernel" in last
    assert "floor     1000 us, 50.0 % of the product rate" in last
    assert last.endswith("1.50 times the best peer (packed)")


def test_unknown_part_is_refused(gpu, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--only", "steps,speeed"])
    assert "--only 'speeed' is no part" in capsys.readouterr().err


@pytest.mark.heavy
@pytest.mark.skipif(not usable(), reason="needs a C++ compiler")
def test_all_of_it_runs_on_this_processor(gpu, here: Path, tmp_path, capsys):
    written = tmp_path / "found.json"
    arguments = ["--rehearse", str(here), "--json", str(written), "--seconds", "3600"]
    status = gpu.main(arguments)
    found = json.loads(written.read_text())
    assert status == 0, found
    assert list(found) == list(gpu.PARTS)
    assert all(found[n]["ok"] is True for n in ("build", "steps", "kit", "bits", "speed")), found
    assert found["bits"]["draws"] == 3
    for dtype in gpu.DTYPES:
        assert found["steps"][dtype]["worst in units"] > 0
    shown = capsys.readouterr().out.splitlines()
    assert json.loads(shown[0]) == found and len(shown) == 1 + len(found) + len(gpu.SMALL_SHAPES)
