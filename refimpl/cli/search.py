"""`modernbert search`: the vectors of an index that are nearest to a query."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..files.lines import Line, needed
from .inputs import read_lines
from .options import (
    add_length,
    add_model,
    add_prompt,
    add_streams,
    length_options,
    model_options,
    positive,
)
from .records import Record, Writer, place, run_blocks

HELP = "find the vectors of an index that are nearest to a query"
USAGE = "--index FILE [QUERY ...]"
EXAMPLE = 'modernbert search --index vectors.npz "a query" --top-k 5'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("texts", nargs="*", metavar="QUERY", help='queries; - for lines ("query")')
    parser.add_argument(
        "--index",
        metavar="FILE",
        required=True,
        help="vectors of embed --format npz, or an .npz or .npy of your own",
    )
    parser.add_argument(
        "--top-k", type=positive, default=10, metavar="N", help="how many (default: %(default)s)"
    )
    parser.add_argument(
        "--truncate-dim", type=positive, metavar="N", help="the index holds the first N values"
    )
    add_prompt(parser)
    add_model(parser)
    parser.add_argument(
        "--same-model", action="store_true",
        help="--model is the one that made the index, which names it otherwise and has no digest",
    )  # fmt: skip
    add_length(parser)
    add_streams(parser, batch_size=32)


def run(args: argparse.Namespace) -> int:
    given = read_lines(args, args.texts, "query")
    from ..files.vectors import read_vectors
    from ..tasks import SentenceEncoder
    from ..tasks.space import COMPARABLE, check_space

    index = read_vectors(args.index)
    take_model(args, index.about)
    encoder = SentenceEncoder(**model_options(args))
    if "space" in index.about:
        check_space(index.about["space"], encoder.space(), args.index, COMPARABLE)

    # What is not said is left to encode_query, which has its own prompt and length.
    said = {"prompt_name": args.prompt_name, **length_options(args)}
    options = {name: value for name, value in said.items() if value is not None}

    def answer(lines: list[Line]) -> list[Any]:
        queries, lost = encoder.encode_query(
            [text for line in lines for text in needed(line, "query")],
            prompt=args.prompt,
            truncate_dim=args.truncate_dim or index.about.get("truncate_dim"),
            batch_size=args.batch_size,
            return_lost=True,
            **options,
        )
        return list(zip(encoder.search(queries, index.vectors, args.top_k), lost, strict=True))

    def record(line: Line, answer: tuple[list[dict[str, Any]], int]) -> Record:
        found, lost = answer
        flag = {"truncated": int(lost)} if lost else {}
        return line.head | {"results": [named(one) for one in found]} | flag

    def named(found: dict[str, Any]) -> dict[str, Any]:
        if index.ids is None:
            return found
        return {"id": index.ids[found["corpus_id"]].item(), **found}

    return run_blocks(args, given, Writer(args, ("query", "found", "score"), rows), answer, record)


def take_model(args: argparse.Namespace, about: Mapping[str, Any]) -> None:
    """The model that made the vectors. Usage error where it is not known, and for another one:
    similarities across two models mean nothing."""
    from ..models.model import bundled

    if args.model is None:
        if "model" not in about:
            args.usage_error(
                f"{args.index} does not say which model made it; say --model FOLDER, the one that "
                f"did (--model {bundled('embed')} for the bundled one)"
            )
        args.model = about["model"]
    elif "space" in about or args.same_model:
        return  # the vectors say it better than a name, or the user does
    elif "model" in about and not same(about["model"], args.model):
        args.usage_error(
            f"{args.index} was made with {about['model'] or 'the bundled model'}; similarities "
            "across two models mean nothing: leave --model out, or say --same-model if it is that "
            "model under another name"
        )


def same(made: str | None, asked: str) -> bool:
    """Whether two names mean one model: None is the bundled one, a folder may have several."""
    from ..models.model import bundled

    known = str(bundled("embed")) if made is None else made
    return known == asked or (
        os.path.isdir(known) and os.path.isdir(asked) and os.path.samefile(known, asked)
    )


def rows(record: Record) -> Iterable[tuple[object, ...]]:
    for found in record["results"]:
        yield place(record), found.get("id", found["corpus_id"]), found["score"]
