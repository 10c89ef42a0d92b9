"""From scored tokens to entities: the rules of transformers' token-classification pipeline.

    tokens -> words: a word starts behind white space (or as the tokenizer marks it)
    words -> entities: adjacent ones of one tag, a new one at B-

One rule is not transformers': there only the space parts words, so that a line break or a tab joins
two; here all white space does, and a token of such a break belongs to no word. Pure functions of
dicts and arrays; the model is not here (tokens.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..text.tokenizer import Encoded, Tokenizer

Entity = dict[str, Any]

# -- tokens -> words ------------------------------------------------------------------------------


def token_pieces(
    tokenizer: Tokenizer, text: str, encoded: Encoded, scores: np.ndarray
) -> list[Entity]:
    """Per ordinary token: word (vocabulary spelling), scores, start, end, index, is_subword, and
    is_blank: it stands for a line break or other white space without a space."""
    pieces = []
    for i, (start, end) in enumerate(encoded.offsets):
        if encoded.special[i]:
            continue
        word = encoded.tokens[i]
        if tokenizer.subword_prefix:
            is_subword = len(word) != end - start
        else:
            is_subword = start > 0 and not any(c.isspace() for c in text[start - 1 : start + 1])
        if encoded.ids[i] == tokenizer.unk_token_id:
            word, is_subword = text[start:end], False
        pieces.append(
            dict(
                word=word,
                scores=scores[i],
                start=start,
                end=end,
                index=i,
                is_subword=is_subword,
                is_blank=text[start:end].isspace() and " " not in text[start:end],
            )  # fmt: skip
        )
    return pieces


def words(pieces: Sequence[Entity]) -> list[list[Entity]]:
    """Token pieces grouped into words: a piece that is no subword starts the next one; blank ones
    belong to none."""
    found: list[list[Entity]] = []
    for piece in pieces:
        if piece["is_blank"]:
            continue
        if found and piece["is_subword"]:
            found[-1].append(piece)
        else:
            found.append([piece])
    return found


# scores [pieces, labels] of a word -> the scores [labels] that stand for it
WORD_CHOICES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "first": lambda scores: scores[0],
    "average": lambda scores: scores.mean(axis=0),
    "max": lambda scores: scores[scores.max(axis=1).argmax()],
}
STRATEGIES = ("none", "simple", *WORD_CHOICES)


def word_entity(
    word: Sequence[Entity],
    choice: Callable[[np.ndarray], np.ndarray],
    tokenizer: Tokenizer,
    id2label: Mapping[int, str],
) -> Entity:
    """One entity for a word, labelled by the scores that `choice` makes of its pieces'."""
    scores = choice(np.stack([piece["scores"] for piece in word]))
    best = int(scores.argmax())
    return {
        "entity": id2label[best],
        "score": float(scores[best]),
        "word": tokenizer.join([piece["word"] for piece in word]),
        "start": word[0]["start"],
        "end": word[-1]["end"],
    }


def token_entity(piece: Entity, id2label: Mapping[int, str]) -> Entity:
    """One entity for a token, labelled by its own scores."""
    best = int(piece["scores"].argmax())
    return {
        "entity": id2label[best],
        "score": float(piece["scores"][best]),
        "index": piece["index"],
        "word": piece["word"],
        "start": piece["start"],
        "end": piece["end"],
    }


# -- words -> entities ----------------------------------------------------------------------------


def groups(entities: Sequence[Entity], tokenizer: Tokenizer) -> list[Entity]:
    """Adjacent entities of one tag joined; B- starts a group, a bare label continues like I-."""
    grouped: list[list[Entity]] = []
    for entity in entities:
        begins, tag = split_label(entity["entity"])
        if grouped and not begins and tag == split_label(grouped[-1][-1]["entity"])[1]:
            grouped[-1].append(entity)
        else:
            grouped.append([entity])
    return [
        {
            "entity_group": group[0]["entity"].split("-", 1)[-1],
            "score": sum(entity["score"] for entity in group) / len(group),
            "word": tokenizer.join([entity["word"] for entity in group]),
            "start": group[0]["start"],
            "end": group[-1]["end"],
        }
        for group in grouped
    ]


def split_label(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and its tag: "B-PER" -> (True, "PER")."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def label_of(entity: Entity) -> str:
    return entity["entity_group"] if "entity_group" in entity else entity["entity"]


def without_overlaps(entities: Sequence[Entity]) -> list[Entity]:
    """Entities of overlapping pieces by start; of two that overlap the longer (surer) stays."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda e: e["start"]):
        if not kept or not kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            kept.append(entity)
            continue
        best = max(kept[-1], entity, key=lambda e: (e["end"] - e["start"], e["score"]))
        kept[-1] = best
    return kept
