"""Where a text stops being strict JSON, and why: in the words, and at the byte, of the C library.

    fault_of(text) -> (reason, byte, key), or None for a right one

Slow: for texts that json.loads, or a limit, has refused (strictjson.py). The walk is that of
csrc/files/json.cpp, step by step. A text has at most DEPTH levels and VALUES values.
"""

from __future__ import annotations

import math
import re
from typing import NoReturn

DEPTH = 128
VALUES = 2**22
# Digits of 2**63, the longest integer that a shape or an id can need; a longer one, such as the
# 10**30 of "no limit", is a float.
MAX_DIGITS = 19

SPACE = re.compile(rb"[ \t\n\r]*")
NUMBER = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
UNIT = re.compile(rb"[0-9a-fA-F]{4}")
WORDS = (b"null", b"true", b"false")
NO_NUMBERS = (b"NaN", b"Infinity", b"-Infinity")
Fault = tuple[str, int, str | None]


class _Found(Exception):
    def __init__(self, *fault: object) -> None:
        self.fault = fault


def fault_of(text: bytes) -> Fault | None:
    """See above."""
    try:
        text.decode("utf-8")
        _Walk(text).whole()
    except UnicodeDecodeError as error:
        return "the text is not UTF-8", error.start, None
    except _Found as found:
        reason, at, key = found.fault
        return str(reason), int(str(at)), None if key is None else str(key)
    return None


class _Walk:
    def __init__(self, text: bytes) -> None:
        self.text, self.at, self.values = text, 0, 0

    def whole(self) -> None:
        self.value(0)
        self.space()
        if self.at != len(self.text):
            self.refuse("something follows the value")

    def refuse(self, reason: str, at: int | None = None, key: str | None = None) -> NoReturn:
        raise _Found(reason, self.at if at is None else at, key)

    def space(self) -> None:
        found = SPACE.match(self.text, self.at)
        assert found is not None
        self.at = found.end()

    def take(self, mark: bytes) -> bool:
        self.space()
        there = self.text.startswith(mark, self.at)
        self.at += there
        return there

    def value(self, depth: int) -> None:
        self.space()
        if depth > DEPTH:
            self.refuse("it is nested too deeply")
        self.values += 1
        if self.values > VALUES:
            self.refuse("it holds too many values")
        mark = self.text[self.at : self.at + 1]
        if not mark:
            self.refuse("a value is missing")
        if mark == b"{":
            self.object(depth)
        elif mark == b"[":
            self.list(depth)
        elif mark == b'"':
            self.string()
        else:
            self.word_or_number()

    def word_or_number(self) -> None:
        for word in WORDS:
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return
        for word in NO_NUMBERS:
            if self.text.startswith(word, self.at):
                self.refuse(f"{word.decode()} is not a json number")
        found = NUMBER.match(self.text, self.at)
        if found is None:
            self.refuse("a value is missing")
        if not math.isfinite(float(found[0])):
            self.refuse(f"{found[0][:40].decode()} is beyond float64")
        self.at = found.end()

    def object(self, depth: int) -> None:
        keys: list[tuple[str, int]] = []
        self.at += 1
        if self.take(b"}"):
            return
        while True:
            self.space()
            first = self.at
            if not self.text.startswith(b'"', first):
                self.refuse("a key in quotes is missing")
            keys.append((self.string(), first))
            if not self.take(b":"):
                self.refuse("a colon is missing")
            self.value(depth + 1)
            if not self.take(b","):
                break
        if not self.take(b"}"):
            self.refuse("a comma or a brace is missing")
        keys.sort()
        for (one, _), (other, second) in zip(keys, keys[1:], strict=False):
            if one == other:
                self.refuse("this key is given twice", second, other)

    def list(self, depth: int) -> None:
        self.at += 1
        if self.take(b"]"):
            return
        self.value(depth + 1)
        while self.take(b","):
            self.value(depth + 1)
        if not self.take(b"]"):
            self.refuse("a comma or a bracket is missing")

    def string(self) -> str:
        parts: list[str] = []
        self.at += 1
        while True:
            found = PLAIN.match(self.text, self.at)
            assert found is not None
            parts.append(found[0].decode())
            self.at = found.end()
            mark = self.text[self.at : self.at + 1]
            if not mark:
                self.refuse("a string does not end")
            if mark == b'"':
                self.at += 1
                return "".join(parts)
            if mark != b"\\":
                self.refuse("a control character stands in a string")
            parts.append(self.escape())

    def escape(self) -> str:
        first = self.at
        self.at += 1
        mark = self.text[self.at : self.at + 1]
        if not mark:
            self.refuse("a string does not end")
        if mark in b'"\\/bfnrt':
            self.at += 1
            return '"\\/\b\f\n\r\t'['"\\/bfnrt'.index(mark.decode())]
        if mark != b"u":
            self.refuse("an escape is unknown", first)
        point = self.unit(first)
        if 0xD800 <= point <= 0xDFFF:
            paired = point <= 0xDBFF and self.text.startswith(b"\\", self.at)
            self.at += paired
            low = self.unit(first) if paired and self.text.startswith(b"u", self.at) else 0
            if not 0xDC00 <= low <= 0xDFFF:
                self.refuse("an escape is half a surrogate pair", first)
            point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00)
        return chr(point)

    def unit(self, first: int) -> int:
        """The four digits behind a u."""
        found = UNIT.match(self.text, self.at + 1)
        if found is None:
            self.refuse("an escape is cut", first)
        self.at = found.end()
        return int(found[0], 16)
