"""Questions with a context and the place of the answer in it, for extractive answers.

    {"question": .., "context": .., "answers": {"text": [..], "answer_start": [..]}}      as SQuAD
    {"question": .., "context": .., "answer": "..", "answer_start": 17}                   or flat

No answer (an empty list or text): the first token is to be chosen. A long context is read in
overlapping pieces, each a unit: where the answer is not whole in a piece, the piece has none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..text.tokenizer import Encoded, Tokenizer
from .examples import Examples, Unit
from .metrics import spans
from .rows import Row, read_rows

Array = np.ndarray

STRIDE = 128  # tokens that two pieces share, as `modernbert answer` has it
MOST_TOKENS = 30  # of an answer, when one is looked for


@dataclass(frozen=True)
class Question:
    """answers: texts that count as right, none where there is no answer; start: of the first."""

    where: str
    question: str
    context: str
    answers: Sequence[str]
    start: int


def question_rows(path: str | os.PathLike[str]) -> list[Question]:
    """The rows of a file, checked. Raises ValueError, OSError."""
    return [_question(row) for row in read_rows(path, ("question", "context"))]


def _question(row: Row) -> Question:
    question, context = row.text("question"), row.text("context")
    for name, text in (("question", question), ("context", context)):
        if not text.strip():
            row.refuse(f"{name} is empty")
    answers, start = _answers(row)
    if not answers:
        return Question(row.where, question, context, (), 0)
    if start is None:
        start = context.find(answers[0])
    there = context[max(start, 0) : max(start, 0) + len(answers[0])]
    if start < 0 or there != answers[0]:
        row.refuse(
            f"answer {answers[0]!r} does not stand in the context"
            + (f" at character {start}: there is {there!r}" if start >= 0 else "")
        )
    return Question(row.where, question, context, answers, start)


def _answers(row: Row) -> tuple[list[str], int | None]:
    """Texts, and where the first starts, None where the row does not say."""
    fields = row.fields
    if "answers" in fields:
        given = fields["answers"]
        texts = given.get("text") if isinstance(given, Mapping) else None
        starts = given.get("answer_start") if isinstance(given, Mapping) else None
    elif "answer" in fields:
        texts = [fields["answer"]] if fields["answer"] else []
        starts = [fields["answer_start"]] if fields.get("answer_start") not in (None, "") else None
    else:
        row.refuse(f"it has {sorted(fields)}; it needs answers, or answer and answer_start")
    if not isinstance(texts, list) or not all(isinstance(x, str) and x for x in texts):
        row.refuse(
            f"answers is {fields.get('answers', fields.get('answer'))!r}; they must be texts"
        )
    if not texts or starts is None:
        return texts, None
    try:
        return texts, int(starts[0])
    except (TypeError, ValueError, IndexError):
        row.refuse(f"answer_start is {starts!r}; it must be a number for each answer")


def encoded(rows: Sequence[Question], tokenizer: Tokenizer, max_length: int) -> Examples:
    """Units of one piece each; labels int [1, 2], first and last token of the answer."""
    units: list[Unit] = []
    pieces: list[tuple[int, Encoded]] = []
    for n, row in enumerate(rows):
        try:
            found = tokenizer.chunks(
                row.question, row.context, max_length=max_length,
                stride=min(STRIDE, max_length // 4),
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"{row.where}: {error}") from None
        for piece in found:
            label = np.array([place_of(piece, row)], np.int64)
            units.append(Unit([np.array(piece.ids, np.int64)], label, row.where))
            pieces.append((n, piece))
    return Examples("answer", units, 0, lambda outputs: figures(rows, pieces, outputs))


def place_of(piece: Encoded, row: Question) -> tuple[int, int]:
    """First and last token of the answer, (0, 0) where the piece does not hold it whole."""
    if not row.answers:
        return 0, 0
    start, end = row.start, row.start + len(row.answers[0])
    held = []
    for i, (first, last) in enumerate(piece.offsets):
        if piece.sequence_ids[i] != 1 or piece.special[i]:
            continue
        text = row.context[first:last]
        first += len(text) - len(text.lstrip())
        if first < end and last > start and text.strip():
            held.append((i, first, last))
    if not held or held[0][1] > start or held[-1][2] < end:
        return 0, 0
    return held[0][0], held[-1][0]


def figures(
    rows: Sequence[Question],
    pieces: Sequence[tuple[int, Encoded]],
    outputs: Sequence[Mapping[str, Array]],
) -> dict[str, float]:
    """exact_match and f1 of the best span of each question, "" where the first token scores
    higher and the data has questions without an answer."""
    best = [(-np.inf, "")] * len(rows)
    none = np.full(len(rows), np.inf)
    for (n, piece), out in zip(pieces, outputs, strict=True):
        start, end = out["start_logits"][0], out["end_logits"][0]
        none[n] = min(none[n], float(start[0] + end[0]))
        of_context = np.array(piece.sequence_ids, dtype=object) == 1
        for s in map(int, np.flatnonzero(of_context)):
            ends = np.arange(s, min(s + MOST_TOKENS, len(piece)))
            score = np.where(of_context[ends], start[s] + end[ends], -np.inf)
            e = int(score.argmax())
            if score[e] > best[n][0]:
                first, last = piece.offsets[s][0], piece.offsets[int(ends[e])][1]
                best[n] = (float(score[e]), rows[n].context[first:last].strip())
    open_ended = any(not row.answers for row in rows)
    guesses = [
        "" if open_ended and none[n] > score else text for n, (score, text) in enumerate(best)
    ]
    return spans(guesses, [list(row.answers) or [""] for row in rows])
