"""Strict JSON: what a model folder may hold in its json files and safetensors headers.

Promise: a key given twice, NaN or Infinity, a number that no float or 64-bit integer holds, broken
UTF-8, lone surrogates and endless nesting are a ModelFormatError with file and byte offset, where
Python's own parser would take them. Reads no file above MAX_JSON_BYTES.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import ModelFormatError

Path_ = str | os.PathLike[str]

# The cap that the safetensors format sets for its header; no honest config comes near.
MAX_JSON_BYTES = 100_000_000
# Digits of 2**63, the longest integer that a shape or an id can need; a longer one, such as the
# 10**30 of "no limit", is a float.
MAX_DIGITS = 19


def read_json(path: Path_, kind: type[dict] | type[list] = dict) -> Any:
    """The content of a json file, which must be of that kind. Raises ModelFormatError."""
    try:
        size = Path(path).stat().st_size
        if size > MAX_JSON_BYTES:
            raise ModelFormatError(f"{size} bytes of json; at most {MAX_JSON_BYTES}", file=path)
        text = Path(path).read_bytes()
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

    def refuse(reason: str, at: int = 0, key: str | None = None) -> ModelFormatError:
        return ModelFormatError(f"wrong json: {reason}", file=file, key=key, offset=offset + at)

    def first(spelled: str) -> int:
        return max(text.find(spelled.encode()), 0)

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, n in counts.items() if n > 1)
            spelled = json.dumps(twice, ensure_ascii=False).encode("utf-8", "replace")
            raise refuse("this key is given twice", max(text.rfind(spelled), 0), twice)
        return out

    def integer(digits: str) -> int | float:
        if len(digits.lstrip("-")) > MAX_DIGITS:
            return real(digits)
        return -0.0 if digits == "-0" else int(digits)

    def real(digits: str) -> float:
        if not math.isfinite(float(digits)):
            raise refuse(f"{digits[:40]} is beyond float64", first(digits))
        return float(digits)

    def constant(name: str) -> None:
        raise refuse(f"{name} is not a json number", first(name))

    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=object_of,
            parse_int=integer,
            parse_float=real,
            parse_constant=constant,
        )
        if b"\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse("the text is not UTF-8", error.start) from None
    except UnicodeEncodeError:
        raise refuse("an escape is half a surrogate pair") from None
    except json.JSONDecodeError as error:
        raise refuse(error.msg, len(error.doc[: error.pos].encode("utf-8"))) from None
    except RecursionError:
        raise refuse("it is nested too deeply") from None
    return value


def _json_type(value: Any) -> str:
    """What a parsed value is called in an error message."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")
