"""Low-rank adapters: W + scale B A in the place of W (MODEL.md (65), PEFT's form).

    merged(params, adapter), unmerged(params, adapter)   parameters with, and again without

Not here: folders (files/adapter.py), and how A and B are drawn and trained (train/lora.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

A, B = "lora_A.weight", "lora_B.weight"


@dataclass(frozen=True)
class Adapter:
    """pairs: name of a matrix without `.weight` -> (A [rank, in], B [out, rank]); scale: alpha /
    rank."""

    pairs: Mapping[str, tuple[Array, Array]]
    scale: float

    @property
    def rank(self) -> int:
        return next(iter(self.pairs.values()))[0].shape[0]

    def tensors(self) -> dict[str, Array]:
        """Name -> array, which a trainer changes in place."""
        return {
            f"{name}.{key}": x
            for name, pair in self.pairs.items()
            for key, x in zip((A, B), pair, strict=True)
        }

    def delta(self, name: str) -> Array:
        """scale B A, in the shape of W."""
        a, b = self.pairs[name]
        return (b @ a) * a.dtype.type(self.scale)


def merged(params: Mapping[str, Array], adapter: Adapter) -> dict[str, Array]:
    """The parameters with the adapter in their matrices; the others are the same arrays."""
    out = dict(params)
    for name in adapter.pairs:
        out[name + ".weight"] = params[name + ".weight"] + adapter.delta(name)
    return out


def unmerged(params: Mapping[str, Array], adapter: Adapter) -> dict[str, Array]:
    """The inverse of `merged`, to rounding."""
    out = dict(params)
    for name in adapter.pairs:
        out[name + ".weight"] = params[name + ".weight"] - adapter.delta(name)
    return out
