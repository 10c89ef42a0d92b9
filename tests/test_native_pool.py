"""The engine's C++ drivers (tests/native), built here and run: parts that Python cannot reach.

tests/native/sanitize.sh runs the same ones under the sanitizers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DRIVERS = ROOT / "tests" / "native"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
if not (ROOT / "csrc").exists() or COMPILER is None:
    pytest.skip("no sources of the engine, or no C++ compiler, here", allow_module_level=True)


def test_pool_and_cpu_quotas(tmp_path):
    """Every task once, stop, several callers, forks, control groups: see tests/native/pool.cpp."""
    driver = tmp_path / "pool"
    sources = [DRIVERS / "pool.cpp", *(ROOT / "csrc" / "base" / f for f in ("pool.cpp", "cpus.cpp"))]
    warn = ["-Wall", "-Wextra", "-Wshadow", "-Werror"]
    flags = ["-std=c++17", "-O1", *warn, f"-I{ROOT / 'csrc'}", "-pthread"]
    subprocess.run([COMPILER, *flags, "-o", driver, *sources], check=True)
    run = subprocess.run([driver], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1].startswith("more_threads")
