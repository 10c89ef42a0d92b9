"""`modernbert finetune`: a model for a task from labelled rows."""

from __future__ import annotations

import argparse

from .options import positive
from .training import add_parts, add_run, run_to_its_end, settings_given, tell, where_given

HELP = "train a model for a task on labelled rows"
USAGE = "TASK DATA ... --out FOLDER"
EXAMPLE = (
    "modernbert finetune classify train.jsonl --eval test.jsonl --out my-classifier\n"
    '  with rows such as {"text": "a fine day", "label": "good"}, or CSV with these columns\n\n'
    "rows, by task:\n"
    "  classify  text, label: a text, a list of texts, or a number\n"
    "  tokens    tokens and tags (B-, I-, O), or text and entities (start, end, label)\n"
    "  answer    question, context, answers as SQuAD has them, or answer and answer_start\n"
    "  choice    text, choices (in CSV choice0, choice1, ..), label: the number of the right one\n"
    "  embed     anchor, positive and perhaps negatives, in this order; or two texts and score\n"
    "  rerank    query, document, label in 0 .. 1; or query, positive, negative(s)\n"
    "  mask      text; or plain text, documents parted by empty lines"
)
TASKS = ("classify", "tokens", "answer", "choice", "embed", "rerank", "mask")
PROBLEMS = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("data", nargs="+", metavar="DATA", help="JSONL, CSV or TSV; see below")
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
        "--problem", choices=PROBLEMS, help="of classify's labels (default: what they look like)"
    )
    data.add_argument(
        "--class-weight", dest="class_weights", action="append", metavar="LABEL=W",
        help="what a label's rows count, or `balanced`; may be repeated",
    )  # fmt: skip
    data.add_argument(
        "--loss", metavar="NAME",
        help="of embed: ranking, cosent, cosine, triplet or margin; of rerank: pairs, ranking or "
        "margin, a teacher's in a column score (default: what suits the rows)",
    )  # fmt: skip
    data.add_argument(
        "--widths", type=lengths, default=(), metavar="N,N ..",
        help="of embed: train the first N values of a vector to be one as well",
    )  # fmt: skip
    data.add_argument("--max-length", type=positive, metavar="N", help="most tokens of a text")
    add_run(parser, "rows")
    add_parts(parser)


def lengths(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def class_weights(given: list[str] | None) -> str | dict[str, float] | None:
    """What --class-weight says. Raises ValueError."""
    if given is None or given == ["balanced"]:
        return given and given[0]  # type: ignore[return-value]
    out = {}
    for text in given:
        label, sign, weight = text.rpartition("=")
        try:
            out[label] = float(weight)
        except ValueError:
            sign = ""
        if not sign:
            raise ValueError(f"--class-weight is {text!r}; it must be LABEL=NUMBER, or balanced")
    return out


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from ..train.finetune import defaults, finetune

    settings = replace(defaults(args.task), **settings_given(args))
    figures = run_to_its_end(
        "finetune",
        args,
        lambda: finetune(
            args.task,
            args.data,
            args.folder,
            model=args.model,
            evaluation=args.eval,
            problem=PROBLEMS.get(args.problem),
            max_length=args.max_length,
            class_weights=class_weights(args.class_weights),
            loss=args.loss,
            widths=args.widths,
            settings=settings,
            resume=args.resume,
            tell=tell,
            **where_given(args),
        ),
    )
    if figures["truncated"]:
        tell(f"modernbert finetune: {figures['truncated']} texts were cut to their first tokens")
    return 0
