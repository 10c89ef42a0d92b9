"""A text's numbers in the blocks of a page, and the facts that its script starts from.

blocks(found)         "start", "layers.0", ..: each a list of Kept, unpacked when it is looked at
facts(found, ..)      JSON-ready: sizes, tokens, windows, names of answers, what a block holds
"""

from __future__ import annotations

from typing import Any

from .explained import Explained
from .numbers import Kept

# Decimals of what is compared from place to place, by the last part of a name; the others' suit
# their size.
DECIMALS = {"probs": 4, "ids": 0, "inv_freq": 9, "activation": 4}
# In a long text a share of attention is small: so many tokens, so many decimals.
OF_MAPS = ((256, 4), (2048, 5))
MOST_OF_MAPS = 6


def blocks(found: Explained) -> dict[str, list[Kept]]:
    """All arrays, rounded, by their blocks. Raises ValueError for what is not finite."""
    out: dict[str, list[Kept]] = {}
    for name, x in found.arrays.items():
        parts = name.split(".")
        block = ".".join(parts[:2]) if parts[0] == "layers" else "start"
        decimals = DECIMALS.get(parts[-1])
        if block != "start" and parts[-1] in ("probs", "overview"):
            decimals = next((d for n, d in OF_MAPS if len(found.ids) <= n), MOST_OF_MAPS)
        out.setdefault(block, []).append(Kept.of(name, x, decimals))
    return out


def facts(found: Explained, label: str, kept: dict[str, list[Kept]]) -> dict[str, Any]:
    """What a page's script knows of a text before it unpacks a block. label: "a" or "b"."""
    config, chosen, answers = found.config, found.chosen, found.answers
    every = range(config.num_hidden_layers)
    return {
        "label": label,
        "model": found.model,
        "text": found.text,
        "ids": found.ids,
        "tokens": found.tokens,
        "masks": found.masks,
        "lost": found.lost,
        "centre": found.centre,
        "rows": chosen.rows,
        "whole": chosen.whole,
        "columns": chosen.columns,
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "inter": config.intermediate_size,
        "heads": config.num_attention_heads,
        "head_dim": config.head_dim,
        "windows": [config.window(i) for i in every],
        "kinds": [config.layer_types[i].removesuffix("_attention") for i in every],
        "thetas": {"full": config.global_rope_theta, "sliding": config.local_rope_theta},
        "norm_eps": config.norm_eps,
        "activation": config.hidden_activation,
        "classifier_activation": config.classifier_activation,
        "answers": {
            "kind": answers.kind,
            "why": answers.why,
            "function": answers.function,
            "of_the_text": answers.of_the_text,
            "names": answers.names,
        },
        "blocks": {name: [k.entry for k in arrays] for name, arrays in kept.items()},
    }
