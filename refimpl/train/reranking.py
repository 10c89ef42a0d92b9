"""Rerankers as work for a trainer: a query's documents against one another.

    Reranking(rows, tokenizer, max_length, "ranking")     rows of pairs.py: Query

Two losses (ranking.py): "ranking", where each query's negatives are its own and NEGATIVES documents
of other queries of the batch, drawn by seed and step; "margin", where a teacher says how far the
first document's score shall be above each other's. Scores first, pair by pair, then the way back
with what the loss says of each: no step holds more than it would for a loss of single pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import numpy as np

from ..models.task_model import ModernBERTForTask
from ..text.tokenizer import Tokenizer
from . import metrics
from .counter import purpose, words
from .embedding import run
from .evaluation import outputs
from .examples import Unit
from .loss_gradients import Draws, logits_of
from .native import NativeStep
from .order import batch_at, steps_per_epoch
from .pairs import Query
from .ranking import PairLoss, margin_mse, multiple_negatives
from .settings import Settings
from .work import Stepped, Work, of_units

Array = np.ndarray

LOSSES = ("ranking", "margin")
NEGATIVES = 4  # of other queries, as in sentence-transformers
Pair = tuple[str, str]


class Reranking(Work):
    """loss: one of LOSSES. truncated: pairs of the rows that were cut. Raises ValueError."""

    task = "rerank"

    def __init__(
        self, rows: Sequence[Query], tokenizer: Tokenizer, max_length: int, loss: str
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss is {loss!r}; known: {', '.join(LOSSES)}")
        for row in rows:
            if (row.margins is None) != (loss == "ranking"):
                lacks = "has no margins" if row.margins is None else "has margins"
                raise ValueError(f"{row.where}: it {lacks}; loss is {loss!r}")
        self.rows, self.tokenizer, self.longest, self.kind = list(rows), tokenizer, max_length, loss
        self._own, self.truncated = self._encoded([p for row in rows for p in pairs_of(row)])

    def steps_per_epoch(self, settings: Settings) -> int:
        return steps_per_epoch(len(self.rows), settings.texts_a_step)

    def groups(self, step: int, settings: Settings) -> list[list[Pair]]:
        """The pairs of each query of a step, the one that fits first."""
        some = batch_at(step, len(self.rows), settings.texts_a_step, settings.seed)
        rows = [self.rows[i] for i in some]
        own = [list(pairs_of(row)) for row in rows]
        if self.kind == "ranking":
            for n, row in enumerate(rows):
                known = set(row.documents)
                others = [d for other in rows for d in other.documents if d not in known]
                others = list(dict.fromkeys(others))
                counter = (np.arange(len(others)), n, 0, step)
                drawn = words(purpose(settings.seed, "negatives"), counter)[:, 0]
                order = np.argsort(drawn, kind="stable")[:NEGATIVES]
                own[n] += [(row.query, others[i]) for i in order]
        return own

    def step(
        self,
        model: ModernBERTForTask,
        step: int,
        settings: Settings,
        wanted: Collection[str],
        engine: NativeStep | None = None,
    ) -> Stepped:
        some = batch_at(step, len(self.rows), settings.texts_a_step, settings.seed)
        groups = self.groups(step, settings)
        ids, _ = self._encoded([pair for group in groups for pair in group])
        draws = [Draws(settings.seed, step, n) for n in range(len(ids))]
        if engine is None:
            found = [score(model, x, d) for x, d in zip(ids, draws, strict=True)]
        else:
            found = list(engine.scores(ids, settings.batch_size, draws)[:, 0])
        ends = np.cumsum([len(group) for group in groups])[:-1]
        losses = [
            self.loss(x, self.rows[i])
            for x, i in zip(np.split(np.array(found), ends), some, strict=True)
        ]
        total, count = sum(x.total for x in losses), sum(x.count for x in losses)
        where = [self.rows[i].where for i, group in zip(some, groups, strict=True) for _ in group]
        if not np.isfinite(total):
            raise FloatingPointError(f"step {step + 1}, {where[0]}, ..: the loss is not finite")
        d = np.concatenate([x.gradients[0] for x in losses])
        units = [Unit([x], d[i : i + 1, None], where[i]) for i, x in enumerate(ids)]
        made = of_units(model, "scores", units, settings, step, wanted, engine, count=count)
        return Stepped(total / count, made.gradients, made.tokens)

    def loss(self, scores: Array, row: Query) -> PairLoss:
        """Of the scores of one query's documents."""
        if row.margins is None:
            return multiple_negatives(scores)
        return margin_mse(scores, np.array(row.margins))

    def evaluate(self, model: ModernBERTForTask) -> dict[str, float]:
        """The loss among a query's own documents, and how well those are ranked."""
        units = [Unit([x], np.zeros((1, 1)), "") for x in self._own]
        found = np.array([out["logits"][0, 0] for out in outputs(model, units)])
        ends = np.cumsum([len(row.documents) for row in self.rows])[:-1]
        losses = [
            self.loss(x, row) for x, row in zip(np.split(found, ends), self.rows, strict=True)
        ]
        fits = np.array([float(i == 0) for row in self.rows for i in range(len(row.documents))])
        queries = [row.query for row in self.rows for _ in row.documents]
        loss = sum(x.total for x in losses) / sum(x.count for x in losses)
        return {"loss": loss, **metrics.ranked(found, fits, queries)}

    def digest(self) -> str:
        h = hashlib.sha256(self.kind.encode())
        for row in self.rows:
            h.update(repr((len(row.documents), row.margins)).encode())
        for x in self._own:
            h.update(len(x).to_bytes(8, "little") + x.astype("<i8").tobytes())
        return h.hexdigest()

    def _encoded(self, pairs: Sequence[Pair]) -> tuple[list[Array], int]:
        """Ids of each pair, and how many were cut."""
        found = self.tokenizer.encode_batch(pairs, max_length=self.longest, truncate="silent")
        return [np.array(e.ids, np.int64) for e in found], sum(e.lost > 0 for e in found)


def pairs_of(row: Query) -> list[Pair]:
    return [(row.query, document) for document in row.documents]


def score(model: ModernBERTForTask, ids: Array, draws: Draws) -> np.floating:
    """The logit of one pair, in numpy, dropout included."""
    hidden, batch, _, _ = run(model, ids, draws)
    return logits_of(model, batch, hidden, draws)[0]
