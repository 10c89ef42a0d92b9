"""`modernbert classify`: labels for texts or pairs of texts."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..files.lines import Line, needed
from .inputs import read_lines
from .job import add_job, check_job, run_job, task_options
from .options import (
    add_length,
    add_model,
    add_streams,
    length_options,
    model_options,
    positive,
)
from .records import Record, Writer, place, run_blocks

if TYPE_CHECKING:
    from ..bulk.row_task import RowTask

HELP = "label texts, or pairs of texts, with a sequence classifier"
USAGE = "[TEXT ...] | FILE ... --out FOLDER"
EXAMPLE = (
    'modernbert classify "a sweet red fruit"\n'
    '  echo \'{"text": "a premise", "text_pair": "a hypothesis"}\' | '
    "modernbert classify --model FOLDER -\n"
    "  modernbert classify --model FOLDER *.parquet --id id --out labels --resume"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT",
        help='texts; - for lines ("text", "text_pair"); with --out files',
    )  # fmt: skip
    parser.add_argument(
        "--top-k", type=positive, metavar="N", help="how many labels (default: all)"
    )
    parser.add_argument(
        "--function", choices=("none", "sigmoid", "softmax"), help="from logits to scores"
    )
    add_model(parser)
    add_length(parser)
    add_streams(parser)
    add_job(parser, "labels")


def run(args: argparse.Namespace) -> int:
    check_job(args, args.texts)
    if args.folder is not None:
        return run_job(args, args.texts, lambda: row_task(args))
    given = read_lines(args, args.texts)
    from ..tasks import pipeline

    options = {"top_k": args.top_k, "function_to_apply": args.function} | length_options(args)
    classify = pipeline(
        "text-classification", batch_size=args.batch_size, **options, **model_options(args)
    )

    def answer(lines: list[Line]) -> list[Any]:
        return classify([text_or_pair(line) for line in lines])

    writer = Writer(args, ("text", "label", "score"), rows)
    return run_blocks(args, given, writer, answer, record)


def row_task(args: argparse.Namespace) -> RowTask:
    from ..bulk import Classifier

    return Classifier(top_k=args.top_k, function=args.function, **task_options(args))


def text_or_pair(line: Line) -> dict[str, str]:
    """The classifier's input for a line."""
    keys = ("text", "text_pair") if "text_pair" in line.fields else ("text",)
    return dict(zip(keys, needed(line, *keys), strict=True))


def record(line: Line, results: list[Any]) -> Record:
    flag = {"truncated": results[0]["truncated"]} if "truncated" in results[0] else {}
    return line.head | {"results": results} | flag


def rows(record: Record) -> Iterable[tuple[object, ...]]:
    for found in record["results"]:
        yield place(record), found["label"], found["score"]
