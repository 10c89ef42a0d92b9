"""The backward passes of reference/heads.py, head by head under the same names (MODEL.md 9).

Each takes `d`, the gradients of the head's outputs under their keys, and the steps that its forward
pass recorded; adds the gradients of its parameters to `grads`; and returns d of the hidden states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..reference.config import ModernBertConfig
from ..reference.encoder import Params, Tap, no_tap
from . import adjoints
from .encoder import Grads, add, linear, norm
from .pooling import pool

Array = np.ndarray
Outputs = Mapping[str, Array]


def prediction_head(
    params: Params,
    config: ModernBertConfig,
    steps: Params,
    d: Array,
    x: Array,
    grads: Grads,
    ops: Any,
    tap: Tap,
) -> Array:
    """MODEL.md (29) backwards: norm, activation, dense. d, x [.., hidden] -> the same shape."""
    d = tap("head.norm", d)
    d = tap("head.act", norm(params, grads, "head.norm", d, steps["head.act"], config, ops))
    d = ops.activate(d, steps["head.dense"], config.classifier_activation)
    return linear(params, grads, "head.dense", tap("head.dense", d), x, ops)


def masked_lm(
    params: Params,
    config: ModernBertConfig,
    steps: Params,
    d: Outputs,
    hidden: Array,
    attention_mask: Array | None,
    grads: Grads,
    ops: Any = adjoints,
    tap: Tap = no_tap,
) -> Array:
    """d of logits [.., vocab] -> [.., hidden]. A tied decoder's gradient is added to that of E."""
    tied = "decoder.weight" not in params
    decoder = "embeddings.tok_embeddings.weight" if tied else "decoder.weight"
    dx, dweight, dbias = ops.linear(tap("logits", d["logits"]), steps["head.norm"], params[decoder])
    add(grads, decoder, dweight)
    if "decoder.bias" in params:
        add(grads, "decoder.bias", dbias)
    return prediction_head(params, config, steps, dx, hidden, grads, ops, tap)


def sequence_classification(
    params: Params,
    config: ModernBertConfig,
    steps: Params,
    d: Outputs,
    hidden: Array,
    attention_mask: Array | None,
    grads: Grads,
    ops: Any = adjoints,
    tap: Tap = no_tap,
) -> Array:
    """d of logits [batch, labels] -> [batch, seq, hidden]."""
    dx = tap("logits", d["logits"])
    dx = linear(params, grads, "classifier", dx, steps["head.norm"], ops)
    dx = prediction_head(params, config, steps, dx, steps["pooled"], grads, ops, tap)
    return pool(tap("pooled", dx), hidden, attention_mask, config.classifier_pooling)


def token_classification(
    params: Params,
    config: ModernBertConfig,
    steps: Params,
    d: Outputs,
    hidden: Array,
    attention_mask: Array | None,
    grads: Grads,
    ops: Any = adjoints,
    tap: Tap = no_tap,
) -> Array:
    """d of logits [.., labels] -> [.., hidden]."""
    dx = tap("logits", d["logits"])
    dx = linear(params, grads, "classifier", dx, steps["head.norm"], ops)
    return prediction_head(params, config, steps, dx, hidden, grads, ops, tap)


def question_answering(
    params: Params,
    config: ModernBertConfig,
    steps: Params,
    d: Outputs,
    hidden: Array,
    attention_mask: Array | None,
    grads: Grads,
    ops: Any = adjoints,
    tap: Tap = no_tap,
) -> Array:
    """d of start_logits and end_logits [batch, seq] -> [batch, seq, hidden]."""
    both = [tap(name, d[name]) for name in ("start_logits", "end_logits")]
    dx = linear(params, grads, "classifier", np.stack(both, axis=-1), steps["head.norm"], ops)
    return prediction_head(params, config, steps, dx, hidden, grads, ops, tap)


def multiple_choice(
    params: Params,
    config: ModernBertConfig,
    steps: Params,
    d: Outputs,
    hidden: Array,
    attention_mask: Array | None,
    grads: Grads,
    ops: Any = adjoints,
    tap: Tap = no_tap,
) -> Array:
    """d of logits [batch, choices] -> [batch, choices, seq, hidden]."""
    seq, width = hidden.shape[-2:]
    how = "first_token" if config.classifier_pooling == "cls" else config.classifier_pooling
    mask = None if attention_mask is None else attention_mask.reshape(-1, seq)
    dx = tap("logits", d["logits"]).reshape(-1, 1)
    dx = linear(params, grads, "classifier", dx, steps["head.norm"], ops)
    dx = prediction_head(params, config, steps, dx, steps["pooled"], grads, ops, tap)
    return pool(tap("pooled", dx), hidden.reshape(-1, seq, width), mask, how).reshape(hidden.shape)


# Kind of reference.heads.HEADS -> its backward pass.
BACKWARD: Mapping[str, Callable[..., Array]] = {
    f.__name__: f
    for f in (
        masked_lm,
        sequence_classification,
        token_classification,
        question_answering,
        multiple_choice,
    )
}
