"""`modernbert pretrain`: a masked-language model from plain text."""

from __future__ import annotations

import argparse

from .options import positive
from .training import add_run, run_to_its_end, settings_given, tell, where_given

HELP = "train a masked-language model on plain text"
USAGE = "DATA ... --out FOLDER"
EXAMPLE = (
    "modernbert pretrain corpus.jsonl --eval held-out.jsonl --out my-model --steps 2000\n"
    '  with rows of {"text": ..}, CSV with a column text, or plain text whose documents are\n'
    "  parted by empty lines; files are read as they are needed"
)
RECIPES = ("modernbert", "tiny")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="+", metavar="DATA", help="JSONL, CSV, TSV or plain text")
    parser.add_argument(
        "--out", dest="folder", required=True, metavar="FOLDER", help="of the run and the model"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    model = parser.add_argument_group("model and data")
    model.add_argument("--model", metavar="FOLDER", help="weights to go on from (default: random)")
    model.add_argument("--variant", default="tiny", help="sizes of a new model (default: tiny)")
    model.add_argument(
        "--tokenizer", metavar="FOLDER", help="of a new model (default: the bundled one)"
    )
    model.add_argument("--eval", action="append", default=[], metavar="DATA", help="held-out texts")
    model.add_argument("--length", type=positive, default=256, metavar="N", help="tokens of a row")
    model.add_argument(
        "--mask-rate", type=mask_rates, default="0.3", metavar="SHARE",
        help="tokens to guess; 0.3,0.15@0.7,0.05@0.9 has others from 0.7 and 0.9 of the run on",
    )  # fmt: skip
    model.add_argument(
        "--recipe", choices=RECIPES, default=RECIPES[0],
        help="what a run is by default: ModernBERT's, or that of the bundled model",
    )  # fmt: skip
    add_run(parser, "rows")
    parser.add_argument(
        "--batch-start", type=positive, metavar="N", help="rows of the first step, which grow"
    )
    parser.add_argument(
        "--batch-warmup", type=float, metavar="SHARE", help="of the steps over which they grow"
    )


def mask_rates(text: str) -> tuple[float, list[tuple[float, float]]]:
    """The rate, and (share of the run, rate) of the later ones. Raises ValueError."""
    first, *later = text.split(",")
    pairs = [part.split("@") for part in later]
    return float(first), [(float(start), float(rate)) for rate, start in pairs]


def run(args: argparse.Namespace) -> int:
    from ..train.pretrain import pretrain, recipe

    own = {name: getattr(args, name) for name in ("batch_start", "batch_warmup")}
    given = settings_given(args) | {name: x for name, x in own.items() if x is not None}
    settings = recipe(args.recipe, **given)
    rate, later_rates = args.mask_rate
    figures = run_to_its_end(
        "pretrain",
        args,
        lambda: pretrain(
            args.data,
            args.folder,
            model=args.model,
            variant=args.variant,
            tokenizer=args.tokenizer,
            evaluation=args.eval,
            length=args.length,
            rate=rate,
            later_rates=later_rates,
            settings=settings,
            resume=args.resume,
            tell=tell,
            **where_given(args),
        ),
    )
    if figures["empty"]:
        tell(f"modernbert pretrain: {figures['empty']} documents held no text")
    return 0
