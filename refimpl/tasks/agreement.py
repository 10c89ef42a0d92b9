"""How far one model agrees with another that should say the same, on texts: figures from 0 to 1.

    cosine_p1, cosine_p50   percentiles over tokens of the cosine of their last hidden states
    argmax                  share of equal answers: classes of texts or tokens, words at each token,
                            starts and ends; where the model has logits of several classes
    ndcg_at_10              rankings of texts by the cosine of their vectors, each text a query; the
                            other's ten best are relevant, 10 for the first to 1 for the last; where
                            the model gives vectors, or one score a text: then the ranking by that

Texts are run in groups, each text once per model. Not here: what is good enough (quantize.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..models.model import ModernBERT
from ..text.tokenizer import Encoded, Tokenizer

Array = np.ndarray
Figures = dict[str, float]

# Texts that are run at a time: logits of a vocabulary are large.
GROUP = 4
BEST = 10


def agreement(
    truth: ModernBERT, other: ModernBERT, tokenizer: Tokenizer, rows: Sequence[Encoded]
) -> Figures:
    """The figures of `other`; both are of one kind, and `rows` hold a text each, at least one."""
    cosines: list[Array] = []
    equal: list[Array] = []
    ranked: list[tuple[Array, Array]] = []
    for group in _groups(tokenizer, rows):
        real = group["attention_mask"] != 0
        hidden = [_hidden(model, group, real) for model in (truth, other)]
        cosines.append(cosine(*hidden))
        if truth.axes != ("batch", "seq"):  # choices of a question: no text stands for itself
            continue
        a, b = (model(group) for model in (truth, other))
        for name in a:
            if name.endswith("logits") and a[name].shape[-1] > 1:
                same = a[name].argmax(axis=-1) == b[name].argmax(axis=-1)
                equal.append(same[real] if same.shape == real.shape else same.reshape(-1))
        if vectors := [
            v
            for x, h in ((a, hidden[0]), (b, hidden[1]))
            if (v := _vectors(x, h, real)) is not None
        ]:
            ranked.append((vectors[0], vectors[1]))
    figures = dict(zip(("cosine_p1", "cosine_p50"), _percentiles(cosines), strict=True))
    if equal:
        figures["argmax"] = float(np.concatenate(equal).mean())
    if ranked and len(rows) > 2:
        vectors_of = [np.concatenate([pair[i] for pair in ranked]) for i in (0, 1)]
        figures["ndcg_at_10"] = ndcg_of_vectors(*vectors_of)
    return figures


def cosine(a: Array, b: Array) -> Array:
    """Of each row; 0 where a row has no length, or is not finite. a, b [rows, n] -> [rows]."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return np.where(np.isfinite(found), found, 0.0)


def ndcg_of_vectors(truth: Array, other: Array) -> float:
    """Mean over queries; [texts, width], width 1 being a score: then one ranking of all texts."""
    if truth.shape[-1] == 1:
        return ndcg(truth[:, 0], other[:, 0])
    scores = []
    for x in (truth, other):
        x = x.astype(np.float64)
        x = x / np.maximum(np.sqrt((x * x).sum(-1, keepdims=True)), 1e-12)
        scores.append(x @ x.T)
    found = []
    for i in range(len(truth)):
        rest = np.arange(len(truth)) != i
        found.append(ndcg(scores[0][i][rest], scores[1][i][rest]))
    return float(np.mean(found))


def ndcg(truth: Array, other: Array) -> float:
    """NDCG at ten of the ranking by `other`, where the ten best of `truth` are relevant."""
    order = np.argsort(-truth, kind="stable")[:BEST]
    gain = np.zeros(len(truth))
    gain[order] = np.arange(BEST, BEST - len(order), -1)
    by = np.log2(np.arange(len(order)) + 2.0)
    best = (gain[order] / by).sum()
    got = (gain[np.argsort(-other, kind="stable")[: len(order)]] / by).sum()
    return float(got / best)


def _groups(tokenizer: Tokenizer, rows: Sequence[Encoded]) -> Iterator[dict[str, Array]]:
    """Padded texts, those of like length together."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for i in range(0, len(order), GROUP):
        arrays = tokenizer.pad([rows[j] for j in order[i : i + GROUP]])
        yield {n: x for n, x in arrays.items() if n in ("input_ids", "attention_mask")}


def _hidden(model: ModernBERT, group: dict[str, Array], real: Array) -> Array:
    """Last hidden states [tokens, hidden] of the real tokens, text by text."""
    lengths = real.sum(axis=1)
    return model.encode_packed(group["input_ids"][real], np.concatenate([[0], np.cumsum(lengths)]))


def _vectors(out: dict[str, Any], hidden: Array, real: Array) -> Array | None:
    """One vector a text: what the head gives, or one score; the mean for an encoder."""
    if "embeddings" in out:
        return np.asarray(out["embeddings"])
    if "logits" in out and out["logits"].shape[1:] == (1,):
        return np.asarray(out["logits"])
    if "last_hidden_state" not in out:
        return None
    ends = np.cumsum(real.sum(axis=1))
    return np.stack([part.mean(axis=0) for part in np.split(hidden, ends[:-1])])


def _percentiles(cosines: list[Array]) -> list[float]:
    return [float(x) for x in np.percentile(np.concatenate(cosines), (1, 50))]
