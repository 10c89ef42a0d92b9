"""`modernbert fill-mask`: candidates for each [MASK]."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from ..files.lines import Line, needed
from .inputs import read_lines
from .options import add_length, add_model, add_streams, length_options, model_options, positive
from .records import Record, Writer, place, run_blocks

HELP = "fill the [MASK] of a text with the most likely tokens"
USAGE = "[TEXT ...]"
EXAMPLE = 'modernbert fill-mask "for i in [MASK](10):"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("texts", nargs="*", metavar="TEXT", help='texts; - for lines ("text")')
    parser.add_argument(
        "--top-k", type=positive, default=5, metavar="N", help="how many candidates"
    )
    parser.add_argument(
        "--targets",
        action="append",  # one word each: a list would swallow the texts that follow
        metavar="WORD",
        help="choose from this word, and those of further --targets, only",
    )
    add_model(parser)
    add_length(parser)
    add_streams(parser)


def run(args: argparse.Namespace) -> int:
    given = read_lines(args, args.texts)
    from ..tasks import pipeline

    options = {"top_k": args.top_k, "targets": args.targets} | length_options(args)
    fill = pipeline("fill-mask", batch_size=args.batch_size, **options, **model_options(args))

    def answer(lines: list[Line]) -> list[Any]:
        results = fill([text for line in lines for text in needed(line, "text")])
        return [results] if len(lines) == 1 else results

    writer = Writer(args, ("text", "score", "token", "sequence"), rows)
    return run_blocks(args, given, writer, answer, record)


def record(line: Line, results: list[Any]) -> Record:
    first = results[0] if isinstance(results[0], dict) else results[0][0]
    flag = {"truncated": first["truncated"]} if "truncated" in first else {}
    return line.head | {"results": results} | flag


def rows(record: Record) -> Iterable[tuple[object, ...]]:
    results = record["results"]
    for mask in results if isinstance(results[0], list) else [results]:
        for found in mask:
            yield place(record), found["score"], found["token_str"], found["sequence"]
