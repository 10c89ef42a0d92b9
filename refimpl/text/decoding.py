"""Tokens to the text that they stand for, by the name of a file's decoder.

    ByteLevel: each character of a token is a byte. ByteFallback: U+2581 is a space, <0x41> a byte.

Promise: what the `tokenizers` package gives; bytes that are no text are U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import groupby

BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")


def byte_of() -> dict[str, int]:
    """The characters that stand for bytes in byte-level tokens."""
    out, other = {}, 0x100
    for byte in range(256):
        itself = 0x21 <= byte <= 0x7E or 0xA1 <= byte <= 0xAC or byte >= 0xAE
        out[chr(byte if itself else other)] = byte
        other += not itself
    return out


BYTE_OF = byte_of()


def byte_level(tokens: Sequence[str]) -> str:
    return b"".join(map(bytes_of, tokens)).decode(errors="replace")


def byte_fallback(tokens: Sequence[str]) -> str:
    return with_bytes([token.replace("\u2581", " ") for token in tokens])


def bytes_of(token: str) -> bytes:
    """Of a byte-level token; one with a character that stands for no byte is itself."""
    try:
        return bytes(BYTE_OF[c] for c in token)
    except KeyError:
        return token.encode()


def with_bytes(tokens: Sequence[str]) -> str:
    """Runs of <0x00> to <0xFF> as their text; of bytes that are none, each is U+FFFD."""
    out: list[str] = []
    for is_byte, run in groupby(tokens, lambda token: bool(BYTE_TOKEN.fullmatch(token))):
        if not is_byte:
            out += run
            continue
        raw = bytes(int(token[3:5], 16) for token in run)
        try:
            out.append(raw.decode())
        except UnicodeDecodeError:
            out.append("\ufffd" * len(raw))
    return "".join(out)


DECODERS: dict[str, Callable[[Sequence[str]], str]] = {
    "ByteLevel": byte_level,
    "ByteFallback": byte_fallback,
    "": " ".join,
}
