"""From labelled files to a classifier's folder in one call: `finetune`.

    finetune(["train.jsonl"], "my-classifier")
    refimpl.pipeline("text-classification", "my-classifier")("a fine day")

The head is that of checkpoints (ModernBertForSequenceClassification), so that transformers loads
the folder too; a masked-LM model's prediction head comes along, the classifier starts random.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..files.hub import resolve
from ..models.model import Folder, ModernBERT, bundled
from ..models.task_model import ModernBERTForTask, load
from ..nlp.multi_task import CONFIG_KEY
from ..reference.heads import HEADS
from ..reference.params import encoder_shapes, initialise
from ..text.tokenizer import Tokenizer
from .examples import encoded, problem_of, read_rows
from .settings import Settings
from .trainer import Tell, Trainer

MAX_LENGTH = 512


def finetune(
    data: Sequence[Folder],
    out: Folder,
    *,
    model: Folder | None = None,
    evaluation: Sequence[Folder] = (),
    problem: str | None = None,
    max_length: int = MAX_LENGTH,
    settings: Settings | None = None,
    resume: bool = False,
    tell: Tell = lambda line: None,
) -> dict[str, Any]:
    """Train a classifier on rows of `text`, `label` (examples.py) and save it to the folder `out`.

    data, evaluation: JSONL, CSV or TSV files. model: a folder or cached hub id, None for the
    bundled encoder. problem: see `problem_of`; None: what the labels look like. max_length: tokens;
    how many texts were cut is in the result. resume: go on with the run in `out`. tell: takes lines
    of news. Returns the last figures, `labels` and `truncated`. Raises ValueError (data, settings),
    ModelFormatError, OSError, FloatingPointError, KeyboardInterrupt once all is saved.
    """
    if not data:
        raise ValueError("data is empty; it needs one file of labelled texts or more")
    rows = [row for path in data for row in read_rows(path)]
    problem, names = problem_of(rows, problem)
    held_out = [row for path in evaluation for row in read_rows(path)]
    settings = settings or Settings()
    base = load(bundled() if model is None else resolve(model), backend="numpy")
    assert base.source is not None
    tokenizer = Tokenizer.from_folder(base.source)
    train = encoded(rows, problem, names, tokenizer, max_length)
    checked = encoded(held_out, problem, names, tokenizer, max_length) if held_out else None
    writable(out)
    classifier = with_classifier(base, problem, names, settings.seed)
    trainer = Trainer(classifier, train, checked, settings, out, tell)
    figures = trainer.run(resume=resume)
    cut = train.truncated + (checked.truncated if checked else 0)
    return {**figures, "labels": names, "truncated": cut}


def with_classifier(
    base: ModernBERT, problem: str, names: Sequence[str], seed: int
) -> ModernBERTForTask:
    """The model's encoder under a classifier of these names; its prediction head where it has one.

    The classifier is drawn from `seed`, unless the model is a classifier of the same names.
    """
    head, labels = HEADS["sequence_classification"], dict(enumerate(names))
    same = isinstance(base, ModernBERTForTask) and base.head is head
    same = same and dict(base.config.id2label) == labels and base.config.problem_type == problem
    extra = {name: x for name, x in base.config.extra.items() if name != CONFIG_KEY}
    config = base.config.replace(
        id2label=labels, problem_type=problem, architectures=(head.architecture,), extra=extra
    )
    shapes, encoder = head.shapes(config), encoder_shapes(config)
    params = initialise(shapes, config, seed, np.dtype(base.dtype), len(encoder))
    keep = [*encoder, *(n for n in shapes if same or not n.startswith("classifier."))]
    params |= {name: base.params[name] for name in keep if name in base.params}
    order = [*encoder, *shapes]
    return ModernBERTForTask(
        config, {n: params[n] for n in order}, head, backend="numpy", source=base.source
    )


def writable(folder: Folder) -> None:
    """Makes the folder, before the work. OSError where that, or a file in it, is not possible."""
    os.makedirs(folder, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(f"{folder} cannot be written to")
