"""`modernbert rerank`: documents ordered by how well they answer a query."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Any

from ..files.lines import Line, needed
from .inputs import Input, read_lines, refuse_files
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

HELP = "order documents by how well they answer a query"
USAGE = "QUERY [DOCUMENT ...]"
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
    add_model(parser, "a sequence classification head of one label")
    add_length(parser)
    add_streams(parser)


def run(args: argparse.Namespace) -> int:
    check_model(args)
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


def documents_of(line: Line) -> list[Line]:
    """The documents of a JSONL line: texts, or objects with "text" and perhaps "id"."""
    documents = line.fields.get("documents")
    if not isinstance(documents, list):
        raise TypeError('the field "documents" must be a list of texts')
    out = []
    for i, given in enumerate(documents):
        out.append(Line(i, given if isinstance(given, dict) else {"text": given}))
        try:
            needed(out[-1], "text")
        except (ValueError, TypeError) as error:
            raise type(error)(f"documents[{i}]: {error}") from None
    return out


def record(line: Line, results: list[Any]) -> Record:
    lost = sum(found.get("truncated", 0) for found in results)
    return line.head | {"results": results} | ({"truncated": lost} if lost else {})


def rows(record: Record) -> Iterable[tuple[object, ...]]:
    for found in record["results"]:
        yield place(record), found.get("id", found["corpus_id"]), found["score"], found["text"]
