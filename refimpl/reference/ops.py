"""The equations of ModernBERT as pure functions, bottom-up (MODEL.md sections 3 - 6).

Each function keeps the dtype that it is given: float64 in, float64 throughout, and that run is the
truth of this project. Shapes use one vocabulary: batch seq total heads head_dim hidden inter
window. Memory: no function holds [heads, seq, seq] scores; attention works through blocks of
queries, and a windowed layer reads only the keys that its window reaches. No parameters, no state,
no native code. Long because all equations stand in one file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .erf import erf

Array = np.ndarray

# Scores held at once by `attention`: a block of queries has at most this many entries (2**22
# float32 are 16 MiB), and at least one row.
MAX_BLOCK_SCORES = 2**22
# Rows that an elementwise function works on at a time, so that its temporaries stay in cache.
ELEMENTWISE_BLOCK = 2**15


# -- linear maps and norms ------------------------------------------------------------------------


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """y = x W^T + b. x [..., in], weight [out, in], bias [out] -> [..., out]."""
    y = (x.reshape(-1, x.shape[-1]) @ weight.T).reshape(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias


def layer_norm(x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
    """(x - mean) / sqrt(var + eps) * w + b over the last axis; biased variance, two passes.

    x [..., hidden], weight [hidden], bias [hidden] or None. The variance is taken of the centred
    row: the one-pass form E[x^2] - E[x]^2 loses every digit when the mean is large.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    y = centred / np.sqrt(variance + eps) * weight
    return y if bias is None else y + bias


# -- activations ----------------------------------------------------------------------------------


def gelu(x: Array) -> Array:
    """x Phi(x) = x (1 + erf(x / sqrt 2)) / 2, the exact form (not the tanh approximation)."""
    return 0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))


def gelu_tanh(x: Array) -> Array:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2; only for configs that ask for it."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow on either side."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def silu(x: Array) -> Array:
    """x sigmoid(x)."""
    return x * sigmoid(x)


@dataclass(frozen=True)
class Activation:
    """A row of ACTIVATIONS: the function, and the torch class that is it without arguments, as
    sentence-transformers' files name it; None where there is none."""

    function: Callable[[Array], Array]
    torch: str | None = None


# By Hugging Face's names. The only list of activations: configs, heads, files and messages read it.
ACTIVATIONS: dict[str, Activation] = {
    "gelu": Activation(gelu, "torch.nn.modules.activation.GELU"),
    "gelu_new": Activation(gelu_tanh),
    "gelu_pytorch_tanh": Activation(gelu_tanh),
    "quick_gelu": Activation(lambda x: x * sigmoid(1.702 * x)),
    "silu": Activation(silu, "torch.nn.modules.activation.SiLU"),
    "swish": Activation(silu),
    "relu": Activation(lambda x: np.maximum(x, 0.0), "torch.nn.modules.activation.ReLU"),
    "tanh": Activation(np.tanh, "torch.nn.modules.activation.Tanh"),
    "sigmoid": Activation(sigmoid, "torch.nn.modules.activation.Sigmoid"),
    "linear": Activation(lambda x: x, "torch.nn.modules.linear.Identity"),
}


def activate(x: Array, name: str) -> Array:
    """ACTIVATIONS[name] of x elementwise, in blocks that stay in cache. x of any shape."""
    function = ACTIVATIONS[name].function
    flat, out = x.reshape(-1), np.empty(x.size, x.dtype)
    for start in range(0, x.size, ELEMENTWISE_BLOCK):
        block = slice(start, start + ELEMENTWISE_BLOCK)
        out[block] = function(flat[block])
    return out.reshape(x.shape)


def glu(u: Array, activation: str) -> Array:
    """act(a) * g, u = [a, g]: the FIRST half is activated. u [..., 2 * inter] -> [..., inter]."""
    a, g = np.split(u, 2, axis=-1)
    return activate(a, activation) * g


# -- rotary positions -----------------------------------------------------------------------------


def rope_table(
    position_ids: Array, head_dim: int, theta: float, dtype: np.dtype
) -> tuple[Array, Array]:
    """cos and sin of position * theta^(-2k / head_dim), k = 0 .. head_dim / 2 - 1.

    position_ids integer [..., seq] -> two arrays [..., seq, head_dim], the two halves alike.
    Angle, cos and sin are computed in float64 and rounded once to dtype.
    """
    inv_freq = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    angle = np.asarray(position_ids, np.float64)[..., None] * inv_freq
    angle = np.concatenate([angle, angle], axis=-1)
    return np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)


def rotate_half(x: Array) -> Array:
    """(x1, x2) -> (-x2, x1) on the halves of the last axis."""
    x1, x2 = np.split(x, 2, axis=-1)
    return np.concatenate([-x2, x1], axis=-1)


def rope(x: Array, cos: Array, sin: Array) -> Array:
    """x cos + rotate_half(x) sin. x [..., seq, heads, head_dim]; cos, sin [..., seq, head_dim]."""
    return x * cos[..., None, :] + rotate_half(x) * sin[..., None, :]


# -- attention ------------------------------------------------------------------------------------


def split_qkv(qkv: Array, heads: int) -> tuple[Array, Array, Array]:
    """[..., 3 * hidden] -> q, k, v, each [..., heads, head_dim]; thirds first, then heads."""
    qkv = qkv.reshape(*qkv.shape[:-1], 3, heads, -1)
    return qkv[..., 0, :, :], qkv[..., 1, :, :], qkv[..., 2, :, :]


def visible(queries: Array, keys: Array, window: int | None) -> Array:
    """The window rule: key j is visible to query i iff abs(i - j) <= window (always when None).

    queries [n] and keys [m] are indices on the sequence axis -> bool [n, m].
    """
    if window is None:
        return np.ones((len(queries), len(keys)), bool)
    return np.abs(queries[:, None] - keys[None, :]) <= window


def softmax(scores: Array, mask: Array) -> Array:
    """exp(s) / sum exp(s) over the visible entries of the last axis; a row with none is all zero.

    scores [..., keys], mask bool, broadcastable to it.
    """
    scores = np.where(mask, scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    e = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    total = e.sum(axis=-1, keepdims=True)
    return e / np.where(total == 0.0, 1.0, total)


def attention_probs(q: Array, k: Array, mask: Array) -> Array:
    """softmax(q k^T / sqrt(head_dim)) over visible keys.

    q [batch, heads, n, head_dim], k [batch, heads, m, head_dim], mask [batch, 1, n, m] bool
    -> [batch, heads, n, m].
    """
    return softmax(q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5, mask)


def weighted(probs: Array, v: Array, mask: Array) -> Array:
    """probs @ v over the visible keys alone: NaN or infinity in a hidden one adds nothing, though
    0 times it is NaN. probs [1, heads, n, m], v [1, heads, m, head_dim], mask [1, 1, n, m]."""
    finite = np.isfinite(v)
    if finite.all():
        return probs @ v
    out: Array = probs @ np.where(finite, v, v.dtype.type(0))
    for j in np.flatnonzero(~finite.all(axis=(0, 1, 3))):
        some, x = mask[0, 0, :, j], np.where(finite, v.dtype.type(0), v)[:, :, j]
        with np.errstate(invalid="ignore"):
            out[:, :, some] += probs[:, :, some, j, None] * x[:, :, None]
    return out


def attention(q: Array, k: Array, v: Array, key_mask: Array, window: int | None) -> Array:
    """Softmax attention over the keys that window AND padding mask leave visible.

    q, k, v [batch, seq, heads, head_dim]; key_mask bool [batch, seq]; window: half width or None
    -> [batch, seq, hidden], heads joined. A query without a visible key gives zeros. Values under
    the padding mask are never read (NaN there stays there). Work: O(seq * window) when windowed.
    """
    batch, seq, heads, head_dim = q.shape
    v = np.where(key_mask[..., None, None], v, 0.0).astype(v.dtype, copy=False)
    q, k, v = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v))
    out = np.empty((batch, seq, heads, head_dim), v.dtype)
    for row in range(batch):
        one = slice(row, row + 1)
        for start, stop, first, last in query_blocks(seq, heads, window):
            keys = slice(first, last)
            mask = visible(np.arange(start, stop), np.arange(first, last), window)
            mask = (mask & key_mask[row, keys])[None, None]
            probs = attention_probs(q[one, :, start:stop], k[one, :, keys], mask)
            out[row, start:stop] = weighted(probs, v[one, :, keys], mask)[0].swapaxes(0, 1)
    return out.reshape(batch, seq, heads * head_dim)


def query_blocks(seq: int, heads: int, window: int | None) -> list[tuple[int, int, int, int]]:
    """Blocks of queries and the keys they can see: (start, stop, first key, last key + 1)."""
    if window is None:
        rows = max(1, MAX_BLOCK_SCORES // (heads * max(seq, 1)))
        return [(s, min(s + rows, seq), 0, seq) for s in range(0, seq, rows)]
    rows = max(16, window)
    return [
        (s, min(s + rows, seq), max(s - window, 0), min(s + rows + window, seq))
        for s in range(0, seq, rows)
    ]


def attention_packed(q: Array, k: Array, v: Array, cu_seqlens: Array, window: int | None) -> Array:
    """Attention within each of several sequences laid end to end, none seeing another.

    q, k, v [total, heads, head_dim]; cu_seqlens [batch + 1], 0 first and total last
    -> [total, hidden].
    """
    out = np.empty((q.shape[0], q.shape[1] * q.shape[2]), v.dtype)
    for start, stop in zip(cu_seqlens[:-1], cu_seqlens[1:], strict=True):
        one = slice(start, stop)
        every_key = np.ones((1, stop - start), bool)
        out[one] = attention(q[None, one], k[None, one], v[None, one], every_key, window)[0]
    return out


def packed_positions(cu_seqlens: Array) -> Array:
    """0 .. length - 1 for each sequence. cu_seqlens [batch + 1] -> int64 [total]."""
    starts = np.repeat(cu_seqlens[:-1], np.diff(cu_seqlens))
    return np.arange(cu_seqlens[-1], dtype=np.int64) - starts
