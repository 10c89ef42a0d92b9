"""Mistakes of mask and window (W): who sees whom.

Long because a row of the zoo and its one-line change stand together, mistake by mistake.
"""

from __future__ import annotations

import numpy as np

from ...reference import ops as equations
from ..truth.passes import Pass
from .mistake import (
    Array,
    Mistake,
    dense,
    positions,
    with_attention,
    with_visibility,
    with_window,
)
from .plan import quarter_window_per_side, whole_window_per_side

ATTENTION = ("layers.*.attention",)


def no_window(p: Pass) -> Pass:
    return with_window(p, lambda w: None)


def narrower(p: Pass) -> Pass:
    return with_window(p, lambda w: None if w is None else max(w - 1, 0))


def wider(p: Pass) -> Pass:
    return with_window(p, lambda w: None if w is None else w + 1)


def window_everywhere(p: Pass) -> Pass:
    return with_window(p, lambda w: p.config.local_attention // 2)


def past_only(p: Pass) -> Pass:
    return with_visibility(p, lambda d, w: True | (d == d) if w is None else (d <= 0) & (d >= -w))


def half_open(p: Pass) -> Pass:
    return with_visibility(p, lambda d, w: True | (d == d) if w is None else (d < w) & (d >= -w))


def causal(p: Pass) -> Pass:
    return with_visibility(p, lambda d, w: (d <= 0) & (d >= -(len(d) if w is None else w)))


def no_padding_mask(p: Pass) -> Pass:
    attention = p.ops.attention
    return p.with_ops(attention=lambda q, k, v, mask, w: attention(q, k, v, np.ones_like(mask), w))


def uniform(p: Pass) -> Pass:
    """Zeros for a mask: every score is as good as every other one."""

    def attention(q: Array, k: Array, v: Array, key_mask: Array, window: int | None) -> Array:
        return dense(np.zeros_like(q), k, v, np.ones((len(q), 1, q.shape[1], q.shape[1]), bool))

    return with_attention(p, attention)


def positions_for_mask(p: Pass) -> Pass:
    """Whoever has position 0 is hidden from everybody."""
    attention, mask = p.ops.attention, positions(p) != 0
    if p.inputs.get("cu_seqlens") is not None:
        return with_attention(
            p, lambda q, k, v, m, w: attention(q, k, v, m & (np.arange(m.shape[1]) > 0), w)
        )
    return p.with_ops(attention=lambda q, k, v, _, w: attention(q, k, v, mask, w))


def empty_rows_nan(p: Pass) -> Pass:
    """0 / 0 where nothing is visible, and a NaN under a zero weight is still read."""

    def attention(q: Array, k: Array, v: Array, key_mask: Array, window: int | None) -> Array:
        visible = equations.visible(np.arange(q.shape[1]), np.arange(q.shape[1]), window)
        seen = visible & key_mask[:, None, :]
        out = dense(q, k, v, seen[:, None])
        return np.where(seen.any(axis=-1)[..., None], out, np.nan).astype(out.dtype, copy=False)

    return with_attention(p, attention)


def half_precision_mask(p: Pass) -> Pass:
    """(1 - mask) * -1e9 in float16 is 0 * -inf = NaN, for the visible keys too."""

    def attention(q: Array, k: Array, v: Array, key_mask: Array, window: int | None) -> Array:
        shape = (*q.shape[:2], q.shape[2] * q.shape[3])
        return np.full(shape, np.nan, v.dtype)

    return with_attention(p, attention)


def mask_from_ids(p: Pass) -> Pass:
    ids = p.inputs.get("input_ids")
    if ids is None or p.inputs.get("cu_seqlens") is not None or p.config.pad_token_id is None:
        return p
    return p.with_inputs(attention_mask=(ids != p.config.pad_token_id).astype(np.int64))


def packed_leak(p: Pass) -> Pass:
    """Packed sequences are one long one: nobody looks at cu_seqlens."""

    def packed(q: Array, k: Array, v: Array, cu_seqlens: Array, window: int | None) -> Array:
        every_key = np.ones((1, len(q)), bool)
        return p.ops.attention(q[None], k[None], v[None], every_key, window)[0]

    return p.with_ops(attention_packed=packed)


def first_row_mask(p: Pass) -> Pass:
    """The mask of row 0 serves the whole batch."""
    attention = p.ops.attention
    return p.with_ops(
        attention=lambda q, k, v, m, w: attention(q, k, v, np.broadcast_to(m[:1], m.shape), w)
    )


MISTAKES = (
    Mistake(
        "W1", "window missing on all local layers",
        "Every layer sees the whole sequence.",
        ("vLLM#16648", "vLLM#22637"), no_window, ATTENTION,
    ),
    Mistake(
        "W2", "window missing on one backend",
        "The attention kernel of this backend takes no window, and nobody says so.",
        ("semantic-router#3406", "sglang#33603"), no_window, ATTENTION, klass="W1",
    ),
    Mistake(
        "W3a", "window one key too narrow per side",
        "63 keys per side: abs(i - j) < 64 for abs(i - j) <= 64.",
        ("vLLM#44040", "transformers#40163"), narrower, ATTENTION,
    ),
    Mistake(
        "W3b", "window one key too wide per side",
        "65 keys per side: the window is rounded up, or the token itself is counted twice.",
        ("vLLM#44040", "transformers#40163"), wider, ATTENTION,
    ),
    Mistake(
        "W4a", "the whole window per side",
        "local_attention = 128 is used as keys per side; it is the total.",
        ("keras-hub#2518",), whole_window_per_side, ATTENTION,
    ),
    Mistake(
        "W4b", "a quarter of the window per side",
        "The half width is halved again: 32 keys per side.",
        ("keras-hub#2518",), quarter_window_per_side, ATTENTION,
    ),
    Mistake(
        "W5a", "one-sided window",
        "Local layers look back only: keys i - w .. i.",
        (), past_only, ATTENTION,
    ),
    Mistake(
        "W5b", "half-open window",
        "Local layers see i - w .. i + w - 1: a range without its last key.",
        (), half_open, ATTENTION,
    ),
    Mistake(
        "W5c", "causal mask",
        "Every layer looks back only, as a decoder does.",
        (), causal, ATTENTION,
    ),
    Mistake(
        "W6a", "window on global layers too",
        "Full layers are given the sliding layers' mask.",
        ("optimum-rbln#625",), window_everywhere, ATTENTION,
    ),
    Mistake(
        "W6b", "global mask reused for local layers",
        "One mask is made, that of the full layers, and all layers share it.",
        ("transformers#38040",), no_window, ATTENTION, klass="W1",
    ),
    Mistake(
        "W7", "padding mask dropped",
        "Real tokens attend to padding.",
        ("svod#122", "AnswerDotAI/ModernBERT#40"), no_padding_mask, ATTENTION,
    ),
    Mistake(
        "W8a", "zeros passed as mask",
        "Every key is masked by the same finite number: attention is uniform over all of them.",
        ("EmbedAnything#211",), uniform, ATTENTION,
    ),
    Mistake(
        "W8b", "another tensor passed as mask",
        "The positions stand in the mask's place: the token at position 0 is hidden.",
        (), positions_for_mask, ATTENTION,
    ),
    Mistake(
        "W9", "NaN from fully masked rows",
        "A query that sees nobody is 0 / 0, and its NaN spreads through the next layer's values.",
        ("mlx-embeddings#80", "omlx#3633"), empty_rows_nan, ATTENTION,
    ),
    Mistake(
        "W10", "additive mask overflows in float16",
        "(1 - mask) * -1e9 in float16 is NaN for visible keys.",
        ("mlx-embeddings#80",), half_precision_mask, ATTENTION,
    ),
    Mistake(
        "W11", "mask derived from the ids",
        "Tokens whose id is that of padding are masked, real or not; the given mask is unread.",
        (), mask_from_ids, (*ATTENTION, "pooled"),
    ),
    Mistake(
        "W12", "packed sequences leak into each other",
        "Attention runs over the whole packed axis.",
        (), packed_leak, ATTENTION,
    ),
    Mistake(
        "A3b", "the mask of row 0 serves the batch",
        "The padding mask is broadcast from the first row.",
        (), first_row_mask, ATTENTION,
    ),
)  # fmt: skip
