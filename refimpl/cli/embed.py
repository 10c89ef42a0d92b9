"""`modernbert embed`: one vector per text, as JSONL, .npy, .npz, or a table of first values; with
--out files of texts to a folder of parts (job.py)."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..files.lines import Line, needed
from .inputs import read_lines
from .job import add_job, check_job, run_job, task_options
from .options import (
    add_length,
    add_model,
    add_prompt,
    add_streams,
    length_options,
    model_options,
    positive,
)
from .records import Record, Writer, counted, place, run_blocks

if TYPE_CHECKING:
    import numpy as np

    from ..bulk.row_task import RowTask

HELP = "turn texts into embeddings"
USAGE = "[TEXT ...] | FILE ... --out FOLDER"
EXAMPLE = (
    "modernbert embed --model FOLDER --file texts.csv --column text --output vectors.npz\n"
    "  modernbert embed --model FOLDER *.parquet --column body --out vectors --resume\n"
    "  modernbert embed --model FOLDER --normalize --format npy - < texts.txt > texts.npy"
)
SHOWN = 6  # values of a vector that a table shows
BINARY = ("npy", "npz")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT", help='texts; - for lines ("text"); with --out files'
    )
    add_prompt(parser)
    parser.add_argument("--normalize", action="store_true", help="scale vectors to length 1")
    parser.add_argument(
        "--truncate-dim", type=positive, metavar="N", help="keep the first N values"
    )
    add_model(parser)
    add_length(parser)
    add_streams(parser, *BINARY, batch_size=32)
    add_job(parser, "vectors")


def run(args: argparse.Namespace) -> int:
    check_job(args, args.texts)
    if args.folder is not None:
        return run_job(args, args.texts, lambda: row_task(args))
    if args.format in BINARY and args.out is sys.stdout and sys.stdout.isatty():
        kind = args.format
        args.usage_error(f"{kind} is binary: send it to a file, as in --output vectors.{kind}")
    given = read_lines(args, args.texts)
    import numpy as np

    from ..tasks import SentenceEncoder

    encoder = SentenceEncoder(**model_options(args))

    def answer(lines: list[Line]) -> list[Any]:
        vectors, lost = encoder.encode(
            [text for line in lines for text in needed(line, "text")],
            prompt_name=args.prompt_name,
            prompt=args.prompt,
            batch_size=args.batch_size,
            normalize_embeddings=args.normalize,
            truncate_dim=args.truncate_dim,
            return_lost=True,
            **length_options(args),
        )
        return list(zip(vectors, lost, strict=True))

    writer = Writer(args, ("text", "width", "embedding"), rows)
    if args.format not in BINARY:
        return run_blocks(args, given, writer, answer, record)
    empty = encoder.encode([], truncate_dim=args.truncate_dim)
    space = encoder.space(
        prompt=args.prompt,
        prompt_name=args.prompt_name,
        max_length=args.max_length,
        truncate_dim=args.truncate_dim,
        normalize_embeddings=args.normalize,
    )
    vectors: list[Any] = []
    heads: list[Record] = []

    def collect(lines: list[Line], answers: list[Any]) -> None:
        for line, found in zip(lines, answers, strict=True):
            # A bad line keeps its place, so that row i stays line i.
            bad = np.full(empty.shape[1:], np.nan, empty.dtype)
            vector, lost = (bad, 0) if found is None else found
            vectors.append(vector)
            heads.append(line.head)
            writer.count(lost)

    code = run_blocks(args, given, writer, answer, record, emit=collect)
    if writer.bad:
        told = f"row{'s' * (writer.bad > 1)} of NaN for {counted(writer.bad, 'bad line')}"
        print(f"modernbert {args.verb}: {told}", file=sys.stderr)
    table = np.stack(vectors) if vectors else empty
    write(
        args,
        table,
        heads,
        {
            "model": model_name(args.model),
            "prompt": args.prompt,
            "truncate_dim": args.truncate_dim,
            "prompt_name": args.prompt_name,
            "normalized": args.normalize,
            "space": str(space),
        },
    )
    return code


def row_task(args: argparse.Namespace) -> RowTask:
    from ..bulk import Embedder

    return Embedder(
        prompt=args.prompt,
        prompt_name=args.prompt_name,
        normalize=args.normalize,
        truncate_dim=args.truncate_dim,
        **task_options(args),
    )


def write(
    args: argparse.Namespace, table: np.ndarray, heads: list[Record], about: dict[str, Any]
) -> None:
    """The vectors, and with npz their ids: those of the lines, or the numbers of the rows."""
    import numpy as np

    from ..files.vectors import id_array, write_vectors

    rows, width = table.shape
    args.wrote = f"{counted(rows, 'vector')} of {width} {table.dtype} values"
    given = [head["id"] for head in heads if "id" in head]
    if args.format == "npy":
        np.lib.format.write_array(args.out.buffer, table)
        if given:
            told = "npy holds the vectors alone; --format npz keeps their ids"
            print(f"modernbert {args.verb}: {told}", file=sys.stderr)
        return
    # Of a line that was not read, or came without one, the id is not known.
    ids = id_array([head.get("id", "") if given else head["index"] for head in heads])
    write_vectors(args.out.buffer, table, ids, about)
    args.wrote += " with " + ("their ids" if given else "row numbers from 0 as ids")
    twice = [x for x, n in Counter(ids.tolist()).items() if n > 1 and x != ""]
    if twice:
        told = f"{counted(len(twice), 'id')} more than once, the first {twice[0]!r}"
        print(f"modernbert {args.verb}: {told}", file=sys.stderr)


def model_name(model: str | None) -> str | None:
    """How the model can be named from another folder: a hub id stays one."""
    import os

    return os.path.abspath(model) if model is not None and os.path.isdir(model) else model


def record(line: Line, answer: tuple[Any, int]) -> Record:
    vector, lost = answer
    flag = {"truncated": int(lost)} if lost else {}
    return line.head | {"embedding": vector} | flag


def rows(record: Record) -> Iterable[tuple[object, ...]]:
    vector = record["embedding"]
    more = " ..." if len(vector) > SHOWN else ""
    yield place(record), len(vector), " ".join(f"{x:.4f}" for x in vector[:SHOWN]) + more
