"""What does an install weigh, ours and the peers'?

    python benchmarks/install_weight.py [--only NAME,...] [--save benchmarks/results/NAME.json]

For each, `pip install --target` into an empty folder, with all that it requires; its weight is the
bytes of the files there, compiled Python left out. PyPI's torch brings CUDA's libraries along; its
build for CPUs alone comes where PIP_CONSTRAINT, which pip reads, names a file with torch==...+cpu.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import save

ROOT = Path(__file__).resolve().parents[1]
# Name in the table -> what pip is asked for.
INSTALLS = {
    "refimpl": ["."],
    "refimpl[text]": [".[text]"],
    "torch": ["torch", "transformers"],
    "sentence-transformers": ["sentence-transformers"],
    "openvino": ["openvino"],
    "onnxruntime": ["onnxruntime"],
    "fastembed": ["fastembed"],
    "llama.cpp": ["llama-cpp-python"],
}
MIB = 2**20


def weighed(folder: Path) -> dict[str, Any]:
    """MiB of the files in a folder, and the distributions that they belong to."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
    own = [p for p in files if p.suffix != ".pyc"]
    found = {d.name: d.version for d in metadata.distributions(path=[str(folder)])}
    return {
        "mib": sum(p.stat().st_size for p in own) / MIB,
        "packages": dict(sorted(found.items())),
    }


def installed(wanted: list[str]) -> dict[str, Any]:
    """The weight of what pip installs, or {"left_out": why}."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target"]
        done = subprocess.run([*command, folder, *wanted], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            said = [s for s in done.stderr.splitlines() if re.match("error", s, re.I)]
            return {"left_out": (said or [f"exit code {done.returncode}"])[-1][:200]}
        return weighed(Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help=f"of {', '.join(INSTALLS)}")
    parser.add_argument("--save", type=Path, help="write the last line to this file as well")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(INSTALLS)
    for name in names:
        if name not in INSTALLS:
            parser.error(f"--only: {name!r} is none of {', '.join(INSTALLS)}")
    rows = {}
    for name in names:
        rows[name] = row = installed(INSTALLS[name])
        few = [f"{p} {v}" for p, v in row.get("packages", {}).items()]
        told = row.get("left_out") or f"{row['mib']:8.1f} MiB  {', '.join(few)}"
        print(f"{name:22} {told}", flush=True)
    save("what an install weighs", rows, args.save)


if __name__ == "__main__":
    main()
