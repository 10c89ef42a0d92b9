"""`modernbert rerank`: documents ordered by how well they answer a query."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Any

from .lines import Line, needed, read_lines
from .options import add_length, add_model, add_streams, length_options, model_options, positive
from .records import Record, Writer, run_blocks

HELP = "order documents by how well they answer a query"
EXAMPLE = (
    'modernbert rerank --model FOLDER "a query" "one document" "another one"\n'
    '  echo \'{"query": "...", "documents": ["...", "..."]}\' | modernbert rerank --model FOLDER -'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "query", metavar="QUERY", help='the query; - for lines ("query", "documents")'
    )
    parser.add_argument(
        "texts", nargs="*", metavar="DOCUMENT", help='the documents; - for lines ("text")'
    )
    parser.add_argument(
        "--top-k", type=positive, metavar="N", help="keep the best N (default: all)"
    )
    add_model(parser)
    add_length(parser)
    add_streams(parser)


def run(args: argparse.Namespace) -> int:
    if args.query == "-" and args.texts:
        args.usage_error("with - as the query, each line brings its documents")
    writer = Writer(args, ("query", "document", "score", "text"), rows)
    documents = [] if args.query == "-" else list(_documents(args, writer))
    from ..tasks import Reranker

    reranker = Reranker(**model_options(args))

    def rank(query: str, documents: list[str]) -> list[dict[str, Any]]:
        return reranker.rank(
            query,
            documents,
            top_k=args.top_k,
            return_documents=True,
            batch_size=args.batch_size,
            **length_options(args),
        )

    def answer(lines: list[Line]) -> list[Any]:
        return [rank(needed(line, "query")[0], documents_of(line)) for line in lines]

    if args.query == "-":
        return run_blocks(args, writer, answer, record, key="query")
    line = Line(0, {"query": args.query})
    writer.write([record(line, rank(args.query, documents))])
    return writer.finish()


def _documents(args: argparse.Namespace, writer: Writer) -> Iterator[str]:
    """The documents of a query on the command line; lines that hold none are told."""
    for line in read_lines(args, args.texts):
        try:
            if line.error is not None:
                raise ValueError(line.error)
            yield from needed(line, "text")
        except (ValueError, TypeError) as error:
            writer.refuse(line, str(error))


def documents_of(line: Line) -> list[str]:
    """The documents of a JSONL line."""
    documents = line.fields.get("documents")
    if not isinstance(documents, list):
        raise TypeError('the field "documents" must be a list of texts')
    return documents


def record(line: Line, results: list[Any]) -> Record:
    lost = sum(found.get("truncated", 0) for found in results)
    return line.head | {"results": results} | ({"truncated": lost} if lost else {})


def rows(record: Record) -> Iterable[tuple[object, ...]]:
    for found in record["results"]:
        yield record["index"], found["corpus_id"], found["score"], found["text"]
