"""A port as a shared library with the interface of port.h, in a process of its own.

The process (library_host.py) stays while it lives, so that a model stays loaded from call to call
and mistakes that need several calls can show. A crash, a hang or a memory explosion of the library
ends that process, is a finding, and the next call starts another one.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import MissingExtraError
from ..findings import Finding
from .command_port import detached, write_case
from .dump import read_dump
from .isolation import Limits, how_it_ended, kill_group, own_group, tail, watch
from .names import Description
from .port import PortResult, Request

HOST = f"{__package__}.library_host"


class LibraryPort:
    """A shared library. Raises MissingExtraError without cffi, ValueError when it does not load."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        declared: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        if find_spec("cffi") is None:
            raise MissingExtraError("cffi", "verify", "loading a shared library")
        self.path = Path(path).resolve()
        if not self.path.is_file():
            raise ValueError(f"library {os.fspath(path)!r} is not a file")
        self.declared, self.limits = declared, limits or Limits()
        self._host: _Host | None = None
        first, problem = self._started().answer(self.limits)
        if problem is not None or "error" in first:
            raise ValueError(f"library {self.path.name} does not load: {problem or first['error']}")
        self.abilities = frozenset({"inputs", "state", *first["abilities"]})

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def dtype(self) -> str:
        return self.declared or "float32"

    def run(self, request: Request) -> PortResult:
        return self.run_together([request])[0]

    def run_together(self, requests: Sequence[Request]) -> list[PortResult]:
        with tempfile.TemporaryDirectory(prefix="modernbert-verify-") as folder:
            jobs = []
            for i, request in enumerate(requests):
                case, out = write_case(Path(folder, str(i)), request), Path(folder, f"out{i}")
                write_injected(case / "inject", request)
                out.mkdir()
                jobs.append((case, out))
            answer, problem = self._ask(jobs, Path(folder))
            told = answer.get("results", [{"error": problem}] * len(jobs))
            return [
                self._result(request, out, says)
                for request, (_, out), says in zip(requests, jobs, told, strict=True)
            ]

    def _result(self, request: Request, out: Path, says: dict[str, str]) -> PortResult:
        if "refused" in says:
            message = f"refused by the port: {says['refused']}"
            return PortResult(findings=(Finding("port", "note", message, request.name),))
        if "error" in says:
            message = f"the library {says['error']}"
            return PortResult(findings=(Finding("port", "fail", message, request.name),))
        result = detached(read_dump(out, request, Description(), self.declared))
        if "unwritten" not in says:
            return result
        message = f"mbv_forward gives MBV_OK and never wrote {says['unwritten']}"
        # That no step has come is the same thing said less well.
        found = [f for f in result.findings if result.taps or f.level != "fail"]
        unwritten = Finding("port", "fail", message, request.name)
        return replace(result, findings=(unwritten, *found))

    def _ask(self, jobs: list[tuple[Path, Path]], folder: Path) -> tuple[dict[str, Any], str]:
        """The host's answer, or {} and what became of the host."""
        host = self._started()
        host.send({"jobs": [[os.fspath(case), os.fspath(out)] for case, out in jobs]})
        answer, problem = host.answer(self.limits, folder)
        if problem is not None:
            self._host = None
        return answer, problem or ""

    def _started(self) -> _Host:
        """The host that is alive, or a new one, past its first line."""
        if self._host is None:
            again = hasattr(self, "abilities")
            self._host = _Host(self.path, self.limits)
            if again:
                self._host.answer(self.limits)
        return self._host


class _Host:
    """The child process, its pipes, and its log."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="modernbert-verify-")
        self.log = Path(self.folder.name, "log")
        reading, writing = os.pipe()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "refimpl.verify.ports.library_host",
                    str(path),
                    str(writing),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(writing,),
                start_new_session=True,
                preexec_fn=own_group(limits),
            )
        os.close(writing)
        self.replies, self.buffer = reading, b""
        self.end = weakref.finalize(self, _end, self.process, reading, self.folder)

    def send(self, what: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it died since: the answer will say so
            self.process.stdin.write(json.dumps(what).encode() + b"\n")
            self.process.stdin.flush()

    def answered(self) -> bool:
        """Whether a whole line has come."""
        while select.select([self.replies], [], [], 0)[0]:
            part = os.read(self.replies, 2**16)
            if not part:
                break
            self.buffer += part
        return b"\n" in self.buffer

    def answer(
        self, limits: Limits, output: Path | None = None
    ) -> tuple[dict[str, Any], str | None]:
        """(answer, None), or ({}, what the process did instead)."""
        killed = watch(self.process, limits, self.answered, output)
        if self.answered():
            line, _, self.buffer = self.buffer.partition(b"\n")
            with suppress(ValueError):
                return json.loads(line), None
            killed = "writes into the pipe on which its host answers"
        kill_group(self.process)
        ended = killed or how_it_ended(self.process.returncode, limits) or "ends its process"
        said = tail(self.log)
        self.end()
        return {}, ended + (f"; its last words:\n{said}" if said else "")


def _end(process: subprocess.Popen[bytes], replies: int, folder: Any) -> None:
    kill_group(process)
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    with suppress(OSError):
        os.close(replies)
    folder.cleanup()


def write_injected(folder: Path, request: Request) -> None:
    """The steps that the port is to go on with."""
    if request.inject:
        folder.mkdir()
    for name, x in request.inject.items():
        np.save(folder / f"{name}.npy", np.asarray(x, np.float32))
