"""How much of the engine's speed is left over HTTP, and how long do queries wait beside documents?

    python benchmarks/serving.py [FOLDER] [--seconds 20] [--dtype float32]

Starts a server of its own on a free port of the loopback address, and prints: seconds from the
start of the process to ready; tokens/s of 64 connections that ask without a pause, beside the same
texts in-process, run in turns, and the same by processor seconds of the server alone, which other
load on the machine does not change; and under Poisson arrivals at 70 % of what the mix allows (90 %
queries of 16 tokens, 10 % documents of 2,048) the latency of queries from the intended time of
arrival, so that queueing is in it, over their latency alone. The clients are a process of their own
on the same cores, and part of the loss. JSON last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
from harness import machine

import refimpl
from refimpl.files.hub import BUNDLED

CONNECTIONS, ROUNDS = 64, 3
QUERY, DOCUMENT, SHARE, LOAD = 16, 2048, 0.1, 0.7


def text_of(encoder: refimpl.SentenceEncoder, tokens: int) -> str:
    """A text of so many tokens, the special ones included."""
    text = " the" * (tokens - 2)
    assert len(encoder.tokenizer.encode(text)) == tokens
    return text


def started(folder: str, dtype: str) -> tuple[subprocess.Popen[str], int, float]:
    """A server, its port, and the seconds until it was ready."""
    command = [sys.executable, "-m", "refimpl", "serve", "--model", folder, "--port", "0"]
    command += ["--dtype", dtype, "--log", "none", "--timeout", "600"]
    command += ["--max-concurrent-requests", "4096", "--max-queue-tokens", str(2**26)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"on http://127\.0\.0\.1:(\d+)", line):
            return process, int(found[1]), time.perf_counter() - start
    raise SystemExit("the server did not start")


async def ask(port: int, body: bytes, pool: list[Any]) -> None:
    """One request over a kept connection of the pool, or a new one."""
    reader, writer = pool.pop() if pool else await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head)
    assert head.startswith(b"HTTP/1.1 200") and found, head
    await reader.readexactly(int(found[1]))
    pool.append((reader, writer))


def body_of(text: str) -> bytes:
    return json.dumps({"input": text, "encoding_format": "base64"}).encode()


async def closed(port: int, bodies: list[bytes]) -> float:
    """Seconds of so many connections for these requests, each asking when it was answered."""
    left, pool = iter(bodies), []

    async def client() -> None:
        for body in left:
            await ask(port, body, pool)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return time.perf_counter() - start


def cpu_of(pid: int) -> float:
    """Processor seconds that a process has taken."""
    with open(f"/proc/{pid}/stat") as stream:
        user, system = stream.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def open_loop(
    port: int, bodies: dict[str, bytes], rate: float, seconds: float, seed: int = 0
) -> dict[str, list[float]]:
    """Latencies by kind of Poisson arrivals, from the moment at which a request was meant to go."""
    rng, pool = random.Random(seed), []
    found: dict[str, list[float]] = {name: [] for name in bodies}
    tasks, due, begin = [], 0.0, time.perf_counter()

    async def one(kind: str, meant: float) -> None:
        await ask(port, bodies[kind], pool)
        found[kind].append(time.perf_counter() - begin - meant)

    while (due := due + rng.expovariate(rate)) < seconds:
        await asyncio.sleep(max(0.0, begin + due - time.perf_counter()))
        kind = "document" if rng.random() < SHARE else "query"
        tasks.append(asyncio.create_task(one(kind, due)))
    await asyncio.gather(*tasks)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=str(BUNDLED))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    encoder = refimpl.SentenceEncoder(args.folder, dtype=args.dtype)
    query, document = text_of(encoder, QUERY), text_of(encoder, DOCUMENT)
    middle = text_of(encoder, 128)
    alone = {}
    for name, text in (("query", query), ("document", document), ("middle", middle)):
        encoder.encode(text)
        taken = []
        for _ in range(5):
            start = time.perf_counter()
            encoder.encode(text)
            taken.append(time.perf_counter() - start)
        alone[name] = statistics.median(taken)
    process, port, ready = started(args.folder, args.dtype)
    try:
        count = max(CONNECTIONS, int(args.seconds / 2 / ROUNDS / alone["middle"]))
        texts = [middle] * count
        over, inside = [], []
        cpu_over = cpu_inside = 0.0
        for _ in range(ROUNDS):
            cpu = cpu_of(process.pid)
            over.append(asyncio.run(closed(port, [body_of(x) for x in texts])))
            cpu_over += cpu_of(process.pid) - cpu
            start, cpu = time.perf_counter(), time.process_time()
            encoder.encode(texts, normalize_embeddings=True)
            inside.append(time.perf_counter() - start)
            cpu_inside += time.process_time() - cpu
        pool: list[Any] = []

        async def unloaded() -> list[float]:
            out = []
            for _ in range(50):
                start = time.perf_counter()
                await ask(port, body_of(query), pool)
                out.append(time.perf_counter() - start)
            return out

        single = asyncio.run(unloaded())
        work = (1 - SHARE) * alone["query"] + SHARE * alone["document"]
        bodies = {"query": body_of(query), "document": body_of(document)}
        loaded = asyncio.run(open_loop(port, bodies, LOAD / work, args.seconds))
    finally:
        process.terminate()
        code = process.wait(60)
    result = {
        "folder": os.path.basename(args.folder),
        "dtype": args.dtype,
        "ready_s": ready,
        "http_tokens_per_s": 128 * count / statistics.median(over),
        "in_process_tokens_per_s": 128 * count / statistics.median(inside),
        "share": statistics.median(inside) / statistics.median(over),
        "share_of_processor_s": cpu_inside / cpu_over,
        "query_alone_ms": 1e3 * float(np.quantile(single, 0.5)),
        "query_p50_ms": 1e3 * float(np.quantile(loaded["query"], 0.5)),
        "query_p99_ms": 1e3 * float(np.quantile(loaded["query"], 0.99)),
        "document_alone_ms": 1e3 * alone["document"],
        "document_p50_ms": 1e3 * float(np.quantile(loaded["document"], 0.5)),
        "queries": len(loaded["query"]),
        "exit_code": code,
    }
    for name, value in result.items():
        print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")
    print(json.dumps({"machine": machine(), "result": result}))


if __name__ == "__main__":
    main()
