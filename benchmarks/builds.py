"""Which of several builds of the engine is faster, and have they the same bits?

    python benchmarks/builds.py FOLDER LIBRARY LIBRARY.. [--shapes 1x16,mixed] [--dtype float32]
                                [--threads 2] [--tier avx2] [--seconds 30]

LIBRARY is a libmodernbert.so; the first one is what the others are held against. All are loaded
into one process, each with weights and threads of its own, and take turns on the same ids, so that
a slow minute of the machine hits all of them. FOLDER is any model's, as `peers.py` leaves one in
its CACHE. A ratio is that of a round, the first library's seconds over the other's: above 1, the
other is faster. Rounds go on until its quartiles are within 5 %, or --seconds are up for the shape.
The last line is JSON. Does not build: `python setup.py build_ext --inplace` does, in a worktree of
each commit.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from ctypes import byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from harness import interleaved, machine
from peers import FEWEST, PAUSE_S, SHAPES, sequences, settled, shape_names


class Options(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("dtype", c_char_p), ("tier_cap", c_char_p),
                ("threads", c_int), ("packed", c_void_p), ("reading", c_void_p),
                ("user", c_void_p), ("pack", c_int), ("pack_folder", c_char_p)]  # fmt: skip


# Of the options, the latest first: an earlier library knows fewer fields.
SIZES = (ctypes.sizeof(Options), Options.pack.offset)
IN_MEMORY = 2  # MODERNBERT_PACK_LEFT


class Batch(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("sequences", c_int64), ("cu_seqlens", c_void_p),
                ("ids", c_void_p), ("embeddings", c_void_p), ("token_types", c_void_p),
                ("positions", c_void_p), ("visible", c_void_p)]  # fmt: skip


class Build:
    """One library and its model."""

    def __init__(self, library: str, folder: Path, options: argparse.Namespace) -> None:
        self.lib = ctypes.CDLL(str(Path(library).resolve()))
        self.lib.modernbert_last_error.restype = c_char_p
        self.model = c_void_p()
        tier = options.tier.encode() if options.tier else None
        given = Options(0, options.dtype.encode(), tier, options.threads, pack=IN_MEMORY)
        for given.struct_size in SIZES:
            opened = self.lib.modernbert_open(str(folder).encode(), byref(given), byref(self.model))
            if not opened or b"struct_size" not in self.lib.modernbert_last_error():
                break
        self.call(lambda: opened)

    def call(self, function: Any, *arguments: Any) -> None:
        if function(*arguments):
            raise SystemExit(f"builds: {self.lib.modernbert_last_error().decode()}")

    def forward(self, ids: np.ndarray, ends: np.ndarray, out: np.ndarray) -> None:
        batch = Batch(ctypes.sizeof(Batch), len(ends) - 1, ends.ctypes.data, ids.ctypes.data)
        size = c_size_t(out.size)
        self.call(
            self.lib.modernbert_forward,
            self.model,
            byref(batch),
            None,
            out.ctypes.data_as(c_void_p),
            size,
        )


def compared(builds: list[Build], shape: str, width: int, vocab: int, seconds: float) -> list[dict]:
    """A row for each build but the first."""
    texts = sequences(shape, vocab)
    ids = np.concatenate(texts).astype(np.int64)
    ends = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    outs = [np.empty((len(ids), width), np.float32) for _ in builds]
    functions = {
        i: lambda build=build, out=out: build.forward(ids, ends, out)
        for i, (build, out) in enumerate(zip(builds, outs, strict=True))
    }
    timed: dict[int, list[float]] = {i: [] for i in functions}
    start, warmup = time.perf_counter(), 1
    while True:
        for i, took in interleaved(functions, rounds=2, warmup=warmup, pause=PAUSE_S).items():
            timed[i] += took
        warmup = 0
        ratios = [[a / b for a, b in zip(timed[0], timed[i], strict=True)] for i in timed if i]
        quartiles = [statistics.quantiles(each, n=4) for each in ratios]
        calm = all(settled(*three) for three in quartiles) and len(timed[0]) >= FEWEST
        if calm or time.perf_counter() - start > seconds:
            break
    same = [bool((outs[0].view(np.uint32) == out.view(np.uint32)).all()) for out in outs[1:]]
    speed = [len(ids) / statistics.median(timed[i]) for i in timed]
    return [
        {"shape": shape, "ratio": three, "settled": settled(*three), "same_bits": bits,
         "rounds": len(timed[0]), "tokens_per_s": [speed[0], speed[i]]}
        for i, (three, bits) in enumerate(zip(quartiles, same, strict=True), 1)
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("libraries", nargs="+")
    parser.add_argument("--shapes", type=shape_names, default=",".join(SHAPES[:5]))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tier", help="no tier above this one")
    parser.add_argument("--seconds", type=float, default=30, help="for each shape")
    options = parser.parse_args()
    if len(options.libraries) < 2:
        parser.error("libraries: two at least, the first is what the others are held against")
    config = json.loads((options.folder / "config.json").read_text())
    builds = [Build(library, options.folder, options) for library in options.libraries]
    found: dict[str, list[dict]] = {name: [] for name in options.libraries[1:]}
    for shape in options.shapes:
        rows = compared(builds, shape, config["hidden_size"], config["vocab_size"], options.seconds)
        for name, row in zip(found, rows, strict=True):
            (low, median, high), (before, now) = row["ratio"], row["tokens_per_s"]
            calm = "" if row["settled"] else ", not settled"
            bits = "same" if row["same_bits"] else "other"
            print(f"{shape:8} {median:5.2f} ({low:.2f} - {high:.2f}{calm}), {bits} bits, "
                  f"{before:.0f} -> {now:.0f} tokens/s, {row['rounds']} rounds  {name}",
                  flush=True)  # fmt: skip
            found[name].append(row)
    print(json.dumps({"first": options.libraries[0], "rows": found, "machine": machine()}))


if __name__ == "__main__":
    main()
