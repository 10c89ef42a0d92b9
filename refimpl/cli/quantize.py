"""`modernbert quantize`: a folder that int8 may be trusted with, and a certificate saying why."""

from __future__ import annotations

import argparse
import sys

from .options import positive
from .training import tell

HELP = "measure what int8 costs a model, and write a folder that says so"
EXAMPLE = "modernbert quantize FOLDER --out FOLDER-int8 --texts texts.txt --mixed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="FOLDER", help="model folder, or cached hub id[@revision]"
    )
    parser.add_argument(
        "--out", dest="target", required=True, metavar="FOLDER", help="the folder to write"
    )
    parser.add_argument(
        "--texts",
        required=True,
        metavar="FILE",
        help="texts of the kind that the model is for, a line each, at least 30 (- for stdin)",
    )
    parser.add_argument(
        "--mixed",
        action="store_true",
        help="keep what costs most in floats, as much as the gate needs (default: refuse)",
    )
    parser.add_argument(
        "--max-length", type=positive, default=256, metavar="N", help="most tokens of a text"
    )
    parser.add_argument("--backend", default="auto", help="auto, native or numpy (default: auto)")
    parser.add_argument("--threads", type=positive, metavar="N", help="threads of backend native")


def run(args: argparse.Namespace) -> int:
    from ..tasks.quantize import quantize

    certificate = quantize(
        args.folder,
        args.target,
        _texts(args.texts),
        mixed=args.mixed,
        max_length=args.max_length,
        backend=args.backend,
        num_threads=args.threads,
        tell=tell,
    )
    figures = ", ".join(f"{name} {x:.5f}" for name, x in certificate.figures.items())
    kept = ", ".join(f"{name} in {dtype}" for name, dtype in certificate.kept.items()) or "nothing"
    print(f"{args.target}: {figures}; kept: {kept}")
    return 0


def _texts(place: str) -> list[str]:
    """The lines of a file. ValueError for what is no UTF-8, OSError."""
    if place == "-":
        data, name = sys.stdin.buffer.read(), "stdin"
    else:
        with open(place, "rb") as stream:
            data, name = stream.read(), place
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: byte {error.start} is no UTF-8") from None
