"""`modernbert explain`: a text's way through the model as one page, or as a picture for slides."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .numbers import bytes_of
from .options import add_length, count, length_options
from .outputs import destination

if TYPE_CHECKING:
    from ..teach.page.explained import Explained

HELP = "show a text's way through the model: every step with its numbers, on one page"
EXAMPLE = (
    'modernbert explain "for i in [MASK](10):" --out page.html\n'
    '  modernbert explain "for i in [MASK](10):" --svg head.svg --layer 0 --head 0'
)
PAGE = "explain.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", help="the text; - for all of standard input")
    parser.add_argument(
        "--model", metavar="FOLDER", help="model folder or cached hub id (default: bundled tiny)"
    )
    parser.add_argument(
        "--token", type=count, action="append", default=[], metavar="N",
        help="look at token N first, counted from 0, and keep its vectors in a long text, where "
        "not all fit; may be repeated (default: the mask, or the middle)",
    )  # fmt: skip
    beside = parser.add_argument_group("comparison")
    beside.add_argument("--beside", metavar="TEXT", help="another text, side by side")
    beside.add_argument(
        "--beside-model", metavar="FOLDER", help="another model, side by side, on the same text or "
        "that of --beside",
    )  # fmt: skip
    add_length(parser)
    out = parser.add_argument_group("output")
    file = out.add_mutually_exclusive_group()
    file.add_argument(
        "--out",
        dest="page",
        metavar="PATH",
        help=f"the page, written whole or not at all (default: {PAGE})",
    )
    file.add_argument(
        "--svg", metavar="PATH", help="a picture of one layer's attention in place of the page"
    )
    out.add_argument(
        "--size", type=megabytes, metavar="MB",
        help="how large the page may be: what does not fit is left out, and told (default: 8)",
    )  # fmt: skip
    out.add_argument(
        "--layer", type=count, metavar="N", help="of --svg: which layer (default: 0, the first)"
    )
    out.add_argument(
        "--head", type=count, metavar="N", help="of --svg: one head, from 0 (default: all)"
    )


def megabytes(text: str) -> float:
    """An argparse type: a size of at least 0.5 MB, in bytes."""
    value = float(text)
    if not 0.5 <= value <= 1000.0:
        raise argparse.ArgumentTypeError(f"must be from 0.5 to 1000, not {text}")
    return value * 1e6


def run(args: argparse.Namespace) -> int:
    check_usage(args)
    path = args.svg or args.page or PAGE
    with destination(path) as stream:
        from ..teach.page.explained import explained, opened
        from ..teach.page.pages import LARGEST, fitted_page

        text = standard_input() if args.text == "-" else args.text
        model = opened(args.model)
        shown = [(text, model)]
        if args.beside is not None or args.beside_model is not None:
            other = model if args.beside_model is None else opened(args.beside_model)
            shown.append((text if args.beside is None else args.beside, other))

        def run_in(budget: float) -> list[Explained]:
            options = {"tokens": args.token, "budget": budget / len(shown), **length_options(args)}
            return [explained(text, model, **options) for text, model in shown]

        if args.svg:
            from ..teach.page.picture import picture

            found = run_in(LARGEST)
            content = picture(found[0], args.layer or 0, args.head)
        else:
            found, content = fitted_page(run_in, args.size or LARGEST)
        data = content.encode("utf-8")
        stream.write(data)
    for line in told(found, whole=args.svg is not None):
        print(f"modernbert explain: {line}", file=sys.stderr)
    print(f"modernbert explain: wrote {path}: {bytes_of(len(data))}", file=sys.stderr)
    return 0


def standard_input() -> str:
    """All of it. Raises ValueError where it is not text."""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8 at byte {error.start}") from None


def check_usage(args: argparse.Namespace) -> None:
    """Usage error for options that do not go together."""
    if args.svg and (args.beside is not None or args.beside_model is not None):
        args.usage_error(
            "--svg draws one text and one model; leave --beside and --beside-model out"
        )
    if not args.svg and (args.layer is not None or args.head is not None):
        args.usage_error("--layer and --head say what --svg draws; a page has every layer and head")
    if args.svg and args.size:
        args.usage_error("--size is of a page; leave it out with --svg")


def told(found: list[Explained], *, whole: bool) -> Iterator[str]:
    """What was cut, and, unless what is shown is whole without them, which vectors are left out."""
    for one in found:
        seq, kept = len(one.ids), len(one.chosen.rows)
        if one.lost:
            yield f"the text was cut to {seq} tokens: {one.lost} tokens lost"
        if kept < seq and not whole:
            yield (
                f"{kept} of {seq} tokens have their vectors on the page; --token N names one that "
                "has to be among them, --size gives room for more"
            )
