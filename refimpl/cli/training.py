"""What `finetune` and `pretrain` share: options of a run, and how it ends."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from .options import count, positive


def add_run(parser: argparse.ArgumentParser, texts: str) -> None:
    """Options of `Settings`; those that are not given are the task's."""
    run = parser.add_argument_group("run (defaults: those of the task)")
    run.add_argument("--epochs", type=positive, metavar="N", help="passes over the data")
    run.add_argument("--steps", type=positive, metavar="N", help="in the place of --epochs")
    run.add_argument("--batch-size", type=positive, metavar="N", help=f"{texts} a batch")
    run.add_argument("--accumulate", type=positive, metavar="N", help="batches a step")
    run.add_argument(
        "--learning-rate", type=float, metavar="LR", help="the peak (default: by the width)"
    )
    run.add_argument("--weight-decay", type=float, metavar="WD")
    run.add_argument("--schedule", metavar="NAME", help="constant, linear, cosine or trapezoidal")
    run.add_argument("--warmup", type=float, metavar="SHARE", help="of all steps")
    run.add_argument("--decay", type=float, metavar="SHARE", help="the trapezoid's, 1 - sqrt")
    run.add_argument("--optimiser", metavar="NAME", help="adamw or stable_adamw")
    run.add_argument(
        "--evaluate-every", type=positive, metavar="N", help="steps (default: an epoch)"
    )
    run.add_argument("--save-every", type=positive, metavar="N", help="steps, beside evaluations")
    run.add_argument("--patience", type=count, metavar="N", help="evaluations; 0: never stops")
    run.add_argument("--seed", type=count, metavar="N")
    where = parser.add_argument_group("what computes")
    where.add_argument("--backend", default="auto", help="auto, native or numpy (default: auto)")
    where.add_argument(
        "--dtype", default="float32", help="of native's products: float32 or bfloat16"
    )
    where.add_argument("--threads", type=positive, metavar="N", help="of backend native")


def add_parts(parser: argparse.ArgumentParser) -> None:
    """Which parameters are trained."""
    parts = parser.add_argument_group("what is trained")
    parts.add_argument(
        "--lora", dest="lora_rank", type=positive, metavar="RANK",
        help="adapters in the place of the encoder's matrices; PEFT's folder is FOLDER/adapter",
    )  # fmt: skip
    parts.add_argument("--lora-alpha", type=float, metavar="A", help="(default: twice the rank)")
    parts.add_argument(
        "--freeze", action="append", metavar="NAME",
        help="parameters that begin so stay as they are, such as embeddings or layers.0.",
    )  # fmt: skip
    parts.add_argument(
        "--layer-decay", type=float, metavar="F",
        help="the learning rate of a layer is F times that of the layer above it",
    )  # fmt: skip
    parts.add_argument("--label-smoothing", type=float, metavar="E")


NAMES = (
    *("epochs", "steps", "batch_size", "accumulate", "learning_rate", "weight_decay", "schedule"),
    *("warmup", "decay", "optimiser", "evaluate_every", "save_every", "patience", "seed"),
    *("lora_rank", "lora_alpha", "layer_decay", "label_smoothing", "freeze"),
)


def where_given(args: argparse.Namespace) -> dict[str, Any]:
    """What computes, as `finetune` and `pretrain` take it."""
    return {"backend": args.backend, "dtype": args.dtype, "num_threads": args.threads}


def settings_given(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of Settings that the command names."""
    found = {name: getattr(args, name, None) for name in NAMES}
    given: dict[str, Any] = {name: x for name, x in found.items() if x is not None}
    if "freeze" in given:
        given["freeze"] = tuple(given["freeze"])
    return given


def tell(line: str) -> None:
    print(line, file=sys.stderr)


def run_to_its_end(
    verb: str, args: argparse.Namespace, run: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The run's figures, printed; where it stops, what the folder holds and how to go on."""
    try:
        figures = run()
    except KeyboardInterrupt:
        tell(
            f"modernbert {verb}: stopped and saved; the same command with --resume goes on from "
            f"{args.folder}"
        )
        raise
    except FloatingPointError as error:
        raise ValueError(f"{error}; {args.folder} holds the last good state") from None
    print(json.dumps({"out": args.folder, **figures}), file=args.out)
    return figures
