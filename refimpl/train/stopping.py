"""Ctrl-C between steps instead of within one: a run stops where its state is whole.

    with stops_asked_for() as stop:
        while ...: step; if stop.asked: save, and raise KeyboardInterrupt

A second Ctrl-C stops at once, as it does elsewhere. Only the main thread is asked by signals; in
another one nothing changes.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """asked: whether somebody pressed Ctrl-C."""

    asked: bool = False


@contextmanager
def stops_asked_for() -> Iterator[Stop]:
    """A Stop that SIGINT sets; the former handler is back when the block ends."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
