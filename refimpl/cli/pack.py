"""`modernbert pack`: packed weights in a file that the engine maps; prints its path."""

from __future__ import annotations

import argparse

HELP = "write a model's packed weights, so that it opens at once and processes share them"
EXAMPLE = "modernbert pack my-model --dtype bfloat16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FOLDER", help="model folder, or cached hub id[@revision]")
    parser.add_argument(
        "--dtype",
        default="float32",
        help="what is computed in: float32, bfloat16, bf16x3, int8 (default: %(default)s)",
    )
    parser.add_argument(
        "--packs",
        metavar="FOLDER",
        help="where packs are, as REFIMPL_PACK_FOLDER says it (default: beside config.json)",
    )


def run(args: argparse.Namespace) -> int:
    from ..backends.backend import resolve as resolve_backend
    from ..backends.pack import make_pack
    from ..files.hub import resolve

    _, dtype = resolve_backend("native", args.dtype)
    print(make_pack(resolve(args.model), dtype, args.packs))
    return 0
