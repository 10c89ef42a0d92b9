"""Writing files so that a reader, or a crash, finds the old state or the new one, nothing between.

    with replacing(path) as stream: ...            one file
    with staged(folder, last="config.json") as s:  several files that belong together
        with open_synced(s / "model.safetensors") as stream: ...

Promise: everything is written and synced beside its target before the first name changes; a failure
until then leaves the disk as it was. Replacing a file that is mapped leaves the mapping intact.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def open_synced(path: Path) -> Iterator[BinaryIO]:
    """A new file for writing, on the disk when the block ends; its folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write `path` anew: it changes when the block ends well, and not at all when it raises."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with open_synced(temporary) as stream:
            yield stream
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


@contextmanager
def staged(
    folder: str | os.PathLike[str], *, last: str, remove: Iterable[str] = ()
) -> Iterator[Path]:
    """A temporary folder whose files move to `folder` when the block ends well.

    `last` marks the folder as valid (readers need it): it is removed first and moved in last, so a
    crash in between leaves a folder that does not load, never one that loads a mixture. Files named
    in `remove` (relative) go away in between. When the block raises, nothing has changed.
    """
    folder = Path(folder)
    made = _make_folders(folder)
    stage = folder / f".saving.{secrets.token_hex(4)}"
    try:
        stage.mkdir()
        yield stage
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        for path in made:
            path.rmdir()
        raise
    files = sorted(p.relative_to(stage) for p in stage.rglob("*") if p.is_file())
    (folder / last).unlink(missing_ok=True)
    sync_folder(folder)
    for name in remove:
        (folder / name).unlink(missing_ok=True)
    for file in sorted(files, key=lambda file: str(file) == last):
        if str(file) == last:
            sync_folder(folder)
        (folder / file).parent.mkdir(exist_ok=True)
        os.replace(stage / file, folder / file)
        sync_folder((folder / file).parent)
    shutil.rmtree(stage)


def sync_folder(folder: Path) -> None:
    """Make changed names durable (POSIX; elsewhere the system does so by itself)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and its parents; those that were not there, deepest first."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing
