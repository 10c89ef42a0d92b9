"""`modernbert tokenize`: the ids, tokens and character offsets of texts."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from ..files.lines import Line, needed
from .inputs import read_lines
from .options import add_length, add_streams, length_options
from .records import Record, Writer, place, run_blocks

HELP = "show how texts become token ids"
USAGE = "[TEXT ...]"
EXAMPLE = 'modernbert tokenize "for i in range(10):"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT", help='texts; - for lines ("text", "text_pair")'
    )
    parser.add_argument("--no-special", action="store_true", help="leave [CLS] and [SEP] out")
    parser.add_argument(
        "--model", metavar="FOLDER", help="model folder or cached hub id (default: bundled tiny)"
    )
    add_length(parser)
    add_streams(parser)


def run(args: argparse.Namespace) -> int:
    given = read_lines(args, args.texts)
    from ..tasks.task import open_tokenizer

    tokenizer = open_tokenizer(args.model)

    def answer(lines: list[Line]) -> list[Any]:
        return tokenizer.encode_batch(
            [text_or_pair(line) for line in lines],
            add_special_tokens=not args.no_special,
            **length_options(args),
        )

    writer = Writer(args, ("text", "token", "id", "start", "end"), rows)
    return run_blocks(args, given, writer, answer, record)


def text_or_pair(line: Line) -> Any:
    """The tokenizer's input for a line."""
    if "text_pair" in line.fields:
        return tuple(needed(line, "text", "text_pair"))
    return needed(line, "text")[0]


def record(line: Line, encoded: Any) -> Record:
    flag = {"truncated": encoded.lost} if encoded.lost else {}
    content = {"ids": encoded.ids, "tokens": encoded.tokens, "offsets": encoded.offsets}
    return line.head | content | flag


def rows(record: Record) -> Iterable[tuple[object, ...]]:
    for token, token_id, (start, end) in zip(
        record["tokens"], record["ids"], record["offsets"], strict=True
    ):
        yield place(record), token, token_id, start, end
