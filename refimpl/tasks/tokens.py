"""Token classification (NER, POS): a label for each token, word or entity of a text.

    scores = softmax(logits [seq, labels]); how tokens become entities is in entities.py

Results as transformers' pipeline gives them. Offsets are the tokenizer's: byte-level BPE counts the
space before a word in. With `stride` a long text is read in overlapping pieces instead of cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..models.scores import softmax
from ..reference.numerics import underflow_is_zero
from ..text.tokenizer import Encoded
from . import entities
from .entities import Entity
from .task import TextTask, as_list, flagged, head_limit


class TokenClassification(TextTask):
    """`TokenClassification(folder)(text)`; see `run`."""

    task, head, truncate = "token-classification", "token_classification", "warn"

    def run(
        self,
        inputs: str | Sequence[str],
        *,
        aggregation_strategy: str = "none",
        ignore_labels: Sequence[str] = ("O",),
        stride: int | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        truncate: str | None = None,
        return_lost: bool = False,
    ) -> Any:
        """Entities of one text (a list of dicts), or of several (a list of such lists).

        aggregation_strategy: none (one dict per token: entity, score, index, word, start, end),
        simple (adjacent tokens of one tag), first | average | max (words first, which take the
        label of their first token, average scores or surest token; then as simple):
        entity_group, score, word, start, end. ignore_labels is applied after grouping.
        stride: read the whole text in pieces of max_length that overlap by this many tokens,
        instead of cutting it. return_lost: give (results, tokens cut off each text).
        Raises ValueError for no text, an unknown strategy, or a stride with the strategy "none".
        """
        self.check_strategy(aggregation_strategy, ignore_labels)
        texts, single = as_list(inputs)
        if not texts:
            raise ValueError("inputs is empty; at least one text is needed")
        pieces = self.tokenized(
            texts,
            aggregation_strategy=aggregation_strategy,
            stride=stride,
            max_length=max_length,
            truncate=truncate,
        )
        results = self.entities_of(texts, pieces, aggregation_strategy, ignore_labels, batch_size)
        found = results[0] if single else results
        return (found, [of_text[0].lost for of_text in pieces]) if return_lost else found

    def tokenized(
        self,
        texts: Sequence[str],
        *,
        aggregation_strategy: str = "none",
        stride: int | None = None,
        max_length: int | None = None,
        truncate: str | None = None,
    ) -> list[list[Encoded]]:
        """The first half of `run`: per text its encoding, or with a stride its pieces."""
        if stride is None:
            return [[e] for e in self._encode(texts, max_length, truncate)]
        if aggregation_strategy == "none":
            raise ValueError('stride needs an aggregation_strategy other than "none"')
        own = head_limit(self.model) or self.tokenizer.max_length
        limit = own if max_length is None else max_length
        if limit is None:
            raise ValueError("stride needs max_length: the folder gives no limit")
        return [self.tokenizer.chunks(text, max_length=limit, stride=stride) for text in texts]

    @underflow_is_zero
    def entities_of(
        self,
        texts: Sequence[str],
        pieces: Sequence[Sequence[Encoded]],
        aggregation_strategy: str = "none",
        ignore_labels: Sequence[str] = ("O",),
        batch_size: int | None = None,
    ) -> list[list[Entity]]:
        """The second half: the entities of each text, from what `tokenized` gave for them."""
        self.check_strategy(aggregation_strategy, ignore_labels)
        flat = [piece for of_text in pieces for piece in of_text]
        rows = iter(self._rows(flat, batch_size))
        results = []
        for text, of_text in zip(texts, pieces, strict=True):
            found: list[Entity] = []
            for piece in of_text:
                scores = softmax(next(rows)["logits"][: len(piece)])
                of_piece = self._entities(text, piece, scores, aggregation_strategy)
                found += [e for e in of_piece if entities.label_of(e) not in ignore_labels]
            found = entities.without_overlaps(found) if len(of_text) > 1 else found
            results.append([flagged(e, of_text[0].lost) for e in found])
        return results

    def check_strategy(self, aggregation_strategy: str, ignore_labels: Sequence[str]) -> None:
        """ValueError, TypeError for what neither half takes."""
        if aggregation_strategy not in entities.STRATEGIES:
            known = ", ".join(entities.STRATEGIES)
            raise ValueError(
                f"aggregation_strategy must be one of {known}, not {aggregation_strategy!r}"
            )
        if isinstance(ignore_labels, str):
            raise TypeError(f"ignore_labels must be a list of labels, not {ignore_labels!r}")

    def _entities(
        self, text: str, encoded: Encoded, scores: np.ndarray, strategy: str
    ) -> list[Entity]:
        """The entities of one piece of a text, none ignored yet. scores [seq, labels]."""
        tokenizer, id2label = self.tokenizer, self.model.config.id2label
        pieces = entities.token_pieces(tokenizer, text, encoded, scores)
        if strategy in entities.WORD_CHOICES:
            choice = entities.WORD_CHOICES[strategy]
            words = entities.words(pieces)
            labelled = [entities.word_entity(word, choice, tokenizer, id2label) for word in words]
        else:
            labelled = [entities.token_entity(piece, id2label) for piece in pieces]
        return labelled if strategy == "none" else entities.groups(labelled, tokenizer)
