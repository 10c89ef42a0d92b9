"""The forward pass of ModernBERT on one page; read it beside MODEL.md, whose step names it uses.

Every step is `x = tap(name, step(x))`: the default tap returns its argument, others record it or
put another value in its place. `ops` is the module of equations; a broken or faster one can stand
in. Padded input [batch, seq] and packed input [total] with cu_seqlens take the same path: only the
default positions and the attention call differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import ops as equations
from .config import ModernBertConfig

Array = np.ndarray
Params = Mapping[str, Array]
Tap = Callable[[str, Array], Array]


def no_tap(name: str, value: Array) -> Array:
    """The tap that looks away: returns its argument."""
    return value


def encode(
    params: Params,
    config: ModernBertConfig,
    input_ids: Array | None = None,
    *,
    inputs_embeds: Array | None = None,
    token_type_ids: Array | None = None,
    attention_mask: Array | None = None,
    position_ids: Array | None = None,
    cu_seqlens: Array | None = None,
    ops: Any = equations,
    tap: Tap = no_tap,
) -> Array:
    """Last hidden state, after the final norm (MODEL.md section 2).

    input_ids int [batch, seq], or inputs_embeds [batch, seq, hidden] in its place; attention_mask
    [batch, seq], nonzero = visible, None = all; position_ids [batch, seq], default 0 .. seq - 1
    -> [batch, seq, hidden]. With cu_seqlens [n + 1] every [batch, seq] is [total] and there is no
    attention_mask: block i is one sequence of its own, and positions restart in it.
    The input is not checked here: `models/inputs.py` does that at the public surface.
    """
    x = tap("embedding", embed(params, config, input_ids, inputs_embeds, token_type_ids, ops))
    every = range(config.num_hidden_layers)
    x = layers(params, config, x, every, attention_mask, position_ids, cu_seqlens, ops, tap)
    return tap("final_norm", norm(params, "final_norm", x, config, ops))


def layers(
    params: Params,
    config: ModernBertConfig,
    x: Array,
    which: Sequence[int],
    attention_mask: Array | None,
    position_ids: Array | None,
    cu_seqlens: Array | None,
    ops: Any,
    tap: Tap,
) -> Array:
    """Some layers, one after the other, with the rotary tables of their kinds. x as `layer`'s."""
    axes = x.shape[:-1]
    if position_ids is None:
        position_ids = (
            np.arange(axes[-1]) if cu_seqlens is None else ops.packed_positions(cu_seqlens)
        )
    position_ids = np.broadcast_to(position_ids, axes)
    key_mask = np.ones(axes, bool) if attention_mask is None else attention_mask != 0

    def attend(q: Array, k: Array, v: Array, window: int | None) -> Array:
        if cu_seqlens is None:
            return ops.attention(q, k, v, key_mask, window)
        return ops.attention_packed(q, k, v, cu_seqlens, window)

    tables: dict[str, tuple[Array, Array]] = {}
    for i in which:
        kind = config.layer_types[i]
        if kind not in tables:
            cos, sin = ops.rope_table(position_ids, config.head_dim, config.rope_theta(i), x.dtype)
            at = f"rope.{kind.removesuffix('_attention')}."
            tables[kind] = tap(at + "cos", cos), tap(at + "sin", sin)
    for i in which:
        table = tables[config.layer_types[i]]
        x = layer(params, config, i, x, table, attend, ops, tap)
    return x


def embed(
    params: Params,
    config: ModernBertConfig,
    input_ids: Array | None,
    inputs_embeds: Array | None,
    token_type_ids: Array | None,
    ops: Any,
) -> Array:
    """LN(E[ids] + T[types]); no positions are added, and the pad row is an ordinary row."""
    if inputs_embeds is None:
        inputs_embeds = params["embeddings.tok_embeddings.weight"][input_ids]
    if config.type_vocab_size:
        if token_type_ids is None:
            token_type_ids = np.zeros(inputs_embeds.shape[:-1], np.int64)
        types = params["embeddings.token_type_embeddings.weight"]
        inputs_embeds = inputs_embeds + types[token_type_ids]
    return norm(params, "embeddings.norm", inputs_embeds, config, ops)


def layer(
    params: Params,
    config: ModernBertConfig,
    i: int,
    x: Array,
    table: tuple[Array, Array],
    attend: Callable[[Array, Array, Array, int | None], Array],
    ops: Any,
    tap: Tap,
) -> Array:
    """x + attn(norm(x)), then + mlp(norm(.)); layer 0 has no norm before its attention."""
    at = f"layers.{i}."

    normed = x if i == 0 else norm(params, at + "attn_norm", x, config, ops)
    normed = tap(at + "attn_norm", normed)
    qkv = linear(params, at + "attn.Wqkv", normed, ops)
    q, k, v = ops.split_qkv(qkv, config.num_attention_heads)
    q, k, v = tap(at + "q", q), tap(at + "k", k), tap(at + "v", v)
    q_rot, k_rot = tap(at + "q_rot", ops.rope(q, *table)), tap(at + "k_rot", ops.rope(k, *table))
    joined = tap(at + "attention", attend(q_rot, k_rot, v, config.window(i)))
    attn_out = tap(at + "attn_out", linear(params, at + "attn.Wo", joined, ops))
    x = tap(at + "residual_1", x + attn_out)

    normed = tap(at + "mlp_norm", norm(params, at + "mlp_norm", x, config, ops))
    u = tap(at + "wi", linear(params, at + "mlp.Wi", normed, ops))
    gated = tap(at + "glu", ops.glu(u, config.hidden_activation))
    mlp_out = tap(at + "mlp_out", linear(params, at + "mlp.Wo", gated, ops))
    return tap(at + "residual_2", x + mlp_out)


def linear(params: Params, name: str, x: Array, ops: Any) -> Array:
    """x W^T (+ b where the checkpoint has one)."""
    return ops.linear(x, params[name + ".weight"], params.get(name + ".bias"))


def norm(params: Params, name: str, x: Array, config: ModernBertConfig, ops: Any) -> Array:
    """LayerNorm with the parameters of that name."""
    return ops.layer_norm(x, params[name + ".weight"], params.get(name + ".bias"), config.norm_eps)
