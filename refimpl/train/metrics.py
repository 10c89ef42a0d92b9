"""How good a model is, by task: accuracy, F1, MCC, correlations, ranks, entities, spans.

Each takes predictions and labels and gives plain floats. A class that neither predictions nor
labels have is left out of macro-F1; where a figure is 0 / 0 it is 0. Sources: entities as conlleval
and seqeval's default have them, answers as SQuAD's script, ranks as sentence-transformers. Long
because every task has its figures here.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence

import numpy as np

from .losses import IGNORED

Array = np.ndarray


def classes(predicted: Array, labels: Array) -> dict[str, float]:
    """Class numbers [n], [n] -> accuracy, macro_f1 (the mean of each class's F1) and mcc."""
    n = int(max(predicted.max(), labels.max())) + 1
    table = np.zeros((n, n))
    np.add.at(table, (labels, predicted), 1.0)
    right, of_label, of_guess = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    there = of_label + of_guess > 0
    f1 = 2.0 * right[there] / (of_label + of_guess)[there]
    total, hits = table.sum(), right.sum()
    over = hits * total - of_label @ of_guess
    under = np.sqrt((total**2 - of_guess @ of_guess) * (total**2 - of_label @ of_label))
    return {
        "accuracy": float(hits / total),
        "macro_f1": float(f1.mean()),
        "mcc": float(over / under) if under else 0.0,
    }


def several(predicted: Array, labels: Array) -> dict[str, float]:
    """0 and 1 [n, classes] both -> accuracy (all classes of a text right), micro_f1, macro_f1."""
    right, guessed, there = (x.sum(axis=0) for x in (predicted * labels, predicted, labels))
    both = guessed + there
    f1 = 2.0 * right / np.where(both > 0, both, 1)
    return {
        "accuracy": float((predicted == labels).all(axis=1).mean()),
        "micro_f1": float(2.0 * right.sum() / both.sum()) if both.sum() else 0.0,
        "macro_f1": float(f1[both > 0].mean()) if (both > 0).any() else 0.0,
    }


def values(predicted: Array, labels: Array) -> dict[str, float]:
    """Numbers [n, width] both -> mse, mae and pearson."""
    gap = predicted - labels
    return {
        "mse": float((gap * gap).mean()),
        "mae": float(np.abs(gap).mean()),
        "pearson": correlation(predicted, labels),
    }


# -- correlations and ranks -----------------------------------------------------------------------


def alike(predicted: Array, labels: Array) -> dict[str, float]:
    """Numbers [n] both -> spearman and pearson."""
    return {
        "spearman": correlation(ranks(predicted), ranks(labels)),
        "pearson": correlation(predicted, labels),
    }


def correlation(a: Array, b: Array) -> float:
    """Pearson's r of [n], [n]."""
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / spread if spread else 0.0


def ranks(x: Array) -> Array:
    """1 .. n by size [n]; equal ones have the mean of theirs."""
    _, at, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2.0)[at.reshape(-1)]


def retrieved(scores: Array, right: Array) -> dict[str, float]:
    """scores [queries, documents], right [queries]: the number of the one document that fits ->
    recall_1, recall_10 and mrr_10. A document with the same score stands before it."""
    own = np.take_along_axis(scores, right[:, None], axis=1)
    place = (scores >= own).sum(axis=1)
    return {
        "recall_1": float((place <= 1).mean()),
        "recall_10": float((place <= 10).mean()),
        "mrr_10": float(np.where(place <= 10, 1.0 / place, 0.0).mean()),
    }


def ranked(scores: Array, labels: Array, queries: Sequence[str]) -> dict[str, float]:
    """scores, labels [n] of documents, and the query of each -> mrr_10 and ndcg_10, the means over
    queries that have a document with a label of 0.5 or more."""
    groups: dict[str, list[int]] = {}
    for i, query in enumerate(queries):
        groups.setdefault(query, []).append(i)
    found, gains = [], []
    for rows in groups.values():
        order = np.array(rows)[np.argsort(-scores[rows], kind="stable")][:10]
        fits = np.flatnonzero(labels[order] >= 0.5)
        if (labels[rows] >= 0.5).any():
            found.append(1.0 / (fits[0] + 1) if len(fits) else 0.0)
            gains.append(gain(labels[order]) / gain(np.sort(labels[rows])[::-1][:10]))
    return {
        "mrr_10": float(np.mean(found)) if found else 0.0,
        "ndcg_10": float(np.mean(gains)) if gains else 0.0,
    }


def gain(labels: Array) -> float:
    """Discounted by the place: sum of label / log2(place + 1)."""
    return float((labels / np.log2(np.arange(len(labels)) + 2)).sum())


# -- entities and answers -------------------------------------------------------------------------


def tagged(
    outputs: Sequence[Mapping[str, Array]], labels: Sequence[Array], names: Sequence[str]
) -> dict[str, float]:
    """logits [length, labels] and labels [length] of each text -> accuracy of labelled tokens;
    precision, recall and f1 of entities, right where type, first and last token are."""
    hits, guessed, there, right, total = 0, 0, 0, 0, 0
    for out, wanted in zip(outputs, labels, strict=True):
        rows = wanted != IGNORED
        best = out["logits"].argmax(axis=-1)[rows]
        mine = entities([names[i] for i in best])
        theirs = entities([names[i] for i in wanted[rows]])
        hits += len(mine & theirs)
        guessed, there = guessed + len(mine), there + len(theirs)
        right, total = right + int((best == wanted[rows]).sum()), total + int(rows.sum())
    return {
        "accuracy": right / total if total else 0.0,
        "precision": hits / guessed if guessed else 0.0,
        "recall": hits / there if there else 0.0,
        "f1": 2.0 * hits / (guessed + there) if guessed + there else 0.0,
    }


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """(type, first, last) of each entity: one begins at B-, and where the type changes; a tag
    without B- or I- counts as I-."""
    found, start, kind = set(), 0, ""
    for i, tag in enumerate([*tags, "O"]):
        begins = tag.startswith("B-")
        own = "" if tag == "O" else tag[2:] if tag.startswith(("B-", "I-")) else tag
        if kind and (begins or own != kind):
            found.add((kind, start, i - 1))
        if own and (begins or own != kind):
            start = i
        kind = own
    return found


ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and spare white space."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", bare).split())


def spans(guesses: Sequence[str], answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """A text and those that would be right, for each question -> exact_match and f1 of words."""
    exact = [max(normalised(g) == normalised(a) for a in own)
             for g, own in zip(guesses, answers, strict=True)]  # fmt: skip
    f1 = [max(words_shared(g, a) for a in own) for g, own in zip(guesses, answers, strict=True)]
    return {"exact_match": float(np.mean(exact)), "f1": float(np.mean(f1))}


def words_shared(guess: str, answer: str) -> float:
    """F1 of the words of two texts, each counted as often as it stands there."""
    mine, theirs = normalised(guess).split(), normalised(answer).split()
    if not mine or not theirs:
        return float(mine == theirs)
    both = sum(min(mine.count(w), theirs.count(w)) for w in set(mine))
    return 2.0 * both / (len(mine) + len(theirs))
