"""Mistakes of plan and config (C): what a port makes of config.json before the first number.

Long because a row of the zoo and its one-line change stand together, mistake by mistake.
"""

from __future__ import annotations

from ...reference.config import FULL, SLIDING, ModernBertConfig
from ..truth.passes import Pass, config_of
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


NEW_KEYS = ("layer_types", "rope_parameters")
OLD_KEYS = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")


def unread(p: Pass, keys: tuple[str, ...]) -> Pass:
    """Thetas and schedule as they are to someone who does not know these keys of config.json."""
    if not p.written:
        return p
    whole = config_of(p.written)
    part = config_of({k: x for k, x in p.written.items() if k not in keys})
    read = ("layer_types", "global_rope_theta", "local_rope_theta")
    other = {name: getattr(part, name) for name in read}
    return with_config(p, **{k: x for k, x in other.items() if x != getattr(whole, k)})


def tanh_for_others(p: Pass) -> Pass:
    if p.config.hidden_activation == "gelu":
        return p
    return with_config(p, hidden_activation="gelu_pytorch_tanh")


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
        "C4c", "constants for the thetas, 160000 and 10000",
        "The defaults stand for the thetas of the config.",
        (), lambda p: with_config(p, global_rope_theta=160000.0, local_rope_theta=10000.0), ROTATED,
    ),
    Mistake(
        "C5b", "new spelling of the thetas unread: both fall back on the defaults",
        "rope_parameters is not read: where it stands alone, 160000 and 10000 are taken.",
        ("vLLM#28542",), lambda p: unread(p, ("rope_parameters",)), ROTATED,
    ),
    Mistake(
        "C5c", "one spelling of the activation unread",
        "hidden_activation is looked up as hidden_act: GELU stands for it.",
        ("vLLM#44040",), plain_activation, ACTIVATED, klass="C6",
    ),
    Mistake(
        "C5d", "new spelling of the layer schedule unread",
        "layer_types is not read: where it stands alone, every third layer is full, from layer 0.",
        ("vLLM#28542",), lambda p: unread(p, ("layer_types",)), SCHEDULE,
    ),
    Mistake(
        "C5e", "only the old spelling of the config read",
        "layer_types and rope_parameters are not read: where they stand alone, thetas and schedule "
        "are the defaults.",
        ("vLLM#28542",), lambda p: unread(p, NEW_KEYS), (*ROTATED, *SCHEDULE),
    ),
    Mistake(
        "C5f", "only the new spelling of the config read",
        "global_attn_every_n_layers, global_rope_theta and local_rope_theta are not read: where "
        "they stand alone, thetas and schedule are the defaults.",
        (), lambda p: unread(p, OLD_KEYS), (*ROTATED, *SCHEDULE),
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
