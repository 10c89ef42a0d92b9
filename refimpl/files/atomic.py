"""Writing files so that a reader, or a crash, finds the old state or the new one, nothing between.

    with replacing(path) as stream: ...            one file
    with staged(folder, last="config.json") as create:  several files that belong together
        with create("model.safetensors") as stream: ...

Promise: everything is written beside its target, and synced, before the first name changes.
Whatever call fails, the files are the old ones or the new ones, and nothing else is left; where
even the way back fails, the error says where the old files lie. What a killed process leaves, the
next save into the same place removes (abandoned.py). Syncing a folder and locking it are advice to
the system: what cannot do either holds nothing up. A mapped file that is replaced keeps its
mapping. Long because the way there and the way back stand beside each other.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
import stat
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .abandoned import LOCK, TOKEN, Taken, hold, released, remove_abandoned

# What a file system answers that has no such operation: CIFS, vboxsf and some FUSE ones for fsync.
NO_SUCH_OPERATION = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
# Times that a way back or a removal is tried: one fault may hit it too.
TRIES = 3
# Seconds that a save waits for another one into the same folder to exchange its files.
PATIENCE = 10.0


@contextmanager
def open_synced(path: Path, there: bool = False) -> Iterator[BinaryIO]:
    """A file for writing, new unless it is `there`, on the disk when the block ends; its folders
    are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb" if there else "xb") as stream:
        yield stream
        stream.flush()
        try:
            os.fsync(stream.fileno())
        except OSError as error:
            if error.errno not in NO_SUCH_OPERATION:
                raise


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write `path` anew: it changes when the block ends well, and not at all when it raises."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)

    def make(token: str) -> tuple[Path, Path]:
        file = target.with_name(f".{target.name}.{token}.part")
        return file, file

    temporary, held = _held(make)
    with released(held):
        try:
            with open_synced(temporary, there=True) as stream:
                yield stream
            os.replace(temporary, target)
        except BaseException:
            _remove([temporary])
            raise
    sync_folder(target.parent)
    remove_abandoned(target.parent, f".{glob.escape(target.name)}.{TOKEN}.part")


@contextmanager
def staged(
    folder: str | os.PathLike[str], *, last: str, remove: Iterable[str] = ()
) -> Iterator[Callable[[str], AbstractContextManager[BinaryIO]]]:
    """`create(name)`, as open_synced, of files that move to `folder` when the block ends well.

    Names are relative, in the folder or one below. `last` marks the folder as valid (readers need
    it): it is taken away first and moved in last, so a process that dies in between leaves a folder
    that does not load, never one that loads a mixture. Files named in `remove` (relative) go away
    in between. When the block, or the exchange of files, raises, the folder is as it was. OSError.
    """
    folder = Path(folder)
    made: list[Path] = []
    stages: list[Path] = []
    created: list[str] = []

    def make(token: str) -> tuple[Path, Path]:
        stage = folder / f".saving.{token}"
        stage.mkdir()
        return stage, stage / LOCK

    def create(name: str) -> AbstractContextManager[BinaryIO]:
        created.append(name)
        return open_synced(stage / name)

    with ExitStack() as stack:
        try:
            _make_folders(folder, made)
            stage, held = _held(make)
            stages.append(stage)
            stack.enter_context(released(held))
            yield create
            with _alone_in(folder):
                rest = _exchange(folder, stage, created, last, remove)
        except _Stranded as error:  # what is left holds the old files
            raise OSError(error.cause.errno, str(error), os.fspath(folder)) from error.cause
        except BaseException:
            _remove(stages)
            for path in made:
                with suppress(OSError):
                    path.rmdir()
            raise
        left = _remove(rest)
    if left is not None:
        warnings.warn(f"saved, but what it replaced is left behind: {left}", stacklevel=4)
    remove_abandoned(folder, f".saving.{TOKEN}")


def _held(make: Callable[[str], tuple[Path, Path]]) -> tuple[Path, int | None]:
    """What `make` makes of a token, and what holds it (abandoned.py) by the file that `make` names:
    new ones until one is held, or cannot be. OSError."""
    made, file = Path(), Path()
    try:
        while True:
            made, file = make(secrets.token_hex(4))
            with suppress(Taken, FileNotFoundError):  # as a remover took it, or its folder
                file.touch(exist_ok=False)
                return made, hold(file)
    except BaseException:
        _remove([made] if made.name else [])
        raise


def is_there(path: Path) -> bool:
    """Whether there is something of that name. OSError where that cannot be told, which pathlib
    takes for no in some versions of Python."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_file(path: Path) -> bool:
    """Whether there is a file of that name, behind links. OSError as for is_there."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def sync_folder(folder: Path) -> None:
    """Make changed names durable, where the system can (POSIX; elsewhere it does so by itself)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# -- exchanging the files of a folder -------------------------------------------------------------


class _Stranded(Exception):
    """The exchange failed, and so did the way back."""

    def __init__(self, cause: OSError, asides: Iterable[Path]) -> None:
        kept = ", ".join(str(path) for path in asides if os.path.lexists(path))
        super().__init__(f"{cause.strerror}; the old files could not be put back: they are {kept}")
        self.cause = cause


def _exchange(
    folder: Path, stage: Path, created: Iterable[str], last: str, remove: Iterable[str]
) -> list[Path]:
    """Move files of `stage` to `folder`, `last` at the end; what is to be removed when that is
    done. When it raises, all is where it was, but _Stranded says that it is not."""
    files = [Path(name) for name in sorted(created, key=lambda name: (name == last, name))]
    leaving = list(dict.fromkeys([Path(last), *map(Path, remove), *files]))
    token = stage.name.rpartition(".")[2]
    # An old file waits beside its place: there NFS keeps those that are still mapped, until they
    # are let go of.
    asides = {
        folder / file: folder / file.with_name(f".{file.name}.{token}.old") for file in leaving
    }
    for target in asides:
        if is_there(target) and stat.S_ISDIR(target.lstat().st_mode):
            raise IsADirectoryError(errno.EISDIR, "a file is to stand here", os.fspath(target))
    made: list[Path] = []

    def there() -> None:
        for i, (target, aside) in enumerate(asides.items()):
            _move(target, aside)
            if i == 0:
                sync_folder(folder)
        for file in files:
            if str(file) == last:
                for place in {(folder / f).parent for f in files}:
                    sync_folder(place)
            if not is_there((folder / file).parent):
                (folder / file).parent.mkdir()
                made.append((folder / file).parent)
            os.replace(stage / file, folder / file)
        sync_folder(folder)

    def back() -> None:
        for file in reversed(files):
            if not is_there(stage / file):
                _move(folder / file, stage / file)
        for target, aside in reversed(asides.items()):
            _move(aside, target)
        for place in made:
            with suppress(OSError):
                place.rmdir()

    try:
        there()
    except BaseException:
        if (failed := _tried(back)) is not None:
            raise _Stranded(failed, asides.values()) from None
        raise
    return [*asides.values(), stage]


def _move(origin: Path, target: Path) -> None:
    """Rename what is there."""
    try:
        os.replace(origin, target)
    except FileNotFoundError:
        if is_there(origin):
            raise


def _tried(action: Callable[[], None]) -> OSError | None:
    """Do it, again where it fails; the last failure, or None. An interrupt waits until then."""
    failure: OSError | None = None
    interrupt: KeyboardInterrupt | None = None
    for _ in range(TRIES):
        try:
            action()
            failure = None
            break
        except OSError as error:
            failure = error
        except KeyboardInterrupt as error:
            failure, interrupt = OSError(errno.EINTR, "interrupted"), error
    if interrupt is not None and failure is None:
        raise interrupt
    return failure


def _remove(paths: Iterable[Path]) -> OSError | None:
    """Remove files and folders that are there; why one of them stays, or None."""

    def remove() -> None:
        for path in paths:
            with suppress(FileNotFoundError):
                if stat.S_ISDIR(path.lstat().st_mode):
                    shutil.rmtree(path)
                else:
                    path.unlink()

    return _tried(remove)


def _make_folders(folder: Path, made: list[Path]) -> None:
    """Make a folder and its parents; those that were not there are put in `made`, deepest first."""
    missing = []
    for path in (folder, *folder.parents):
        if is_there(path):
            break
        missing.append(path)
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        made.insert(0, path)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """While no other save exchanges the files of this folder, as all ranks of a training run may
    try at once; where the system cannot lock it, or the other hangs, without."""
    with ExitStack() as stack:
        with suppress(OSError, ImportError):
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            stack.callback(_close, handle)
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.01)
        yield


def _close(handle: int) -> None:
    with suppress(OSError):
        os.close(handle)
