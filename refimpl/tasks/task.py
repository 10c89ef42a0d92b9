"""What all tasks share: a model with its tokenizer, and texts run through both in batches.

    TextTask(folder): load -> encode (truncation counted) -> passes (batches.py) -> a row per text

Promise: one row of outputs per text, in the order given; options are checked before the model runs.
Not here: what the outputs mean, which is each task's own file.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..files.hub import BUNDLED, resolve
from ..models.model import ModernBERT, bundled
from ..models.summary import described_head
from ..models.task_model import ModernBERTForTask, load
from ..nlp import NLPHead
from ..reference.heads import HEADS
from ..reference.numerics import underflow_is_zero
from ..text.tokenizer import Encoded, Text, Tokenizer
from .batches import Passes, in_passes

Model = str | os.PathLike[str] | ModernBERT | None
"""A folder, a hub id in the local cache, a loaded model, or None for a bundled one."""


class TextTask:
    """Base of the pipelines. `task` is its name, `head` the key in HEADS that it needs, or None;
    `comes_along` the bundled model that it takes by default.

    Options given here are defaults for every call, as in `pipeline("ner", stride=16)`.
    """

    task: ClassVar[str]
    head: ClassVar[str | None]
    comes_along: ClassVar[str] = BUNDLED.name
    truncate: ClassVar[str] = "never"  # what happens to a text over the tokenizer's limit

    def __init__(
        self,
        model: Model = None,
        *,
        tokenizer: Tokenizer | None = None,
        backend: str = "auto",
        dtype: str = "float32",
        num_threads: int | None = None,
        revision: str | None = None,
        **options: Any,
    ) -> None:
        inspect.signature(self.run).bind_partial(**options)
        where = dict(backend=backend, dtype=dtype, num_threads=num_threads, revision=revision)
        loaded = open_model(model, self.comes_along, **where)
        self.model = self._with_head(loaded)
        self.tokenizer = tokenizer_of(loaded) if tokenizer is None else tokenizer
        self.options = options
        self.passes: Passes = in_passes

    @underflow_is_zero
    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """`run` with the options given at construction, those given here winning."""
        return self.run(*inputs, **{**self.options, **options})

    def run(self, *inputs: Any, **options: Any) -> Any:
        """Text in, answers out: see the task."""
        raise NotImplementedError

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"{type(self).__name__}({self.model!r}{options})"

    def _with_head(self, model: ModernBERT) -> ModernBERT:
        """The model, if it has the head that the task needs."""
        if self.head is None:
            return model.encoder if isinstance(model, ModernBERTForTask) else model
        if isinstance(model, ModernBERTForTask) and model.head.kind == self.head:
            return model
        raise ValueError(
            f"{self.task} needs a model with a {self.head} head ({HEADS[self.head].architecture}); "
            f"{model.folder or 'this model'} has {described_head(model)}"
        )

    def _encode(
        self, texts: Sequence[Text], max_length: int | None, truncate: str | None
    ) -> list[Encoded]:
        """Texts to ids. Without a limit and a policy, the task's own policy holds; a configurable
        head brings a limit, where a text is cut and the loss told."""
        if max_length is None:
            max_length = head_limit(self.model)
        if truncate is None:
            truncate = self.truncate if max_length is None else "warn"
        return self.tokenizer.encode_batch(texts, max_length=max_length, truncate=truncate)

    def _rows(
        self, encodings: Sequence[Encoded], batch_size: int | None
    ) -> list[dict[str, np.ndarray]]:
        """The model's outputs, a dict of arrays without the batch axis per encoding, in order."""
        return output_rows(self.model, self.tokenizer, encodings, batch_size, self.passes)


def output_rows(
    model: ModernBERT,
    tokenizer: Tokenizer,
    encodings: Sequence[Encoded],
    batch_size: int | None = None,
    passes: Passes = in_passes,
    **shown: Any,
) -> list[dict[str, np.ndarray]]:
    """A model's outputs, a dict of arrays without the batch axis per encoding, in order.

    The encoder takes texts in passes, and a head that the engine computes with it; other heads take
    them one by one, each without padding, so that on backend native no bit of an answer depends on
    what else was asked. shown: see in_passes.
    """
    rows: list[dict[str, np.ndarray]] = [{} for _ in encodings]
    apart = model if isinstance(model, ModernBERTForTask) and not in_a_pass(model) else None
    passed = model if apart is None else apart.encoder
    # What may share a pass gives the same outputs: a head's own, or hidden states.
    key = "head" if isinstance(passed, ModernBERTForTask) else "hidden"
    run = passes_of(passed, tokenizer)
    for places, out in passes(encodings, run, batch_size, key=key, **shown):
        for row, place in enumerate(places):
            of_row = {name: value[row : row + 1] for name, value in out.items()}
            if apart is not None:
                hidden = of_row["last_hidden_state"][:, : len(encodings[place])]
                of_row = apart.of_hidden(hidden)
            rows[place] = {name: value[0] for name, value in of_row.items()}
    return rows


def in_a_pass(model: ModernBERTForTask) -> bool:
    """Whether the head is computed with the encoder, for all texts of a pass: by the engine, or as
    modules, which numpy computes beside padding."""
    by_engine = model.backend != "numpy" and model.engine_head is not None
    return by_engine or model.sentence_head is not None


def passes_of(
    model: ModernBERT, tokenizer: Tokenizer
) -> Callable[[list[Encoded]], dict[str, np.ndarray]]:
    """What `in_passes` runs: a model on padded encodings."""
    types = model.config.type_vocab_size > 0
    return lambda batch: model(tokenizer.pad(batch, token_type_ids=types))


def head_limit(model: ModernBERT) -> int | None:
    """The `max_length` of the task that a configurable head was made for; None for other heads."""
    if isinstance(model, ModernBERTForTask) and isinstance(model.head, NLPHead):
        return model.head.max_length
    return None


def open_model(model: Model, comes_along: str = BUNDLED.name, **options: Any) -> ModernBERT:
    """The model itself, or loaded from where it says (None: the bundled one of that name); options
    as `load`."""
    if isinstance(model, ModernBERT):
        return model
    return load(bundled(comes_along) if model is None else model, **options)


def tokenizer_of(model: ModernBERT, *, lowercase: bool = False) -> Tokenizer:
    """The tokenizer in the folder that a model came from. Raises ValueError without a folder."""
    if model.source is None:
        raise ValueError("this model was not loaded from a folder; pass tokenizer=")
    return Tokenizer.from_folder(model.source, lowercase=lowercase)


def open_tokenizer(model: str | os.PathLike[str] | None = None) -> Tokenizer:
    """The tokenizer of a folder or cached hub id, without its model; None: the bundled one."""
    return Tokenizer.from_folder(bundled() if model is None else resolve(model))


def as_list(inputs: Any, what: str = "inputs") -> tuple[list[Any], bool]:
    """Inputs as a list, and whether a single one was given. Raises TypeError for others."""
    if isinstance(inputs, (str, dict)):
        return [inputs], True
    if isinstance(inputs, Sequence) or hasattr(inputs, "__iter__"):
        return list(inputs), False
    raise TypeError(f"{what} must be a str or a list of them, not {type(inputs).__name__}")


def check_top_k(top_k: Any) -> None:
    if isinstance(top_k, bool) or not isinstance(top_k, (int, np.integer)) or top_k < 1:
        raise ValueError(f"top_k must be an int of at least 1, not {top_k!r}")


def flagged(result: dict[str, Any], lost: int) -> dict[str, Any]:
    """The result, with `truncated` (tokens lost) when its text was cut."""
    return result | {"truncated": lost} if lost else result
