"""Programs of tests/cuda, which run the kernels of csrc/cuda on this processor."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
SOURCES = (ROOT / "csrc" / "cuda").exists()
# What a program needs of csrc beside headers: of the CPU engine what makes a pass of steps.
NUMBERS = ["base/tensor.cpp"]
ENGINE = ["engine/engine.cpp", "engine/forward.cpp", "engine/trace.cpp", "engine/workspace.cpp"]
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


# -- the library, with this processor in place of devices -----------------------------------------


def shared_sources() -> list[Path]:
    """What the library shares with the CPU engine's, as setup.py lists it."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    listed = re.search(r"CUDA_SHARED = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert listed is not None
    return [ROOT / "csrc" / f"{name}.cpp" for name in re.findall(r'"([\w/]+)"', listed[1])]


def library(*flags: str) -> Path:
    """libmodernbert_cuda.so of these sources for this processor; that of an earlier run where they
    are the same."""
    own = [*sorted((ROOT / "csrc" / "cuda").glob("*.cu")), ROOT / "tests" / "cuda" / "stand_in.cpp"]
    sources = [*own, *shared_sources()]
    always = ["-std=c++17", "-O3", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden", *flags]
    if platform.machine() == "x86_64":  # emulated matrix instructions are most of the time
        always.append("-march=native")
    always += os.environ.get("REFIMPL_CUDA_TEST_FLAGS", "").split()  # of sanitize.sh
    digest = hashlib.sha256(repr((COMPILER, always)).encode())
    for path in sorted(p for p in (ROOT / "csrc").rglob("*.*") if p.suffix != ".md"):
        digest.update(path.read_bytes())
    digest.update(own[-1].read_bytes())
    made = ROOT / "build" / "cuda-here" / digest.hexdigest()[:16] / "libmodernbert_cuda.so"
    made.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(made.with_suffix(".lock"), "w") as lock,
        tempfile.TemporaryDirectory(dir=made.parent) as folder,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)  # processes of one run make it once
        if made.exists():
            return made
        new = Path(folder) / made.name
        link = ["-shared", f"-Wl,--version-script={ROOT / 'csrc' / 'libmodernbert_cuda.map'}"]
        files = ["-x", "c++", *sources, "-pthread", "-o", new]
        command = [COMPILER, *always, f"-I{ROOT / 'csrc'}", *link, *files]
        subprocess.run(command, check=True)
        new.replace(made)
    return made


@contextmanager
def stand_in(
    path: Path, devices: int = 1, major: int = 9, minor: int = 0, memory: int = 64 << 30
) -> Iterator[None]:
    """The devices that this processor stands in for meanwhile; devices -1: no driver."""
    here = ctypes.CDLL(str(path))
    here.modernbert_cuda_stand_in(devices, major, minor, ctypes.c_size_t(memory))
    try:
        yield
    finally:
        here.modernbert_cuda_stand_in(1, 9, 0, ctypes.c_size_t(64 << 30))


def asked(path: Path, name: str) -> int:
    """What stand_in.cpp tells of one thing."""
    ask = getattr(ctypes.CDLL(str(path)), f"modernbert_cuda_{name}")
    ask.restype = ctypes.c_uint64
    return int(ask())


def used(path: Path, most: bool = False) -> int:
    """Bytes of devices that are in use, or the most that were since the last such question."""
    return asked(path, "most_used" if most else "used")


@contextmanager
def order(path: Path, seed: int) -> Iterator[None]:
    """Blocks and threads go in other orders meanwhile, by the seed."""
    here = ctypes.CDLL(str(path))
    here.modernbert_cuda_order(ctypes.c_uint64(seed))
    try:
        yield
    finally:
        here.modernbert_cuda_order(ctypes.c_uint64(0))


def usable() -> bool:
    return bool(SOURCES) and COMPILER is not None and sys.platform.startswith("linux")
