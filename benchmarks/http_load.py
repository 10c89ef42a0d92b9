"""Requests to a server of embeddings on the loopback address, and what it takes meanwhile.

closed      so many connections that ask as soon as they were answered: seconds
open_loop   Poisson arrivals whatever the answers: latencies from the intended arrival, so that
            queueing is in them
Watched     resident memory of a process while a block runs: its most, and before and behind
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONNECTIONS = 64


@dataclass
class Target:
    """A server of OpenAI's route. path: where it has it; pool: its kept connections."""

    port: int
    path: str = "/v1/embeddings"
    model: str = "any"
    pool: list[Any] = field(default_factory=list)

    def body(self, text: str | list[str]) -> bytes:
        asked = {"model": self.model, "input": text, "encoding_format": "base64"}
        return json.dumps(asked).encode()

    async def ask(self, body: bytes) -> tuple[int, bytes]:
        """Status and content of the answer to one request."""
        reader, writer = (
            self.pool.pop()
            if self.pool
            else await asyncio.open_connection("127.0.0.1", self.port, limit=2**22)
        )
        writer.write(
            b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (self.path.encode(), len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head.lower())
        assert found, head
        content = await reader.readexactly(int(found[1]))
        self.pool.append((reader, writer))
        return int(head.split()[1]), content


def run(coroutine: Any, *targets: Target) -> Any:
    """asyncio.run; connections do not outlive its loop."""
    for target in targets:
        target.pool.clear()
    return asyncio.run(coroutine)


async def closed(target: Target, texts: list[str], batch: int = 1) -> float:
    """Seconds for these texts, so many a request."""
    several = [texts[i : i + batch] for i in range(0, len(texts), batch)]
    left = iter([target.body(some if batch > 1 else some[0]) for some in several])

    async def client() -> None:
        for body in left:
            status, content = await target.ask(body)
            assert status == 200, content[:500]

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return time.perf_counter() - start


@dataclass
class Answer:
    """Of a request of an open loop: seconds from its intended arrival to its answer."""

    kind: str
    status: int
    seconds: float


async def open_loop(
    target: Target, texts: Mapping[str, str], share: float, rate: float, seconds: float
) -> list[Answer]:
    """Answers to Poisson arrivals. texts: the two kinds, of which the second has that share."""
    rng = random.Random(0)
    bodies = {kind: target.body(text) for kind, text in texts.items()}
    common, rare = bodies
    found: list[Answer] = []
    tasks, due, begin = [], 0.0, time.perf_counter()

    async def one(kind: str, meant: float) -> None:
        status, _ = await target.ask(bodies[kind])
        found.append(Answer(kind, status, time.perf_counter() - begin - meant))

    while (due := due + rng.expovariate(rate)) < seconds:
        await asyncio.sleep(max(0.0, begin + due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(rare if rng.random() < share else common, due)))
    await asyncio.gather(*tasks)
    return found


async def one_by_one(target: Target, text: str, count: int, pause: float = 0.0) -> list[float]:
    """Seconds of each of so many requests, each alone, so many seconds after the last."""
    out = []
    for _ in range(count):
        await asyncio.sleep(pause)
        start = time.perf_counter()
        status, content = await target.ask(target.body(text))
        assert status == 200, content[:500]
        out.append(time.perf_counter() - start)
    return out


# -- what a process takes -------------------------------------------------------------------------


def cpu_of(pid: int) -> float:
    """Processor seconds that a process and its children have taken."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_of(int(child)) for child in children)


def resident(pid: int) -> float:
    """MiB."""
    found = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


class Watched:
    """`before`, `most` and `behind`, MiB, of a process; looked at every 20 ms."""

    def __init__(self, pid: int) -> None:
        self.pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watched:
        self.before = self.most = self.behind = resident(self.pid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.behind = resident(self.pid)

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, resident(self.pid))
