"""Input of the verbs: texts of the command line, or lines of stdin as plain text or JSONL.

Promise: one `Line` per text or line, in order, none dropped: a blank line is an empty text, and a
line that cannot be read is a Line with an error. Nothing is read ahead beyond the block asked for.
"""

from __future__ import annotations

import argparse
import codecs
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO


@dataclass
class Line:
    """One input: its number from 0, and its fields or what is wrong with it. `id` is echoed."""

    index: int
    fields: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def head(self) -> dict[str, Any]:
        """How the record of this line begins."""
        given = {"id": self.fields["id"]} if "id" in self.fields else {}
        return {"index": self.index} | given


def read_lines(args: argparse.Namespace, texts: list[str], key: str = "text") -> Iterator[Line]:
    """The texts, or the lines of stdin when there are none or the only one is "-".

    key: the field that a plain text fills. Usage error on a terminal without texts.
    """
    if texts and texts != ["-"]:
        yield from (Line(i, {key: text}) for i, text in enumerate(texts))
        return
    if sys.stdin is None:  # closed by whoever started the command
        args.usage_error(f"give a {key}: standard input is closed")
    if not texts and sys.stdin.isatty():
        args.usage_error(f"give a {key}, or - to read lines from stdin")
    is_json = {"text": False, "jsonl": True}.get(args.input)
    for index, raw in enumerate(_raw_lines(sys.stdin.buffer)):
        if index == 0:
            raw = raw.removeprefix(codecs.BOM_UTF8)  # a mark of the file, not of its first text
        if is_json is None and raw.strip():  # a blank line is an empty text and decides nothing
            is_json = raw.lstrip().startswith(b"{")
        yield _parsed(index, raw.rstrip(b"\r\n"), key, bool(is_json))


def _raw_lines(stream: BinaryIO) -> Iterator[bytes]:
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
            signal.set_wakeup_fd(before)


def from_command_line(texts: list[str]) -> bool:
    """Whether the inputs are arguments, where a bad one ends the command."""
    return bool(texts) and texts != ["-"]


def blocks(lines: Iterator[Line], size: int) -> Iterator[list[Line]]:
    """Lists of up to `size` lines."""
    while block := list(islice(lines, size)):
        yield block


def _parsed(index: int, raw: bytes, key: str, is_json: bool) -> Line:
    """The line, or what is wrong with it."""
    try:
        text = raw.decode("utf-8")
        fields = json.loads(text) if is_json else {key: text}
        json.dumps(fields, allow_nan=False)  # refuses NaN and Infinity, which no JSON has
    except UnicodeDecodeError as error:
        return Line(index, error=f"not UTF-8 at byte {error.start}")
    except (ValueError, RecursionError) as error:
        return Line(index, error=f"not JSON: {error}")
    if isinstance(fields, str):
        fields = {key: fields}
    if not isinstance(fields, dict):
        return Line(index, error=f"expected a JSON object, got {type(fields).__name__}")
    return Line(index, fields)


def needed(line: Line, *keys: str) -> list[Any]:
    """The fields of a line. Raises ValueError for a missing one, TypeError for what is no text."""
    for key in keys:
        if key not in line.fields:
            raise ValueError(f'the field "{key}" is missing; this line has {sorted(line.fields)}')
        if not isinstance(line.fields[key], str):
            raise TypeError(f'the field "{key}" is {type(line.fields[key]).__name__}, not text')
    return [line.fields[key] for key in keys]
