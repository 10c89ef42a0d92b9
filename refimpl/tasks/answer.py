"""Extractive question answering: the span of a context that answers a question.

    p_start, p_end = softmax over the first special token, "no answer", and the context
    score(s, e) = p_start[s] p_end[e]
    for s <= e < s + max_answer_len; a long context is read in overlapping pieces

Results as the pipeline of transformers 4.57, the last to have it, gives them: {score, start, end,
answer}. Equal answers (letter case aside) are one, their scores added. A span with score 0 is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..text.tokenizer import Encoded
from .task import TextTask, check_top_k, head_limit

# transformers 4.57: the longest input that is read in one piece, and its overlap with the next.
MAX_SEQ_LEN, DOC_STRIDE = 384, 128

Question = Mapping[str, str]
"""{"question": ..., "context": ...}"""


class QuestionAnswering(TextTask):
    """`QuestionAnswering(folder)(question=..., context=...)`; see `run`."""

    task, head = "question-answering", "question_answering"

    def run(
        self,
        inputs: Question | Sequence[Question] | None = None,
        *,
        question: str | Sequence[str] | None = None,
        context: str | Sequence[str] | None = None,
        top_k: int = 1,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        batch_size: int | None = None,
    ) -> Any:
        """Answers to one question or several, given as `inputs` or as `question` and `context`.

        Lists are paired up; several questions may share one context. Per question the best answer,
        or with top_k > 1 a list; a list of one question counts as that question.
        max_answer_len: in tokens. handle_impossible_answer: "" competes too, with the smallest
        p_start p_end at the first token, [CLS] as a rule, of any piece. align_to_words: answers are
        grown to whole words.
        max_seq_len: tokens per piece, question included (default 384 or the model's limit if
        smaller). doc_stride: overlap of pieces (default min(128, max_seq_len // 2)).
        Raises ValueError for an empty question or context, and a question that leaves no room.
        """
        check_top_k(top_k)
        if max_answer_len < 1:
            raise ValueError(f"max_answer_len must be at least 1, not {max_answer_len}")
        limit = head_limit(self.model) or self.tokenizer.max_length
        if max_seq_len is None:
            max_seq_len = MAX_SEQ_LEN if limit is None else min(MAX_SEQ_LEN, limit)
        if doc_stride is None:
            doc_stride = min(DOC_STRIDE, max_seq_len // 2)
        asked = questions(inputs, question, context)
        pieces = [
            self.tokenizer.chunks(q, c, max_length=max_seq_len, stride=doc_stride) for q, c in asked
        ]
        flat = [piece for of_question in pieces for piece in of_question]
        rows = iter(self._rows(flat, batch_size))
        results = []
        for (_, text), of_question in zip(asked, pieces, strict=True):
            outputs = [next(rows) for _ in of_question]
            answers = best_answers(
                text,
                of_question,
                [(row["start_logits"], row["end_logits"]) for row in outputs],
                top_k=top_k,
                max_answer_len=max_answer_len,
                handle_impossible_answer=handle_impossible_answer,
                align_to_words=align_to_words,
            )
            results.append(answers[0] if len(answers) == 1 else answers)
        return results[0] if len(results) == 1 else results


def best_answers(
    text: str,
    pieces: Sequence[Encoded],
    logits: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    top_k: int = 1,
    max_answer_len: int = 15,
    handle_impossible_answer: bool = False,
    align_to_words: bool = True,
) -> list[dict[str, Any]]:
    """The best answers in all pieces of one context, best first.

    logits: per piece start and end [seq]; entries beyond the piece are padding and ignored.
    """
    answers: dict[str, dict[str, Any]] = {}
    null_score = 1.0
    # Spans that grow into the same words are added up, so that more of them are looked at.
    candidates = 2 * top_k + 10 if align_to_words else top_k
    for piece, (start_logits, end_logits) in zip(pieces, logits, strict=True):
        allowed = np.array(piece.sequence_ids, dtype=object) == 1
        allowed[0] |= piece.special[0]  # [CLS], or what stands in its place: "no answer"
        p_start = masked_softmax(start_logits[: len(piece)], allowed)
        p_end = masked_softmax(end_logits[: len(piece)], allowed)
        null_score = min(null_score, float(p_start[0] * p_end[0]))
        p_start[0] = p_end[0] = 0
        for s, e, score in best_spans(p_start, p_end, candidates, max_answer_len):
            start, end = span_characters(piece, s, e, align_to_words)
            answer = text[start:end]
            known = answers.get(answer.lower())
            if known is None:
                found = {"score": score, "start": start, "end": end, "answer": answer}
                answers[answer.lower()] = found
            else:
                known["score"] += score
    ranked = list(answers.values())
    if handle_impossible_answer:
        ranked.append({"score": null_score, "start": 0, "end": 0, "answer": ""})
    return sorted(ranked, key=lambda answer: -answer["score"])[:top_k]


def masked_softmax(logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Softmax over the allowed entries; 0 elsewhere, and everywhere when none is allowed. [seq]."""
    p = np.zeros_like(logits)
    if allowed.any():
        e = np.exp(logits[allowed] - logits[allowed].max())
        p[allowed] = e / e.sum()
    return p


def best_spans(
    p_start: np.ndarray, p_end: np.ndarray, top_k: int, max_answer_len: int
) -> list[tuple[int, int, float]]:
    """(first token, last token, score) of the top_k spans that score above 0, best first."""
    seq = p_start.size
    width = min(max_answer_len, seq)
    last = np.concatenate([p_end, np.zeros(width - 1, p_end.dtype)])
    # scores[s, k] = p_start[s] p_end[s + k]: the band of spans that are short enough
    scores = p_start[:, None] * np.lib.stride_tricks.sliding_window_view(last, width)
    flat = np.argsort(-scores, axis=None, kind="stable")[:top_k]
    found = ((int(i) // width, int(i) % width) for i in flat)
    return [(s, s + k, float(scores[s, k])) for s, k in found if scores[s, k] > 0]


def span_characters(piece: Encoded, s: int, e: int, align_to_words: bool) -> tuple[int, int]:
    """Characters [start, end) of tokens s .. e, grown to whole words within the piece."""
    if not align_to_words:
        return piece.offsets[s][0], piece.offsets[e][1]
    words, sequences = piece.word_ids, piece.sequence_ids

    def same_word(token: int) -> list[int]:
        if words[token] is None:
            return [token]
        key = (words[token], sequences[token])
        return [i for i in range(len(piece)) if (words[i], sequences[i]) == key]

    return piece.offsets[same_word(s)[0]][0], piece.offsets[same_word(e)[-1]][1]


def questions(
    inputs: Question | Sequence[Question] | None,
    question: str | Sequence[str] | None,
    context: str | Sequence[str] | None,
) -> list[tuple[str, str]]:
    """Pairs of question and context, from either way of giving them."""
    if inputs is None:
        if question is None or context is None:
            raise TypeError("question and context are both needed")
        asked = [question] if isinstance(question, str) else list(question)
        contexts = [context] * len(asked) if isinstance(context, str) else list(context)
        if len(asked) != len(contexts):
            raise ValueError(f"{len(asked)} questions do not pair with {len(contexts)} contexts")
        pairs = list(zip(asked, contexts, strict=True))
    else:
        if question is not None or context is not None:
            raise TypeError("give inputs, or question and context, not both")
        items = [inputs] if isinstance(inputs, Mapping) else list(inputs)
        for i, item in enumerate(items):
            if not isinstance(item, Mapping) or set(item) != {"question", "context"}:
                raise ValueError(
                    f'inputs[{i}] must be {{"question": ..., "context": ...}}, not {item!r}'
                )
        pairs = [(item["question"], item["context"]) for item in items]
    for i, pair in enumerate(pairs):
        for name, value in zip(("question", "context"), pair, strict=True):
            if not isinstance(value, str):
                raise TypeError(f"{name} of inputs[{i}] must be a str, not {type(value).__name__}")
            if not value:
                raise ValueError(f"{name} of inputs[{i}] is empty")
    return pairs
