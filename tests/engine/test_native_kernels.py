"""Every kernel of every tier in C++ alone: tests/native/kernels.cpp, built here and run.

What Python cannot see: memory around the outputs, reads beyond the inputs, single calls on single
pieces. tests/native/emulated.sh runs the same program on processors that are not here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
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


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Optimised a little: this is about what is computed, and the build must not take long."""
    place = tmp_path_factory.mktemp("kernels")
    sources = [
        p for part in ("base", "tiers", "engine") for p in (ROOT / "csrc" / part).glob("*.cpp")
    ]
    sources.append(ROOT / "tests" / "native" / "kernels.cpp")
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", f"-I{ROOT / 'csrc'}", "-c"]

    def compiled(source: Path) -> Path:
        out = place / f"{source.parent.name}-{source.stem}.o"
        subprocess.run([COMPILER, *flags, source, "-o", out], check=True)
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources))
    subprocess.run([COMPILER, *objects, "-o", place / "kernels", "-pthread"], check=True)
    return place / "kernels"


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


def test_seed_chooses_the_cases_and_nothing_to_do_is_a_failure(program):
    first, again, other = (
        lines(program, "--tier", "scalar", "--op", "project", "--seed", seed) for seed in "112"
    )
    assert first == again != other
    assert lines(program, "--tier", "sse")[0] == 1
