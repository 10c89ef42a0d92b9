"""Mistakes of heads, readout and weight mapping (H).

Long because a row of the zoo and its one-line change stand together, mistake by mistake.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..truth.passes import Pass
from .mistake import Array, Mistake, at, rewired, with_config

POOLED = ("pooled",)
MEANS = ("pooled", "mean_pooled")


def pooled_by(p: Pass, weights: Any, steps: Collection[str] = POOLED) -> Pass:
    """steps = sum_j w_j h_j with weights(visible bool [batch, seq]) [batch, seq]."""

    def pool(name: str, value: Array, seen: Mapping[str, Array]) -> Array:
        if name not in steps:
            return value
        hidden = seen["final_norm"]
        mask = p.inputs.get("attention_mask")
        visible = np.ones(hidden.shape[:2], bool) if mask is None else mask != 0
        w = np.asarray(weights(visible), hidden.dtype)[..., None]
        return np.where(w != 0, hidden * w, 0.0).sum(axis=1, dtype=hidden.dtype)

    return rewired(p, pool)


def means(p: Pass) -> tuple[str, ...]:
    """The steps that are a mean: the head's only where the config says so."""
    return MEANS if p.config.classifier_pooling == "mean" else MEANS[1:]


def mean_over(chosen: Array) -> Array:
    """Equal weights of the chosen tokens; an empty row has none."""
    return chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1)


def last_token(visible: Array) -> Array:
    last = visible.shape[1] - 1 - visible[:, ::-1].argmax(axis=1)
    return np.arange(visible.shape[1]) == last[:, None]


def first_token(visible: Array) -> Array:
    return np.arange(visible.shape[1]) == visible.argmax(axis=1)[:, None]


def without_specials(visible: Array) -> Array:
    """A row of special tokens alone keeps them."""
    inner = visible & ~first_token(visible) & ~last_token(visible)
    return mean_over(np.where(inner.any(axis=1, keepdims=True), inner, visible))


def mean_over_padding(p: Pass) -> Pass:
    return pooled_by(p, lambda visible: mean_over(np.ones_like(visible)), means(p))


def mean_without_specials(p: Pass) -> Pass:
    return pooled_by(p, without_specials, means(p))


def cls_without_stride(p: Pass) -> Pass:
    """Row b of the batch gets flat row b: the stride of a sequence is forgotten."""

    def read(name: str, value: Array, seen: Mapping[str, Array]) -> Array:
        hidden = seen["final_norm"]
        return hidden.reshape(-1, hidden.shape[-1])[: len(hidden)]

    return rewired(p, at("pooled", read)) if p.config.classifier_pooling == "cls" else p


def no_prediction_head(p: Pass) -> Pass:
    """The classifier reads the encoder's output."""

    def skip(name: str, value: Array, seen: Mapping[str, Array]) -> Array:
        return seen["pooled"] if "pooled" in seen else seen["final_norm"]

    return rewired(p, at("head.*", skip))


def norm_before_activation(p: Pass) -> Pass:
    """act(LN(dense)) for LN(act(dense)); the steps keep their names by place."""

    def reorder(name: str, value: Array, seen: Mapping[str, Array]) -> Array:
        if name == "head.act":
            weight, bias = p.params["head.norm.weight"], p.params.get("head.norm.bias")
            return p.ops.layer_norm(seen["head.dense"], weight, bias, p.config.norm_eps)
        if name == "head.norm":
            return p.ops.activate(seen["head.act"], p.config.classifier_activation)
        return value

    return rewired(p, reorder)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def probabilities(p: Pass) -> Pass:
    return rewired(p, at("*logits", lambda name, value, seen: softmax(value)))


def column_major(p: Pass) -> Pass:
    """[seq, hidden] is read as [hidden, seq]."""

    def read(name: str, value: Array, seen: object) -> Array:
        turned = np.ascontiguousarray(value.swapaxes(-1, -2))
        return turned.reshape(value.shape)

    return rewired(p, at("final_norm", read))


def without(p: Pass, name: str) -> Pass:
    """The same pass without one tensor."""
    return replace(p, params={k: x for k, x in p.params.items() if k != name})


def hidden_states_shifted(p: Pass) -> Pass:
    """Entry i is the input of layer i, where its output is asked for."""

    def shift(name: str, value: Array, seen: Mapping[str, Array]) -> Array:
        i = int(name.split(".")[1])
        return seen[f"layers.{i - 1}.residual_2" if i else "embedding"]

    return rewired(p, at("layers.*.residual_2", shift), reported_only=True)


def last_state_before_norm(p: Pass) -> Pass:
    last = f"layers.{p.config.num_hidden_layers - 1}.residual_2"
    return rewired(p, at("final_norm", lambda name, value, seen: seen[last]), reported_only=True)


def unit_output(p: Pass) -> Pass:
    def unit(name: str, value: Array, seen: object) -> Array:
        length = np.sqrt((value * value).sum(axis=-1, keepdims=True))
        return value / np.maximum(length, 1e-12).astype(value.dtype)

    return rewired(p, at("final_norm", unit), reported_only=True)


def transposed(p: Pass, suffix: str) -> Pass:
    """A square matrix is used as it lies in the file of another framework."""
    params = {k: x.T if k.endswith(suffix) else x for k, x in p.params.items()}
    return replace(p, params=params)


def layer_weights(p: Pass, source: Mapping[int, int]) -> Pass:
    """Layer i takes the matrices of layer source[i]."""
    params = dict(p.params)
    for i, j in source.items():
        for name in ("attn.Wqkv.weight", "attn.Wo.weight", "mlp.Wi.weight", "mlp.Wo.weight"):
            params[f"layers.{i}.{name}"] = p.params[f"layers.{j}.{name}"]
    return replace(p, params=params)


def text_order(p: Pass) -> Pass:
    """Layers are loaded in the order of their names as text, shifted by one from layer 1 on."""
    n = p.config.num_hidden_layers
    return layer_weights(p, {i: min(i + 1, n - 1) for i in range(1, n)})


MISTAKES = (
    Mistake(
        "H1a", "cls pooling whatever the config",
        "classifier_pooling is not read: column 0 is taken.",
        ("text-embeddings-inference#615",),
        lambda p: with_config(p, classifier_pooling="cls"), POOLED,
    ),
    Mistake(
        "H1b", "mean pooling whatever the config",
        "classifier_pooling is not read: the mean is taken.",
        ("text-embeddings-inference#615",),
        lambda p: with_config(p, classifier_pooling="mean"), POOLED,
    ),
    Mistake(
        "H1c", "last-token pooling",
        "The last real token is taken, as for a decoder.",
        ("text-embeddings-inference#615",), lambda p: pooled_by(p, last_token), POOLED,
    ),
    Mistake(
        "H2a", "mean over padding",
        "The mean divides by the padded length and adds up padding.",
        ("astronomical#597",), mean_over_padding, MEANS,
    ),
    Mistake(
        "H2b", "mean without special tokens",
        "The first and the last real token are left out of the mean.",
        ("astronomical#597",), mean_without_specials, MEANS,
    ),
    Mistake(
        "H3a", "prediction head missing",
        "The classifier is applied to the encoder's output.",
        ("vLLM#32148",), no_prediction_head, ("head.dense", "logits", "start_logits"),
    ),
    Mistake(
        "H3b", "prediction head reordered",
        "The norm stands before the activation.",
        ("transformers#35344",), norm_before_activation, ("head.act", "head.norm"),
    ),
    Mistake(
        "H4a", "probabilities for logits",
        "Softmax is applied before the output is handed out, and once more by whoever reads it.",
        (), probabilities, ("logits", "start_logits", "end_logits"),
    ),
    Mistake(
        "H4b", "a classifier's probabilities for its logits",
        "Softmax is applied to the labels of a text, and to no other head's output.",
        (), lambda p: probabilities(p) if p.head == "sequence_classification" else p, ("logits",),
    ),
    Mistake(
        "H5a", "output read in another axis order",
        "[seq, hidden] is read as [hidden, seq].",
        (), column_major, ("final_norm",),
    ),
    Mistake(
        "H5b", "cls read without the stride of a sequence",
        "Row b of the batch gets token b of the first row.",
        (), cls_without_stride, POOLED,
    ),
    Mistake(
        "H6a", "decoder bias dropped",
        "The vocabulary's bias is not added.",
        (), lambda p: without(p, "decoder.bias"), ("logits",),
    ),
    Mistake(
        "H6b", "decoder tied although the file unties it",
        "The token embedding is used for an untied decoder.",
        (), lambda p: without(p, "decoder.weight"), ("logits",),
    ),
    Mistake(
        "H7a", "hidden_states shifted by one",
        "Entry i holds the input of layer i; the numbers are right and their names are not.",
        (), hidden_states_shifted, ("layers.*.residual_2",), reports=True,
    ),
    Mistake(
        "H7b", "last hidden state handed out before the final norm",
        "The output is that of the last layer; heads get the right one.",
        (), last_state_before_norm, ("final_norm",), reports=True,
    ),
    Mistake(
        "H9", "output normalised to length 1",
        "The last hidden state is handed out divided by its length; heads get the right one.",
        (), unit_output, ("final_norm",), reports=True,
    ),
    Mistake(
        "H8a", "Wo of attention transposed",
        "A square matrix is used in the order of another framework.",
        (), lambda p: transposed(p, "attn.Wo.weight"), ("layers.*.attn_out",),
    ),
    Mistake(
        "H8b", "weights mapped to another layer",
        "From layer 1 on each layer holds the matrices of the next one.",
        (), text_order, ("layers.*.[qkv]",),
    ),
    Mistake(
        "H8c", "head.dense transposed",
        "The square matrix of the prediction head is used transposed.",
        (), lambda p: transposed(p, "head.dense.weight"), ("head.dense",),
    ),
)  # fmt: skip
