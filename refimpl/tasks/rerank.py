"""Reranking: scores for pairs of texts, with the names and rules of sentence-transformers.

    predict: (text, text) -> logits -> activation (sigmoid for one label, else none)
    rank: a query with each document, best first

Two forms of folder: a sequence classifier, or modules.json whose last Dense gives the scores. Long
because `predict` stands whole and in two halves, which jobs of files take (bulk/scorers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import ModelFormatError
from ..models.model import ModernBERT
from ..models.scores import scores_of
from ..models.summary import described_head
from ..models.task_model import ModernBERTForTask
from ..reference.numerics import underflow_is_zero
from ..reference.ops import ACTIVATIONS
from ..reference.sentence import Dense, SentenceHead, activation_of
from ..text.tokenizer import Encoded, Tokenizer
from .batches import Passes, in_passes
from .embed import settings_of
from .prompts import Prompts
from .task import (
    Model,
    check_top_k,
    flagged,
    head_limit,
    open_model,
    output_rows,
    tokenizer_of,
)

Array = np.ndarray
Activation = Callable[[Array], Array]


class Reranker:
    """Scores for pairs. `num_labels`: scores per pair; `activation_fn`: from logits to scores, and
    `activation` its name, None for one of the caller's own."""

    def __init__(
        self,
        model: Model = None,
        *,
        activation_fn: Activation | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        tokenizer: Tokenizer | None = None,
        backend: str = "auto",
        dtype: str = "float32",
        num_threads: int | None = None,
        revision: str | None = None,
    ) -> None:
        """model: a folder, a cached hub id or a loaded model, with a sequence classifier or the
        modular form. prompts: name -> text put before the first text of a pair. The options
        override what the folder says. Raises ValueError for another head, ModelFormatError,
        HubError, MissingExtraError.
        """
        where: dict[str, Any] = dict(
            backend=backend, dtype=dtype, num_threads=num_threads, revision=revision
        )
        self.model = open_model(model, **where)
        self._key, self.num_labels = _scores_of(self.model)
        settings = settings_of(self.model)
        if tokenizer is None:
            tokenizer = tokenizer_of(self.model, lowercase=settings.do_lower_case)
        self.tokenizer = tokenizer
        limit = settings.max_seq_length or head_limit(self.model)
        self.max_seq_length = limit or tokenizer.max_length
        self.activation: str | None = None
        if activation_fn is None:
            self.activation = self._activation(settings.activation_fn)
            activation_fn = partial(scores_of, self.model, self.activation)
        self.activation_fn = activation_fn
        self._prompts = Prompts(settings, prompts, default_prompt_name)
        self.passes: Passes = in_passes

    def __repr__(self) -> str:
        scores = "1 score" if self.num_labels == 1 else f"{self.num_labels} scores"
        return f"Reranker({scores} a pair, {self.model!r})"

    @underflow_is_zero
    def predict(
        self,
        pairs: Sequence[tuple[str, str]] | tuple[str, str] | Array,
        batch_size: int | None = None,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        activation_fn: Activation | None = None,
        apply_softmax: bool = False,
        max_length: int | None = None,
        truncate: str = "warn",
        show_progress_bar: bool | None = False,
        return_lost: bool = False,
    ) -> Any:
        """Scores [pairs] (one label) or [pairs, labels], in the model's dtype.

        pairs: a list, a tuple or an array [pairs, 2] of texts; a single pair, which is a tuple or a
        list of two texts, gives a scalar or [labels]. prompt: text put before the first text of
        each pair; prompt_name: one of the folder's prompts, when no prompt is given. batch_size:
        most pairs of a pass; None leaves it to their tokens.
        apply_softmax: over the labels, after the activation. max_length, truncate: see
        Tokenizer.encode_batch. return_lost: give (scores, tokens cut off each pair, int64).
        Raises ValueError, TypeError.
        """
        single = len(pairs) > 0 and isinstance(pairs[0], str)
        encodings = self.tokenized(
            [pairs] if single else pairs,
            prompt_name=prompt_name,
            prompt=prompt,
            max_length=max_length,
            truncate=truncate,
        )
        scores = self.scored(
            encodings,
            batch_size,
            activation_fn=activation_fn,
            apply_softmax=apply_softmax,
            show_progress_bar=show_progress_bar,
        )
        lost = np.array([e.lost for e in encodings], dtype=np.int64)
        if single:
            scores = scores[0]
        return (scores, lost) if return_lost else scores

    def tokenized(
        self,
        pairs: Sequence[Any] | Array,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        truncate: str = "warn",
    ) -> list[Encoded]:
        """The first half of `predict`: pairs, the first text behind its prompt, as ids."""
        items = [_pair(pair, i) for i, pair in enumerate(pairs)]
        before = self._prompts.text(prompt, prompt_name)
        items = [(before + first, second) for first, second in items]
        limit = self.max_seq_length if max_length is None else max_length
        return self.tokenizer.encode_batch(items, max_length=limit, truncate=truncate)

    @underflow_is_zero
    def scored(
        self,
        encodings: Sequence[Encoded],
        batch_size: int | None = None,
        *,
        activation_fn: Activation | None = None,
        apply_softmax: bool = False,
        show_progress_bar: bool | None = False,
    ) -> Array:
        """The second half, of what `tokenized` gave: [pairs], or [pairs, labels]."""
        rows = output_rows(
            self.model, self.tokenizer, encodings, batch_size, self.passes, label="predict",
            verbose=show_progress_bar,
        )  # fmt: skip
        empty = np.empty((0, self.num_labels), self.model.dtype)
        scores = np.concatenate([empty, *(row[self._key][None] for row in rows)])
        scores = (activation_fn or self.activation_fn)(scores)
        if apply_softmax and self.num_labels > 1:
            scores = scores_of(self.model, "softmax", scores)
        return scores[:, 0] if self.num_labels == 1 else scores

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        batch_size: int | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """The documents by score, best first: {corpus_id, score}, with `text` if return_documents.

        A document that was cut has `truncated`, the tokens lost. options: as `predict`. Raises
        ValueError for a model with several labels, TypeError for documents that are no texts.
        """
        if self.num_labels != 1:
            raise ValueError(f"rank needs a model with one label; this one has {self.num_labels}")
        if top_k is not None:
            check_top_k(top_k)
        if isinstance(documents, str):
            raise TypeError("documents must be a list of str, not a str")
        documents = list(documents)
        pairs = [(query, document) for document in documents]
        scores, lost = self.predict(pairs, batch_size, return_lost=True, **options)
        results = []
        for result in ranked(scores, top_k):
            i = result["corpus_id"]
            text = {"text": documents[i]} if return_documents else {}
            results.append(flagged(result | text, int(lost[i])))
        return results

    def _activation(self, named: str | None) -> str:
        """What the folder names, in any of its spellings, else the default."""
        config = self.model.config
        nested = config.extra.get("sentence_transformers")
        for name in (
            named,
            nested.get("activation_fn") if isinstance(nested, Mapping) else None,
            config.extra.get("sbert_ce_default_activation_function"),
        ):
            if name is None:
                continue
            row = activation_of(str(name))
            if row is None:
                known = ", ".join(row.torch for row in ACTIVATIONS.values() if row.torch)
                raise ModelFormatError(
                    f"activation {name!r} is none of {known}; pass activation_fn=",
                    file=str(self.model.folder),
                    key="activation_fn",
                )
            return row
        return "sigmoid" if self.num_labels == 1 else "linear"


def ranked(scores: Array, top_k: int | None = None) -> list[dict[str, Any]]:
    """{corpus_id, score}, best first; equal scores in their order. scores [documents]."""
    best = np.argsort(-scores, kind="stable")[:top_k]
    return [{"corpus_id": int(i), "score": float(scores[i])} for i in best]


def _pair(pair: Any, i: int) -> tuple[str, str]:
    """Two texts. TypeError, naming the position, for anything else."""
    if isinstance(pair, (tuple, list, np.ndarray)) and len(pair) == 2:
        if all(isinstance(text, str) for text in pair):
            return str(pair[0]), str(pair[1])
    raise TypeError(f"pairs[{i}] must be a pair of str, not {pair!r}")


def _scores_of(model: ModernBERT) -> tuple[str, int]:
    """Output key of the raw scores, and how many a pair gets. ValueError for a model with none."""
    if isinstance(model, ModernBERTForTask):
        if model.head.kind == "sequence_classification":
            return "logits", model.config.num_labels
        if isinstance(model.head, SentenceHead) and isinstance(model.head.modules[-1], Dense):
            return "logits" if model.head.makes_scores else "embeddings", model.head.dimension
    raise ValueError(
        "a reranker needs a sequence_classification head, or modules that end in a Dense; "
        f"{model.folder or 'this model'} has {described_head(model)}"
    )
