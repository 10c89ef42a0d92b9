"""Which steps a case has, in the order in which they are computed, and the shape of each.

From config, inputs and head alone, without computing anything: a tensor of the wrong shape can be
refused before a byte of it is read. Names and shapes are those of MODEL.md; heads are those of one
row per sequence (not multiple choice).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...reference.config import ModernBertConfig
from .vectors import vector_steps

Shape = tuple[int, ...]


def axes_of(inputs: Mapping[str, np.ndarray | None]) -> Shape:
    """The leading axes of every step: (batch, seq), or (total,) of packed input."""
    ids = inputs.get("input_ids")
    if ids is not None:
        return ids.shape
    embeds = inputs.get("inputs_embeds")
    assert embeds is not None, "a case has input_ids or inputs_embeds"
    return embeds.shape[:-1]


def tap_shapes(
    config: ModernBertConfig, inputs: Mapping[str, np.ndarray | None], head: str | None
) -> dict[str, Shape]:
    """Step -> shape, in the order of the computation."""
    axes = axes_of(inputs)
    hidden, inter = config.hidden_size, config.intermediate_size
    split = (config.num_attention_heads, config.head_dim)
    out: dict[str, Shape] = {"embedding": (*axes, hidden)}
    for kind in dict.fromkeys(config.layer_types):
        for function in ("cos", "sin"):
            name = f"rope.{kind.removesuffix('_attention')}.{function}"
            out[name] = (*axes, config.head_dim)
    for i in range(config.num_hidden_layers):
        for step, width in (
            ("attn_norm", (hidden,)),
            ("q", split),
            ("k", split),
            ("v", split),
            ("q_rot", split),
            ("k_rot", split),
            ("attention", (hidden,)),
            ("attn_out", (hidden,)),
            ("residual_1", (hidden,)),
            ("mlp_norm", (hidden,)),
            ("wi", (2 * inter,)),
            ("glu", (inter,)),
            ("mlp_out", (hidden,)),
            ("residual_2", (hidden,)),
        ):
            out[f"layers.{i}.{step}"] = (*axes, *width)
    out["final_norm"] = (*axes, hidden)
    out |= {name: (axes[0], hidden) for name in vector_steps(inputs)}
    if head is None:
        return out
    rows: Shape = axes
    if head == "sequence_classification":
        rows = axes[:1]
        out["pooled"] = (*rows, hidden)
    for step in ("head.dense", "head.act", "head.norm"):
        out[step] = (*rows, hidden)
    if head == "question_answering":
        return out | {"start_logits": rows, "end_logits": rows}
    labels = config.vocab_size if head == "masked_lm" else config.num_labels
    return out | {"logits": (*rows, labels)}
