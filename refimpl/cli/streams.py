"""Lines of a stream, as they come: its bytes counted, an interrupt heard at any time."""

from __future__ import annotations

import codecs
import os
import select
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import BinaryIO


class Source:
    """The lines of a binary stream, counting its bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._read, self._size = stream, 0, size_of(stream)

    def __iter__(self) -> Iterator[bytes]:
        mark = codecs.BOM_UTF8  # of the file, not of its first text
        for raw in raw_lines(self._stream):
            self._read += len(raw)
            yield raw.removeprefix(mark)
            mark = b""

    @property
    def part(self) -> float | None:
        return min(self._read / self._size, 1.0) if self._size else None


def size_of(stream: BinaryIO) -> int | None:
    """Bytes that a stream has still to give, where it is a regular file."""
    try:
        status = os.fstat(stream.fileno())
        return status.st_size - stream.tell() if stat.S_ISREG(status.st_mode) else None
    except OSError:
        return None


def raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a stream. An interrupt ends the wait for the next one whenever it arrives.

    A signal just before a read does not end it, and Python's handler waits for the read: so both
    the input and the signals, which Python writes to a socket, are waited for. Within `listening`
    those too that came before.
    """
    with ExitStack() as stack:
        try:
            source, signals = stream.fileno(), _heard or stack.enter_context(_signals())
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


# Where the signals of `listening` are read.
_heard: socket.socket | None = None


@contextmanager
def listening() -> Iterator[None]:
    """The signals of the whole block are kept for the waits in it: what Python's handler raises
    where nobody hears it, as in a callback of the garbage collector, ends the next wait."""
    global _heard
    with ExitStack() as stack:
        with suppress(OSError, ValueError):  # not the main thread, or a system without this
            _heard = stack.enter_context(_signals())
        try:
            yield
        finally:
            _heard = None


# The sockets of one process, which stay open: an interrupt may come before Python was told not to
# write to them any more.
_pair: tuple[int, socket.socket, socket.socket] | None = None


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that gets the number of each signal. ValueError outside the main thread."""
    global _pair
    if _pair is None or _pair[0] != os.getpid():
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        _pair = os.getpid(), ours, theirs
    _, ours, theirs = _pair
    before = signal.set_wakeup_fd(-1)
    if before != theirs.fileno():  # no other wait of this process goes on
        with suppress(BlockingIOError):
            ours.recv(4096)
    try:
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        yield ours
    finally:
        try:
            signal.set_wakeup_fd(before)
        except OSError:  # the socket of another reader, which is closed by now
            signal.set_wakeup_fd(-1)
