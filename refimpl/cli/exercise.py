"""`modernbert exercise`: equations to write and bugs to find, with the conformance kit as referee.

Exit codes of check: 0 right, 1 not yet. A folder that `start` has not made is an error (1).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .outputs import say_verdict
from .verify import one_blas_thread

HELP = "learn: write an equation of the model, or find the bug in a small port"
EXAMPLE = "modernbert exercise start bug-09 && modernbert exercise check bug-09"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, dest="action")
    actions.add_parser("list", help="what there is")
    start = actions.add_parser("start", help="make a folder with the task")
    start.add_argument("id", metavar="ID", help="of the list")
    start.add_argument(
        "folder", metavar="FOLDER", nargs="?", type=Path, help="a new one (default: ID)"
    )
    start.add_argument(
        "--language", choices=("python", "c"), default="python",
        help="of an equation: what it is written in (default: %(default)s)",
    )  # fmt: skip
    for name, what in (("check", "what is right, and what is not yet"), ("hint", "one hint more")):
        action = actions.add_parser(name, help=what)
        action.add_argument(
            "folder", metavar="FOLDER", nargs="?", type=Path, default=Path(),
            help="that `start` has made (default: this one)",
        )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    one_blas_thread()
    return {"list": _list, "start": _start, "check": _check, "hint": _hint}[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from ..teach.exercises.catalogue import listing

    print(listing())
    return 0


def _start(args: argparse.Namespace) -> int:
    from ..teach.exercises.pages import started

    folder = started(args.id, args.folder or Path(args.id), args.language)
    print(folder)
    print(f"modernbert exercise: begin with {folder / 'README.md'}", file=sys.stderr)
    return 0


def _check(args: argparse.Namespace) -> int:
    from ..teach.exercises.folder import read
    from ..teach.exercises.referee import checked

    outcome = checked(read(args.folder))
    say_verdict("\n".join(outcome.lines))
    return 0 if outcome.right else 1


def _hint(args: argparse.Namespace) -> int:
    from ..teach.exercises.folder import read
    from ..teach.exercises.pages import next_hint

    print(next_hint(read(args.folder)))
    return 0
