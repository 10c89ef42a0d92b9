"""Attention written out, one query and one head at a time, with the bound of a blockwise one.

The softmax weight of a key is off by its score's rounding (head_dim terms, S = |q||k| /
sqrt(head_dim)), by exp and by the sum; the result by that times sum p |v|, and by its own sum.
"""

from __future__ import annotations

import math

import numpy as np

CALL = 4  # ulps of one exp


def naive(q, k, v, key_mask, window) -> tuple[np.ndarray, np.ndarray]:
    """[batch, seq, hidden] in float64, and the first-order bound in units of eps."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    batch, seq, heads, dim = q.shape
    out, bound = np.zeros((2, batch, seq, heads, dim))
    for b in range(batch):
        for i in range(seq):
            near = np.abs(np.arange(seq) - i) <= (seq if window is None else window)
            keys = np.flatnonzero(near & key_mask[b])
            for h in range(heads) if keys.size else ():
                s = k[b, keys, h] @ q[b, i, h] / math.sqrt(dim)
                p = np.exp(s - s.max())
                p /= p.sum()
                out[b, i, h] = p @ v[b, keys, h]
                size = (np.abs(k[b, keys, h]) @ np.abs(q[b, i, h])).max() / math.sqrt(dim)
                roundings = 2 * ((dim + 3) * size + CALL) + 2 * keys.size + 2
                bound[b, i, h] = roundings * (p @ np.abs(v[b, keys, h]))
    return out.reshape(batch, seq, -1), bound.reshape(batch, seq, -1)


def assert_within(got: np.ndarray, exact: np.ndarray, bound: np.ndarray) -> None:
    limit = bound * float(np.finfo(got.dtype).eps)
    off = np.abs(got.astype(np.float64) - exact)
    i = np.unravel_index(int((off - limit).argmax()), off.shape)
    assert off[i] <= limit[i], f"{i}: expected {exact[i]!r}, got {got[i]!r}, bound {limit[i]:.3g}"
