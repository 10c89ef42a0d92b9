"""How much memory does an answer take, on the engine and on its peers?

    python benchmarks/peers_memory.py CACHE [--variant base] [--threads 2] [--shape 1x128]
                                      [--only NAME,...] [--save benchmarks/results/NAME.json]

CACHE is the folder of peers.py, with the same random weights, files made from them and truths. In a
fresh process each: import, load, answer twice. Peak is VmHWM, all that was ever resident, pages of
mapped files included; the error is that of the second answer. Nobody's time is measured, so that
the machine need not be quiet. A first process, thrown away, makes the files that are missing and
reads them once. The last line is JSON. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import peers
import rivals
from harness import relative_error, save, status

ANSWERS = 2


def one_shape(text: str) -> str:
    """An argparse type: TEXTSxTOKENS."""
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not TEXTSxTOKENS")
    return text


def child(name: str, folder: Path, shape: str, vocab: int, threads: int) -> dict[str, float]:
    """The figures of this fresh process."""
    run = rivals.load(name, folder, threads)
    given = peers.batches(peers.sequences(shape, vocab), 10**9)
    for _ in range(ANSWERS):
        got = peers.joined([run(*batch) for batch in given], given)
    peak = status()["VmHWM"]  # before the truth is read
    error = relative_error(got, peers.truth(folder, shape, given))
    return {"peak_mib": peak, "error": error}


def in_fresh_process(*argv: str) -> dict[str, Any]:
    """What a child says, or {"left_out": why}."""
    command = [sys.executable, __file__, *argv]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"left_out": why[:200]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cache", type=Path, help="folder for weights, exports and truths")
    parser.add_argument("--variant", default="base")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shape", type=one_shape, default="1x128")
    parser.add_argument("--only", help="contenders to run, by the start of their names")
    parser.add_argument("--save", type=Path, help="write the last line to this file as well")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "VOCAB"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # read by a peer when it is imported
    if args.child:
        name, vocab = args.child
        folder = args.cache / args.variant
        print(json.dumps(child(name, folder, args.shape, int(vocab), args.threads)))
        return
    config, names = peers.config_of(args.variant, parser), peers.wanted(args.only, parser)
    folder = peers.model_folder(args.cache, args.variant)
    texts = peers.sequences(args.shape, config.vocab_size)
    peers.truth(folder, args.shape, peers.batches(texts, len(texts)))
    rows: dict[str, dict[str, Any]] = {}
    print(f"{args.variant}, {args.shape}\n{'':28} {'peak MiB':>9} {'error':>8}")
    for name in names:
        argv = [str(args.cache), "--variant", args.variant, "--shape", args.shape]
        argv += ["--threads", str(args.threads), "--child", name, str(config.vocab_size)]
        in_fresh_process(*argv)
        rows[name] = row = in_fresh_process(*argv)
        told = row.get("left_out") or f"{row['peak_mib']:9.0f} {row['error']:8.1e}"
        print(f"{name:28} {told}", flush=True)
    save(f"peak memory, {args.variant}, {args.shape}, {args.threads} threads", rows, args.save)


if __name__ == "__main__":
    main()
