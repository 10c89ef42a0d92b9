"""From plain text to a masked-LM's folder in one call: `pretrain`.

    pretrain(["corpus.jsonl"], "my-model", settings=recipe(steps=10_000))

Documents come as a stream, in rows of `length` tokens packed by best fit; ModernBERT's recipe:
30 % masks, StableAdamW, a trapezoidal schedule with a decay of 1 - sqrt, rows a step that grow at
the start. Evaluation holds its texts, and masks 15 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..files.folder import ModelFolder
from ..files.hub import resolve
from ..models.model import Folder, bundled
from ..text.tokenizer import Tokenizer
from . import start
from .documents import DocumentFile
from .finetune import documents, limit, masks_of, opened, writable
from .masked import Masked, Stream, pieces
from .masking import RATE
from .settings import PRE_TRAINING, WIDTH, Settings
from .trainer import Tell, Trainer

LENGTH = 256  # tokens of a row


# What a run is asked for, by the recipe's name. ModernBERT's own, for as much data as there is; for
# a model as large as the bundled one, four passes over the text of benchmarks/tiny_corpus.py.
MODERNBERT: dict[str, Any] = dict(
    epochs=1, batch_size=32, optimiser="stable_adamw", weight_decay=1e-5,
    schedule="trapezoidal", warmup=0.02, decay=0.2, floor=0.001, batch_start=8,
    batch_warmup=0.02, save_every=100, evaluate_every=500,
)  # fmt: skip
RECIPES = {"modernbert": MODERNBERT, "tiny": {**MODERNBERT, "steps": 5690}}


def recipe(name: str = "modernbert", /, **changes: Any) -> Settings:
    """Settings of a pre-training run; batch_size counts rows. name: one of RECIPES. learning_rate:
    None for 8e-4 x 768 / hidden size, the recipe of base. Raises ValueError."""
    if name not in RECIPES:
        raise ValueError(f"recipe is {name!r}; known: {', '.join(RECIPES)}")
    whole = {**RECIPES[name], **changes}
    whole["batch_start"] = min(
        whole["batch_start"], whole["batch_size"] * whole.get("accumulate", 1)
    )
    return Settings(**whole)


def pretrain(
    data: Sequence[Folder],
    out: Folder,
    *,
    model: Folder | None = None,
    variant: str = "tiny",
    tokenizer: Folder | None = None,
    evaluation: Sequence[Folder] = (),
    length: int = LENGTH,
    rate: float = RATE,
    later_rates: Sequence[tuple[float, float]] = (),
    settings: Settings | None = None,
    resume: bool = False,
    tell: Tell = lambda line: None,
    backend: str = "auto",
    dtype: str = "float32",
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Train a masked-LM on files of documents (documents.py) and save it to the folder `out`.

    model: a folder or cached hub id to go on from; None: random weights in the sizes of `variant`,
    for the vocabulary of the folder `tokenizer` (None: that of the bundled model). length: tokens
    of a row; rate: share of tokens to guess; later_rates: (share of the run, rate) for others from
    there on, such as (0.7, 0.15), (0.9, 0.05). settings: default `recipe()`, about one pass.
    backend, dtype, num_threads: see Trainer.
    Returns the last figures, and `empty`: documents without a token. Raises as `finetune`.
    """
    settings = settings or recipe()
    files = [DocumentFile(path) for path in data]
    if model is not None and tokenizer is not None:
        raise ValueError("tokenizer is given beside model, which has its own; leave one out")
    if model is not None:
        base = opened(model)
        assert base.source is not None
        texts = Tokenizer.from_folder(base.source)
        first = start.with_head(base, "masked_lm", (), None, settings.seed)
    else:
        source = ModelFolder(bundled() if tokenizer is None else resolve(tokenizer))
        texts = Tokenizer.from_folder(source)
        first = start.fresh(variant, texts, source, settings.seed)
    peak = settings.learning_rate or PRE_TRAINING * WIDTH / first.config.hidden_size
    settings = replace(settings, learning_rate=peak)
    if length > limit(first, texts):
        raise ValueError(f"length is {length}; the model takes at most {limit(first, texts)}")
    texts.room(length)
    masks = replace(
        masks_of(first, texts),
        rate=rate,
        later=tuple((start, other) for start, other in later_rates),
    )
    stream = Stream(files, texts, length, masks)
    checked = None
    if evaluation:
        found = documents(evaluation)
        held = [x for d in found for x in pieces(texts, d.text, d.where, length)]
        checked = Masked(held, masks)
    writable(out)
    if model is not None:
        for line in start.replaced_head(base, first):
            tell(line)
    trainer = Trainer(
        first, stream, checked, settings, out, tell,
        backend=backend, dtype=dtype, num_threads=num_threads,
    )  # fmt: skip
    figures = trainer.run(resume=resume)
    return {**figures, "empty": stream.empty}
