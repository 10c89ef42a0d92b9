"""How much memory does a model take on the engine, and how long does it take to load?

    python benchmarks/memory.py [--folder FOLDER | --variant base] [--calls 2000]

For each dtype that the engine has here and each dtype on disk, in a fresh process each: load the
encoder, run 1 x 512, run 1 x 8192, then `calls` packed calls of random lengths. Peak is VmHWM (all
that was ever resident, mapped file pages included), steady is VmRSS after the call, own is RssAnon
then, without mapped files; growth compares RssAnon after the first 200 calls with that at the end.
What Python, numpy and this package take before anything is loaded is told apart. Loading ends when
the first token has been answered. The file is read once before, so that it is in the page cache.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from harness import machine, status

from refimpl import VARIANTS, ModernBERT
from refimpl.backends.backend import dtypes_of

STORED = ("float32", "float16", "bfloat16")
SHORT, LONG = 512, 8192
SEED, SETTLED, LONGEST = 0, 200, 256
# What is aimed at, for base from a float32 folder: MiB, and seconds to load.
AIMS = {
    ("bfloat16", "float32"): {"peak": 450, "steady": 360, "long_adds": 150, "load_s": 1.5},
    ("float32", "float32"): {"peak": 750, "long_adds": 150, "load_s": 1.5},
}
GROWTH_AIM = 2.0


def reset_peak() -> None:
    """VmHWM starts again from VmRSS."""
    Path("/proc/self/clear_refs").write_text("5")


def child(folder: str, dtype: str, calls: int) -> dict[str, float]:
    """The figures of this fresh process."""
    before = status()["VmRSS"]
    reset_peak()
    start = time.perf_counter()
    model = ModernBERT.from_pretrained(folder, backend="native", dtype=dtype)
    rng = np.random.default_rng(SEED)

    def run(*lengths: int) -> None:
        ids = rng.integers(0, model.config.vocab_size, sum(lengths))
        model.encode_packed(ids, np.cumsum([0, *lengths]))

    run(1)
    out = {"before": before, "load_s": time.perf_counter() - start, "loaded": status()["VmRSS"]}
    run(SHORT)
    now = status()
    out |= {"peak": now["VmHWM"], "steady": now["VmRSS"], "own": now["RssAnon"]}
    reset_peak()
    run(LONG)
    out["long_adds"] = status()["VmHWM"] - out["steady"]
    for n in range(calls):
        run(*rng.integers(1, LONGEST + 1, int(rng.integers(1, 5))))
        if n == min(SETTLED, calls) - 1:
            settled = status()["RssAnon"]
    if calls:
        out["growth"] = status()["RssAnon"] - settled
    return out


def in_fresh_process(*argv: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", *argv]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def folders(root: Path, folder: str | None, variant: str) -> dict[str, str]:
    """Dtype on disk -> a folder of the same weights in it."""
    if folder is None:
        model = ModernBERT.from_variant(variant, seed=SEED)
    else:
        model = ModernBERT.from_pretrained(folder)
    out = {}
    for stored in STORED:
        out[stored] = str(root / stored)
        model.save_pretrained(out[stored], dtype=stored)
    return out


def read_once(folder: str) -> None:
    for file in Path(folder).glob("*.safetensors"):
        with open(file, "rb") as stream:
            while stream.read(2**24):
                pass


def line(name: str, row: Mapping[str, float], aims: Mapping[str, float]) -> str:
    cells = [f"{name:26}"]
    for key in ("load_s", "loaded", "peak", "steady", "own", "long_adds", "growth"):
        digits = 2 if key == "load_s" else 1
        value = f"{row[key]:.{digits}f}" if key in row else "-"
        mark = "!" if row.get(key, 0) > aims.get(key, np.inf) else " "
        cells.append(f"{value:>10}{mark}")
    return "".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", help="take these weights, not random ones")
    parser.add_argument("--variant", choices=VARIANTS, default="base")
    parser.add_argument("--calls", type=int, default=2000, help="of random lengths, at the end")
    here = dtypes_of("native")
    parser.add_argument("--dtype", nargs="*", choices=here, default=here)
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(*args.child, args.calls)))
        return
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as root:
        places = folders(Path(root), args.folder, args.variant)
        print(f"MiB; ! = over the aim\n{'dtype, from a file in':26}"
              f"{'load s':>10} {'loaded':>10} {'peak':>10} {'steady':>10} {'own':>10} "
              f"{f'1x{LONG} adds':>10} {'growth':>10}")  # fmt: skip
        for dtype in args.dtype:
            for stored, folder in places.items():
                read_once(folder)
                row = in_fresh_process(folder, dtype, "--calls", str(args.calls))
                aims = AIMS.get((dtype, stored), {}) if args.variant == "base" else {}
                print(line(f"{dtype}, {stored}", row, aims | {"growth": GROWTH_AIM}), flush=True)
                rows[f"{dtype}, {stored}"] = row
    print(f"before loading: {rows[next(iter(rows))]['before']:.1f} MiB")
    print(json.dumps({"rows": rows, "machine": machine()}))


if __name__ == "__main__":
    main()
