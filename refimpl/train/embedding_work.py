"""Embeddings as work for a trainer: pairs and triplets, the rest of the batch as negatives.

    Contrastive(rows, tokenizer, max_length)     rows of pairs.py

Without scores the loss is multiple negatives ranking (cosine, scale 20), with scores CoSENT, unless
another of LOSSES is asked for; with widths, the sum of it over the first values of each width. The
whole batch is one loss, whatever memory there is: vectors first, one text at a time, then the way
back, again one at a time (embedding.py). No text stands twice in a batch, where it would be a
negative of itself. Long because what a row is for, and what its figures are, differ by loss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence

import numpy as np

from ..models.task_model import ModernBERTForTask
from ..text.tokenizer import Tokenizer
from . import metrics
from .contrastive import (
    PairLoss,
    cosent,
    cosine_similarity,
    margin_mse,
    matryoshka,
    multiple_negatives,
    triplet,
    unit,
)
from .embedding import embedding, embedding_gradients
from .loss_gradients import Draws
from .native import NativeStep
from .order import shuffled
from .pairs import Together
from .settings import Settings
from .work import Stepped, Sum, Work

Array = np.ndarray

# Name -> what a row has for it.
LOSSES = {
    "ranking": "anchor, positive and perhaps negatives", "cosent": "two texts and score",
    "cosine": "two texts and score", "triplet": "anchor, positive and negative",
    "margin": "query, positive, negative and score",
}  # fmt: skip
EVALUATION_BATCH = 32  # rows whose texts are each other's negatives when the loss is evaluated


class Contrastive(Work):
    """Rows of as many texts each. loss: one of LOSSES, None for what the rows have. widths: of
    matryoshka, () for the whole vectors alone. truncated: texts that were cut. Raises
    ValueError."""

    task = "embed"
    one_pass = False  # as many texts as a batch has in all columns

    def __init__(
        self,
        rows: Sequence[Together],
        tokenizer: Tokenizer,
        max_length: int,
        loss: str | None = None,
        widths: Sequence[int] = (),
    ) -> None:
        width, scored = len(rows[0].texts), rows[0].score is not None
        for row in rows:
            if len(row.texts) != width or (row.score is not None) != scored:
                raise ValueError(f"{row.where}: its columns are not those of {rows[0].where}")
        self.rows, self.widths = list(rows), tuple(widths)
        self.kind = loss or ("cosent" if scored else "ranking")
        if self.kind not in LOSSES:
            raise ValueError(f"loss is {loss!r}; known: {', '.join(LOSSES)}")
        wanted = {"ranking": (width, False), "triplet": (3, False), "margin": (3, True)}
        if (width, scored) != wanted.get(self.kind, (2, True)):
            raise ValueError(
                f"{rows[0].where}: it has {width} texts and {'a' if scored else 'no'} score; loss "
                f"{self.kind} needs {LOSSES[self.kind]}"
            )
        self.ids, self.truncated = [], 0
        for row in rows:
            found = tokenizer.encode_batch(row.texts, max_length=max_length, truncate="silent")
            self.truncated += sum(e.lost > 0 for e in found)
            self.ids.append([np.array(e.ids, np.int64) for e in found])
        self._batches: list[list[Array]] = []

    def begin(self, model: ModernBERTForTask, settings: Settings) -> None:
        for width in self.widths:
            if not 1 <= width <= model.config.hidden_size:
                raise ValueError(
                    f"widths holds {width}; it must be in 1 .. {model.config.hidden_size}"
                )
        texts = [row.texts for row in self.rows]
        self._batches = [
            without_duplicates(texts, settings.texts_a_step, shuffled(len(texts), settings.seed, e))
            for e in range(settings.epochs)
        ]

    def steps_per_epoch(self, settings: Settings) -> int:
        return -(-len(self.rows) // settings.texts_a_step)

    def steps(self, settings: Settings) -> int:
        """Where texts repeat, an epoch may need a batch more than its rows would fill."""
        return settings.steps or sum(len(epoch) for epoch in self._batches)

    def batch(self, step: int) -> Array:
        """The rows of a step."""
        flat = [batch for epoch in self._batches for batch in epoch]
        return flat[step % len(flat)]

    def step(
        self,
        model: ModernBERTForTask,
        step: int,
        settings: Settings,
        wanted: Collection[str],
        engine: NativeStep | None = None,
    ) -> Stepped:
        rows = self.batch(step)
        texts = [self.ids[i][c] for c in range(len(self.ids[0])) for i in rows]
        at = [self.rows[i].where for _ in self.ids[0] for i in rows]
        draws = [Draws(settings.seed, step, n) for n in range(len(texts))]
        if engine is None:
            vectors = np.stack([embedding(model, x, d) for x, d in zip(texts, draws, strict=True)])
        else:
            vectors = engine.embeddings(texts, settings.batch_size)
        loss = self.loss(vectors.reshape(-1, len(rows), vectors.shape[-1]), rows)
        if not np.isfinite(loss.total):
            raise FloatingPointError(f"step {step + 1}, {at[0]}, ..: the loss is not finite")
        tokens, total = sum(len(x) for x in texts), Sum(wanted)
        given = np.concatenate(loss.gradients) / np.asarray(loss.count, vectors.dtype)
        if engine is not None:
            grads = engine.of_embeddings(texts, given, at, step, settings.batch_size)
            return Stepped(loss.total / loss.count, grads, tokens)
        for x, d, draw, where in zip(texts, given, draws, at, strict=True):
            try:
                total.add(embedding_gradients(model, x, d, draw))
            except FloatingPointError as error:
                raise FloatingPointError(f"step {step + 1}, {where}: {error}") from None
        return Stepped(loss.total / loss.count, total.gradients, tokens)

    def loss(self, columns: Array, rows: Array) -> PairLoss:
        """Of embeddings [columns, rows, width]."""
        labels = np.array([self.rows[i].score for i in rows], np.float64)
        losses: dict[str, Callable[..., PairLoss]] = {
            "ranking": lambda a, *others: multiple_negatives(a, others),
            "cosent": lambda a, b: cosent(a, b, labels),
            "cosine": lambda a, b: cosine_similarity(a, b, labels),
            "triplet": triplet,
            "margin": lambda q, p, n: margin_mse(q, p, n, labels),
        }
        one = losses[self.kind]
        return matryoshka(one, list(columns), self.widths) if self.widths else one(*columns)

    def evaluate(self, model: ModernBERTForTask) -> dict[str, float]:
        known = {}
        for row, ids in zip(self.rows, self.ids, strict=True):
            for text, x in zip(row.texts, ids, strict=True):
                if text not in known:
                    known[text] = embedding(model, x, None)
        columns = np.array([[known[text] for text in row.texts] for row in self.rows])
        columns = columns.transpose(1, 0, 2)
        if self.kind in ("cosent", "cosine"):
            every = np.arange(len(self.rows))
            cosines = (unit(columns[0]) * unit(columns[1])).sum(axis=-1)
            labels = np.array([row.score for row in self.rows])
            loss = self.loss(columns, every)
            return {"loss": loss.total / loss.count, **metrics.alike(cosines, labels)}
        order = np.arange(len(self.rows))
        texts = [row.texts for row in self.rows]
        batches = without_duplicates(texts, EVALUATION_BATCH, order)
        losses = [self.loss(columns[:, some], some) for some in batches]
        documents = {t: i for i, t in enumerate(dict.fromkeys(t for r in texts for t in r[1:]))}
        vectors = unit(np.array([known[t] for t in documents]))
        scores = unit(columns[0]) @ vectors.T
        found = metrics.retrieved(scores, np.array([documents[row[1]] for row in texts]))
        return {"loss": sum(x.total for x in losses) / sum(x.count for x in losses), **found}

    def digest(self) -> str:
        h = hashlib.sha256(f"{self.kind} {self.widths}".encode())
        for row, ids in zip(self.rows, self.ids, strict=True):
            h.update(repr((len(ids), row.score)).encode())
            for x in ids:
                h.update(len(x).to_bytes(8, "little") + x.astype("<i8").tobytes())
        return h.hexdigest()


def without_duplicates(
    texts: Sequence[Sequence[str]], batch_size: int, order: Array
) -> list[Array]:
    """Batches of row numbers, each row once, in that order: a row with a text that the batch has
    already waits for the next. texts: of each row; those of one row may be alike."""
    waiting, batches = list(order), []
    while waiting:
        batch: list[int] = []
        seen, later = set[str](), []
        for n, i in enumerate(waiting):
            if len(batch) == batch_size:
                later += waiting[n:]
                break
            own = set(texts[i])
            if own & seen:
                later.append(i)
            else:
                batch.append(i)
                seen |= own
        batches.append(np.array(batch))
        waiting = later
    return batches
