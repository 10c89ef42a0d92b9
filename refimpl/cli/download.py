"""`modernbert download`: a model from the hub into the local cache; prints the folder."""

from __future__ import annotations

import argparse

HELP = "fetch a model from the hub into the local cache and print its folder"
EXAMPLE = "modernbert download answerdotai/ModernBERT-base"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="HUB_ID", help="owner/name, or owner/name@revision")


def run(args: argparse.Namespace) -> int:
    from ..files.hub import resolve

    print(resolve(args.model, download=True))
    return 0
