"""Mistakes of the embedding (E), the MLP (F) and the norms (N).

Long because a row of the zoo and its one-line change stand together, mistake by mistake.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from ...reference import ops as equations
from ...reference.erf import erf
from ..truth.passes import Pass
from .mistake import Array, Mistake, at, layer_input, rewired, with_attention
from .plan import tanh_for_others

ACTIVATED = ("layers.*.glu",)
NORMED = ("embedding", "*norm")


def with_activation(p: Pass, name: str, function: Any) -> Pass:
    """One activation replaced, in MLP and head."""
    activate = p.ops.activate

    def activated(x: Array, asked: str) -> Array:
        return function(x).astype(x.dtype, copy=False) if asked == name else activate(x, asked)

    def glu(u: Array, asked: str) -> Array:
        a, g = np.split(u, 2, axis=-1)
        return activated(a, asked) * g

    return p.with_ops(activate=activated, glu=glu)


def wrong_half(p: Pass) -> Pass:
    glu = p.ops.glu
    return p.with_ops(glu=lambda u, act: glu(np.roll(u, u.shape[-1] // 2, axis=-1), act))


def interleaved_halves(p: Pass) -> Pass:
    glu = p.ops.glu
    return p.with_ops(
        glu=lambda u, act: glu(np.concatenate([u[..., 0::2], u[..., 1::2]], axis=-1), act)
    )


def whole_activated(u: Array, act: str) -> Array:
    a, g = np.split(equations.activate(u, act), 2, axis=-1)
    return a * g


def normed_first_layer(p: Pass) -> Pass:
    def normed(name: str, value: Array, seen: object) -> Array:
        return p.ops.layer_norm(value, np.ones_like(value[0, 0]), None, p.config.norm_eps)

    return rewired(p, at("layers.0.attn_norm", normed))


def identity_norm(p: Pass, pattern: str) -> Pass:
    """The norms of that name pass their input on."""

    def skipped(name: str, value: Array, seen: Any) -> Array:
        if name == "final_norm":
            return seen[f"layers.{p.config.num_hidden_layers - 1}.residual_2"]
        if name.endswith("mlp_norm"):
            return seen[name.replace("mlp_norm", "residual_1")]
        return seen[layer_input(name)]

    return rewired(p, at(pattern, skipped))


def no_embedding_norm(p: Pass) -> Pass:
    """The embedding is handed on as it is looked up: its norm is called with its own input."""
    weight = p.params["embeddings.norm.weight"]

    def layer_norm(x: Array, w: Array, bias: Array | None, eps: float) -> Array:
        return x if w is weight else p.ops.layer_norm(x, w, bias, eps)

    return p.with_ops(layer_norm=layer_norm)


def without_biases(p: Pass) -> Pass:
    """No bias but the last linear map's of a head."""
    kept = ("decoder.bias", "classifier.bias")
    return replace(
        p, params={k: x for k, x in p.params.items() if k in kept or not k.endswith(".bias")}
    )


def rms_norm(x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
    y = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight
    return y if bias is None else y + bias


def unbiased_norm(x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).sum(axis=-1, keepdims=True) / max(x.shape[-1] - 1, 1)
    y = centred / np.sqrt(variance + eps) * weight
    return y if bias is None else y + bias


def scaled_lookup(p: Pass) -> Pass:
    """The looked-up rows times sqrt(hidden), before their norm: only its eps can tell."""
    weight, factor = p.params["embeddings.norm.weight"], p.config.hidden_size**0.5

    def layer_norm(x: Array, w: Array, bias: Array | None, eps: float) -> Array:
        return p.ops.layer_norm(x * factor if w is weight else x, w, bias, eps)

    return p.with_ops(layer_norm=layer_norm)


def scaled_embedding(p: Pass) -> Pass:
    factor = p.config.hidden_size**0.5
    return rewired(p, at("embedding", lambda name, value, seen: value * factor))


def one_pass_norm(x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
    """Variance as E[x^2] - E[x]^2 in float32."""
    x32 = x.astype(np.float32)
    mean = x32.mean(axis=-1, keepdims=True)
    variance = (x32 * x32).mean(axis=-1, keepdims=True) - mean * mean
    y = (x - mean) / np.sqrt(np.maximum(variance, 0).astype(x.dtype) + eps) * weight
    return (y if bias is None else y + bias).astype(x.dtype, copy=False)


def half_precision_sum(x: Array) -> Array:
    """Sum over the last axis, the running total in float16."""
    total = np.cumsum(x.astype(np.float16), axis=-1, dtype=np.float16)[..., -1:]
    return total.astype(x.dtype)


def half_precision_reductions(p: Pass) -> Pass:
    """Norm and softmax add up in float16."""

    def layer_norm(x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
        n = x.shape[-1]
        centred = x - half_precision_sum(x / n)
        y = centred / np.sqrt(half_precision_sum(centred * centred / n) + eps) * weight
        return y if bias is None else y + bias

    def attention(q: Array, k: Array, v: Array, key_mask: Array, window: int | None) -> Array:
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, np.where(key_mask[..., None, None], v, 0.0)))
        axis = np.arange(q.shape[2])
        mask = (equations.visible(axis, axis, window) & key_mask[:, None, :])[:, None]
        scores = np.where(mask, q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5, -np.inf)
        top = scores.max(axis=-1, keepdims=True)
        e = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
        total = half_precision_sum(e)
        out = (e / np.where(total == 0.0, 1.0, total)) @ v
        return out.swapaxes(1, 2).reshape(out.shape[0], len(axis), -1).astype(v.dtype, copy=False)

    return with_attention(p.with_ops(layer_norm=layer_norm), attention)


def surplus_bias(p: Pass) -> Pass:
    """Wqkv has a bias that no checkpoint holds."""
    extra = {}
    for name, weight in p.params.items():
        bias = name.removesuffix("weight") + "bias"
        if fnmatchcase(name, "layers.*.attn.Wqkv.weight") and bias not in p.params:
            extra[bias] = (0.1 * np.cos(np.arange(len(weight)))).astype(weight.dtype)
    return replace(p, params={**p.params, **extra})


MISTAKES = (
    Mistake(
        "F1", "activation on the wrong half of Wi",
        "The second half of Wi is activated and the first multiplies.",
        ("astronomical#597",), wrong_half, ACTIVATED,
    ),
    Mistake(
        "F2", "tanh GELU for erf",
        "The tanh approximation stands for the exact GELU: at most 4.7e-4 per element.",
        ("text-embeddings-inference#753",),
        lambda p: with_activation(p, "gelu", equations.gelu_tanh), (*ACTIVATED, "head.act"),
        deviation=True,
    ),
    Mistake(
        "F2b", "tanh GELU where another activation is asked for",
        "The config names silu, say, and the MLP takes the tanh approximation of GELU.",
        (), tanh_for_others, ACTIVATED,
    ),
    Mistake(
        "F3", "erf(x) for erf(x / sqrt 2)",
        "GELU without its square root of 2.",
        (), lambda p: with_activation(p, "gelu", lambda x: 0.5 * x * (1.0 + erf(x))),
        (*ACTIVATED, "head.act"),
    ),
    Mistake(
        "F4a", "GLU halves interleaved",
        "Even columns of Wi are activated, odd ones multiply.",
        (), interleaved_halves, ACTIVATED,
    ),
    Mistake(
        "F4b", "whole Wi activated",
        "Both halves go through the activation.",
        (), lambda p: p.with_ops(glu=whole_activated), ACTIVATED,
    ),
    Mistake(
        "N1", "a norm before attention in layer 0",
        "Layer 0 has none: its input has just been normed.",
        (), normed_first_layer, ("layers.0.attn_norm", "layers.0.[qkv]"),
    ),
    Mistake(
        "N2a", "attn_norm missing, silently identity",
        "Layers from 1 on hand their input to attention as it is.",
        (), lambda p: identity_norm(p, "layers.*.attn_norm"), ("layers.*.attn_norm",),
    ),
    Mistake(
        "N2b", "mlp_norm missing, silently identity",
        "The MLP gets the residual stream as it is.",
        (), lambda p: identity_norm(p, "layers.*.mlp_norm"), ("layers.*.mlp_norm",),
    ),
    Mistake(
        "N3", "RMSNorm for LayerNorm",
        "The mean is not subtracted.",
        (), lambda p: p.with_ops(layer_norm=rms_norm), NORMED,
    ),
    Mistake(
        "N4a", "final norm missing",
        "The last layer's output is the model's.",
        (), lambda p: identity_norm(p, "final_norm"), ("final_norm",),
    ),
    Mistake(
        "N4b", "embedding norm missing",
        "The looked-up rows go into layer 0 as they are.",
        (), no_embedding_norm, ("embedding",),
    ),
    Mistake(
        "N5", "one-pass variance",
        "E[x^2] - E[x]^2 in float32 loses its digits when a row's mean is large.",
        ("onnxruntime#13639",), lambda p: p.with_ops(layer_norm=one_pass_norm), NORMED, noise=True,
    ),
    Mistake(
        "N6", "a bias that should not be there",
        "A linear map adds a bias that the checkpoint does not hold.",
        (), surplus_bias, ("layers.*.[qkv]",),
    ),
    Mistake(
        "N6b", "biases of the file unread",
        "norm_bias, attention_bias, mlp_bias and classifier_bias are not read, and the biases in "
        "the file have no place to go; those of the decoder and the classifier have one.",
        (), without_biases, (*NORMED, "layers.*", "head.*"),
    ),
    Mistake(
        "N7", "variance over n - 1",
        "The norms divide the sum of squares by n - 1, as statistics libraries do by default.",
        (), lambda p: p.with_ops(layer_norm=unbiased_norm), NORMED,
    ),
    Mistake(
        "E1a", "looked-up embedding times sqrt(hidden)",
        "The rows of the table are scaled as in the first transformers; the norm hides all but "
        "its eps.",
        (), scaled_lookup, ("embedding",),
    ),
    Mistake(
        "E1b", "normed embedding times sqrt(hidden)",
        "The normed embedding is scaled as in the first transformers.",
        (), scaled_embedding, ("embedding",),
    ),
    Mistake(
        "N8", "reductions kept in float16",
        "Means and sums of norm and softmax are accumulated in float16.",
        (), half_precision_reductions,
        (*NORMED, "layers.*.attention"), deviation=True, noise=True,
    ),
)  # fmt: skip
