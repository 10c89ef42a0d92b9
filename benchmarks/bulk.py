"""What do Embedder, Dask and jobs add to a plain loop? How soon is a finished job resumed?

    python benchmarks/bulk.py [FOLDER] [--dtype float32] [--tokens 120000] [--rows 1000000]

Prints, for texts of 512 and of 16 tokens, what each way takes over `SentenceEncoder.encode` of all
texts at once, by the seconds of a run and by processor seconds (which other load on the machine
changes little): a dict of arrays, an Arrow table, a pandas frame, Dask on threads, and a job with
its parts written. Then a job of so many rows of one word is run, and resumed by the command in
processes of its own, five times: seconds. JSON last.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import machine

import refimpl
from refimpl.bulk import Embedder, Job, embed_frame
from refimpl.files.hub import BUNDLED

LENGTHS, ROUNDS, RESUMES = (512, 16), 5, 5
PACKAGE = Path(refimpl.__file__).parents[1]  # where `-m` finds the one that runs here


def ways(folder: str, dtype: str, texts: list[str], root: Path) -> dict[str, Callable[[], Any]]:
    """Name -> a run of it over all texts; the first is the plain loop."""
    import dask.dataframe as dd
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    encoder = refimpl.SentenceEncoder(folder, dtype=dtype)
    embedder = Embedder(folder, dtype=dtype)
    array, table, frame = np.array(texts), pa.table({"text": texts}), pd.DataFrame({"text": texts})
    lazy = dd.from_pandas(frame, npartitions=1)
    path = root / f"{len(texts)}.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    def job() -> None:
        with tempfile.TemporaryDirectory(dir=root) as out:
            Job.plan([str(path)], out, embedder).run()

    return {
        "plain": lambda: encoder.encode(texts),
        "dict": lambda: embedder({"text": array}),
        "arrow": lambda: embedder(table),
        "pandas": lambda: embedder(frame),
        "dask": lambda: embed_frame(lazy, folder, dtype=dtype).compute(scheduler="threads"),
        "job": job,
    }


def overheads(runs: dict[str, Callable[[], Any]]) -> dict[str, dict[str, float]]:
    """Of each way: seconds over the plain loop's, less 1, medians of interleaved runs."""
    wall: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(-1, ROUNDS):
        for name, run in runs.items():
            begin, cpu = time.perf_counter(), time.process_time()
            run()
            if turn >= 0:
                wall[name].append(time.perf_counter() - begin)
                processor[name].append(time.process_time() - cpu)

    def over(seconds: dict[str, list[float]], name: str) -> float:
        return statistics.median(seconds[name]) / statistics.median(seconds["plain"]) - 1

    return {
        name: {"seconds": over(wall, name), "processor_s": over(processor, name)}
        for name in runs
        if name != "plain"
    }


def resumes(folder: str, dtype: str, rows: int, root: Path) -> dict[str, Any]:
    """Seconds of the command that finds a job of so many rows finished."""
    path, out = root / "words.txt", root / "parts"
    path.write_text("word\n" * rows)
    command = [sys.executable, "-m", "refimpl", "embed", str(path), "--out", str(out)]
    command += ["--resume", "--model", folder, "--dtype", dtype]
    seconds = []
    for _ in range(1 + RESUMES):
        begin = time.perf_counter()
        run = subprocess.run(command, cwd=PACKAGE, check=True, capture_output=True, text=True)
        seconds.append(time.perf_counter() - begin)
    assert "0 made now" in run.stderr, run.stderr
    return {"rows": rows, "run_s": seconds[0], "resume_s": statistics.median(seconds[1:])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=str(BUNDLED))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens", type=int, default=120_000, help="of a run")
    parser.add_argument("--rows", type=int, default=10**6)
    args = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for length in LENGTHS:
            texts = [" the" * (length - 2)] * max(1, args.tokens // length)
            result[f"{length} tokens"] = overheads(ways(args.folder, args.dtype, texts, root))
            for name, of in result[f"{length} tokens"].items():
                told = ", ".join(f"{100 * x:+.1f} % {unit}" for unit, x in of.items())
                print(f"{length:4} tokens  {name:8} {told}")
        if args.rows:
            result["resume"] = resumes(os.path.abspath(args.folder), args.dtype, args.rows, root)
            print(f"resume of {args.rows} rows: {result['resume']['resume_s']:.2f} s")
    print(json.dumps({"machine": machine(), "result": result}))


if __name__ == "__main__":
    main()
