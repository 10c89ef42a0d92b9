"""`modernbert embed`: one vector per text, as JSONL, a table of their first values, or an .npy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from .lines import Line, needed
from .options import add_length, add_model, add_streams, length_options, model_options, positive
from .records import Record, Writer, run_blocks

HELP = "turn texts into embeddings"
EXAMPLE = "modernbert embed --model FOLDER --normalize --format npy - < texts.txt > texts.npy"
SHOWN = 6  # values of a vector that a table shows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("texts", nargs="*", metavar="TEXT", help='texts; - for lines ("text")')
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt-name", metavar="NAME", help="a prompt of the model's folder")
    prompt.add_argument("--prompt", metavar="TEXT", help="put this before every text")
    parser.add_argument("--normalize", action="store_true", help="scale vectors to length 1")
    parser.add_argument(
        "--truncate-dim", type=positive, metavar="N", help="keep the first N values"
    )
    add_model(parser)
    add_length(parser)
    add_streams(parser, "npy", batch_size=32)


def run(args: argparse.Namespace) -> int:
    import numpy as np

    from ..tasks import SentenceEncoder

    if args.format == "npy" and sys.stdout.isatty():
        args.usage_error("npy is binary: send it to a file, as in > texts.npy")
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
    if args.format != "npy":
        return run_blocks(args, writer, answer, record)
    empty = encoder.encode([], truncate_dim=args.truncate_dim)
    collected: list[Any] = []

    def collect(lines: list[Line], answers: list[Any]) -> None:
        for found in answers:
            # A bad line keeps its place, so that row i stays line i.
            bad = np.full(empty.shape[1:], np.nan, empty.dtype)
            vector, lost = (bad, 0) if found is None else found
            collected.append(vector)
            writer.count(lost)

    code = run_blocks(args, writer, answer, record, emit=collect)
    table = np.stack(collected) if collected else empty
    np.lib.format.write_array(sys.stdout.buffer, table)
    return code


def record(line: Line, answer: tuple[Any, int]) -> Record:
    vector, lost = answer
    flag = {"truncated": int(lost)} if lost else {}
    return line.head | {"embedding": vector.tolist()} | flag


def rows(record: Record) -> Iterable[tuple[object, ...]]:
    vector = record["embedding"]
    more = " ..." if len(vector) > SHOWN else ""
    yield record["index"], len(vector), " ".join(f"{x:.4f}" for x in vector[:SHOWN]) + more
