"""Where the results of a verb go: stdout, or the file of --output.

    with opened_output(args): ...       args.out is a text stream; args.format is known

Promise: --output is checked before a model is loaded; the file is replaced when the verb ends well,
also with bad lines, and not touched when it fails; what was written is told in one line on stderr.
A device or a pipe is written to as it is.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .numbers import bytes_of

SUFFIXES = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    ".npy": "npy",
    ".npz": "npz",
}


def say_verdict(text: str) -> None:
    """Print what the exit code says as well: `| head` may have read enough, and gets that code."""
    with suppress(BrokenPipeError):
        print(text, flush=True)


@contextmanager
def opened_output(args: argparse.Namespace) -> Iterator[None]:
    """`args.out` for the time of a verb, and its format in `args.format`; that of a job, which
    writes a folder of parts, stays as it was asked for."""
    path = getattr(args, "output", None)
    if path is None:
        args.out = sys.stdout
        of_parts = hasattr(args, "part_format") and args.folder is not None
        if getattr(args, "format", "") is None and not of_parts:
            args.format = "table" if sys.stdout.isatty() else "jsonl"
        yield
        return
    args.format = format_of(args, path)
    with destination(path) as binary:
        args.out = io.TextIOWrapper(
            binary, encoding="utf-8", errors="backslashreplace", newline="\n", write_through=True
        )
        yield
        args.out.flush()
        size = args.out.tell() if args.out.seekable() else None
        args.out.detach()
    told = args.wrote if size is None else f"{args.wrote}, {bytes_of(size)}"
    print(f"modernbert {args.verb}: wrote {path}: {told}", file=sys.stderr)


def format_of(args: argparse.Namespace, path: str) -> str:
    """What --format says, or else the suffix. Usage error where they contradict each other, and for
    a suffix that means no format of the verb."""
    found = SUFFIXES.get(Path(path).suffix.lower())
    if args.format is not None:
        if found not in (None, args.format):
            args.usage_error(f"--output {path}: its suffix means {found}, not {args.format}")
        return str(args.format)
    if found not in args.formats:
        known = [suffix for suffix, name in SUFFIXES.items() if name in args.formats]
        args.usage_error(
            f"--output {path}: its suffix is none of {', '.join(known)}; say --format "
            f"{' or '.join(args.formats)}"
        )
    return str(found)


@contextmanager
def destination(path: str) -> Iterator[BinaryIO]:
    """A stream for writing that file. Raises OSError, ValueError."""
    from ..files.atomic import replacing

    target = Path(os.path.realpath(path))  # what a link leads to is replaced, not the link
    if target.is_dir():
        raise ValueError(f"--output {path} is a folder; it must be a file")
    if not target.parent.is_dir():
        raise ValueError(f"--output {path}: there is no folder {target.parent}")
    if target.exists() and not target.is_file():
        with open(target, "wb") as stream:
            yield stream
    else:
        with replacing(target) as stream:
            yield stream
