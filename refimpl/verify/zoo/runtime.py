"""Mistakes of text, inputs and runtime that one call shows (T, X): what a port is fed, and in which
precision it really computes. Those that take several calls to show are in faulty.py.

Long because a row of the zoo and its one-line change stand together, mistake by mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..truth.passes import Pass
from .mistake import (
    Array,
    Mistake,
    distances,
    round_bits,
    through,
    with_attention,
)

# Tokens that are kept by the port that truncates without a word.
KEPT = 64
# The value that a careless port adds to the score of a masked key, for minus infinity.
WEAK_MASK = -10.0


def without_specials(p: Pass) -> Pass:
    """The first and the last token of each row are not there; the others move up."""
    ids, mask = p.inputs.get("input_ids"), p.inputs.get("attention_mask")
    if ids is None or ids.ndim != 2 or ids.shape[1] < 3:
        return p
    visible = np.ones(ids.shape, bool) if mask is None else mask != 0
    new_ids = np.full_like(ids, p.config.pad_token_id or 0)
    new_mask = np.zeros(ids.shape, np.int64)
    for row, (words, real) in enumerate(zip(ids, visible, strict=True)):
        kept = words[real][1:-1]
        new_ids[row, : len(kept)], new_mask[row, : len(kept)] = kept, 1
    return p.with_inputs(input_ids=new_ids, attention_mask=new_mask)


def truncated(p: Pass, kept: int = KEPT) -> Pass:
    """Tokens from `kept` on are as good as padding."""
    ids, mask = p.inputs.get("input_ids"), p.inputs.get("attention_mask")
    if ids is None or ids.ndim != 2 or ids.shape[1] <= kept:
        return p
    mask = np.ones(ids.shape, np.int64) if mask is None else mask.copy()
    mask[:, kept:] = 0
    return p.with_inputs(attention_mask=mask)


def with_operands(p: Pass, rounded: Callable[[Array], Array]) -> Pass:
    """Matrix products with both operands rounded; sums, norms and softmax as the pass has them."""
    linear, attention, packed = p.ops.linear, p.ops.attention, p.ops.attention_packed
    return p.with_ops(
        linear=lambda x, weight, bias=None: linear(rounded(x), rounded(weight), bias),
        attention=lambda q, k, v, *rest: attention(rounded(q), rounded(k), rounded(v), *rest),
        attention_packed=lambda q, k, v, *rest: packed(rounded(q), rounded(k), rounded(v), *rest),
    )


def eight_bits(x: Array) -> Array:
    """x on 255 steps from its least to its greatest entry, one of which is 0."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (high - low) / 255.0 or 1.0
    zero = np.rint(-low / step)
    rounded = (np.clip(np.rint(x / step) + zero, 0.0, 255.0) - zero) * step
    return np.asarray(rounded, x.dtype)


def eight_bit_products(p: Pass) -> Pass:
    linear = p.ops.linear
    return p.with_ops(
        linear=lambda x, weight, bias=None: linear(eight_bits(x), eight_bits(weight), bias)
    )


def eight_bit_model(p: Pass) -> Pass:
    """Products, and the embedding table, whose rows are looked up in 8 bits."""
    table = "embeddings.tok_embeddings.weight"
    return eight_bit_products(replace(p, params={**p.params, table: eight_bits(p.params[table])}))


def half_precision_cache(p: Pass) -> Pass:
    """Keys and values are stored in float16 and read back."""
    attention, packed = p.ops.attention, p.ops.attention_packed

    def half(x: Array) -> Array:
        return through(x, np.float16)

    return p.with_ops(
        attention=lambda q, k, v, *rest: attention(q, half(k), half(v), *rest),
        attention_packed=lambda q, k, v, *rest: packed(q, half(k), half(v), *rest),
    )


def with_stored(p: Pass, stored: Callable[[Array], Array]) -> Pass:
    """Weights and every step kept in a smaller dtype."""
    small = replace(p, params={k: stored(x) for k, x in p.params.items()})
    return small.with_edit(lambda name, x: stored(x))


def weak_mask(p: Pass, added: float = WEAK_MASK) -> Pass:
    """Masked keys keep a weight of e^added, so the amount of padding counts."""

    def attention(q: Array, k: Array, v: Array, key_mask: Array, window: int | None) -> Array:
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
        scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
        scores = scores + np.where(key_mask, 0.0, added)[:, None, None, :].astype(q.dtype)
        if window is not None:
            scores = np.where(np.abs(distances(q.shape[2])) <= window, scores, -np.inf)
        e = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out = (e / e.sum(axis=-1, keepdims=True)) @ v
        return out.swapaxes(1, 2).reshape(out.shape[0], out.shape[2], -1).astype(v.dtype)

    return with_attention(p, attention)


MISTAKES = (
    Mistake(
        "T1", "special tokens not added",
        "The row starts with its first word; [CLS] and [SEP] are missing.",
        ("astronomical#596",), without_specials, ("embedding",),
    ),
    Mistake(
        "T5", "truncated silently",
        f"Tokens from the {KEPT + 1}th on are dropped, and nobody is told.",
        ("sentence-transformers#4060",), truncated, ("layers.*.attention",),
    ),
    Mistake(
        "X1a", "TF32 for float32",
        "Operands of matrix products are rounded to 11 bits by a port that claims float32.",
        (), lambda p: with_operands(p, lambda x: round_bits(x, 11)),
        ("layers.*", "head.dense", "logits"), deviation=True, noise=True,
    ),
    Mistake(
        "X1b", "float16 for float32",
        "Weights and steps are kept in float16 by a port that claims float32.",
        (), lambda p: with_stored(p, lambda x: through(x, np.float16)), ("*",), noise=True,
    ),
    Mistake(
        "X1c", "bfloat16 for float32",
        "Weights and steps are kept in bfloat16 by a port that claims float32.",
        (), lambda p: with_stored(p, lambda x: round_bits(x, 8)), ("*",), noise=True,
    ),
    Mistake(
        "X1d", "8-bit weights and activations",
        "Linear maps take both operands on 255 steps of one size per tensor: dynamic quantisation, "
        "as exporters do it. The result changes with the batch.",
        (), eight_bit_products, ("layers.*", "head.dense", "logits", "start_logits"), noise=True,
    ),
    Mistake(
        "X1f", "8-bit weights, activations and embedding table",
        "The same, and the rows of the embedding table are looked up in 8 bits: what "
        "quantize_dynamic of ONNX Runtime makes of an export.",
        (), eight_bit_model, ("embedding", "layers.*", "head.dense", "logits", "start_logits"),
        noise=True,
    ),
    Mistake(
        "X1e", "float16 keys and values; declared as float16 it may pass",
        "Keys and values are kept in float16 by a port that is float32 otherwise, as caches of "
        "decoders are: hold it to --dtype float16.",
        (), half_precision_cache, ("layers.*.attention",), noise=True,
    ),
    Mistake(
        "X5a", "the amount of padding counts",
        f"Masked keys get {WEAK_MASK:g} added to their score: a row's result depends on how wide "
        "the batch is.",
        ("text-embeddings-inference#617", "sentence-transformers#3197"), weak_mask,
        ("layers.*.attention",),
    ),
)  # fmt: skip
