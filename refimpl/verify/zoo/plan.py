"""Mistakes of plan and config (C): what a port makes of config.json before the first number."""

from __future__ import annotations

from ...reference.config import FULL, SLIDING, ModernBertConfig
from ..truth.passes import Pass
from .mistake import (
    Array,
    Change,
    Mistake,
    at,
    before,
    positions,
    rewired,
    with_config,
    with_window,
)

ROTATED = ("rope.*", "layers.*.q_rot", "layers.*.k_rot")
SLIDING_ROTATED = ("rope.sliding.*", "layers.*.q_rot", "layers.*.k_rot")
FULL_ROTATED = ("rope.full.*", "layers.*.q_rot", "layers.*.k_rot")
SCHEDULE = ("layers.*.q_rot", "layers.*.k_rot", "layers.*.attention")
NORMED = ("embedding", "*norm", "head.norm")
ACTIVATED = ("layers.*.glu",)


def with_layer_types(p: Pass, full: list[bool]) -> Pass:
    """The same pass, layer i a full one where full[i]."""
    return with_config(p, layer_types=tuple(FULL if x else SLIDING for x in full))


def interval(config: ModernBertConfig) -> int:
    """The distance between full layers (the number of layers when there is one only)."""
    return next((i for i in range(1, config.num_hidden_layers) if config.is_global(i)),
                config.num_hidden_layers)  # fmt: skip


def local_first_layer(p: Pass) -> Pass:
    full = [p.config.is_global(i) for i in range(p.config.num_hidden_layers)]
    return with_layer_types(p, [False, *full[1:]])


def local_theta_in_first_layer(p: Pass) -> Pass:
    return rewired(p, layer_theta(p, 0, p.config.local_rope_theta))


def layer_theta(p: Pass, layer: int, theta: float) -> Change:
    """q and k of one layer are rotated with a theta of their own."""

    def rotated(name: str, value: Array, seen: object) -> Array:
        x = seen[before(name, name[-5])]  # type: ignore[index]
        table = p.ops.rope_table(positions(p), p.config.head_dim, theta, x.dtype)
        return p.ops.rope(x, *table)

    return at(f"layers.{layer}.[qk]_rot", rotated)


def shifted_schedule(p: Pass) -> Pass:
    n, every = p.config.num_hidden_layers, interval(p.config)
    return with_layer_types(p, [(i + 1) % every == 0 for i in range(n)])


def default_schedule(p: Pass) -> Pass:
    return with_layer_types(p, [i % 3 == 0 for i in range(p.config.num_hidden_layers)])


def one_theta(p: Pass) -> Pass:
    return with_config(p, local_rope_theta=p.config.global_rope_theta)


def plain_activation(p: Pass) -> Pass:
    return with_config(p, hidden_activation="gelu")


def whole_window_per_side(p: Pass) -> Pass:
    return with_window(p, lambda w: None if w is None else p.config.local_attention)


def quarter_window_per_side(p: Pass) -> Pass:
    return with_window(p, lambda w: None if w is None else w // 2)


MISTAKES = (
    Mistake(
        "C1", "global theta on every layer",
        "The local theta is not read: sliding layers rotate with the theta of the full ones.",
        ("TensorRT-Model-Connect#692",), one_theta, SLIDING_ROTATED,
    ),
    Mistake(
        "C2a", "layer 0 treated as a local layer",
        "Layer 0 gets window and theta of the sliding layers; it is a full one.",
        ("llama.cpp#18330",), local_first_layer, SCHEDULE,
    ),
    Mistake(
        "C2b", "layer 0 given the local theta",
        "Layer 0 sees everything, as it should, but rotates with the sliding layers' theta.",
        ("llama.cpp#18330",), local_theta_in_first_layer, ("layers.0.q_rot", "layers.0.k_rot"),
    ),
    Mistake(
        "C3", "layer schedule shifted by one",
        "Layer i is full when (i + 1) % n == 0; it is full when i % n == 0.",
        ("keras-hub#2518",), shifted_schedule, SCHEDULE,
    ),
    Mistake(
        "C4a", "wrong theta constant, 80000 on full layers",
        "A constant in the code stands for the theta of the config.",
        ("ollama#13691",), lambda p: with_config(p, global_rope_theta=80000.0), FULL_ROTATED,
    ),
    Mistake(
        "C4b", "wrong theta constant, 10000 on every layer",
        "The customary 10000 stands for both thetas of the config.",
        ("ollama#13691",),
        lambda p: with_config(p, global_rope_theta=10000.0, local_rope_theta=10000.0), ROTATED,
    ),
    Mistake(
        "C5a", "one spelling of the thetas unread: the local one falls back on the global",
        "local_rope_theta, or rope_parameters of the sliding layers, are looked up under one "
        "spelling only and the global theta is taken instead.",
        ("vLLM#28542",), one_theta, SLIDING_ROTATED, klass="C1",
    ),
    Mistake(
        "C5b", "one spelling of the thetas unread: both fall back on the defaults",
        "The thetas are looked up under one spelling only: 160000 and 10000 stand for them.",
        ("vLLM#28542",),
        lambda p: with_config(p, global_rope_theta=160000.0, local_rope_theta=10000.0), ROTATED,
    ),
    Mistake(
        "C5c", "one spelling of the activation unread",
        "hidden_activation is looked up as hidden_act: GELU stands for it.",
        ("vLLM#44040",), plain_activation, ACTIVATED, klass="C6",
    ),
    Mistake(
        "C5d", "one spelling of the layer schedule unread",
        "layer_types is not read: every third layer is full, from layer 0.",
        ("vLLM#28542",), default_schedule, SCHEDULE,
    ),
    Mistake(
        "C6", "hidden_activation ignored",
        "The MLP always uses GELU; the config names another activation.",
        ("candle#3991", "EmbedAnything#211", "vLLM#44040"), plain_activation, ACTIVATED,
    ),
    Mistake(
        "C6b", "classifier_activation ignored",
        "The prediction head always uses GELU; the config names another activation.",
        ("candle#3991",), lambda p: with_config(p, classifier_activation="gelu"), ("head.act",),
    ),
    Mistake(
        "C7a", "eps of the norms 1e-12",
        "The eps of another BERT is used; it shows in rows of low variance.",
        (), lambda p: with_config(p, norm_eps=1e-12), NORMED,
    ),
    Mistake(
        "C7b", "eps of the norms 1e-6",
        "The eps of another model or key is used; it shows in rows of low variance.",
        (), lambda p: with_config(p, norm_eps=1e-6), NORMED,
    ),
    Mistake(
        "C8a", "window key halved twice",
        "Half the window is taken for the whole and halved again: 32 keys per side for 64.",
        ("transformers#43030",), quarter_window_per_side, ("layers.*.attention",), klass="W4b",
    ),
    Mistake(
        "C8b", "window key not halved",
        "The whole window is taken for half of it: 128 keys per side for 64.",
        ("transformers#43030",), whole_window_per_side, ("layers.*.attention",), klass="W4a",
    ),
)  # fmt: skip
