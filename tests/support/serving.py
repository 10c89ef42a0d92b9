"""A server as a process, and requests to it over one connection each; what lanes run, by itself."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from support.children import PROGRAM

START = 120.0  # seconds, on a busy machine


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Until it holds; AssertionError after a time that no busy machine takes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} seconds"
        time.sleep(0.005)


def resident(pid: int) -> int:
    """Memory of a process, KiB."""
    with open(f"/proc/{pid}/status") as stream:
        found = re.search(r"VmRSS:\s*(\d+) kB", stream.read())
    assert found is not None
    return int(found[1])


# -- in the place of a model ----------------------------------------------------------------------


class Text:
    """What lanes look at of an encoding."""

    def __init__(self, length: int, lost: int = 0) -> None:
        self.length, self.lost = length, lost

    def __len__(self) -> int:
        return self.length


class Model:
    """Gives each text its length, remembers passes, and waits where it is told to."""

    def __init__(self) -> None:
        self.passes: list[list[int]] = []
        self.open, self.started = threading.Event(), 0
        self.open.set()

    def __call__(self, batch: list[Text]) -> Any:
        self.started += 1
        assert self.open.wait(120)
        self.passes.append([len(e) for e in batch])
        return {"length": np.array([len(e) for e in batch])}


# -- a process ------------------------------------------------------------------------------------


class Server:
    """`modernbert serve` on a free port of 127.0.0.1; its log in a file."""

    def __init__(self, *options: str, env: dict[str, str] | None = None) -> None:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8")
        command = [*PROGRAM, "serve", "--port", "0", *map(str, options)]
        self.process = subprocess.Popen(
            command, stderr=self._log, stdout=subprocess.DEVNULL, env={**os.environ, **(env or {})}
        )
        end = time.monotonic() + START
        while (found := re.search(r"on http://127\.0\.0\.1:(\d+)", self.log())) is None:
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise RuntimeError(self.log())
            time.sleep(0.02)
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        with open(self._log.fileno(), encoding="utf-8", closefd=False) as stream:
            stream.seek(0)
            return stream.read()

    def lines(self) -> list[dict[str, Any]]:
        """The structured lines of the log."""
        return [json.loads(x) for x in self.log().splitlines() if x.startswith("{")]

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)

    def ask(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None, raw: bool = False
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON (or bytes), headers of a POST with a JSON body, or of a GET without one."""
        connection = self.connection()
        try:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            said = {} if body is None else {"Content-Type": "application/json"}
            method = "GET" if body is None else "POST"
            connection.request(method, path, content, said | (headers or {}))
            answer = connection.getresponse()
            found = answer.read()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found if raw else json.loads(found), told
        finally:
            connection.close()

    def post(self, path: str, body: Any) -> Any:
        """The JSON of an answer that must be 200."""
        status, found, _ = self.ask(path, body)
        assert status == 200, found
        return found

    def raw(self, sent: bytes, half_close: bool = False) -> bytes:
        """What comes back for these bytes until the server closes, which it may do before it has
        taken all of them."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as sock:
            found = b""
            with suppress(ConnectionError):
                sock.sendall(sent)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while part := sock.recv(2**16):
                    found += part
            return found

    def figure(self, name: str) -> float:
        """The sum of a figure of /metrics, over its labels."""
        text = self.ask("/metrics", raw=True)[1].decode()
        lines = [x for x in text.splitlines() if re.match(rf"{name}[{{ ]", x)]
        return sum(float(x.rpartition(" ")[2]) for x in lines)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(120)
