"""`modernbert answer`: the span of a context that answers a question."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..files.lines import Line, needed
from .inputs import from_command_line, read_lines
from .options import add_model, add_streams, check_model, count, model_options, positive
from .records import Record, Writer, place, run_blocks

HELP = "answer questions about a text with a span from it"
USAGE = "[QUESTION ...]"
EXAMPLE = (
    'modernbert answer --model FOLDER "Where did she live?" --context "She lived in London."\n'
    '  echo \'{"question": "...", "context": "..."}\' | modernbert answer --model FOLDER -'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "texts",
        nargs="*",
        metavar="QUESTION",
        help='questions; - for lines ("question", "context")',
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--context", metavar="TEXT", help="for questions that bring none themselves")
    where.add_argument("--context-file", metavar="FILE", help="the same, read from a file")
    parser.add_argument("--top-k", type=positive, default=1, metavar="N", help="how many answers")
    parser.add_argument(
        "--max-answer-len", type=positive, default=15, metavar="N", help="in tokens"
    )
    parser.add_argument(
        "--impossible", action="store_true", help='"no answer" (an empty one) competes too'
    )
    parser.add_argument("--max-length", type=positive, metavar="N", help="tokens read in one piece")
    parser.add_argument("--stride", type=count, metavar="N", help="overlap of pieces, in tokens")
    add_model(parser, "a question answering head")
    add_streams(parser)


def run(args: argparse.Namespace) -> int:
    check_model(args)
    if from_command_line(args.texts) and args.context is args.context_file is None:
        args.usage_error("a question on the command line needs --context or --context-file")
    given = read_lines(args, args.texts, "question")
    context = args.context
    if args.context_file is not None:
        context = Path(args.context_file).read_text(encoding="utf-8")
    from ..tasks import pipeline

    ask = pipeline(
        "question-answering",
        top_k=args.top_k,
        max_answer_len=args.max_answer_len,
        handle_impossible_answer=args.impossible,
        max_seq_len=args.max_length,
        doc_stride=args.stride,
        batch_size=args.batch_size,
        **model_options(args),
    )

    def answer(lines: list[Line]) -> list[Any]:
        asked = []
        for line in lines:
            if context is not None:
                line.fields.setdefault("context", context)
            question, text = needed(line, "question", "context")
            asked.append({"question": question, "context": text})
        results = ask(asked)
        return [results] if len(lines) == 1 else results

    writer = Writer(args, ("question", "score", "answer", "start", "end"), rows)
    return run_blocks(args, given, writer, answer, record)


def record(line: Line, results: Any) -> Record:
    return line.head | {"results": results if isinstance(results, list) else [results]}


def rows(record: Record) -> Iterable[tuple[object, ...]]:
    for found in record["results"]:
        yield place(record), found["score"], found["answer"], found["start"], found["end"]
