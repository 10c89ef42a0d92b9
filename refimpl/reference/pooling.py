"""Pooling: one vector per sequence from the hidden states of its tokens.

    pool: hidden [batch, seq, hidden], attention_mask [batch, seq] -> [batch, hidden]

Promise: the result has the dtype of `hidden`; a masked token never contributes, be it NaN or inf;
a sequence without a visible token gives zeros. The one exception to "masked never contributes" is
`cls`, which is column 0 by definition, whatever the padding.
Not here: prediction heads, dense layers and normalisation (heads.py, sentence.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Weights = np.ndarray
"""Non-negative weights [batch, seq] in the dtype of hidden, zero where masked."""


def weighted_sum(hidden: np.ndarray, weights: Weights) -> np.ndarray:
    """sum_j w_j h_j per sequence, [batch, hidden]; a token of weight 0 may be NaN."""
    safe = np.where(weights[:, :, None] != 0, hidden, hidden.dtype.type(0))
    return np.matmul(weights[:, None, :], safe)[:, 0, :]


def _divided(total: np.ndarray, divisor: np.ndarray) -> np.ndarray:
    """total [batch, hidden] / divisor [batch, 1]; a zero divisor belongs to an empty row: zeros."""
    return total / np.where(divisor == 0, divisor.dtype.type(1), divisor)


def _column(hidden: np.ndarray, visible: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Token `column[b]` of sequence b, [batch, hidden]; zeros for an empty row."""
    taken = np.take_along_axis(hidden, column[:, None, None], axis=1)[:, 0, :]
    return np.where(visible.any(axis=1, keepdims=True), taken, hidden.dtype.type(0))


def cls(hidden: np.ndarray, visible: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Column 0, masked or not, as transformers takes it."""
    return _column(hidden, visible, np.zeros(hidden.shape[0], dtype=np.int64))


def first_token(hidden: np.ndarray, visible: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The first visible token: what sentence-transformers >= 5.5 calls cls."""
    return _column(hidden, visible, visible.argmax(axis=1))


def lasttoken(hidden: np.ndarray, visible: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The last visible token."""
    return _column(hidden, visible, visible.shape[1] - 1 - visible[:, ::-1].argmax(axis=1))


def mean(hidden: np.ndarray, visible: np.ndarray, position: np.ndarray) -> np.ndarray:
    """sum_j h_j / n over the n visible tokens."""
    weights = visible.astype(hidden.dtype)
    return _divided(weighted_sum(hidden, weights), weights.sum(axis=1, keepdims=True))


def mean_sqrt_len_tokens(
    hidden: np.ndarray, visible: np.ndarray, position: np.ndarray
) -> np.ndarray:
    """sum_j h_j / sqrt(n) over the n visible tokens."""
    weights = visible.astype(hidden.dtype)
    return _divided(weighted_sum(hidden, weights), np.sqrt(weights.sum(axis=1, keepdims=True)))


def weightedmean(hidden: np.ndarray, visible: np.ndarray, position: np.ndarray) -> np.ndarray:
    """sum_j p_j h_j / sum_j p_j with p the position counted from 1 at the first real token."""
    weights = np.where(visible, position, 0).astype(hidden.dtype)
    return _divided(weighted_sum(hidden, weights), weights.sum(axis=1, keepdims=True))


def maximum(hidden: np.ndarray, visible: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The largest value of each column over the visible tokens."""
    best = np.where(visible[:, :, None], hidden, hidden.dtype.type(-np.inf)).max(axis=1)
    return np.where(visible.any(axis=1, keepdims=True), best, hidden.dtype.type(0))


@dataclass(frozen=True)
class Mode:
    """A row of POOLINGS: the function, and what others call it, "" where they do not have it.

    classifier: Hugging Face's `classifier_pooling`. sentence: sentence-transformers'
    `pooling_mode`; flag: the key of its older files, which is true where the mode is on. head:
    `pooling_type` of the configurable heads.
    """

    function: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    classifier: str = ""
    sentence: str = ""
    flag: str = ""
    head: str = ""


# The only list of poolings, in the order in which sentence-transformers joins several: configs,
# heads, files and messages read it.
POOLINGS: dict[str, Mode] = {
    "cls": Mode(cls, classifier="cls", head="cls"),
    "first_token": Mode(first_token, sentence="cls", flag="pooling_mode_cls_token"),
    "max": Mode(maximum, sentence="max", flag="pooling_mode_max_tokens", head="max"),
    "mean": Mode(mean, "mean", "mean", "pooling_mode_mean_tokens", "mean"),
    "mean_sqrt_len_tokens": Mode(
        mean_sqrt_len_tokens,
        sentence="mean_sqrt_len_tokens",
        flag="pooling_mode_mean_sqrt_len_tokens",
    ),
    "weightedmean": Mode(
        weightedmean, sentence="weightedmean", flag="pooling_mode_weightedmean_tokens"
    ),
    "lasttoken": Mode(lasttoken, sentence="lasttoken", flag="pooling_mode_lasttoken", head="last"),
}


def named(by: str) -> dict[str, str]:
    """Name in a column of POOLINGS -> name of its row, in the table's order."""
    return {getattr(mode, by): name for name, mode in POOLINGS.items() if getattr(mode, by)}


def pool(
    hidden: np.ndarray,
    attention_mask: np.ndarray | None,
    how: str,
    *,
    prompt_length: int = 0,
) -> np.ndarray:
    """One vector per sequence.

    hidden          [batch, seq, hidden], floating
    attention_mask  [batch, seq], nonzero = visible; None: every token is visible
    how             a key of POOLINGS
    prompt_length   so many tokens, counted from the first visible one, are left out; the others
                    keep their positions (which weightedmean weighs by)
    returns         [batch, hidden] in the dtype of hidden

    ValueError: an unknown `how` or shapes that do not fit.
    """
    if how not in POOLINGS:
        raise ValueError(f"pooling {how!r} is unknown; known: {', '.join(POOLINGS)}")
    if hidden.ndim != 3 or 0 in hidden.shape[:2]:
        raise ValueError(
            f"hidden has shape {hidden.shape}; pooling needs [batch, seq, hidden], seq >= 1"
        )
    mask = np.ones(hidden.shape[:2], dtype=bool) if attention_mask is None else attention_mask
    if mask.shape != hidden.shape[:2]:
        raise ValueError(f"attention_mask has shape {mask.shape}, not {hidden.shape[:2]}")
    if prompt_length < 0:
        raise ValueError(f"prompt_length is {prompt_length}; it must be >= 0")

    visible = mask != 0
    position = np.arange(1, mask.shape[1] + 1)[None, :] - visible.argmax(axis=1)[:, None]
    return POOLINGS[how].function(hidden, visible & (position > prompt_length), position)
