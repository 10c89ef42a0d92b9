"""Programs of tests/cuda, which run the kernels of csrc/cuda on this processor."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
SOURCES = (ROOT / "csrc" / "cuda").exists()
# What a program needs of csrc beside headers: of the CPU engine what makes a pass of steps.
NUMBERS = ["base/tensor.cpp"]
ENGINE = ["engine/engine.cpp", "engine/forward.cpp", "engine/trace.cpp"]
ENGINE += ["base/pool.cpp", "base/cpus.cpp", "base/row_source.cpp"]


def built(program: Path, source: str, *flags: str, csrc: Path = ROOT / "csrc") -> Path:
    """tests/cuda/`source` as a program, with the kernels in `csrc`. Optimised a little only: this
    is about what is computed, and the build must not take long."""
    always = ["-std=c++17", "-O1", "-ffp-contract=off", f"-I{csrc}", *flags]
    needed = [csrc / name for name in NUMBERS + (ENGINE if source == "pass.cpp" else [])]
    files = [ROOT / "tests" / "cuda" / source, *needed]
    subprocess.run([COMPILER, *always, *files, "-pthread", "-o", program], check=True)
    return program


def lines(program: Path, *options: str) -> tuple[int, list[str]]:
    """How it ended, and what it said."""
    run = subprocess.run([program, *options], capture_output=True, text=True)
    return run.returncode, (run.stdout + run.stderr).splitlines()
