"""`modernbert serve`: the model over HTTP, until it is told to end."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields

from ..serve.settings import PREFIX, Settings

HELP = "answer over HTTP: embeddings, rerank, classify, ner, questions, masks"
USAGE = ""
EXAMPLE = "modernbert serve --model FOLDER --port 8080 --workers 2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "settings", f"each also from the environment, as in {PREFIX}PORT for --port"
    )
    for one in fields(Settings):
        kind = int if "int" in str(one.type) else float if one.type == "float" else str
        default = "" if one.default is None else f" (default: {one.default})"
        group.add_argument(
            "--" + one.name.replace("_", "-"),
            type=kind,
            choices=one.metadata.get("among"),
            metavar=None if "among" in one.metadata else {int: "N", float: "S"}.get(kind, "TEXT"),
            help=one.metadata["help"] + default,
        )


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from ..backends.backend import default_threads, why_not_native
    from ..serve.server import serve

    try:
        settings = Settings.told(vars(args))
    except ValueError as error:
        args.usage_error(str(error))
    if settings.threads is None and settings.workers > 1 and why_not_native() is None:
        settings = replace(settings, threads=max(1, default_threads() // settings.workers))

    def tell(line: str) -> None:
        print(f"modernbert serve: {line}", file=sys.stderr, flush=True)

    return serve(settings, tell)
