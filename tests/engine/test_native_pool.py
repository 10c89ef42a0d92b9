"""The engine's C++ drivers (tests/native), built here and run: parts that Python cannot reach.

tests/native/sanitize.sh runs the same ones under the sanitizers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DRIVERS = ROOT / "tests" / "native"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
if not (ROOT / "csrc").exists() or COMPILER is None:
    pytest.skip("no sources of the engine, or no C++ compiler, here", allow_module_level=True)


WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Werror"]


def output_of(driver: Path, sources: list[str], folder: Path) -> str:
    """What a driver prints that is built of these files of csrc and ends well."""
    flags = ["-std=c++17", "-O1", f"-I{ROOT / 'csrc'}", "-pthread", *WARNINGS]
    files = [driver, *(ROOT / "csrc" / f for f in sources)]
    subprocess.run([COMPILER, *flags, "-o", folder / "driver", *files], check=True)
    run = subprocess.run([folder / "driver"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.heavy
def test_pool_and_cpu_quotas(tmp_path):
    """Every task once, stop, several callers, forks, control groups: see tests/native/pool.cpp."""
    out = output_of(DRIVERS / "pool.cpp", ["base/pool.cpp", "base/cpus.cpp"], tmp_path)
    assert out.splitlines()[-1].startswith("more_threads")
