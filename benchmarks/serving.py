"""How much of the engine's speed is left over HTTP, and how long do queries wait beside documents?

    python benchmarks/serving.py [FOLDER] [--seconds 20] [--dtype float32] [--only tokens,mix,..]
                                 [--workers 1] [--batch 1] [--st-python PYTHON] [--infinity COMMAND]

Starts servers of its own on free ports of the loopback address, and prints: seconds from the start
of the process to ready; `tokens`: tokens/s of 64 connections that ask without a pause, beside the
same texts in-process, run in turns, and the same by processor seconds of the server alone, which
other load on the machine does not change (--batch: texts a request; --workers: processes, which
divide the cores); in the same turns sentence-transformers behind the same front end, and
infinity_emb (serving_peers.py: who is absent is named and left out); `mix`: under
Poisson arrivals at 70 % of what 64 connections get done of the mix (90 % queries of 16 tokens, 10 %
documents of 2,048) the latency of queries from the intended time of arrival, over their latency
alone; `overload`: the same at 200 % of it on a server with its default limits, what was answered
and what refused and how soon, and resident memory before, at most and behind. The clients are a
process of their own on the same cores, and part of the loss. JSON last. Long because it is one
program, a part a function.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from harness import machine, relative_error
from http_load import Answer, Target, Watched, closed, cpu_of, one_by_one, open_loop, run
from serving_peers import Absent, Running, infinity, sentence_transformers, vector

import refimpl
from refimpl.files.hub import BUNDLED

PACKAGE = Path(refimpl.__file__).parents[1]  # where `-m` finds the one that runs here
PARTS = ("tokens", "mix", "overload")
ROUNDS = 3
QUERY, MIDDLE, DOCUMENT, SHARE = 16, 128, 2048, 0.1
LOAD, OVERLOAD = 0.7, 2.0
UNLIMITED = ("--timeout", "600", "--max-concurrent-requests", "4096",
             "--max-queue-tokens", str(2**26))  # fmt: skip

Figures = dict[str, Any]


def text_of(encoder: refimpl.SentenceEncoder, tokens: int) -> str:
    """A text of so many tokens, the special ones included; no space around it, as some peers take
    that away."""
    text = "the" + " the" * (tokens - 3)
    assert len(encoder.tokenizer.encode(text)) == tokens
    return text


class Server:
    """Ours, as its command starts it. ready: seconds until it was."""

    def __init__(self, folder: str, dtype: str, *options: str) -> None:
        command = [sys.executable, "-m", "refimpl", "serve", "--model", folder, "--port", "0"]
        command += ["--dtype", dtype, "--log", "none", *options]
        start = time.perf_counter()
        self.process = subprocess.Popen(command, cwd=PACKAGE, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"on http://127\.0\.0\.1:(\d+)", line):
                self.ready = time.perf_counter() - start
                self.target = Target(int(found[1]))
                return
        raise SystemExit("the server did not start")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.code = self.process.wait(120)


def alone(encoder: refimpl.SentenceEncoder, texts: dict[str, str]) -> dict[str, float]:
    """Seconds of each text in-process, medians."""
    found = {}
    for name, text in texts.items():
        encoder.encode(text)
        taken = []
        for _ in range(5):
            start = time.perf_counter()
            encoder.encode(text)
            taken.append(time.perf_counter() - start)
        found[name] = statistics.median(taken)
    return found


def peers_of(args: argparse.Namespace) -> list[Running]:
    """Those that start; the others are named."""
    found = []
    starts = {
        "sentence-transformers": lambda: sentence_transformers(args.folder, args.st_python),
        "infinity_emb": lambda: infinity(args.folder, args.infinity),
    }
    for name, start in starts.items():
        try:
            found.append(start())
        except Absent as absent:
            print(f"{name:24} left out: {absent}")
    return found


def tokens_per_s(
    server: Server,
    peers: list[Running],
    encoder: refimpl.SentenceEncoder,
    text: str,
    batch: int,
    seconds: float,
    each: float,
) -> Figures:
    """See `tokens` above. batch: texts a request; each: seconds of one such text in-process."""
    count = batch * max(64, int(seconds / 2 / ROUNDS / each / batch))
    texts = [text] * count
    truth = encoder.encode(text, normalize_embeddings=True)
    for peer in peers:
        print(f"{peer.name:24} error {relative_error(vector(peer.target, text), truth):.1e}")
    targets = {"http": (server.target, server.process.pid)}
    targets |= {peer.name: (peer.target, peer.process.pid) for peer in peers}
    wall: dict[str, list[float]] = {name: [] for name in ("in-process", *targets)}
    processor = dict.fromkeys(wall, 0.0)
    for turn in range(-1, ROUNDS):
        some = texts if turn >= 0 else texts[: 64 * batch]  # the first round warms up
        start, cpu = time.perf_counter(), time.process_time()
        encoder.encode(some, normalize_embeddings=True)
        taken = {"in-process": (time.perf_counter() - start, time.process_time() - cpu)}
        for name, (target, pid) in targets.items():
            cpu = cpu_of(pid)
            taken[name] = (run(closed(target, some, batch), target), cpu_of(pid) - cpu)
        for name, (seconds_of, cpu_taken) in taken.items() if turn >= 0 else ():
            wall[name].append(seconds_of)
            processor[name] += cpu_taken
    median = {name: statistics.median(some) for name, some in wall.items()}
    return {
        "http_tokens_per_s": MIDDLE * count / median["http"],
        "in_process_tokens_per_s": MIDDLE * count / median["in-process"],
        "share": median["in-process"] / median["http"],
        "share_of_processor_s": processor["in-process"] / processor["http"],
        **{f"{p.name}_tokens_per_s": MIDDLE * count / median[p.name] for p in peers},
        **{f"times_{p.name}": median[p.name] / median["http"] for p in peers},
        **{f"times_{p.name}_by_processor_s": processor[p.name] / processor["http"] for p in peers},
    }


def milliseconds(answers: list[Answer], kind: str, q: float) -> float:
    taken = [one.seconds for one in answers if one.kind == kind and one.status == 200]
    return 1e3 * float(np.quantile(taken, q)) if taken else float("nan")


def capacity(server: Server, texts: dict[str, str], seconds: float) -> float:
    """Requests of the mix a second, by 64 connections that ask without a pause for so long."""
    rng, target = random.Random(1), server.target

    def some(count: int) -> list[str]:
        return [texts["document" if rng.random() < SHARE else "query"] for _ in range(count)]

    guess = 64 / run(closed(target, some(64)), target)
    count = max(64, int(guess * seconds))
    return count / run(closed(target, some(count)), target)


def mix(server: Server, texts: dict[str, str], rate: float, seconds: float) -> Figures:
    """See above. rate: requests a second that the machine can just do."""
    target = server.target
    single = run(one_by_one(target, texts["query"], 50), target)
    apart = run(one_by_one(target, texts["query"], 50, 1 / (LOAD * rate * (1 - SHARE))), target)
    found = run(open_loop(target, texts, SHARE, LOAD * rate, seconds), target)
    assert {one.status for one in found} == {200}
    return {
        "query_alone_ms": 1e3 * statistics.median(single),
        "query_alone_apart_ms": 1e3 * statistics.median(apart),
        "query_p50_ms": milliseconds(found, "query", 0.5),
        "query_p99_ms": milliseconds(found, "query", 0.99),
        "document_p50_ms": milliseconds(found, "document", 0.5),
        "queries": sum(one.kind == "query" for one in found),
    }


def overload(
    folder: str, dtype: str, texts: dict[str, str], rate: float, seconds: float
) -> Figures:
    """See above; the server's limits are those that it has by default. A first half of it lets the
    memory that a full queue takes be taken."""
    with Server(folder, dtype) as server:
        target, pid = server.target, server.process.pid
        before = run(one_by_one(target, texts["query"], 20), target)
        with Watched(pid) as first:
            run(open_loop(target, texts, SHARE, OVERLOAD * rate, seconds / 2), target)
        with Watched(pid) as second:
            found = run(open_loop(target, texts, SHARE, OVERLOAD * rate, seconds), target)
        after = run(one_by_one(target, texts["query"], 20), target)
    refused = [1e3 * one.seconds for one in found if one.status != 200]
    return {
        "overload_answered": sum(one.status == 200 for one in found),
        "overload_refused": dict(Counter(one.status for one in found if one.status != 200)),
        "overload_refused_p50_ms": float(np.quantile(refused, 0.5)) if refused else 0.0,
        "overload_refused_p99_ms": float(np.quantile(refused, 0.99)) if refused else 0.0,
        "overload_query_p99_ms": milliseconds(found, "query", 0.99),
        "query_before_ms": 1e3 * statistics.median(before),
        "query_behind_ms": 1e3 * statistics.median(after),
        "rss_mib": {
            "ready": first.before,
            "first half at most": first.most,
            "between": second.before,
            "then at most": second.most,
            "behind": second.behind,
        },
        "overload_exit_code": server.code,
    }


def parts(text: str) -> list[str]:
    """An argparse type."""
    if wrong := set(text.split(",")) - set(PARTS):
        raise argparse.ArgumentTypeError(f"{sorted(wrong)[0]!r} is none of {', '.join(PARTS)}")
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=str(BUNDLED))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--only", type=parts, default=list(PARTS))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--st-python", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--infinity", default="infinity_emb", metavar="COMMAND")
    args = parser.parse_args()
    args.folder = os.path.abspath(args.folder)
    encoder = refimpl.SentenceEncoder(args.folder, dtype=args.dtype)
    texts = {"query": text_of(encoder, QUERY), "document": text_of(encoder, DOCUMENT)}
    middle = text_of(encoder, MIDDLE)
    each = alone(encoder, texts | {"middle": middle})
    result: Figures = {"folder": os.path.basename(args.folder), "dtype": args.dtype}
    limits = (*UNLIMITED, "--workers", str(args.workers), "--max-texts", str(max(args.batch, 1000)))
    with Server(args.folder, args.dtype, *limits) as server:
        result["ready_s"] = server.ready
        if "tokens" in args.only:
            peers = peers_of(args)
            try:
                result |= tokens_per_s(
                    server, peers, encoder, middle, args.batch, args.seconds, each["middle"]
                )
            finally:
                for peer in peers:
                    peer.end()
        if {"mix", "overload"} & set(args.only):
            rate = result["capacity_per_s"] = capacity(server, texts, args.seconds / 2)
        if "mix" in args.only:
            result |= mix(server, texts, rate, args.seconds)
    result["exit_code"] = server.code
    if "overload" in args.only:
        result |= overload(args.folder, args.dtype, texts, rate, args.seconds)
    for name, value in result.items():
        print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")
    print(json.dumps({"machine": machine(), "result": result}))


if __name__ == "__main__":
    main()
