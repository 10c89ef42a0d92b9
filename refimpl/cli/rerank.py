"""`modernbert rerank`: documents ordered by how well they answer a query."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..files.lines import Line, documents_of, needed
from .inputs import Input, read_lines, refuse_files
from .job import add_job, check_job, run_job, task_options
from .options import (
    add_length,
    add_model,
    add_streams,
    check_model,
    length_options,
    model_options,
    positive,
)
from .records import Record, Writer, place, progress_shown, run_blocks

if TYPE_CHECKING:
    from ..bulk.row_task import RowTask

HELP = "order documents by how well they answer a query"
USAGE = "QUERY [DOCUMENT ...] | QUERY FILE ... --out FOLDER"
EXAMPLE = (
    'modernbert rerank --model FOLDER "a query" "one document" "another one"\n'
    '  echo \'{"query": "...", "documents": ["...", "..."]}\' | '
    "modernbert rerank --model FOLDER -\n"
    '  modernbert rerank --model FOLDER "a query" documents.csv --id id --out scores\n'
    "  modernbert rerank --model FOLDER - queries.jsonl --out ranks --resume"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "query", metavar="QUERY",
        help='the query; - for lines, or with --out rows, that bring theirs ("query", "documents")',
    )  # fmt: skip
    parser.add_argument(
        "texts", nargs="*", metavar="DOCUMENT",
        help='the documents; - for lines ("text"); with --out files',
    )  # fmt: skip
    parser.add_argument(
        "--top-k", type=positive, metavar="N", help="keep the best N (default: all)"
    )
    add_model(parser, "a sequence classification head of one label")
    add_length(parser)
    add_streams(parser)
    add_job(parser, "scores")


def run(args: argparse.Namespace) -> int:
    check_job(args, args.texts)
    check_model(args)
    if args.folder is not None:
        if args.query != "-" and args.top_k is not None:
            args.usage_error("--top-k: with --out a query's documents are scored, not ordered")
        return run_job(args, args.texts, lambda: row_task(args))
    if args.query == "-" and args.texts:
        args.usage_error("with - as the query, each line brings its documents")
    writer = Writer(args, ("query", "document", "score", "text"), rows)
    if args.query == "-":
        given = read_lines(args, [], "query")
    else:
        if not args.texts and args.file is None:
            refuse_files(args, [args.query], "-")
        given = read_lines(args, args.texts, "text", args.query)
        documents = list(_documents(given, writer))
    from ..tasks import Reranker

    reranker = Reranker(**model_options(args))

    def ranked(query: str, documents: list[Line]) -> list[dict[str, Any]]:
        found = reranker.rank(
            query,
            [line.fields["text"] for line in documents],
            top_k=args.top_k,
            return_documents=True,
            batch_size=args.batch_size,
            show_progress_bar=args.query != "-" and progress_shown(args),
            **length_options(args),
        )
        return [named(documents[one["corpus_id"]], one) for one in found]

    def answer(lines: list[Line]) -> list[Any]:
        return [ranked(needed(line, "query")[0], documents_of(line)) for line in lines]

    if args.query == "-":
        return run_blocks(args, given, writer, answer, record)
    writer.write([record(Line(0), ranked(args.query, documents))])
    return writer.finish()


def row_task(args: argparse.Namespace) -> RowTask:
    from ..bulk import Ranker, Scorer

    if args.query == "-":
        return Ranker(top_k=args.top_k, **task_options(args))
    return Scorer(query=args.query, **task_options(args))


def _documents(given: Input, writer: Writer) -> Iterator[Line]:
    """The documents of a query on the command line; lines that hold none are told."""
    for line in given.lines:
        try:
            if line.error is not None:
                raise ValueError(line.error)
            needed(line, "text")
            yield line
        except (ValueError, TypeError) as error:
            writer.refuse(line, str(error))


def named(line: Line, found: dict[str, Any]) -> dict[str, Any]:
    """A result under the number of its document's line, and its id where it has one."""
    return found | {"corpus_id": line.index} | {k: x for k, x in line.head.items() if k == "id"}


def record(line: Line, results: list[Any]) -> Record:
    lost = sum(found.get("truncated", 0) for found in results)
    return line.head | {"results": results} | ({"truncated": lost} if lost else {})


def rows(record: Record) -> Iterable[tuple[object, ...]]:
    for found in record["results"]:
        yield place(record), found.get("id", found["corpus_id"]), found["score"], found["text"]
