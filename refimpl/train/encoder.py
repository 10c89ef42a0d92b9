"""The backward pass of ModernBERT on one page: reference/encoder.py, its last line first.

`steps` is what the forward pass recorded (`tap=record(steps)`), under the names of MODEL.md; here
`d` is the gradient of the loss with respect to the step that was named last, and
`d = tap(name, d)` shows it, or puts another in its place, as the forward's tap does with the step.
`ops` is the module of adjoints. `grads` gathers the gradients of the parameters: what is used twice
(a tied embedding) is added up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..reference.config import ModernBertConfig
from ..reference.encoder import Params, Tap, no_tap
from . import adjoints

Array = np.ndarray
Grads = dict[str, Array]


def backward(
    params: Params,
    config: ModernBertConfig,
    steps: Params,
    d: Array,
    grads: Grads,
    inputs: Mapping[str, Array | None],
    *,
    keep: Callable[[int], adjoints.Keep | None] = lambda i: None,
    ops: Any = adjoints,
    tap: Tap = no_tap,
) -> Array:
    """From d of the last hidden state to `grads`, and to d of E[ids] (or inputs_embeds), returned.

    d [batch, seq, hidden], or [total, hidden] with cu_seqlens; inputs: the arguments of `encode`.
    keep(i): what dropout did to the attention weights of layer i (dropout.py).
    """
    attention_mask, cu_seqlens = inputs.get("attention_mask"), inputs.get("cu_seqlens")
    key_mask = np.ones(d.shape[:-1], bool) if attention_mask is None else attention_mask != 0

    def attend(i: int, d: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
        if cu_seqlens is None:
            return ops.attention(d, q, k, v, key_mask, config.window(i), keep(i))
        return ops.attention_packed(d, q, k, v, cu_seqlens, config.window(i), keep(i))

    last = f"layers.{config.num_hidden_layers - 1}.residual_2"
    d = norm(params, grads, "final_norm", tap("final_norm", d), steps[last], config, ops)
    for i in reversed(range(config.num_hidden_layers)):
        d = layer(params, config, i, steps, d, grads, attend, ops, tap)
    d = tap("embedding", d)
    return embed(params, config, d, grads, inputs, ops)


def embed(
    params: Params,
    config: ModernBertConfig,
    d: Array,
    grads: Grads,
    inputs: Mapping[str, Array | None],
    ops: Any,
) -> Array:
    """Through the norm to the rows of E and T that were looked up (MODEL.md (5'))."""
    ids, types = inputs.get("input_ids"), inputs.get("token_type_ids")
    table, x = params["embeddings.tok_embeddings.weight"], inputs.get("inputs_embeds")
    if x is None:
        x = table[ids]
    if config.type_vocab_size:
        types = np.zeros(x.shape[:-1], np.int64) if types is None else types
        x = x + params["embeddings.token_type_embeddings.weight"][types]
    d = norm(params, grads, "embeddings.norm", d, x, config, ops)
    if config.type_vocab_size:
        dtypes = ops.take(d, types, config.type_vocab_size)
        add(grads, "embeddings.token_type_embeddings.weight", dtypes)
    if ids is not None:
        add(grads, "embeddings.tok_embeddings.weight", ops.take(d, ids, len(table)))
    return d


def layer(
    params: Params,
    config: ModernBertConfig,
    i: int,
    steps: Params,
    d: Array,
    grads: Grads,
    attend: Callable[..., tuple[Array, Array, Array]],
    ops: Any,
    tap: Tap,
) -> Array:
    """Through mlp, then attention; the residual stream carries d past both and they add to it."""
    at = f"layers.{i}."
    kind = config.layer_types[i].removesuffix("_attention")
    table = steps[f"rope.{kind}.cos"], steps[f"rope.{kind}.sin"]
    before = steps["embedding" if i == 0 else f"layers.{i - 1}.residual_2"]

    d = tap(at + "residual_2", d)
    dm = tap(at + "mlp_out", d)
    dm = tap(at + "glu", linear(params, grads, at + "mlp.Wo", dm, steps[at + "glu"], ops))
    dm = tap(at + "wi", ops.glu(dm, steps[at + "wi"], config.hidden_activation))
    dm = tap(at + "mlp_norm", linear(params, grads, at + "mlp.Wi", dm, steps[at + "mlp_norm"], ops))
    d = d + norm(params, grads, at + "mlp_norm", dm, steps[at + "residual_1"], config, ops)

    d = tap(at + "residual_1", d)
    da = tap(at + "attn_out", d)
    joined = steps[at + "attention"]
    da = tap(at + "attention", linear(params, grads, at + "attn.Wo", da, joined, ops))
    dq, dk, dv = attend(i, da, steps[at + "q_rot"], steps[at + "k_rot"], steps[at + "v"])
    dq, dk, dv = tap(at + "q_rot", dq), tap(at + "k_rot", dk), tap(at + "v", dv)
    dq, dk = tap(at + "q", ops.rope(dq, *table)), tap(at + "k", ops.rope(dk, *table))
    dqkv = ops.split_qkv(dq, dk, dv)
    normed = steps[at + "attn_norm"]
    da = tap(at + "attn_norm", linear(params, grads, at + "attn.Wqkv", dqkv, normed, ops))
    return d + (da if i == 0 else norm(params, grads, at + "attn_norm", da, before, config, ops))


def linear(params: Params, grads: Grads, name: str, d: Array, x: Array, ops: Any) -> Array:
    """d of x, for y = x W^T (+ b); the gradients of W and b go into grads."""
    d, dweight, dbias = ops.linear(d, x, params[name + ".weight"])
    add(grads, name + ".weight", dweight)
    if name + ".bias" in params:
        add(grads, name + ".bias", dbias)
    return d


def norm(
    params: Params,
    grads: Grads,
    name: str,
    d: Array,
    x: Array,
    config: ModernBertConfig,
    ops: Any,
) -> Array:
    """d of x, for y = LayerNorm(x); the gradients of its weight and bias go into grads."""
    d, dweight, dbias = ops.layer_norm(d, x, params[name + ".weight"], config.norm_eps)
    add(grads, name + ".weight", dweight)
    if name + ".bias" in params:
        add(grads, name + ".bias", dbias)
    return d


def add(grads: Grads, name: str, value: Array) -> None:
    """grads[name] += value; a parameter that is used twice has the sum."""
    grads[name] = grads[name] + value if name in grads else value
