"""A larger model's starting weights from a smaller one's, tiled from its centre (MODEL.md 8).

    layer i of the large model        <- layer round(i * l / L) of the base, half to even
    new[j] = old[(j - (N - n) // 2) mod n]      on every axis of every matrix, n -> N entries

so that the base's block stands in the middle and wraps around. Q, K, V and the two halves of the
gated MLP are tiled apart. The vocabulary axis is the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from .config import ModernBertConfig
from .heads import HEADS
from .params import encoder_shapes

Array = np.ndarray


def tile_from(
    base_params: Mapping[str, Array], base_config: ModernBertConfig, large_config: ModernBertConfig
) -> dict[str, Array]:
    """Parameters for large_config, in the base's dtype, from those of base_config.

    base_params: an encoder's, or those of a masked-LM model, whose head comes along. A norm that
    the base lacks (before the attention of its layer 0) starts at 1. Raises ValueError when the
    vocabularies differ or a tensor has no counterpart.
    """
    for name in ("vocab_size", "type_vocab_size"):
        small, large = getattr(base_config, name), getattr(large_config, name)
        if small != large:
            raise ValueError(f"{name} is {large} in large_config; it must be the base's {small}")
    shapes = encoder_shapes(large_config)
    if "head.dense.weight" in base_params:
        shapes = shapes | HEADS["masked_lm"].shapes(large_config)
    source = layer_map(base_config.num_hidden_layers, large_config.num_hidden_layers)
    dtype = base_params["final_norm.weight"].dtype
    out = {}
    for name, shape in shapes.items():
        at = source_name(name, source)
        if at.startswith("layers.0.attn_norm."):
            out[name] = np.full(shape, 1.0 if at.endswith("weight") else 0.0, dtype)
        elif at not in base_params:
            raise ValueError(f"base_params has no {at!r}, which {name!r} would be tiled from")
        else:
            out[name] = tile(base_params[at], shape, parts(at))
    return out


def layer_map(small: int, large: int) -> list[int]:
    """The base's layer for each of the large model: round(i * small / large), half to even."""
    return [min(round(Fraction(i * small, large)), small - 1) for i in range(large)]


def source_name(name: str, layers: list[int]) -> str:
    """The base's tensor that a tensor of the large model comes from."""
    head, *rest = name.split(".")
    return name if head != "layers" else ".".join([head, str(layers[int(rest[0])]), *rest[1:]])


def parts(name: str) -> int:
    """How many matrices stand one above the other in the tensor of that name."""
    if ".attn.Wqkv." in name:
        return 3
    return 2 if ".mlp.Wi." in name else 1


def tile(old: Array, shape: tuple[int, ...], parts: int = 1) -> Array:
    """old, tiled from the centre to `shape` on every axis; axis 0 in so many equal parts."""
    pieces = np.split(old, parts)
    rows = centred(old.shape[0] // parts, shape[0] // parts)
    out = np.concatenate([piece[rows] for piece in pieces])
    return out if out.ndim == 1 else out[:, centred(old.shape[1], shape[1])]


def centred(n: int, size: int) -> Array:
    """The old index of each of `size` new ones: (j - (size - n) // 2) mod n."""
    return (np.arange(size) - (size - n) // 2) % n
