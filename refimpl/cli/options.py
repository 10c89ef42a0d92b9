"""Options that several verbs share, spelled once."""

from __future__ import annotations

import argparse
from typing import Any

POLICIES = ("warn", "error", "silent", "never")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model, and what it runs on."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="FOLDER",
        help="model folder, or cached hub id[@revision] (default: the bundled tiny model)",
    )
    group.add_argument("--backend", default="auto", help="auto, native or numpy (default: auto)")
    group.add_argument(
        "--dtype",
        default="float32",
        help="what to compute in: float32, float64, bfloat16, bf16x3 (default: %(default)s)",
    )
    group.add_argument("--threads", type=positive, metavar="N", help="threads of backend native")


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
    group = parser.add_argument_group("input and output")
    group.add_argument(
        "--input",
        choices=("auto", "text", "jsonl"),
        default="auto",
        help="what a line of stdin is; auto: JSONL if the first that is not blank starts with {",
    )
    add_format(group, *formats)
    group.add_argument(
        "--batch-size", type=positive, default=batch_size, metavar="N", help="texts at a time"
    )


def add_format(parser: Any, *formats: str) -> None:
    parser.add_argument(
        "--format",
        choices=("jsonl", "table", *formats),
        help="of the results (default: table on a terminal, else jsonl)",
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
