"""The backward passes of the configurable heads, nlp/head.py and nlp/families.py (MODEL.md 11).

    head.forward(params, .., tap=record(steps))  =>  backward(head, params, steps, d, ..)

`d` holds the gradients of `logits`, of `start_logits` and `end_logits`, or of `embeddings`;
probabilities and predictions are made of logits, and a loss is written on those. `compare` is the
backward pass of two texts' similarity. Tensors and steps carry the head's scope, as in the forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..nlp.head import PREFIX, NLPHead
from ..nlp.multi_task import MultiTaskHead
from ..nlp.task_config import POOLED_FAMILIES
from ..reference import ops as equations
from ..reference.encoder import Params, Tap, no_tap
from ..reference.pooling import named
from . import adjoints
from .encoder import Grads, add, linear
from .pooling import pool

Array = np.ndarray


def backward(
    head: NLPHead,
    params: Params,
    steps: Params,
    d: Mapping[str, Array],
    hidden: Array,
    attention_mask: Array | None,
    grads: Grads,
    ops: Any = adjoints,
    tap: Tap = no_tap,
) -> Array:
    """d of the outputs -> d of hidden, in its shape; see `NLPHead.forward`."""
    at, o = PREFIX + head.scope, head.options

    def step(name: str) -> Array:
        return steps[head.scope + name]

    def tapped(name: str, x: Array) -> Array:
        return tap(head.scope + name, x)

    x = step("head.intermediate.act") if o.use_intermediate else step("head.norm")
    dx = linear(params, grads, at + "output", _of_outputs(head, d, attention_mask, tapped), x, ops)
    if o.use_intermediate:
        dx = tapped("head.intermediate.act", dx)
        dx = ops.activate(dx, step("head.intermediate.norm"), o.activation_type)
        dx, x = tapped("head.intermediate.norm", dx), step("head.intermediate.dense")
        dx = norm(head, params, grads, "intermediate.norm", dx, x, ops)
        dx = tapped("head.intermediate.dense", dx)
        dx = linear(params, grads, at + "intermediate.dense", dx, step("head.norm"), ops)
    pooled = head.family in POOLED_FAMILIES
    x = step("pooled") if pooled else hidden
    dx = norm(head, params, grads, "norm", tapped("head.norm", dx), x, ops)
    return (
        _pool(head, params, tapped("pooled", dx), hidden, attention_mask, grads, ops)
        if (pooled)
        else dx
    )


def multi_task(
    head: MultiTaskHead,
    params: Params,
    steps: Params,
    d: Mapping[str, Mapping[str, Array]],
    hidden: Array,
    attention_mask: Array | None,
    grads: Grads,
    ops: Any = adjoints,
    tap: Tap = no_tap,
) -> Array:
    """{task: d of its outputs} -> the sum of what the tasks say about hidden."""
    parts = [
        backward(one, params, steps, d[one.task.name], hidden, attention_mask, grads, ops, tap)
        for one in head.heads
        if one.task.name in d
    ]
    return sum(parts[1:], start=parts[0]) if parts else np.zeros_like(hidden)


def _of_outputs(head: NLPHead, d: Mapping[str, Array], mask: Array | None, tap: Tap) -> Array:
    """MODEL.md (41) to (47) backwards: d of the last linear map's result."""
    if head.family == "question_answering":
        both = np.stack([tap(name, d[name]) for name in ("start_logits", "end_logits")], axis=-1)
        if mask is None:
            return both
        return np.where((mask != 0)[..., None], both, 0).astype(both.dtype)  # -inf there, whatever
    name = "embeddings" if head.family == "text_similarity" else "logits"
    dx = tap(name, d[name])
    return dx[..., None] if head.family == "multiple_choice" else dx


def norm(
    head: NLPHead, params: Params, grads: Grads, name: str, d: Array, x: Array, ops: Any
) -> Array:
    """d of x, for y = LayerNorm(x) with the head's eps."""
    at = PREFIX + head.scope + name
    d, dweight, dbias = ops.layer_norm(d, x, params[at + ".weight"], head.options.norm_eps)
    add(grads, at + ".weight", dweight)
    if at + ".bias" in params:
        add(grads, at + ".bias", dbias)
    return d


def _pool(
    head: NLPHead,
    params: Params,
    d: Array,
    hidden: Array,
    mask: Array | None,
    grads: Grads,
    ops: Any,
) -> Array:
    """d of pooled [.., width] -> d of hidden [.., seq, width]."""
    how, seq, width = str(head.options.pooling_type), *hidden.shape[-2:]
    x, d = hidden.reshape(-1, seq, width), d.reshape(-1, width)
    mask = None if mask is None else mask.reshape(-1, seq)
    if how != "attention":
        return pool(d, x, mask, named("head")[how]).reshape(hidden.shape)
    real = np.ones(x.shape[:2], bool) if mask is None else mask != 0
    return attention_pool(head, params, d, x, real, grads, ops).reshape(hidden.shape)


def attention_pool(
    head: NLPHead, params: Params, d: Array, x: Array, real: Array, grads: Grads, ops: Any
) -> Array:
    """MODEL.md (38'): through the sum, the softmax over real tokens, v, tanh and W.

    d [rows, width], x [rows, seq, width], real bool [rows, seq] -> [rows, seq, width].
    """
    at = PREFIX + head.scope + "pooling."
    safe = np.where(real[..., None], x, x.dtype.type(0))
    inner = equations.linear(safe, params[at + "attention.weight"])
    act = np.tanh(inner)
    scores = equations.linear(act, params[at + "score.weight"])[..., 0]
    w = equations.softmax(scores, real)
    dw = np.matmul(safe, d[:, :, None])[..., 0]
    dscores = ops.softmax(dw, w)[..., None]
    da = ops.activate(linear(params, grads, at + "score", dscores, act, ops), inner, "tanh")
    dx = w[..., None] * d[:, None, :] + linear(params, grads, at + "attention", da, safe, ops)
    return np.where(real[..., None], dx, 0).astype(x.dtype)


def compare(
    head: NLPHead,
    params: Params,
    d: Array,
    a: Array,
    b: Array,
    grads: Grads,
    ops: Any = adjoints,
) -> tuple[Array, Array]:
    """MODEL.md (45'): d of similarity_score [batch] -> d of the embeddings a and b [batch, width].

    cosine: da = (u_b - cos u_a) / |a|, u the unit vectors; zero where a is zero, as b's is for it.
    """
    how, at = head.options.similarity_function, PREFIX + head.scope + "similarity."
    if how == "dot":
        return d[:, None] * b, d[:, None] * a
    if how == "cosine":
        (ua, na), (ub, nb) = _unit(a), _unit(b)
        cos = (ua * ub).sum(axis=-1, keepdims=True)
        return d[:, None] * (ub - cos * ua) / na, d[:, None] * (ua - cos * ub) / nb
    act = head.options.activation_type
    x = np.concatenate([a, b, a * b, np.abs(a - b)], axis=-1)
    inner = equations.linear(x, params[at + "dense.weight"], params[at + "dense.bias"])
    outer = equations.activate(inner, act)
    dx = linear(params, grads, at + "output", d[:, None], outer, ops)
    dx = linear(params, grads, at + "dense", ops.activate(dx, inner, act), x, ops)
    da, db, dproduct, dgap = np.split(dx, 4, axis=-1)
    turned = dgap * np.sign(a - b)
    return da + dproduct * b + turned, db + dproduct * a - turned


def _unit(x: Array) -> tuple[Array, Array]:
    """x / |x| and |x|, the latter infinite for a zero vector, which has no direction to turn."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    safe = np.where(length == 0, x.dtype.type(1), length)
    return x / safe, np.where(length == 0, x.dtype.type(np.inf), length)
