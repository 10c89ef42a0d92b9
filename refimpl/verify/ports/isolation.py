"""Running what nobody vouches for: another process, watched from outside, ended as a group.

`watch(process, limits, done)` waits until `done()` says so, the process ends, or it passes a limit
of time, memory or bytes written; then the whole process group is killed. The result is a sentence,
not an exception. POSIX only. It is a guard against mistakes, not against malice: a process that
leaves its group is not followed.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.02
# What of a port's stderr is worth showing.
TAIL_BYTES = 2000
# Before the number of an exit code.
ENDED = "ends with exit code"


@dataclass(frozen=True)
class Limits:
    """seconds per call; memory: resident bytes of the process group; output: bytes of files."""

    seconds: float = 300.0
    memory: int = 8 * 2**30
    output: int = 2**30


def own_group(limits: Limits) -> Callable[[], None]:
    """For Popen's preexec_fn: no file of the process may pass the output limit, sparse or not; and
    whoever ignores its children here does not ask the same of the process."""

    def prepare() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.output, limits.output))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return prepare


@contextlib.contextmanager
def child_signals() -> Iterator[None]:
    """Inside, an exit status waits until it is asked for: where SIGCHLD is ignored (by supervisors
    and daemons), the system throws it away, and a crash looks like exit code 0."""
    ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    if not ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def watch(
    process: subprocess.Popen[bytes],
    limits: Limits,
    done: Callable[[], bool],
    output: Path | None = None,
) -> str | None:
    """None when done, or when the process has ended by itself; else why it was killed."""
    started = time.monotonic()
    while not done() and process.poll() is None:
        problem = _over(process.pid, limits, time.monotonic() - started, output)
        if problem is not None:
            kill_group(process)
            return problem
        time.sleep(POLL_SECONDS)
    return None


def _over(pid: int, limits: Limits, seconds: float, output: Path | None) -> str | None:
    if seconds > limits.seconds:
        return f"hangs: no answer within {limits.seconds:g} seconds; it was killed"
    memory = group_memory(pid)
    if memory > limits.memory:
        return f"uses {memory:,} bytes of memory (limit {limits.memory:,}); it was killed"
    if output is not None and folder_size(output) > limits.output:
        return f"writes more than {limits.output:,} bytes; it was killed"
    return None


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and everything that it has started, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def how_it_ended(code: int, limits: Limits) -> str | None:
    """None for exit code 0; else in words. To be asked within child_signals()."""
    if code == 0 and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        return (
            "ends with a status that is lost, since SIGCHLD is ignored in this process: it may "
            "have crashed (set SIGCHLD to its default, or verify in the main thread)"
        )
    if code == 0:
        return None
    if code == -signal.SIGXFSZ:
        return f"writes a file of more than {limits.output:,} bytes; it was killed"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"crashes with {signal.Signals(-code).name}"
        return f"crashes with signal {-code}"
    return f"{ENDED} {code}"


def group_memory(group: int) -> int:
    """Resident bytes of all processes of a group; 0 where /proc does not tell."""
    total = 0
    for entry in os.scandir("/proc") if os.path.isdir("/proc/self") else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # Fields after the command's name, which may hold anything but the last ')'.
                fields = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[2]) == group:
                    total += int(fields[21]) * resource.getpagesize()
    return total


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder, holes counted; what vanishes meanwhile is nothing."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(at, name)).st_size
    return total


def tail(path: Path) -> str:
    """The end of a text file, on one line each, or nothing."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read(TAIL_BYTES).decode(errors="replace").strip()
    return ""
