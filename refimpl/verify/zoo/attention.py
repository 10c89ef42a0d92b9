"""Mistakes of the attention's arithmetic (A): split, scale, permutes, rows, residuals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..truth.passes import Pass
from .mistake import Array, Mistake, at, before, dense, distances, rewired, with_attention

ATTENTION = ("layers.*.attention",)
SPLIT = ("layers.*.q", "layers.*.k", "layers.*.v")


def scaled(p: Pass, factor: float) -> Pass:
    """Scores times factor."""
    attention, packed = p.ops.attention, p.ops.attention_packed
    return p.with_ops(
        attention=lambda q, *rest: attention(q * factor, *rest),
        attention_packed=lambda q, *rest: packed(q * factor, *rest),
    )


def thirds(p: Pass, order: tuple[int, int, int]) -> Pass:
    split = p.ops.split_qkv
    return p.with_ops(split_qkv=lambda qkv, heads: tuple(split(qkv, heads)[i] for i in order))


def heads_first(qkv: Array, heads: int) -> tuple[Array, Array, Array]:
    qkv = qkv.reshape(*qkv.shape[:-1], heads, 3, -1)
    return qkv[..., 0, :], qkv[..., 1, :], qkv[..., 2, :]


def first_row_only(p: Pass) -> Pass:
    attention = p.ops.attention

    def broadcast(*args: object) -> Array:
        out = attention(*args)
        return np.ascontiguousarray(np.broadcast_to(out[:1], out.shape))

    return p.with_ops(attention=broadcast)


def not_permuted_back(p: Pass) -> Pass:
    """[heads, seq, head_dim] is read as [seq, heads * head_dim]."""
    attention = p.ops.attention

    def unpermuted(q: Array, *rest: object) -> Array:
        batch, seq, heads, head_dim = q.shape
        out = attention(q, *rest).reshape(batch, seq, heads, head_dim)
        return np.ascontiguousarray(out.swapaxes(1, 2)).reshape(batch, seq, heads * head_dim)

    return with_attention(p, unpermuted)


def viewed_not_permuted(p: Pass) -> Pass:
    """[seq, heads, head_dim] is read as [heads, seq, head_dim]."""

    def attention(q: Array, k: Array, v: Array, key_mask: Array, window: int | None) -> Array:
        batch, seq, heads, head_dim = q.shape
        v = np.where(key_mask[..., None, None], v, 0.0).astype(v.dtype, copy=False)
        q, k, v = (
            np.ascontiguousarray(x).reshape(batch, heads, seq, head_dim).swapaxes(1, 2)
            for x in (q, k, v)
        )
        near = np.abs(distances(seq)) <= (seq if window is None else window)
        return dense(q, k, v, (near & key_mask[:, None, :])[:, None])

    return with_attention(p, attention)


def normed_residual(p: Pass, part: str, out: str) -> Pass:
    """The residual stream goes on from the normed input of the part."""

    def total(name: str, value: Array, seen: Mapping[str, Array]) -> Array:
        return seen[before(name, part)] + seen[before(name, out)]

    return rewired(p, at("layers.*.residual_" + ("1" if part == "attn_norm" else "2"), total))


MISTAKES = (
    Mistake(
        "A1a", "scale applied twice",
        "Scores are multiplied by 1 / head_dim; it is head_dim^-0.5.",
        (), lambda p: scaled(p, p.config.head_dim**-0.5), ATTENTION,
    ),
    Mistake(
        "A1b", "scale missing",
        "Scores are not multiplied by head_dim^-0.5.",
        (), lambda p: scaled(p, p.config.head_dim**0.5), ATTENTION,
    ),
    Mistake(
        "A2a", "q and k swapped",
        "The first third of Wqkv is taken for k, the second for q.",
        (), lambda p: thirds(p, (1, 0, 2)), SPLIT,
    ),
    Mistake(
        "A2b", "thirds of Wqkv permuted",
        "The thirds of Wqkv are read as k, v, q.",
        (), lambda p: thirds(p, (2, 0, 1)), SPLIT,
    ),
    Mistake(
        "A2c", "Wqkv split as (heads, 3, head_dim)",
        "The rows of Wqkv are thirds first, then heads.",
        (), lambda p: p.with_ops(split_qkv=heads_first), SPLIT,
    ),
    Mistake(
        "A3a", "attention of row 0 serves the batch",
        "The other rows of the batch get the attention output of the first.",
        (), first_row_only, ATTENTION,
    ),
    Mistake(
        "A4a", "a permute too few after attention",
        "[heads, seq, head_dim] is read as [seq, heads * head_dim].",
        (), not_permuted_back, ATTENTION,
    ),
    Mistake(
        "A4b", "a view for a permute before attention",
        "[seq, heads, head_dim] is read as [heads, seq, head_dim].",
        (), viewed_not_permuted, ATTENTION,
    ),
    Mistake(
        "A5a", "attention residual from the normed input",
        "norm(x) + attn(norm(x)) for x + attn(norm(x)).",
        (), lambda p: normed_residual(p, "attn_norm", "attn_out"), ("layers.*.residual_1",),
    ),
    Mistake(
        "A5b", "MLP residual from the normed input",
        "norm(x) + mlp(norm(x)) for x + mlp(norm(x)).",
        (), lambda p: normed_residual(p, "mlp_norm", "mlp_out"), ("layers.*.residual_2",),
    ),
)  # fmt: skip
