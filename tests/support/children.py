"""Children of the tests: `modernbert`, and forks, whose end is waited for, but not for ever."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

# `modernbert` of the package that is tested, which conftest.py puts on the path. -P: not that of
# the checkout, if it starts there; Python 3.10 takes that.
PROGRAM = [sys.executable, *(["-P"] if sys.version_info >= (3, 11) else []), "-m", "refimpl"]
SECONDS = 120  # that a child may take


def end_of(child: int, seconds: float = SECONDS) -> int:
    """The exit status of a child, or minus its signal; AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    pause = 0.0005
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"a child did not end within {seconds} s")


def in_child(function: Callable[[], object]) -> int:
    """Exit status of a fork that runs it: 0 when it returned true."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if function() else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return end_of(child)
