"""Options that several verbs share, spelled once."""

from __future__ import annotations

import argparse
from typing import Any

POLICIES = ("warn", "error", "silent", "never")


def add_model(parser: argparse.ArgumentParser, head: str = "") -> None:
    """Which model, and what it runs on. head: what the model must have that the bundled one lacks,
    where there is such a thing; see check_model."""
    group = parser.add_argument_group("model")
    which = f"needed, with {head}" if head else "default: the bundled one"
    group.add_argument(
        "--model", metavar="FOLDER", help=f"model folder, or cached hub id[@revision] ({which})"
    )
    parser.set_defaults(needed_head=head)
    group.add_argument(
        "--backend", default="auto", help="auto, native, numpy, or cuda, cuda:1 (default: auto)"
    )
    group.add_argument(
        "--dtype",
        default="float32",
        help="what to compute in: float32, float64, bfloat16, int8, bf16x3 (default: %(default)s)",
    )
    group.add_argument("--threads", type=positive, metavar="N", help="threads of backend native")


def add_prompt(parser: argparse.ArgumentParser) -> None:
    """What stands before every text."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--prompt-name", metavar="NAME", help="a prompt of the model's folder")
    group.add_argument("--prompt", metavar="TEXT", help="put this before every text")


def add_length(parser: argparse.ArgumentParser) -> None:
    """What happens to long texts."""
    group = parser.add_argument_group("long texts")
    group.add_argument("--max-length", type=positive, metavar="N", help="most tokens of a text")
    group.add_argument(
        "--truncate",
        choices=POLICIES,
        default="warn",
        help="a longer text is cut and told, refused, cut, or left whole (default: %(default)s)",
    )


def add_streams(parser: argparse.ArgumentParser, *formats: str, batch_size: int = 8) -> None:
    """How input is read and results are written."""
    group = parser.add_argument_group("input")
    group.add_argument("--file", metavar="PATH", help="read this file instead of stdin")
    group.add_argument(
        "--input",
        choices=("auto", "text", "jsonl", "csv", "tsv"),
        default="auto",
        help="what a line is; auto: by the suffix of --file, else JSONL if the first line that is "
        "not blank starts with {, else text. csv: with quotes; tsv: without",
    )
    group.add_argument(
        "--column", "--field", dest="field", metavar="NAME",
        help="column of CSV and TSV, or field of JSONL, that holds the text",
    )  # fmt: skip
    group.add_argument(
        "--id", metavar="NAME", help="column or field that is kept as the id (default: id)"
    )
    group.add_argument(
        "--no-header", action="store_true", help="CSV and TSV without one: columns are 1, 2, 3"
    )
    group.add_argument(
        "--delimiter", type=delimiter, metavar="C", help="what ends a cell (csv: comma, tsv: tab)"
    )
    group.add_argument(
        "--batch-size", type=positive, default=batch_size, metavar="N", help="texts at a time"
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output", metavar="PATH",
        help="write this file, whole or not at all, instead of stdout; format by its suffix",
    )  # fmt: skip
    add_format(group, *formats)


def add_format(parser: Any, *formats: str) -> None:
    parser.add_argument(
        "--format",
        choices=("jsonl", "table", *formats),
        help="of the results (default: table on a terminal, else jsonl)",
    )
    parser.set_defaults(formats=("jsonl", "table", *formats))


def check_model(args: argparse.Namespace) -> None:
    """Usage error where no model is named and the bundled one cannot do it."""
    if args.model is None and args.needed_head:
        args.usage_error(
            f"needs a model with {args.needed_head}, which the bundled one has not; say --model"
        )


def model_options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `pipeline`, `SentenceEncoder` and `Reranker` that pick the model."""
    return {
        "model": args.model,
        "backend": args.backend,
        "dtype": args.dtype,
        "num_threads": args.threads,
    }


def length_options(args: argparse.Namespace) -> dict[str, Any]:
    """`max_length` and `truncate`. Cuts are counted and told once at the end, not per batch."""
    policy = "silent" if args.truncate == "warn" else args.truncate
    return {"max_length": args.max_length, "truncate": policy}


def positive(text: str) -> int:
    """An argparse type: an int of at least 1."""
    return _at_least(1, text)


def count(text: str) -> int:
    """An argparse type: an int of at least 0."""
    return _at_least(0, text)


def delimiter(text: str) -> str:
    """An argparse type: one character; "tab" and "\\t" are that."""
    value = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(value) != 1 or value in '"\r\n':
        raise argparse.ArgumentTypeError(f"must be one character, or tab, not {text!r}")
    return value


def seconds(text: str) -> float:
    """An argparse type: a time, at least 0."""
    value = float(text)
    if not value >= 0.0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {text}")
    return value


def _at_least(least: int, text: str) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, not {value}")
    return value
