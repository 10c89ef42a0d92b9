"""The resolved plan of a model: every fact of its config that the numbers depend on, per layer.

A port that can say what it is going to compute is compared here first, exactly: most wrong ports
are wrong before they compute anything (a theta left unread, a schedule shifted by one). Facts that
the port does not tell are not compared; facts that nobody knows are named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...reference.config import ModernBertConfig

Plan = dict[str, Any]

# Names of one function under which configs and ports know it.
SAME_ACTIVATION = {
    "swish": "silu",
    "gelu_new": "gelu_pytorch_tanh",
    "gelu_tanh": "gelu_pytorch_tanh",
}


def plan_of(config: ModernBertConfig, head: str | None = None) -> Plan:
    """Flat dict: `hidden_size`, ..., `layers.{i}.window` (largest visible distance, None = all),
    `layers.{i}.theta`, `layers.{i}.attn_norm` (whether it has one), and the head's facts.
    """
    plan: Plan = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "head_dim": config.head_dim,
        "scale": config.head_dim**-0.5,
        "hidden_activation": _activation(config.hidden_activation),
        "norm_eps": config.norm_eps,
        "norm_bias": config.norm_bias,
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
    }
    for i in range(config.num_hidden_layers):
        plan[f"layers.{i}.window"] = config.window(i)
        plan[f"layers.{i}.theta"] = config.rope_theta(i)
        plan[f"layers.{i}.attn_norm"] = i > 0
    if head is not None:
        plan["classifier_activation"] = _activation(config.classifier_activation)
        plan["classifier_bias"] = config.classifier_bias
    if head == "sequence_classification":
        plan["classifier_pooling"] = config.classifier_pooling
    if head == "masked_lm":
        plan["tie_word_embeddings"] = config.tie_word_embeddings
        plan["decoder_bias"] = config.decoder_bias
    return plan


def flatten(plan: Mapping[str, Any]) -> Plan:
    """A port's plan, flat: nested dicts and lists joined with dots, activations named alike."""
    flat: Plan = {}
    for key, value in plan.items():
        if isinstance(value, (list, tuple)):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": x for name, x in flatten(value).items()}
        else:
            flat[str(key)] = _activation(value) if str(key).endswith("_activation") else value
    return flat


def differences(
    expected: Plan, told: Mapping[str, Any]
) -> tuple[dict[str, tuple[Any, Any]], list[str]]:
    """({fact: (expected, told)} where they differ, facts that were told and nobody knows)."""
    flat = flatten(told)
    wrong = {
        k: (expected[k], x) for k, x in flat.items() if k in expected and not _same(expected[k], x)
    }
    return wrong, [k for k in flat if k not in expected]


def _same(expected: Any, told: Any) -> bool:
    """Exactly the same; numbers by value (160000 is 160000.0), but a bool is no number."""
    if isinstance(expected, bool) or isinstance(told, bool):
        return isinstance(told, bool) and expected == told
    return bool(expected == told)


def _activation(name: Any) -> Any:
    return SAME_ACTIVATION.get(name, name) if isinstance(name, str) else name
