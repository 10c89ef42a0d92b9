"""`modernbert info`: version, build, backends; with --model, what a folder holds."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from .options import add_format
from .records import Record, Writer

HELP = "show the version, the build, the backends, and what a model folder holds"
EXAMPLE = "modernbert info --model FOLDER"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="FOLDER", help="describe this model folder too")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    from ..backends.backend import info

    found: Record = dict(info())
    if args.model is not None:
        found["model"] = described(args.model)
    writer = Writer(args, ("what", "value"), rows)
    writer.write([found])
    return 0


def described(folder: str) -> dict[str, Any]:
    """The facts of a model folder that one asks for first."""
    from ..models.task_model import load
    from ..tasks.task import described_head

    model = load(folder)
    config = model.config
    return {
        "folder": str(model.folder),
        "head": described_head(model),
        "parameters": model.num_parameters,
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "labels": list(config.id2label.values()),
    }


def rows(record: Record, prefix: str = "") -> Iterable[tuple[object, ...]]:
    for name, value in record.items():
        if isinstance(value, dict):
            yield from rows(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
