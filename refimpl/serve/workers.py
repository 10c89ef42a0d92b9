"""Forks of this process that are kept at work: one that dies is replaced.

    supervise(count, child, begun)      until SIGTERM or SIGINT, which the forks get as SIGTERM

Promise: a death costs the requests that the dead had in hand and no others; the forks end with the
supervisor, however it ends; what a container hands to its first process is reaped and no more.
Needs POSIX.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

SHORT_LIFE, PAUSE = 1.0, 1.0  # a worker that lived shorter is replaced after a pause, in seconds


def end_with_parent(parent: int) -> None:
    """SIGTERM when the supervisor dies, however it does; where the system can."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before that
            os.kill(os.getpid(), signal.SIGTERM)


def supervise(
    count: int,
    child: Callable[[Callable[[], object]], int],
    begun: Callable[[], object],
    ending: Callable[[], object] = lambda: None,
) -> int:
    """Keep so many forks of this process at work, until a signal, which they get too. child: what
    they do, with what it calls when it has begun; begun: called when all of the first have; ending:
    when they are told to end. Returns 1 where one of them, when told, ended otherwise than well."""
    from prometheus_client import multiprocess  # its folder is known by now

    born: dict[int, float] = {}
    stopping, first, code = False, True, 0
    waited_for, at_work = os.pipe()  # a worker closes its end when it has begun, or dies
    signals = (signal.SIGTERM, signal.SIGINT)

    def end(number: int, frame: Any) -> None:
        nonlocal stopping
        stopping = True
        ending()
        for pid in born:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def one_begun() -> None:
        if first:
            os.close(at_work)

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # or one is missed that ends all
        try:
            if stopping:
                return
            parent, pid = os.getpid(), os.fork()
            if pid == 0:
                code = 1
                try:
                    for number in signals:
                        signal.signal(number, signal.SIG_DFL)
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
                    end_with_parent(parent)
                    code = child(one_begun)
                except BaseException as error:
                    print(f"modernbert serve: worker: {error!r}", file=sys.stderr, flush=True)
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            born[pid] = time.monotonic()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    before = {number: signal.signal(number, end) for number in signals}
    try:
        for _ in range(count):
            start()
        first = False
        os.close(at_work)
        os.read(waited_for, 1)
        os.close(waited_for)
        if not stopping:
            begun()
        while born:
            pid, status = os.waitpid(-1, 0)
            if pid not in born:
                continue
            lived = time.monotonic() - born.pop(pid)
            multiprocess.mark_process_dead(pid)
            ended = os.waitstatus_to_exitcode(status)
            if stopping:
                code = code or int(ended not in (0, -signal.SIGTERM))  # one that had not begun
                continue
            told = f"worker {pid} ended ({ended}); another takes over"
            print(f"modernbert serve: {told}", file=sys.stderr, flush=True)
            if lived < SHORT_LIFE:
                time.sleep(PAUSE)
            if not stopping:
                start()
    finally:
        for number, does in before.items():
            signal.signal(number, does)
    return code
