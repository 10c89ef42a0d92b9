"""`modernbert ner`: entities, or a label for each token."""

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
    check_model,
    count,
    length_options,
    model_options,
)
from .records import Record, Writer, place, run_blocks

if TYPE_CHECKING:
    from ..bulk.row_task import RowTask

HELP = "find entities, or label each token, with a token classifier"
USAGE = "[TEXT ...] | FILE ... --out FOLDER"
EXAMPLE = (
    'modernbert ner --model FOLDER "Ada Lovelace lived in London"\n'
    "  modernbert ner --model FOLDER *.jsonl --column body --out entities --resume"
)
STRATEGIES = ("none", "simple", "first", "average", "max")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT", help='texts; - for lines ("text"); with --out files'
    )
    parser.add_argument(
        "--aggregation", choices=STRATEGIES, default="simple", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--ignore-labels",
        action="append",  # one label each: a list would swallow the texts that follow
        metavar="LABEL",
        help='leave this label out; may be given again; "" leaves none out (default: O)',
    )
    parser.add_argument(
        "--stride",
        type=count,
        metavar="N",
        help="read long texts in pieces that overlap by N tokens",
    )
    add_model(parser, "a token classification head")
    add_length(parser)
    add_streams(parser)
    add_job(parser, "entities")


def run(args: argparse.Namespace) -> int:
    check_job(args, args.texts)
    check_model(args)
    if args.folder is not None:
        return run_job(args, args.texts, lambda: row_task(args))
    given = read_lines(args, args.texts)
    from ..tasks import pipeline

    tag = pipeline(
        "token-classification",
        aggregation_strategy=args.aggregation,
        ignore_labels=args.ignore_labels or ["O"],
        stride=args.stride,
        batch_size=args.batch_size,
        return_lost=True,
        **length_options(args),
        **model_options(args),
    )

    def answer(lines: list[Line]) -> list[Any]:
        results, lost = tag([text for line in lines for text in needed(line, "text")])
        return list(zip(results, lost, strict=True))

    columns = ("text", "entity", "score", "word", "start", "end")
    return run_blocks(args, given, Writer(args, columns, rows), answer, record)


def row_task(args: argparse.Namespace) -> RowTask:
    from ..bulk import Tagger

    return Tagger(
        aggregation=args.aggregation,
        ignore_labels=tuple(args.ignore_labels or ["O"]),
        stride=args.stride,
        **task_options(args),
    )


def record(line: Line, answer: tuple[list[Any], int]) -> Record:
    results, lost = answer
    return line.head | {"results": results} | ({"truncated": lost} if lost else {})


def rows(record: Record) -> Iterable[tuple[object, ...]]:
    for found in record["results"]:
        label = found["entity_group"] if "entity_group" in found else found["entity"]
        yield place(record), label, found["score"], found["word"], found["start"], found["end"]
