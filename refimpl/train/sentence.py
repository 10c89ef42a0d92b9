"""The backward pass of reference/sentence.py: the modules behind an encoder, from the last one.

    d of embeddings [batch, width] (or of a reranker's logits) -> d of hidden [batch, seq, hidden]

The modules' inputs are computed anew: they are small beside the encoder's steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..reference import ops as equations
from ..reference import sentence
from ..reference.encoder import Params, Tap, no_tap
from ..reference.pooling import named
from ..reference.sentence import LAYER_NORM_EPS, NORMALIZE_FLOOR, Dense, LayerNorm, Pooling
from . import adjoints
from .encoder import Grads, add, linear
from .pooling import pool

Array = np.ndarray


def backward(
    head: sentence.SentenceHead,
    params: Params,
    d: Array,
    hidden: Array,
    attention_mask: Array | None,
    grads: Grads,
    ops: Any = adjoints,
    tap: Tap = no_tap,
    prompt_length: int = 0,
) -> Array:
    """d [batch, width] of the last module's result -> d of hidden, in its shape."""
    inputs = [hidden]
    for name, module in head.named()[:-1]:
        x = sentence.step(name, module, inputs[-1], attention_mask, params, prompt_length)
        inputs.append(x)
    d = tap("logits" if head.makes_scores else "embeddings", d)
    for (name, module), x in zip(reversed(head.named()), reversed(inputs), strict=True):
        if isinstance(module, Pooling):
            skip = 0 if module.include_prompt else prompt_length
            d = pooled(tap("pooled", d), x, attention_mask, module.modes, skip)
        elif isinstance(module, Dense):
            weight, bias = params[f"{name}.linear.weight"], params.get(f"{name}.linear.bias")
            d = ops.activate(d, equations.linear(x, weight, bias), module.activation)
            d = linear(params, grads, f"{name}.linear", d, x, ops)
        elif isinstance(module, LayerNorm):
            d, dweight, dbias = ops.layer_norm(d, x, params[f"{name}.norm.weight"], LAYER_NORM_EPS)
            add(grads, f"{name}.norm.weight", dweight)
            add(grads, f"{name}.norm.bias", dbias)
        else:
            d = normalize(d, x)
    return d


def pooled(
    d: Array, hidden: Array, mask: Array | None, modes: tuple[str, ...], prompt_length: int
) -> Array:
    """d [batch, len(modes) * hidden] -> [batch, seq, hidden]: what the modes say, added up."""
    out = np.zeros_like(hidden)
    for mode, part in zip(modes, np.split(d, len(modes), axis=-1), strict=True):
        how = named("sentence")[mode]
        out += pool(part, hidden, mask, how, prompt_length=prompt_length)
    return out


def normalize(d: Array, x: Array) -> Array:
    """MODEL.md (36'): dx = (d - u (u . d)) / |x|, u = x / |x|; below the floor, d / floor."""
    floor = x.dtype.type(NORMALIZE_FLOOR)
    length = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    u = x / np.maximum(length, floor)
    along = np.where(length > floor, (u * d).sum(axis=-1, keepdims=True), 0).astype(x.dtype)
    return (d - u * along) / np.maximum(length, floor)
