"""Texts with tagged tokens or spans, for token classification.

    {"tokens": ["Anna", "lives"], "tags": ["B-PER", "O"]}
    {"text": "Anna lives", "entities": [{"start": 0, "end": 4, "label": "PER"}]}

Words are joined by spaces, so that the model learns from text as it will see it. Every token of a
word has a label: the first the word's own, the others I- in place of its B-. Spans become B- and
I-. What is cut for its length is counted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..text.tokenizer import Encoded, Tokenizer
from .examples import Examples, Unit
from .losses import IGNORED
from .metrics import tagged
from .rows import Row, read_rows

OUTSIDE = "O"


@dataclass(frozen=True)
class Tagged:
    """A text and what its characters are: (start, end, tag of the first token, of the others)."""

    where: str
    text: str
    spans: Sequence[tuple[int, int, str, str]]


def tagged_rows(path: str | os.PathLike[str]) -> list[Tagged]:
    """The rows of a JSONL file, checked. Raises ValueError, OSError."""
    return [_of_words(r) if "tokens" in r.fields else _of_spans(r) for r in read_rows(path, ())]


def _of_words(row: Row) -> Tagged:
    words, tags = row.fields["tokens"], row.fields.get("tags")
    for name, value in (("tokens", words), ("tags", tags)):
        if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
            row.refuse(f"{name} is {value!r}; it must be a list of texts")
    assert isinstance(tags, list)
    if len(words) != len(tags) or not words:
        row.refuse(f"it has {len(words)} tokens and {len(tags)} tags")
    spans, at = [], 0
    for word, tag in zip(words, tags, strict=True):
        if not word.strip() or not tag:
            row.refuse(f"token {word!r} has the tag {tag!r}; neither may be empty")
        inner = "I-" + tag[2:] if tag.startswith("B-") else tag
        spans.append((at, at + len(word), tag, inner))
        at += len(word) + 1
    return Tagged(row.where, " ".join(words), spans)


def _of_spans(row: Row) -> Tagged:
    for name in ("text", "entities"):
        if name not in row.fields:
            row.refuse(
                f"it has {sorted(row.fields)}; it needs tokens and tags, or text and entities"
            )
    text, entities, spans = row.text("text"), row.fields["entities"], []
    for entity in entities if isinstance(entities, list) else [entities]:
        try:
            start, end, label = (entity[name] for name in ("start", "end", "label"))
            fits = isinstance(label, str) and label and 0 <= start < end <= len(text)
        except (TypeError, KeyError):
            fits = False
        if not fits:
            row.refuse(
                f"entity {entity!r} needs label, and start < end within {len(text)} characters"
            )
        spans.append((start, end, "B-" + label, "I-" + label))
    spans.sort()
    for (_, end, first, _), (start, _, second, _) in zip(spans, spans[1:], strict=False):
        if start < end:
            row.refuse(f"entities {first[2:]!r} and {second[2:]!r} overlap at character {start}")
    return Tagged(row.where, text, spans)


def tags_of(rows: Sequence[Tagged]) -> list[str]:
    """The labels that the rows need, O first. ValueError where there is one only."""
    found = {tag for row in rows for *_, first, inner in row.spans for tag in (first, inner)}
    if not found - {OUTSIDE}:
        raise ValueError(f"{rows[0].where}: no row has an entity, or a tag but {OUTSIDE}")
    return [OUTSIDE, *sorted(found - {OUTSIDE})]


def encoded(
    rows: Sequence[Tagged], names: Sequence[str], tokenizer: Tokenizer, max_length: int
) -> Examples:
    """Ids, and a label for each token, int [length]. ValueError for an unknown tag."""
    number = {name: i for i, name in enumerate(names)}
    for row in rows:
        for *_, first, inner in row.spans:
            for tag in (first, inner):
                if tag not in number:
                    raise ValueError(f"{row.where}: tag is {tag!r}; known: {', '.join(names)}")
    texts = [row.text for row in rows]
    found = tokenizer.encode_batch(texts, max_length=max_length, truncate="silent")
    units = [
        Unit([np.array(e.ids, np.int64)], labels_of(e, row, number), row.where)
        for e, row in zip(found, rows, strict=True)
    ]
    labels = [unit.labels for unit in units]
    return Examples(
        "tokens", units, sum(e.lost > 0 for e in found), lambda out: tagged(out, labels, names)
    )


def labels_of(encoding: Encoded, row: Tagged, number: dict[str, int]) -> np.ndarray:
    """A label per token: that of the span that holds its first character that is no space."""
    out, spans, seen = np.full(len(encoding), IGNORED, np.int64), list(row.spans), -1
    at = 0
    for i, (start, end) in enumerate(encoding.offsets):
        if encoding.special[i]:
            continue
        piece = row.text[start:end]
        start += len(piece) - len(piece.lstrip())
        while at < len(spans) and spans[at][1] <= start:
            at += 1
        inside = at < len(spans) and spans[at][0] <= start and bool(piece.strip())
        if not inside:
            out[i] = number[OUTSIDE] if OUTSIDE in number else IGNORED
            continue
        *_, first, inner = spans[at]
        out[i] = number[first if at > seen else inner]
        seen = at
    return out
