"""Temporary files of saves whose process was killed: told from those of living ones, and removed.

    descriptor = hold(path)     a lock on a temporary file, until it is closed or the process ends
    remove_abandoned(folder, pattern)     those that nobody holds

The system lets go of a lock when a process ends, however it ends. Promise: what is held is never
removed. Between making a file and holding it a remover may come first: `hold` says so (Taken), and
the maker makes another. Where the system cannot lock (some network file systems) nothing is held,
and nothing removed.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"
TOKEN = "[0-9a-f]" * 8
"""The pattern of what tells one save's files from another's."""


class Taken(Exception):
    """A remover took a file for abandoned before it was held."""


def hold(path: Path) -> int | None:
    """A descriptor that holds a file until it is closed; None where the system has no locks.

    Raises Taken when somebody else holds the file, or has removed it.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Taken from None
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(path), os.fstat(handle)):
            return handle
    except BlockingIOError:
        pass
    except FileNotFoundError:
        pass
    except OSError:
        _close(handle)
        return None
    _close(handle)
    raise Taken


@contextmanager
def released(handle: int | None) -> Iterator[None]:
    """Lets go of what is held when the block ends."""
    try:
        yield
    finally:
        if handle is not None:
            _close(handle)


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove the temporary files of such names, and the folders with a LOCK, that nobody holds, and
    empty folders.

    With the folder `.saving.<token>` go the files `.*.<token>.old` beside and one below it: what
    that save had put aside. What cannot be removed stays.
    """
    places: list[Path] = []
    with suppress(OSError):
        places += folder.glob(pattern)
    for path in places:
        with suppress(OSError, Taken):
            staged = stat.S_ISDIR(path.lstat().st_mode)
            if staged and not os.path.lexists(path / LOCK):
                path.rmdir()  # killed before it had one; what holds files is not ours to judge
                continue
            handle = hold(path / LOCK if staged else path)
            if handle is None:
                continue
            with released(handle):
                if not staged:
                    path.unlink()
                    continue
                token = path.name.rpartition(".")[2]
                for where in (folder, *(p for p in folder.iterdir() if p.is_dir())):
                    for aside in where.glob(f".*.{token}.old"):
                        aside.unlink()
                shutil.rmtree(path)


def _close(handle: int) -> None:
    with suppress(OSError):
        os.close(handle)
