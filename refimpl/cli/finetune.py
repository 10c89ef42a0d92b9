"""`modernbert finetune`: a classifier from labelled texts."""

from __future__ import annotations

import argparse
import json
import sys

from .options import count, positive

HELP = "train a classifier on labelled texts"
USAGE = "TASK DATA ... --out FOLDER"
EXAMPLE = (
    "modernbert finetune classify train.jsonl --eval test.jsonl --out my-classifier\n"
    '  with rows such as {"text": "a fine day", "label": "good"}, or CSV with these columns'
)
TASKS = ("classify",)
PROBLEMS = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("data", nargs="+", metavar="DATA", help="JSONL, CSV or TSV: text, label")
    parser.add_argument(
        "--out", dest="folder", required=True, metavar="FOLDER", help="of the run and the model"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    data = parser.add_argument_group("model and data")
    data.add_argument(
        "--model", metavar="FOLDER", help="folder or cached hub id (default: the bundled encoder)"
    )
    data.add_argument("--eval", action="append", default=[], metavar="DATA", help="held-out rows")
    data.add_argument(
        "--problem", choices=PROBLEMS, help="of the labels (default: what they look like)"
    )
    data.add_argument("--max-length", type=positive, default=512, metavar="N", help="most tokens")
    run = parser.add_argument_group("run")
    run.add_argument("--epochs", type=positive, default=10, metavar="N")
    run.add_argument("--batch-size", type=positive, default=16, metavar="N", help="texts a step")
    run.add_argument("--learning-rate", type=float, metavar="LR", help="the peak (default: 8e-5)")
    run.add_argument("--patience", type=count, default=0, metavar="N", help="evaluations; 0: never")
    run.add_argument("--seed", type=count, default=0, metavar="N")


def run(args: argparse.Namespace) -> int:
    from ..train.finetune import finetune
    from ..train.settings import Settings

    rate = {} if args.learning_rate is None else {"learning_rate": args.learning_rate}
    settings = Settings(
        epochs=args.epochs,
        batch_size=args.batch_size,
        patience=args.patience,
        seed=args.seed,
        **rate,
    )
    try:
        figures = finetune(
            args.data,
            args.folder,
            model=args.model,
            evaluation=args.eval,
            problem=PROBLEMS.get(args.problem),
            max_length=args.max_length,
            settings=settings,
            resume=args.resume,
            tell=lambda line: print(line, file=sys.stderr),
        )
    except KeyboardInterrupt:
        print(
            f"modernbert finetune: stopped and saved; the same command with --resume goes on from "
            f"{args.folder}",
            file=sys.stderr,
        )
        raise
    except FloatingPointError as error:
        raise ValueError(f"{error}; {args.folder} holds the last good state") from None
    if figures["truncated"]:
        print(
            f"modernbert finetune: {figures['truncated']} texts were cut to {args.max_length} "
            "tokens",
            file=sys.stderr,
        )
    print(json.dumps({"out": args.folder, **figures}), file=args.out)
    return 0
