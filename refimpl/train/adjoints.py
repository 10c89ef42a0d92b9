"""The adjoint of each equation of reference/ops.py, under the same name (MODEL.md sections 3 - 6).

    y = f(x, ..)    =>    dx, .. = f(dy, x, ..)

For a scalar loss, `dx` is its gradient with respect to x: same shape, same dtype, and for every
direction v: <dy, J v> = <dx, v>, J the derivative of f at x. Each function takes what f took, the
gradient of f's result first. Attention works through the blocks of queries of the forward pass, so
a windowed layer costs O(seq * window) both ways. Sums over tokens are taken in float64 and rounded
once, but for matrix products. Long because all adjoints stand in one file, as the equations do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np

from ..reference import ops

Array = np.ndarray
# Factors of the attention weights of queries [start, stop) and keys [first, last) of one sequence:
# (sequence, start, stop, first, last) -> [heads, stop - start, last - first]. See dropout.py.
Keep = Callable[[int, int, int, int, int], Array]


# -- linear maps and norms ------------------------------------------------------------------------


def linear(dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """MODEL.md (18'): dx = dy W, dW = sum dy^T x, db = sum dy.

    dy [..., out], x [..., in], weight [out, in] -> dx [..., in], dW [out, in], db [out].
    """
    rows = dy.reshape(-1, dy.shape[-1])
    dx = (rows @ weight).reshape(x.shape)
    return dx, rows.T @ x.reshape(-1, x.shape[-1]), over_tokens(rows)


def layer_norm(dy: Array, x: Array, weight: Array, eps: float) -> tuple[Array, Array, Array]:
    """MODEL.md (19'): with n = (x - mean) / s and g = dy w, dx = (g - mean(g) - n mean(g n)) / s.

    dy, x [..., hidden], weight [hidden] -> dx [..., hidden], dw = sum dy n, db = sum dy [hidden].
    The two means are what moving x does through its mean and through its variance.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    s = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    n, g = centred / s, dy * weight
    along = (g * n).mean(axis=-1, keepdims=True)
    dx = (g - g.mean(axis=-1, keepdims=True) - n * along) / s
    return dx, over_tokens(dy * n), over_tokens(dy)


def over_tokens(x: Array) -> Array:
    """Sum over all axes but the last, in float64, rounded once. x [..., n] -> [n]."""
    return x.reshape(-1, x.shape[-1]).sum(axis=0, dtype=np.float64).astype(x.dtype)


# -- activations ----------------------------------------------------------------------------------


def gelu(x: Array) -> Array:
    """Phi(x) + x phi(x), phi the normal density."""
    density = np.exp(-0.5 * x * x) * math.sqrt(0.5 / math.pi)
    return 0.5 * (1.0 + ops.erf(x * math.sqrt(0.5))) + x * density


def gelu_tanh(x: Array) -> Array:
    """(1 + t + x (1 - t^2) u') / 2, t = tanh(u), u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    c, cube = math.sqrt(2.0 / math.pi), 0.044715
    t = np.tanh(c * (x + cube * (x * x * x)))
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (c * (1.0 + 3.0 * cube * x * x))


def sigmoid(x: Array) -> Array:
    """s (1 - s), s = sigmoid(x)."""
    return ops.sigmoid(x) * ops.sigmoid(-x)


def silu(x: Array, slope: float = 1.0) -> Array:
    """s + c x s (1 - s), s = sigmoid(c x)."""
    return ops.sigmoid(slope * x) + slope * x * sigmoid(slope * x)


# Name in the config -> act'(x). The slope of relu at 0 is 0.
SLOPES: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "quick_gelu": lambda x: silu(x, 1.702),
    "silu": silu,
    "swish": silu,
    "relu": lambda x: (x > 0).astype(x.dtype),
    "tanh": lambda x: 1.0 - np.tanh(x) ** 2,
    "sigmoid": sigmoid,
    "linear": np.ones_like,
}


def activate(dy: Array, x: Array, name: str) -> Array:
    """MODEL.md (20'): dx = dy act'(x), in blocks that stay in cache. dy, x of one shape."""
    given, flat, out = dy.reshape(-1), x.reshape(-1), np.empty(x.size, x.dtype)
    for start in range(0, x.size, ops.ELEMENTWISE_BLOCK):
        block = slice(start, start + ops.ELEMENTWISE_BLOCK)
        out[block] = given[block] * SLOPES[name](flat[block])
    return out.reshape(x.shape)


def glu(dy: Array, u: Array, activation: str) -> Array:
    """MODEL.md (21'): du = [dy g act'(a), dy act(a)], u = [a, g].

    dy [..., inter], u [..., 2 inter] -> [..., 2 inter].
    """
    a, g = np.split(u, 2, axis=-1)
    da = activate(dy * g, a, activation)
    return np.concatenate([da, dy * ops.activate(a, activation)], axis=-1)


# -- rotary positions -----------------------------------------------------------------------------


def rope(dy: Array, cos: Array, sin: Array) -> Array:
    """MODEL.md (24'): dx = dy cos - rotate_half(dy sin): turned back by the same angle.

    dy [..., seq, heads, head_dim]; cos, sin [..., seq, head_dim]. rotate_half is its own negated
    transpose.
    """
    return dy * cos[..., None, :] - ops.rotate_half(dy * sin[..., None, :])


# -- attention ------------------------------------------------------------------------------------


def split_qkv(dq: Array, dk: Array, dv: Array) -> Array:
    """Three of [..., heads, head_dim] -> [..., 3 hidden]; thirds first, then heads."""
    return np.stack([dq, dk, dv], axis=-3).reshape(*dq.shape[:-2], -1)


def softmax(dy: Array, probs: Array) -> Array:
    """MODEL.md (27'): ds = p (dp - sum_j dp_j p_j), the row's sum over the last axis.

    dy [..., keys] belongs to probs [..., keys]; where nothing is visible, p and ds are 0.
    """
    return probs * (dy - (dy * probs).sum(axis=-1, keepdims=True))


def attention(
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    key_mask: Array,
    window: int | None,
    keep: Keep | None = None,
) -> tuple[Array, Array, Array]:
    """MODEL.md (28'), (26'): dv = P^T do, dp = do v^T, dq = ds k / sqrt(d), dk = ds^T q / sqrt(d).

    dy [batch, seq, hidden]; q, k, v [batch, seq, heads, head_dim]; key_mask bool [batch, seq];
    window: half width or None -> dq, dk, dv. keep: the factors that dropout put on P. The weights
    are computed anew, block by block. A masked key gets no gradient, and is never read.
    """
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    k, v = masked(k, key_mask), masked(v, key_mask)
    scale, dy = q.shape[-1] ** -0.5, dy.reshape(q.shape)
    for row, some, keys, probs, factors in attention_blocks(q, k, key_mask, window, keep):
        at, to = (row, some), (row, keys)
        q1, d1, k1, v1 = (x.swapaxes(0, 1) for x in (q[at], dy[at], k[to], v[to]))
        dp, kept = d1 @ v1.swapaxes(-1, -2), probs
        if factors is not None:
            dp, kept = dp * factors, probs * factors
        ds = softmax(dp, probs) * scale
        dv[to] += (kept.swapaxes(-1, -2) @ d1).swapaxes(0, 1)
        dq[at] = (ds @ k1).swapaxes(0, 1)
        dk[to] += (ds.swapaxes(-1, -2) @ q1).swapaxes(0, 1)
    return dq, dk, dv


def masked(x: Array, key_mask: Array) -> Array:
    """x [batch, seq, heads, head_dim] with zeros at the keys that nobody sees."""
    return np.where(key_mask[..., None, None], x, 0.0).astype(x.dtype, copy=False)


def attention_blocks(
    q: Array, k: Array, key_mask: Array, window: int | None, keep: Keep | None
) -> Iterator[tuple[int, slice, slice, Array, Array | None]]:
    """(sequence, queries, keys, probs [heads, queries, keys], dropout's factors) block by block."""
    _, seq, heads, _ = q.shape
    for row in range(len(q)):
        for start, stop, first, last in ops.query_blocks(seq, heads, window):
            some, keys = slice(start, stop), slice(first, last)
            mask = ops.visible(np.arange(start, stop), np.arange(first, last), window)
            mask = (mask & key_mask[row, keys])[None, None]
            q1, k1 = q[None, row, some].swapaxes(1, 2), k[None, row, keys].swapaxes(1, 2)
            probs = ops.attention_probs(q1, k1, mask)[0]
            factors = None if keep is None else keep(row, start, stop, first, last)
            yield row, some, keys, probs, factors


def attention_packed(
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    cu_seqlens: Array,
    window: int | None,
    keep: Keep | None = None,
) -> tuple[Array, Array, Array]:
    """`attention` within each of several sequences laid end to end.

    dy [total, hidden]; q, k, v [total, heads, head_dim]; cu_seqlens [batch + 1] -> dq, dk, dv.
    """
    out = np.empty_like(q), np.empty_like(k), np.empty_like(v)
    for b, (start, stop) in enumerate(zip(cu_seqlens[:-1], cu_seqlens[1:], strict=True)):
        one, every_key = slice(start, stop), np.ones((1, stop - start), bool)
        own = None if keep is None else functools.partial(for_row, keep, b)
        d1, q1, k1, v1 = (x[None, one] for x in (dy, q, k, v))
        parts = attention(d1, q1, k1, v1, every_key, window, own)
        for whole, part in zip(out, parts, strict=True):
            whole[one] = part[0]
    return out


def for_row(keep: Keep, row: int, _: int, *block: int) -> Array:
    """keep, for a sequence that stands alone and has another number in its batch."""
    return keep(row, *block)


# -- rows of a table ------------------------------------------------------------------------------


def take(dy: Array, ids: Array, rows: int) -> Array:
    """MODEL.md (5'): the adjoint of E[ids]: row i of dE is the sum of dy over the tokens with id i.

    dy [..., hidden], ids [...] -> [rows, hidden]. A row that no token names stays zero; one that
    several name is the sum, in the order of the tokens.
    """
    flat, out = ids.reshape(-1), np.zeros((rows, dy.shape[-1]), dy.dtype)
    if flat.size:
        order = np.argsort(flat, kind="stable")
        named, starts = np.unique(flat[order], return_index=True)
        out[named] = np.add.reduceat(dy.reshape(-1, dy.shape[-1])[order], starts, axis=0)
    return out
