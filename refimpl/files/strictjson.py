"""Strict JSON: what a model folder may hold in its json files and safetensors headers.

Promise: a key given twice, NaN or Infinity, a number that no float or 64-bit integer holds, broken
UTF-8, lone surrogates and endless nesting are a ModelFormatError with file and byte offset, where
Python's own parser would take them; what is wrong is said in the words of the C library
(json_fault.py). Reads no file above MAX_JSON_BYTES.
"""

from __future__ import annotations

import json
import math
from typing import Any

from ..errors import ModelFormatError
from .identity import Path_, Seen, identity_of, ignored
from .json_fault import DEPTH, MAX_DIGITS, VALUES, fault_of

# The cap that the safetensors format sets for its header; no honest config comes near.
MAX_JSON_BYTES = 100_000_000


def read_json(path: Path_, kind: type[dict] | type[list] = dict, seen: Seen = ignored) -> Any:
    """The content of a json file, which must be of that kind. Raises ModelFormatError.

    seen: is told which file that was (identity.py).
    """
    try:
        with open(path, "rb") as stream:
            facts = identity_of(stream.fileno())
            size = facts[2]
            if size > MAX_JSON_BYTES:
                raise ModelFormatError(f"{size} bytes of json; at most {MAX_JSON_BYTES}", file=path)
            text = stream.read()
        seen(path, facts)
    except FileNotFoundError:
        raise ModelFormatError("this file is missing", file=path) from None
    except OSError as error:
        raise ModelFormatError(f"cannot be read: {error.strerror}", file=path) from error
    value = parse_json(text, file=path)
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        raise ModelFormatError(f"holds {_json_type(value)}; it must hold {wanted}", file=path)
    return value


def parse_json(text: bytes, *, file: Path_, offset: int = 0) -> Any:
    """The value of a JSON text that starts at byte `offset` of `file`. Raises ModelFormatError."""
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_once,
            parse_int=_integer,
            parse_float=_real,
            parse_constant=_refused,
        )
        if b"\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        if _within_limits(value, text):
            return value
    except (ValueError, RecursionError):  # those of json and of UTF-8 are ValueErrors
        pass
    found = fault_of(text)
    assert found is not None, "two readers of JSON that do not agree"
    reason, at, key = found
    raise ModelFormatError(f"wrong json: {reason}", file=file, key=key, offset=offset + at)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key is given twice")
    return out


def _integer(digits: str) -> int | float:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        return _real(digits)
    return -0.0 if digits == "-0" else int(digits)


def _real(digits: str) -> float:
    if not math.isfinite(float(digits)):
        raise ValueError("a number is beyond float64")
    return float(digits)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _within_limits(value: Any, text: bytes) -> bool:
    """Whether there are no more levels and values than the C library takes. Few texts can have so
    many: those are looked at, level by level."""
    if len(text) < 2 * VALUES and text.count(b"[") + text.count(b"{") <= DEPTH:
        return True
    level, depth, count = [value], 0, 1
    while level := [x for x in level if type(x) in (dict, list)]:
        level = [y for x in level for y in (x.values() if type(x) is dict else x)]
        depth, count = depth + bool(level), count + len(level)
        if depth > DEPTH or count > VALUES:
            return False
    return True


def _json_type(value: Any) -> str:
    """What a parsed value is called in an error message."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")
