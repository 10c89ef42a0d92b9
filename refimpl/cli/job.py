"""`modernbert VERB FILE... --out FOLDER`: files of texts to a folder of parts, resumable.

What is done, and how it is resumed, is bulk/job.py; here are the options, and what is told. Verbs
that have it: embed, classify, ner and rerank, each with its RowTask (bulk/row_task.py).
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..progress import Progress, rate
from .options import length_options, positive
from .records import BAD_LINES, counted

if TYPE_CHECKING:
    from ..bulk.row_task import RowTask

# What reads and writes streams; a job's files say it by their suffix, and a part is a part.
OF_STREAMS = ("file", "input", "delimiter", "no_header", "output", "batch_size")
OF_FOLDERS = ("shard", "resume", "part_rows", "part_format")


def add_job(parser: argparse.ArgumentParser, what: str) -> None:
    """what: is made of each row."""
    group = parser.add_argument_group("many files")
    group.add_argument(
        "--out", dest="folder", metavar="FOLDER",
        help=f"name files (JSONL, CSV, TSV, text, Parquet, Arrow) instead of texts; write {what} "
        "here, in parts that a killed run leaves whole (needs pyarrow)",
    )  # fmt: skip
    group.add_argument(
        "--resume", action="store_true", default=None, help="leave parts that are there already"
    )
    group.add_argument(
        "--shard", type=shard, metavar="I/N", help="do the I-th of N shares, from 1/N to N/N"
    )
    group.add_argument(
        "--part-rows", type=positive, metavar="N", help="most rows of a part (default: 16384)"
    )
    group.add_argument("--part-format", choices=("parquet", "arrow"), help="(default: parquet)")
    parser.set_defaults(default_of=parser.get_default)


def shard(text: str) -> tuple[int, int]:
    """An argparse type: 3/16."""
    match = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", text)
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 1 to N, not {text!r}")
    return int(match[1]), int(match[2])


def check_job(args: argparse.Namespace, files: Sequence[str]) -> None:
    """Usage error for options of the one way where the other was asked for. files: arguments that
    are names with --out."""
    wrong = OF_STREAMS if args.folder is not None else OF_FOLDERS
    for name in wrong:
        if getattr(args, name) != args.default_of(name):
            option = "--" + name.replace("_", "-")
            way = "goes without --out" if args.folder is not None else "needs --out FOLDER"
            args.usage_error(f"{option} {way}")
    if args.folder is None:
        return
    if not files or list(files) == ["-"]:
        args.usage_error("--out needs the names of files")
    if args.truncate == "never":
        args.usage_error("--truncate never goes without --out")
    if args.format is not None:
        args.usage_error(f"--format {args.format} goes without --out; see --part-format")


def task_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of a RowTask that all verbs have."""
    return {
        "folder": args.model,
        "dtype": args.dtype,
        "backend": args.backend,
        "threads": args.threads,
        **length_options(args),
        **({} if args.field is None else {"column": args.field}),
    }


def run_job(args: argparse.Namespace, files: Sequence[str], make: Callable[[], RowTask]) -> int:
    """make: loads the model, which waits until the files are known to be right."""
    from ..bulk.job import ROWS, Job, check_plan

    options: dict[str, Any] = {
        "rows": args.part_rows or ROWS,
        "format": args.part_format or "parquet",
    }
    check_plan(files, None, args.id, **options)
    task = make()
    job = Job.plan(files, args.folder, task, id=args.id, **options)
    seconds = -time.monotonic()
    total = 0
    with Progress(args.verb) as shown:

        def report(rows: int, tokens: int, left: int) -> None:
            nonlocal total
            total += tokens
            shown.total = left
            shown.what = f"{rate(total / (time.monotonic() + seconds))} tokens/s"
            shown.advance(rows)

        done = job.run(shard=args.shard or (1, 1), resume=bool(args.resume), report=report)
    told = f"{counted(done.parts, 'part')} of {counted(done.rows, 'row')}, {done.made} made now"
    print(f"modernbert {args.verb}: {args.folder} has {told}; {task.space}", file=sys.stderr)
    if done.truncated and args.truncate == "warn":
        told = f"{counted(done.truncated, 'row')} cut (see --max-length; column truncated)"
        print(f"modernbert {args.verb}: {told}", file=sys.stderr)
    if done.errors:
        told = f"{counted(done.errors, 'bad row')} without a value (column error)"
        print(f"modernbert {args.verb}: {told}", file=sys.stderr)
    return BAD_LINES if done.errors else 0
