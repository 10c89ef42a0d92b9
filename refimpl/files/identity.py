"""Which state of a file was read: device, number, size and time of change.

    identity_of(descriptor or path)     of what is open, or stands there now
    Seen                                who is told of each file that is read, and its identity

A file that was replaced has another number, one that was written to another time or size. The clock
that stamps files goes in steps of up to 10 ms: two states within one step can look alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

Path_: TypeAlias = "str | os.PathLike[str]"
Identity: TypeAlias = "tuple[int, ...]"
Seen: TypeAlias = "Callable[[Path_, Identity], object]"


def identity_of(file: int | Path_) -> Identity:
    """OSError where there is no such file."""
    facts = os.stat(file)
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def ignored(path: Path_, identity: Identity) -> None:
    """The Seen that does not care."""
