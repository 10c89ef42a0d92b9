"""The adjoints of reference/pooling.py: from the gradient of a sequence's vector to its tokens'.

    pool: d [batch, hidden] -> [batch, seq, hidden]           MODEL.md (35')

Promise: a token that the pooling did not read gets zero. Where several tokens share the largest
value of a column, `max` gives its gradient to the first of them.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def pool(
    d: Array, hidden: Array, attention_mask: Array | None, how: str, *, prompt_length: int = 0
) -> Array:
    """d [batch, hidden], and what `reference.pooling.pool` took -> d of hidden, in its dtype."""
    mask: Array = np.ones(hidden.shape[:2], bool)
    if attention_mask is not None:
        mask = attention_mask != 0
    position = np.arange(1, mask.shape[1] + 1)[None, :] - mask.argmax(axis=1)[:, None]
    visible = mask & (position > prompt_length)
    if how == "max":
        return _largest(d, hidden, visible)
    return d[:, None, :] * weights(how, visible, position, hidden.dtype)[:, :, None]


def weights(how: str, visible: Array, position: Array, dtype: np.dtype) -> Array:
    """What each token's vector is multiplied with, [batch, seq]: all poolings but `max` are linear.

    visible bool [batch, seq]; position counts from 1 at the first real token.
    """
    if how == "weightedmean":
        w = np.where(visible, position, 0).astype(dtype)
        return w / np.maximum(w.sum(axis=1, keepdims=True), 1)
    if how in ("mean", "mean_sqrt_len_tokens"):
        n = np.maximum(visible.sum(axis=1, keepdims=True), 1).astype(dtype)
        return visible / (n if how == "mean" else np.sqrt(n))
    seq = visible.shape[1]
    column = {
        "cls": np.zeros(len(visible), np.int64),
        "first_token": visible.argmax(axis=1),
        "lasttoken": seq - 1 - visible[:, ::-1].argmax(axis=1),
    }[how]
    taken = np.arange(seq)[None, :] == column[:, None]
    return (taken & visible.any(axis=1, keepdims=True)).astype(dtype)


def _largest(d: Array, hidden: Array, visible: Array) -> Array:
    """Each column's gradient goes to the token whose value it is; an empty row has none."""
    at = np.where(visible[:, :, None], hidden, -np.inf).argmax(axis=1)[:, None, :]
    out = np.zeros_like(hidden)
    live = visible.any(axis=1, keepdims=True)
    np.put_along_axis(out, at, np.where(live, d, 0).astype(d.dtype)[:, None, :], axis=1)
    return out
