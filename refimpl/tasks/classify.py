"""Text classification: labels with scores for a text or a pair of texts.

    scores = f(logits), f none for regression, sigmoid for multi-label or one label, else softmax

Results as transformers' pipeline gives them: {label, score}. A text is not cut unless asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ..models.scores import FUNCTIONS, scores_of
from ..reference.config import ModernBertConfig
from ..reference.numerics import underflow_is_zero
from ..text.tokenizer import Encoded
from .task import TextTask, as_list, check_top_k, flagged

TextOrPair = str | Mapping[str, str]
"""A text, or {"text": ..., "text_pair": ...}."""


class TextClassification(TextTask):
    """`TextClassification(folder)(text)`; see `run`."""

    task, head, comes_along = "text-classification", "sequence_classification", "classify"

    def run(
        self,
        inputs: TextOrPair | Sequence[TextOrPair],
        *,
        top_k: int | None | Literal["best"] = "best",
        function_to_apply: str | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        truncate: str | None = None,
    ) -> Any:
        """Labels of one text or pair, or of several.

        top_k: "best" gives the best label alone ({label, score} per text; a single str gives a list
        of it); an int gives a list of that many per text, best first; None a list of all.
        function_to_apply: none | sigmoid | softmax; None asks the config (`default_function`).
        """
        if top_k != "best" and top_k is not None:
            check_top_k(top_k)
        self.check_function(function_to_apply)
        items, single = as_list(inputs)
        encodings = self.tokenized(items, max_length=max_length, truncate=truncate)
        results: list[Any] = []
        for labels in self.labelled(encodings, function_to_apply, batch_size):
            results.append(labels[0] if top_k == "best" else labels[:top_k])
        if not single:
            return results
        return results if isinstance(inputs, str) and top_k == "best" else results[0]

    def tokenized(
        self,
        inputs: Sequence[TextOrPair],
        *,
        max_length: int | None = None,
        truncate: str | None = None,
    ) -> list[Encoded]:
        """The first half of `run`: texts and pairs as ids."""
        texts = [_pair(item, i) for i, item in enumerate(inputs)]
        return self._encode(texts, max_length, truncate)

    @underflow_is_zero
    def labelled(
        self,
        encodings: Sequence[Encoded],
        function_to_apply: str | None = None,
        batch_size: int | None = None,
    ) -> list[list[dict[str, Any]]]:
        """The second half, of what `tokenized` gave: every label of each, best first."""
        name = self.check_function(function_to_apply)
        results = []
        for encoded, row in zip(encodings, self._rows(encodings, batch_size), strict=True):
            scores = scores_of(self.model, name, row["logits"])
            labels = ranked(scores, self.model.config.id2label)
            results.append([flagged(label, encoded.lost) for label in labels])
        return results

    def check_function(self, name: str | None) -> str:
        """The function from logits to scores, the config's where none is named. ValueError."""
        name = name or default_function(self.model.config)
        if name not in FUNCTIONS:
            known = ", ".join(FUNCTIONS)
            raise ValueError(f"function_to_apply must be one of {known}, not {name!r}")
        return name


def default_function(config: ModernBertConfig) -> str:
    """The function that turns logits into scores when nobody says which."""
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def ranked(scores: np.ndarray, id2label: Mapping[int, str]) -> list[dict[str, Any]]:
    """{label, score} of every label, best first; equal scores in label order. scores [labels]."""
    order = np.argsort(-scores, kind="stable")
    return [{"label": id2label[int(i)], "score": float(scores[i])} for i in order]


def _pair(item: TextOrPair, i: int) -> Any:
    """What the tokenizer takes: a text, or a tuple of two. It refuses what is not text itself."""
    if isinstance(item, Mapping):
        if not {"text"} <= set(item) <= {"text", "text_pair"}:
            raise ValueError(
                f'inputs[{i}] has the keys {sorted(item)}; "text" is needed, "text_pair" allowed'
            )
        return item["text"] if item.get("text_pair") is None else (item["text"], item["text_pair"])
    if isinstance(item, (list, tuple)):
        raise TypeError(
            f'inputs[{i}] is a {type(item).__name__}; a pair is {{"text": ..., "text_pair": ...}}'
        )
    return item
