"""Every kernel of every tier in C++ alone: tests/native/kernels.cpp, built here and run.

What Python cannot see: memory around the outputs, reads beyond the inputs, single calls on single
pieces. tests/native/emulated.sh runs the same program on processors that are not here.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.native import extension, tiers

native = extension()
pytestmark = pytest.mark.heavy  # builds most of the engine once more
ROOT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
if not (ROOT / "csrc").exists() or COMPILER is None:
    pytest.skip("no sources of the engine, or no C++ compiler, here", allow_module_level=True)

WHAT = {"pack", "project", "project_glu", "project_qkv", "layer_norm", "norm_operand", "to_operand"}
WHAT |= {"glu", "rope", "attention", "forward"}


NATIVE = ROOT / "tests" / "native"
WITH_TILES = (ROOT / "csrc" / "tiers" / "amx.cpp", NATIVE / "kernels.cpp")


def built(place: Path, objects: dict[Path, Path], sources: Iterable[Path], *more: object) -> Path:
    """The program in a folder: of objects that are there, and of sources compiled with `more`.

    Optimised a little: this is about what is computed, and the build must not take long.
    """
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", f"-I{ROOT / 'csrc'}", *more, "-c"]

    def compiled(source: Path) -> Path:
        out = place / f"{source.parent.name}-{source.stem}.o"
        subprocess.run([COMPILER, *flags, source, "-o", out], check=True)
        return out

    sources = list(sources)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = objects | dict(zip(sources, pool.map(compiled, sources), strict=True))
    program = place / "kernels"
    subprocess.run([COMPILER, *objects.values(), "-o", program, "-pthread"], check=True)
    return program


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Source -> object of what is the same in both programs."""
    place = tmp_path_factory.mktemp("objects")
    sources = [
        p for part in ("base", "tiers", "engine") for p in (ROOT / "csrc" / part).glob("*.cpp")
    ]
    built(place, {}, [*sources, NATIVE / "kernels.cpp"])
    return {s: place / f"{s.parent.name}-{s.stem}.o" for s in sources if s not in WITH_TILES}


@pytest.fixture(scope="module")
def program(objects):
    return next(iter(objects.values())).parent / "kernels"


@pytest.fixture(scope="module")
def program_with_plain_tiles(objects, tmp_path_factory):
    place = tmp_path_factory.mktemp("tiles")
    return built(place, objects, WITH_TILES, "-include", NATIVE / "plain_tiles.h")


def lines(program: Path, *options: str) -> tuple[int, list[str]]:
    run = subprocess.run([program, *options], capture_output=True, text=True)
    return run.returncode, run.stdout.splitlines()


@pytest.mark.parametrize("tier", tiers())
def test_every_kernel_stays_within_its_bound_and_its_memory(program, tier, record_property):
    status, report = lines(program, "--tier", tier, "--rounds", "4")
    assert status == 0, "\n".join(report)
    assert {line.split()[0] for line in report[:-1]} == {tier}
    assert {line.split()[2] for line in report[:-1]} >= WHAT
    worst = max(float(re.search(r"worst error ([\d.]+)", line)[1]) for line in report[:-1])
    record_property("observed / bound", worst)


def test_one_short_sequence_has_work_for_64_threads_on_every_tier(program):
    """Counted, on tiers that do not run here too."""
    status, report = lines(program, "--tasks")
    counts = {tuple(line.split()[:2]): int(line.split()[2]) for line in report[:-1]}
    assert status == 0 and {tier for tier, _ in counts} >= set(tiers())
    assert min(counts.values()) >= 64
    if platform.machine() == "x86_64" and ("amx", "bfloat16") in counts:
        assert counts["amx", "bfloat16"] == 96 and counts["avx512", "float32"] == 120


@pytest.mark.skipif("avx512" not in tiers(), reason="needs AVX-512")
@pytest.mark.skipif("amx" in tiers(), reason="its own tiles are tested above")
def test_amx_with_tiles_in_plain_code_stays_within_its_bounds(program_with_plain_tiles):
    """The amx tier where there are its vectors and no tiles (plain_tiles.h), in parts and whole."""
    status, report = lines(program_with_plain_tiles, "--tier", "amx", "--rounds", "1")
    if "not here" in report[0]:
        pytest.skip(report[0])
    assert status == 0, "\n".join(report)
    assert {line.split()[2] for line in report[:-1]} >= WHAT


def test_seed_chooses_the_cases_and_nothing_to_do_is_a_failure(program):
    first, again, other = (
        lines(program, "--tier", "scalar", "--op", "project", "--seed", seed) for seed in "112"
    )
    assert first == again != other
    assert lines(program, "--tier", "sse")[0] == 1
