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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONNECTIONS = 64


class Connection(asyncio.Protocol):
    """One kept connection, a request at a time, in as little time of the processor as may be: it is
    shared with the server."""

    def __init__(self) -> None:
        self._got, self._whole = b"", 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, request: bytes, told: Callable[[int, bytes], object]) -> None:
        """told: is given the status and the content of the answer."""
        self._told = told
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._whole:
            end = self._got.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            length = re.search(rb"(?i)content-length: (\d+)", self._got[:end])
            assert length, self._got[:end]
            self._head, self._whole = end, end + int(length[1])
        if len(self._got) >= self._whole:
            got, self._got, self._whole = self._got, b"", 0
            self._told(int(got[9:12]), got[self._head :])


@dataclass
class Target:
    """A server of OpenAI's route. path: where it has it; pool: its kept connections."""

    port: int
    path: str = "/v1/embeddings"
    model: str = "any"
    pool: list[Connection] = field(default_factory=list)

    def body(self, text: str | list[str]) -> bytes:
        asked = {"model": self.model, "input": text, "encoding_format": "base64"}
        return json.dumps(asked).encode()

    def request(self, text: str | list[str]) -> bytes:
        body = self.body(text)
        head = f"POST {self.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, "127.0.0.1", self.port))[1]

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and content of the answer to one request."""
        connection = self.pool.pop() if self.pool else await self.connection()
        answer = asyncio.get_running_loop().create_future()
        connection.ask(request, lambda *found: answer.set_result(found))
        found: tuple[int, bytes] = await answer
        self.pool.append(connection)
        return found


def run(coroutine: Any, *targets: Target) -> Any:
    """asyncio.run; connections do not outlive its loop."""
    for target in targets:
        target.pool.clear()
    return asyncio.run(coroutine)


async def closed(target: Target, texts: list[str], batch: int = 1) -> float:
    """Seconds for these texts, so many a request."""
    several = [texts[i : i + batch] for i in range(0, len(texts), batch)]
    requests = iter([target.request(some if batch > 1 else some[0]) for some in several])
    connections = [await target.connection() for _ in range(min(CONNECTIONS, len(several)))]
    left, done = len(several), asyncio.get_running_loop().create_future()

    def one(connection: Connection) -> None:
        def told(status: int, content: bytes) -> None:
            nonlocal left
            left -= 1
            if status != 200:
                done.set_exception(AssertionError(content[:500]))
            elif not left:
                done.set_result(None)
            else:
                ask()

        def ask() -> None:
            if request := next(requests, None):
                connection.ask(request, told)

        ask()

    start = time.perf_counter()
    for connection in connections:
        one(connection)
    await done
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
    requests = {kind: target.request(text) for kind, text in texts.items()}
    common, rare = requests
    found: list[Answer] = []
    tasks, due, begin = [], 0.0, time.perf_counter()

    async def one(kind: str, meant: float) -> None:
        status, _ = await target.ask(requests[kind])
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
        status, content = await target.ask(target.request(text))
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
