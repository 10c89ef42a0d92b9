"""What does this machine allow: multiply-adds, bfloat16 tile products, reading from memory?

    python benchmarks/limits.py [--threads 2]

Compiles limits.cpp with the system's compiler (CXX, else c++) into a temporary folder and runs it.
Tile products are tried where the engine has the amx tier.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import machine

from refimpl.backends.backend import native, why_not_native

SOURCE = Path(__file__).with_name("limits.cpp")


def compiled(sources: list[Path], program: Path, *flags: str) -> Path:
    """Build a C++ program; exits with one line when there is no compiler."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        sys.exit("no C++ compiler found: set CXX")
    command = [compiler, "-std=c++17", "-O3", "-ffp-contract=off", "-pthread", *flags]
    subprocess.run([*command, *map(str, sources), "-o", str(program)], check=True)
    return program


def measured(program: Path, threads: int, *only: str) -> dict[str, dict[str, float]]:
    """Rate -> number of threads -> GFLOP/s or GB/s; all rates, or the one that is named."""
    amx = why_not_native() is None and "amx" in native().tiers()
    command = [str(program), str(threads), str(int(amx)), *only]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def limits(threads: int) -> dict[str, dict[str, float]]:
    """What `measured` gives, of a program that is built for it."""
    with tempfile.TemporaryDirectory() as folder:
        return measured(compiled([SOURCE], Path(folder) / "limits"), threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    found = limits(options.threads)
    print(f"{'':16}" + "".join(f"{t + 1:>6} thr." for t in range(options.threads)))
    for name, rates in found.items():
        unit = "GB/s" if name == "memory_read" else "GFLOP/s"
        print(f"{name:16}" + "".join(f"{rate:11.1f}" for rate in rates.values()) + f"  {unit}")
    print(json.dumps({"question": "limits", "rows": found, "machine": machine()}))


if __name__ == "__main__":
    main()
