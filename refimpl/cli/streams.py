"""Lines of a stream, as they come, with an interrupt heard at any time."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO


def raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a stream. An interrupt ends the wait for the next one whenever it arrives.

    A signal just before a read does not end it, and Python's handler waits for the read: so both
    the input and the signals, which Python writes to a socket, are waited for.
    """
    with ExitStack() as stack:
        try:
            source, signals = stream.fileno(), stack.enter_context(_signals())
            select.select([source, signals.fileno()], [], [], 0)
        except (OSError, ValueError):  # no file, not the main thread, or a system without this
            yield from stream
            return
        parts: list[bytes] = []
        while True:
            ready, _, _ = select.select([source, signals.fileno()], [], [])
            if signals.fileno() in ready and signal.SIGINT in signals.recv(4096):
                if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                    raise KeyboardInterrupt  # which the handler did, but where nobody heard it
            if source not in ready:
                continue
            read = os.read(source, 2**16)
            *whole, rest = (b"".join(parts) + read if b"\n" in read else read).split(b"\n")
            parts = [rest] if whole or not parts else [*parts, rest]
            yield from (line + b"\n" for line in whole)
            if not read:
                if last := b"".join(parts):
                    yield last
                return


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that gets the number of each signal. ValueError outside the main thread."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield ours
        finally:
            try:
                signal.set_wakeup_fd(before)
            except OSError:  # the socket of another reader, which is closed by now
                signal.set_wakeup_fd(-1)
