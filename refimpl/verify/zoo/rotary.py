"""Mistakes of the rotary positions (R): tables, positions, rotation.

Long because a row of the zoo and its one-line change stand together, mistake by mistake.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..truth.passes import Pass
from .mistake import (
    Array,
    Mistake,
    at,
    axes,
    dense,
    positions,
    rewired,
    round_bits,
    through,
    with_config,
)
from .plan import ROTATED, SLIDING_ROTATED

QK_ROTATED = ("layers.*.q_rot", "layers.*.k_rot")


def with_table(p: Pass, kind: str, position: Callable[[Array], Array]) -> Pass:
    """The tables of `full`, `sliding` or `*` layers at position(positions)."""

    def table(name: str, value: Array, seen: object) -> Array:
        full = name.startswith("rope.full")
        theta = p.config.global_rope_theta if full else p.config.local_rope_theta
        cos, sin = p.ops.rope_table(position(positions(p)), p.config.head_dim, theta, value.dtype)
        return cos if name.endswith("cos") else sin

    return rewired(p, at(f"rope.{kind}.*", table))


def with_frequencies(p: Pass, inv_freq: Callable[[Array, float], Array]) -> Pass:
    """cos and sin of position * inv_freq(2k / head_dim, theta)."""

    def rope_table(
        position_ids: Array, head_dim: int, theta: float, dtype: np.dtype
    ) -> tuple[Array, Array]:
        exponent = np.arange(0, head_dim, 2) / head_dim
        angle = position_ids[..., None].astype(np.float64) * inv_freq(exponent, theta)
        angle = np.concatenate([angle, angle], axis=-1)
        return np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)

    return p.with_ops(rope_table=rope_table)


def interleaved(x: Array, cos: Array, sin: Array) -> Array:
    """Pairs (2k, 2k + 1) in place of (k, k + head_dim / 2)."""
    half = x.shape[-1] // 2
    c, s = cos[..., None, :half], sin[..., None, :half]
    even, odd = x[..., 0::2], x[..., 1::2]
    out = np.empty_like(x)
    out[..., 0::2], out[..., 1::2] = even * c - odd * s, even * s + odd * c
    return out


def interleaved_half_tables(x: Array, cos: Array, sin: Array) -> Array:
    """Pairs (2k, 2k + 1), with tables that were laid out for halves."""
    turned = np.empty_like(x)
    turned[..., 0::2], turned[..., 1::2] = -x[..., 1::2], x[..., 0::2]
    return x * cos[..., None, :] + turned * sin[..., None, :]


def half_precision_tables(p: Pass) -> Pass:
    table = p.ops.rope_table

    def rope_table(*args: object) -> tuple[Array, Array]:
        cos, sin = table(*args)
        return through(cos, np.float16), through(sin, np.float16)

    return p.with_ops(rope_table=rope_table)


def bfloat16_positions(p: Pass) -> Pass:
    return with_table(p, "*", lambda x: round_bits(x.astype(np.float64), 8))


def bfloat16_frequencies(p: Pass) -> Pass:
    return with_frequencies(p, lambda exponent, theta: round_bits(theta**-exponent, 8))


def half_precision_pow(p: Pass) -> Pass:
    def inv_freq(exponent: Array, theta: float) -> Array:
        log = np.float16(np.log(theta))
        return np.exp(-exponent.astype(np.float16) * log).astype(np.float64)

    return with_frequencies(p, inv_freq)


def clamped(p: Pass) -> Pass:
    last = max(p.config.local_attention - 1, 0)
    return with_table(p, "sliding", lambda x: np.minimum(x, last))


def wrapped(p: Pass) -> Pass:
    length = max(p.config.local_attention, 1)
    return with_table(p, "sliding", lambda x: x % length)


def running_on(p: Pass) -> Pass:
    """Positions run on through the packed axis."""
    if p.inputs.get("cu_seqlens") is None:
        return p
    return p.with_inputs(position_ids=np.arange(axes(p)[-1]))


def counted_from_first_real(p: Pass) -> Pass:
    """Positions count the visible tokens only."""
    mask = p.inputs.get("attention_mask")
    if mask is None:
        return p
    count = np.cumsum(mask != 0, axis=-1) - 1
    return p.with_inputs(position_ids=np.maximum(count, 0))


def closed_up(p: Pass) -> Pass:
    """The visible tokens only, in the window too: what is behind padding moves up."""
    exact = p.ops.attention

    def attention(q: Array, k: Array, v: Array, key_mask: Array, window: int | None) -> Array:
        if window is None or key_mask.all():
            return exact(q, k, v, key_mask, window)
        place = np.cumsum(key_mask, axis=1)
        near = np.abs(place[:, None, :] - place[:, :, None]) <= window
        v = np.where(key_mask[..., None, None], v, 0.0).astype(v.dtype, copy=False)
        return dense(q, k, v, (near & key_mask[:, None, :])[:, None])

    return counted_from_first_real(p).with_ops(attention=attention)


def zero_theta(p: Pass) -> Pass:
    return with_frequencies(p, lambda exponent, theta: np.float64(0.0) ** -exponent)


def swapped_thetas(p: Pass) -> Pass:
    c = p.config
    return with_config(
        p, global_rope_theta=c.local_rope_theta, local_rope_theta=c.global_rope_theta
    )


def reversed_sign(p: Pass) -> Pass:
    rope = p.ops.rope
    return p.with_ops(rope=lambda x, cos, sin: rope(x, cos, -sin))


def only_q(p: Pass) -> Pass:
    return rewired(p, at("layers.*.k_rot", lambda name, value, seen: seen[name[:-4]]))


MISTAKES = (
    Mistake(
        "R1a", "interleaved pairs",
        "Entries 2k and 2k + 1 are rotated together; it is k and k + head_dim / 2.",
        (), lambda p: p.with_ops(rope=interleaved), QK_ROTATED,
    ),
    Mistake(
        "R1b", "interleaved pairs with tables for halves",
        "Entries 2k and 2k + 1 are rotated, each with the cos and sin of its column.",
        (), lambda p: p.with_ops(rope=interleaved_half_tables), QK_ROTATED,
    ),
    Mistake(
        "R2a", "rotary tables in half precision",
        "cos and sin are kept in float16 by a port that claims more.",
        ("vLLM#44040", "candle#3698"), half_precision_tables, ROTATED,
    ),
    Mistake(
        "R2b", "positions in bfloat16",
        "Positions beyond 256 are rounded to 8 bits.",
        ("flash-attention#823",), bfloat16_positions, ROTATED,
    ),
    Mistake(
        "R2c", "rotary frequencies in bfloat16",
        "inv_freq was cast with the model's weights; the error grows with the position.",
        ("candle#3698",), bfloat16_frequencies, ROTATED,
    ),
    Mistake(
        "R3a", "rotary table as long as the window, clamped",
        "Sliding layers have a table of local_attention rows; later positions take its last row.",
        (), clamped, SLIDING_ROTATED,
    ),
    Mistake(
        "R3b", "rotary table as long as the window, wrapped",
        "Sliding layers have a table of local_attention rows; positions are taken modulo it.",
        (), wrapped, SLIDING_ROTATED,
    ),
    Mistake(
        "R4a", "position_ids ignored",
        "Positions are always 0 .. seq - 1, whatever the caller gives.",
        (), lambda p: p.with_inputs(position_ids=None), ROTATED,
    ),
    Mistake(
        "R5a", "positions run on through packed sequences",
        "They must restart in each sequence.",
        ("transformers#35344", "transformers#41789"), running_on, ROTATED,
    ),
    Mistake(
        "R5b", "positions counted from the first real token",
        "They follow the padded axis: padding, left or inside, takes its places.",
        ("transformers#35344", "transformers#41789"), counted_from_first_real, ROTATED,
    ),
    Mistake(
        "R5c", "rows closed up where padding stood",
        "Rows are run without their padding: tokens behind it move up, in angles and window alike.",
        (), closed_up, (*ROTATED, "layers.*.attention"),
    ),
    Mistake(
        "R6", "rotary frequencies from a half-precision pow",
        "inv_freq is many float32 ulps off; one ulp is honest rounding.",
        (), half_precision_pow, ROTATED,
    ),
    Mistake(
        "R7", "theta 0",
        "A missing theta is read as 0: every angle is NaN.",
        ("nntrainer#3982",), zero_theta, ROTATED,
    ),
    Mistake(
        "R8a", "rotation in the wrong direction",
        "sin has the wrong sign.",
        (), reversed_sign, QK_ROTATED,
    ),
    Mistake(
        "R8b", "only q rotated",
        "k goes into the scores as it is.",
        (), only_q, ("layers.*.k_rot",),
    ),
    Mistake(
        "R9", "the two thetas swapped",
        "Full layers rotate with the sliding layers' theta and the other way round.",
        ("text-embeddings-inference#459",), swapped_thetas, ROTATED,
    ),
)  # fmt: skip
