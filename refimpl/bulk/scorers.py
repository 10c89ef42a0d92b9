"""Columns of texts to columns of labels, entities and scores: the tasks of heads, row by row.

    Classifier   text, perhaps text_pair -> results [{label, score}], best first
    Tagger       text                    -> results [{entity_group, score, word, start, end}]
    Ranker       query, documents        -> results [{corpus_id, score}], best first
    Scorer       text, for one query     -> score

Values are those of the verbs and of the tasks in-process; scores are stored as float64, which holds
those of every dtype. What is promised of rows and workers is that of every RowTask (row_task.py).
Long because the four kinds stand beside each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files.lines import Line, documents_of
from ..tasks import Reranker, TextClassification, TokenClassification
from ..tasks.embed import settings_of
from ..tasks.rerank import ranked
from ..tasks.space import Space, score_space
from ..tasks.task import head_limit
from ..text.tokenizer import Encoded
from .batches import arrow
from .row_task import Array, RowTask


@dataclass(frozen=True)
class Classifier(RowTask):
    """See RowTask. A row is a text, or a pair where the column text_pair is there and has one.
    top_k: how many labels, None for all; function: none, sigmoid or softmax, by default what the
    config says."""

    name = comes_along = "classify"
    beside = ("text_pair",)
    optional = True
    plain = ("", None)

    top_k: int | None = None
    function: str | None = None

    def _open(self, folder: str | None, **where: Any) -> TextClassification:
        return TextClassification(folder, **where)

    def _space(self, task: TextClassification) -> Space:
        return space_of(task, self.max_length, task.check_function(self.function))

    def _tokenized(self, task: TextClassification, rows: Sequence[Any]) -> list[list[Encoded]]:
        given = [{"text": text, "text_pair": pair} for text, pair in rows]
        return [[encoded] for encoded in task.tokenized(given, **self.limits)]

    def _values(
        self, task: TextClassification, rows: Sequence[Any], tokens: list[list[Encoded]]
    ) -> Array:
        found = task.labelled([encoded for (encoded,) in tokens], self.function)
        return objects(labels[: self.top_k] for labels in found)

    def arrow_type(self) -> Any:
        return structs(label="string", score="float64")

    def asked(self) -> dict[str, Any]:
        return super().asked() | {"top_k": self.top_k}


@dataclass(frozen=True)
class Tagger(RowTask):
    """See RowTask. aggregation, ignore_labels, stride: as `TokenClassification.run`; with the
    aggregation "none" results are {entity, score, index, word, start, end}, one per token."""

    name = "ner"

    aggregation: str = "simple"
    ignore_labels: tuple[str, ...] = ("O",)
    stride: int | None = None

    def _open(self, folder: str | None, **where: Any) -> TokenClassification:
        return TokenClassification(folder, **where)

    def _space(self, task: TokenClassification) -> Space:
        task.check_strategy(self.aggregation, self.ignore_labels)
        return space_of(task, self.max_length)

    def _tokenized(self, task: TokenClassification, rows: Sequence[Any]) -> list[list[Encoded]]:
        return task.tokenized(
            rows,
            aggregation_strategy=self.aggregation,
            stride=self.stride,
            **self.limits,
        )

    def _values(
        self, task: TokenClassification, rows: Sequence[Any], tokens: list[list[Encoded]]
    ) -> Array:
        return objects(task.entities_of(rows, tokens, self.aggregation, self.ignore_labels))

    def arrow_type(self) -> Any:
        place = {"word": "string", "start": "int64", "end": "int64"}
        if self.aggregation == "none":
            return structs(entity="string", score="float64", index="int64", **place)
        return structs(entity_group="string", score="float64", **place)

    def asked(self) -> dict[str, Any]:
        own = {"aggregation": self.aggregation, "stride": self.stride}
        return super().asked() | own | {"ignore_labels": list(self.ignore_labels)}


@dataclass(frozen=True)
class OfReranker(RowTask):
    """What Ranker and Scorer share. ValueError for a model that gives several scores a pair, which
    say no order."""

    name = "rerank"

    def _open(self, folder: str | None, **where: Any) -> Reranker:
        task = Reranker(folder, **where)
        if task.num_labels != 1:
            raise ValueError(f"rerank needs a model with one label; {folder} has {task.num_labels}")
        return task

    def _space(self, task: Reranker) -> Space:
        return space_of(task, self.max_length, task.activation, settings_of(task.model))


@dataclass(frozen=True)
class Ranker(OfReranker):
    """See RowTask. A row is a query with its documents: a list of texts, or of objects with `text`.
    top_k: the best so many, None for all; corpus_id: a document's place in its row."""

    beside = ("documents",)
    plain = ("", [""])
    window = 16  # each with many documents

    column: str = "query"
    top_k: int | None = None

    def _tokenized(self, task: Reranker, rows: Sequence[Any]) -> list[list[Encoded]]:
        return [self._pairs(task, query, documents) for query, documents in rows]

    def _pairs(self, task: Reranker, query: Any, documents: Any) -> list[Encoded]:
        """What the model reads for a query: one encoding a document."""
        check_text("query", query)
        if isinstance(documents, np.ndarray):  # as pandas has lists
            documents = documents.tolist()
        texts = [one.fields["text"] for one in documents_of(Line(0, {"documents": documents}))]
        try:
            return task.tokenized([(query, text) for text in texts], **self.limits)
        except ValueError as error:
            raise ValueError(str(error).replace("texts[", "documents[")) from None

    def _values(self, task: Reranker, rows: Sequence[Any], tokens: list[list[Encoded]]) -> Array:
        scores = iter(task.scored([encoded for of_row in tokens for encoded in of_row]))
        each = [np.array([next(scores) for _ in of_row]) for of_row in tokens]
        return objects(ranked(of_row, self.top_k) for of_row in each)

    def arrow_type(self) -> Any:
        return structs(corpus_id="int64", score="float64")

    def asked(self) -> dict[str, Any]:
        return super().asked() | {"top_k": self.top_k}


@dataclass(frozen=True)
class Scorer(OfReranker):
    """See RowTask. A row is a document of the one query that is given here."""

    out: str = "score"
    query: str = ""

    def _tokenized(self, task: Reranker, rows: Sequence[Any]) -> list[list[Encoded]]:
        for text in rows:
            check_text("text", text)
        return [[e] for e in task.tokenized([(self.query, text) for text in rows], **self.limits)]

    def _values(self, task: Reranker, rows: Sequence[Any], tokens: list[list[Encoded]]) -> Array:
        return task.scored([encoded for (encoded,) in tokens]).astype(np.float64)

    def _blank(self, task: Reranker, count: int) -> Array:
        return np.full(count, np.nan)

    def arrow_type(self) -> Any:
        return arrow().float64()

    def arrow_values(self, values: Array, bad: Array) -> Any:
        return arrow().array(values, mask=bad)

    def asked(self) -> dict[str, Any]:
        return super().asked() | {"query": self.query}


def space_of(
    task: TextClassification | TokenClassification | Reranker, max_length: int | None, *said: Any
) -> Space:
    """What scores depend on; `said`: what becomes of logits."""
    own = getattr(task, "max_seq_length", None) or head_limit(task.model)
    limit = max_length or own or task.tokenizer.max_length
    return score_space(task.model, task.tokenizer, limit, *said)


def check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"the {name} must be a str, not {type(value).__name__}")


def objects(values: Iterable[Any]) -> Array:
    """An array of lists, which numpy would else take for rows."""
    given = list(values)
    out = np.empty(len(given), object)
    for i, value in enumerate(given):
        out[i] = value
    return out


def structs(**fields: str) -> Any:
    """Arrow's type for a list of such."""
    pa = arrow()
    return pa.list_(pa.struct([(name, getattr(pa, kind)()) for name, kind in fields.items()]))
