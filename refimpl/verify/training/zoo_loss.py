"""Mistakes of the loss and of what its sum is divided by. Long because each is written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...train.losses import IGNORED
from ...train.task_loss import ANSWER, MULTI, REGRESSION, SINGLE, Scored
from ..truth.fixtures import PAD_ID
from ..zoo.mistake import round_bits
from .mistake import Mistake, with_grads
from .step import Micro, Training, Window

Array = np.ndarray
Share = Callable[[Sequence[float], Window, Training], list[float]]


def shared(share: Share) -> Callable[[Training], Training]:
    """What each micro-batch's sum is multiplied with, in place of the right factor."""
    return lambda t: replace(t, share=share)


def scaled(factor: Callable[[Sequence[float], Window, Training], float]) -> Callable[..., Training]:
    """The right factor times another."""

    def apply(t: Training) -> Training:
        return replace(
            t,
            share=lambda counts, window, own: [
                x * factor(counts, window, own) for x in t.share(counts, window, own)
            ],
        )

    return apply


def entries(counts: Sequence[float], window: Window, t: Training) -> float:
    """What is counted, over all tokens, those without a label too."""
    return sum(counts) / sum(m.labels.size for m in window) if at_tokens(t) else 1.0


def sequences(counts: Sequence[float], window: Window, t: Training) -> float:
    """The same over the sequences."""
    ends = [m.inputs.get("cu_seqlens") for m in window]
    n = sum(
        len(m.labels) if cu is None else len(cu) - 1 for m, cu in zip(window, ends, strict=True)
    )
    return sum(counts) / n


def rows_only(counts: Sequence[float], window: Window, t: Training) -> float:
    """Entries over rows, where a row has several numbers or labels."""
    return float(window[0].labels.shape[-1]) if t.problem in (MULTI, REGRESSION) else 1.0


def unweighted(counts: Sequence[float], window: Window, t: Training) -> float:
    return 1.0 if t.class_weights is None else sum(counts) / sum(m.labelled for m in window)


def relabelled(change: Callable[[Array, Micro, Training], Array]) -> Callable[[Training], Training]:
    """Other labels."""

    def apply(t: Training) -> Training:
        return replace(
            t,
            score=lambda outputs, micro, own: t.score(
                outputs, replace(micro, labels=change(micro.labels, micro, own)), own
            ),
        )

    return apply


def at_tokens(t: Training) -> bool:
    return t.head in ("masked_lm", "token_classification")


def shifted(labels: Array, micro: Micro, t: Training) -> Array:
    if not at_tokens(t):
        return labels
    out = np.full_like(labels, IGNORED)
    out[..., :-1] = labels[..., 1:]
    return out


def ignored_as_first(labels: Array, micro: Micro, t: Training) -> Array:
    return np.where(labels == IGNORED, 0, labels) if t.problem == SINGLE else labels


def padding_learnt(labels: Array, micro: Micro, t: Training) -> Array:
    if not at_tokens(t) or micro.mask is None:
        return labels
    return np.where(micro.mask == 0, PAD_ID, labels)


def on_scores(
    change: Callable[[Mapping[str, Array]], Mapping[str, Array]],
) -> Callable[..., Training]:
    """The loss of changed scores; its gradients go to those that they belong to."""

    def apply(t: Training) -> Training:
        return replace(t, score=lambda outputs, micro, own: t.score(change(outputs), micro, own))

    return apply


def swapped(t: Training) -> Training:
    """start and end change places, on the way there and on the way back."""
    names = {"start_logits": "end_logits", "end_logits": "start_logits"}

    def score(outputs: Mapping[str, Array], micro: Micro, own: Training) -> Scored:
        s = t.score({names.get(k, k): x for k, x in outputs.items()}, micro, own)
        return Scored(s.total, s.count, {names.get(k, k): x for k, x in s.gradients.items()})

    return replace(t, score=score)


def low_sum(t: Training) -> Training:
    """p = e / sum, the sum kept in 8 bits: each row's probabilities are off by one factor."""

    def score(outputs: Mapping[str, Array], micro: Micro, own: Training) -> Scored:
        s = t.score(outputs, micro, own)
        if own.problem not in (SINGLE, ANSWER) or own.class_weights is not None:
            return s
        gradients, total = {}, s.total
        columns = micro.labels.reshape(-1, 2).T if own.problem == ANSWER else [micro.labels]
        for (name, d), labels in zip(s.gradients.items(), columns, strict=True):
            x = outputs[name].reshape(-1, outputs[name].shape[-1])
            e = np.exp(x - x.max(axis=-1, keepdims=True))
            sums = e.sum(axis=-1, keepdims=True)
            low = round_bits(sums, 8)
            live = (labels.reshape(-1, 1) != IGNORED).astype(x.dtype)
            gradients[name] = d + (live * (e / low - e / sums)).reshape(d.shape).astype(d.dtype)
            total += float((live * np.log(low / sums)).sum())
        return Scored(total, s.count, gradients)

    return replace(t, score=score)


def low_scores(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return {name: round_bits(x, 8) for name, x in outputs.items()}


def other_classes(t: Training) -> Training:
    """s / (classes - 1) at the others and 1 - s at the label: torch's with s' = s C / (C - 1)."""
    n = t.config.vocab_size if t.head == "masked_lm" else t.config.num_labels
    return replace(t, label_smoothing=t.label_smoothing * n / max(n - 1, 1))


def last_micro(t: Training) -> Training:
    return replace(t, total=lambda parts, own: t.total(parts[-1:], own))


HEADS_THAT_DO = ("T#38982", "T#47688", "T#48207", "T#37766", "T#35203", "T#35438")
MISTAKES = (
    Mistake("L1", "loss multiplied by the accumulation steps",
            "each micro-batch is divided by what it holds, and their means are added up: "
            "num_items_in_batch not passed on, or accepted and never used",
            shared(lambda counts, window, t: [1.0 / c for c in counts]), "gradient", HEADS_THAT_DO),
    Mistake("L2", "mean of means", "each micro-batch is divided by what it holds, and then by "
            "their number",
            shared(lambda counts, window, t: [1.0 / (c * len(counts)) for c in counts]),
            "gradient", ("T#34191",)),
    Mistake("L3", "partial window divided by the full window", "the last step of an epoch has "
            "fewer micro-batches and is divided by the number that others have",
            scaled(lambda counts, window, t: len(counts) / t.accumulate), "gradient",
            ("ms-swift#10084",)),
    Mistake("L4", "unlabelled tokens counted", "the sum over labelled tokens is divided by all "
            "tokens, padding included", scaled(entries), "gradient"),
    Mistake("L5", "divided by sequences", "the sum over tokens is divided by the texts of the "
            "batch", scaled(sequences), "gradient"),
    Mistake("L6", "a sum, not divided", "nothing is divided by", scaled(
            lambda counts, window, t: sum(counts)), "gradient"),
    Mistake("L7", "divided by the accumulation steps once more", "what was divided by the whole "
            "step is divided by the number of its micro-batches as well",
            scaled(lambda counts, window, t: 1.0 / t.accumulate), "gradient", ("T#34191",)),
    Mistake("L8", "class weights not in the divisor", "the weighted sum is divided by the number "
            "of rows", scaled(unweighted), "gradient"),
    Mistake("L9", "labels summed within a row", "several labels or numbers a text are divided by "
            "the texts", scaled(rows_only), "gradient"),
    Mistake("L10", "squares halved", "half of the mean squared error", scaled(
            lambda counts, window, t: 0.5 if t.problem == REGRESSION else 1.0), "gradient"),
    Mistake("L11", "start and end added", "their losses are added, not averaged", scaled(
            lambda counts, window, t: 2.0 if t.problem == ANSWER else 1.0), "gradient"),
    Mistake("L12", "start and end exchanged", "the scores of the start learn the end", swapped,
            "gradient"),
    Mistake("L13", "smoothing over the other classes", "label smoothing gives the label nothing: "
            "s / (classes - 1) at the others", other_classes, "gradient"),
    Mistake("L14", "label smoothing left out", "the setting is not read",
            lambda t: replace(t, label_smoothing=0.0), "gradient"),
    Mistake("L15", "class weights left out", "the setting is not read",
            lambda t: replace(t, class_weights=None), "gradient"),
    Mistake("L16", "labels shifted by one", "each token learns the label of the next, as in a "
            "causal model", relabelled(shifted), "gradient"),
    Mistake("L17", "ignored labels learnt as class 0", "-100 is clamped to 0 and counts",
            relabelled(ignored_as_first), "gradient"),
    Mistake("L18", "padding counted", "padded tokens are labelled with the id of padding, and "
            "learnt", relabelled(padding_learnt), "gradient"),
    Mistake("L19", "gradients of the last micro-batch only", "they are set to zero within a step",
            last_micro, "gradient"),
    Mistake("L20", "no gradient behind the scores", "scores are copied (repadded) outside of what "
            "is differentiated: every gradient is zero",
            lambda t: with_grads(t, lambda name, x: np.zeros_like(x)), "gradient", ("T#35386",)),
    Mistake("L21", "16-bit scores", "scores are rounded to bfloat16 before softmax or sigmoid",
            on_scores(low_scores), "gradient", ("ST#3892",)),
    Mistake("L22", "the softmax's sum in 16 bits", "the sum over the vocabulary is kept in "
            "bfloat16", low_sum, "gradient", ("Megatron-LM#2206",)),
)  # fmt: skip
