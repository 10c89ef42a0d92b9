"""Typed errors and warnings, in one place so that callers can catch what they mean.

Every error names the argument or file, the offending value, and what would be right.
Nothing is changed before it is raised.
"""

from __future__ import annotations

import os
from typing import Any

LONGEST_VALUE, LONGEST_KEY = 80, 200


def shown(value: Any) -> str:
    """A value of a file as a message has it: as Python spells it, in ASCII, a line at most. The C
    library spells it the same way."""
    return ascii(value)[:LONGEST_VALUE]


def _shown_key(key: str) -> str:
    """A key, cut to LONGEST_KEY bytes of UTF-8, without control characters; as the C library's."""
    text = key.encode("utf-8", "replace")
    cut = text[:LONGEST_KEY].decode("utf-8", "ignore")
    plain = "".join("?" if ord(c) < 0x20 or ord(c) == 0x7F else c for c in cut)
    return plain + "..." if len(text) > LONGEST_KEY else plain


class ModelFormatError(ValueError):
    """A model folder or file is not what it claims to be.

    Attributes: `file` (path as text), `key` (tensor or config key, or None) and `offset`
    (byte offset in the file, or None). The text is that of the C library for the same fault.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | os.PathLike[str],
        key: str | None = None,
        offset: int | None = None,
    ) -> None:
        self.file = os.fspath(file)
        self.key = key
        self.offset = offset
        where = self.file
        if key is not None:
            where += f": {_shown_key(key)}"
        if offset is not None:
            where += f" (byte {offset})"
        super().__init__(f"{where}: {message}")


class MissingExtraError(ImportError):
    """An optional package is needed; the message holds the pip command that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f'{purpose} needs the package {package!r}: pip install "modernbert-refimpl[{extra}]"',
            name=package,
        )


class HubError(OSError):
    """A hub id could not be resolved: not in the local cache, or no network, or not allowed."""


class SpaceError(ValueError):
    """Stored vectors belong to another embedding space than those asked for; the text says what
    differs."""


class ExerciseError(ValueError):
    """An exercise is unknown, or a folder is not one that `modernbert exercise start` has made."""


class TruncationWarning(UserWarning):
    """Text was cut to the model's maximum length; the result says how many tokens were lost."""


class UncertifiedWarning(UserWarning):
    """A model computes in int8, and nobody has measured what that costs it."""


class LongInputWarning(UserWarning):
    """A sequence is longer than max_position_embeddings; RoPE is computed for it all the same."""
