"""Adapters as a run has them: how they are drawn, and their gradients.

    adapter = drawn(params, rank=8, seed=0)      A by chance, B zero: nothing changes yet
    gradients(adapter, grads)                    dA and dB from dW (MODEL.md (65'))

What an adapter is stands in reference/lora.py, its folder in files/adapter.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..reference.lora import A, Adapter, B
from .counter import purpose, words

Array = np.ndarray

TARGETS = ("attn.Wqkv", "attn.Wo")


def drawn(
    params: Mapping[str, Array],
    rank: int,
    alpha: float = 0.0,
    seed: int = 0,
    targets: Sequence[str] = TARGETS,
) -> Adapter:
    """A uniform within 1 / sqrt(in), as PEFT draws it, B zero. alpha: scale x rank, default 2 rank.
    Raises ValueError for a rank below 1, or targets that no matrix has."""
    if rank < 1:
        raise ValueError(f"rank is {rank}; it must be at least 1")
    names = [n.removesuffix(".weight") for n, x in params.items() if x.ndim == 2]
    found = [n for n in names if any(n == t or n.endswith("." + t) for t in targets)]
    if not found:
        raise ValueError(f"targets is {list(targets)}; no matrix of the model has such a name")
    pairs = {}
    for name in found:
        w = params[name + ".weight"]
        n = rank * w.shape[1]
        by_chance = words(purpose(seed, "lora " + name), (np.arange(-(-n // 4)), 0, 0, 0))
        u = by_chance.reshape(-1)[:n].reshape(rank, -1).astype(np.float64) / 2**31 - 1.0
        a = (u / math.sqrt(w.shape[1])).astype(w.dtype)
        pairs[name] = a, np.zeros((w.shape[0], rank), w.dtype)
    return Adapter(pairs, (alpha or 2.0 * rank) / rank)


def gradients(adapter: Adapter, grads: Mapping[str, Array]) -> dict[str, Array]:
    """(65'): dA = scale B^T dW and dB = scale dW A^T, for each matrix whose dW is given."""
    out = {}
    for name, (a, b) in adapter.pairs.items():
        if name + ".weight" not in grads:
            continue
        d = grads[name + ".weight"] * a.dtype.type(adapter.scale)
        out[f"{name}.{A}"], out[f"{name}.{B}"] = b.T @ d, d @ a.T
    return out
