"""int8: the layers' matrix products of integers, the twin of csrc/kernels/int8_rows.inl.

    x [k]    -> round(x / s), s = max |x| / 127            per token
    W [n, k] -> round(w / t), t = max |w of its row| / 63  per row of W
    y = (sum of products of integers) s t + b

Rounding is to the nearest, ties to even. Sums of integers are exact, and the float steps are
float32, in one order: equal rows give equal bits here and in the engine, on every tier. Weights
have 7 bits since AVX2 sums two products in 16. A row that holds infinity or NaN becomes NaN. Kept
matrices stay floats: rounded to bfloat16, or float32. Norms, attention, activations and the
residual stream stay float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import ops as equations
from .encoder import Params

Array = np.ndarray

MOST_OF_ROW, MOST_OF_WEIGHTS = 127, 63
LEAST = np.float32(1e-30)
"""Of the largest number of a row: below it the row is as good as zero."""
MATRICES = ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
"""Of a layer, in the order in which a pass reads them."""
KEPT_IN = ("bfloat16", "float32")
"""What a matrix may be kept in."""
Kept = Mapping[str, str]
"""Which are: "layers.0.mlp.Wo" -> one of KEPT_IN."""


@dataclass(frozen=True)
class Integers:
    """Rows of numbers as integers: `whole` int8 [rows, k], `scale` float32 [rows]."""

    whole: Array
    scale: Array


def integers(x: Array, most: int) -> Integers:
    """x float32 [rows, k], each row as integers in -most .. most and their scale."""
    finite = np.isfinite(x).all(axis=-1)
    x = np.where(finite[:, None], x, np.float32(0.0))
    largest = np.maximum(np.abs(x).max(axis=-1), LEAST)
    whole = np.rint(x * (np.float32(most) / largest)[:, None]).astype(np.int8)
    return Integers(whole, np.where(finite, largest / np.float32(most), np.float32(np.nan)))


def linear(x: Array, weight: Array | Integers, bias: Array | None = None) -> Array:
    """y = x W^T + b; with integers for a weight, by products of integers.

    x float32 [..., in], weight of [out, in], bias [out] -> float32 [..., out].
    """
    if not isinstance(weight, Integers):
        return equations.linear(x, weight, bias)
    row = integers(x.reshape(-1, x.shape[-1]), MOST_OF_ROW)
    sums = exact_sums(row.whole, weight.whole)
    y = sums.astype(np.float32) * (row.scale[:, None] * weight.scale[None])
    y = y.reshape(*x.shape[:-1], len(weight.scale))
    return y if bias is None else y + bias


def exact_sums(x: Array, weight: Array) -> Array:
    """x int8 [rows, k] times weight int8 [n, k], transposed: exact, as floats."""
    # Whole numbers below 2^24 are exact in float32, in any order of the sum.
    small = x.shape[-1] * MOST_OF_ROW * MOST_OF_WEIGHTS < 2**24
    kind = np.float32 if small else np.float64
    a: Array = x.astype(kind)
    b: Array = weight.astype(kind)
    sums: Array = a @ b.T
    return sums


def to_bfloat16(x: Array) -> Array:
    """x float32, each rounded to the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    near = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) & np.uint32(
        0xFFFF0000
    )
    return np.where(np.isnan(x), x, near.view(np.float32))


def matrix_names(layers: int) -> list[str]:
    """Names of the matrices that become integers: "layers.0.attn.Wqkv" and so on."""
    return [f"layers.{i}.{name}" for i in range(layers) for name in MATRICES]


class Int8Params(Mapping[str, Any]):
    """params as int8 computes with them: matrices of the layers are Integers, made when they are
    first asked for, once; those that are kept are bfloat16 numbers, or as they were, as is the
    rest."""

    def __init__(self, params: Params, kept: Kept | None = None) -> None:
        self._params = params
        self._kept = {name + ".weight": dtype for name, dtype in (kept or {}).items()}
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        x = self._params[name]
        kept = self._kept.get(name)
        if not name.startswith("layers.") or x.ndim != 2 or kept == "float32":
            return x
        if name not in self._made:
            self._made[name] = to_bfloat16(x) if kept else integers(x, MOST_OF_WEIGHTS)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)


class Int8Ops:
    """The equations of `ops` with `linear` above, for Int8Params."""

    def __init__(self, ops: Any = equations) -> None:
        self._ops = ops

    linear = staticmethod(linear)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)
