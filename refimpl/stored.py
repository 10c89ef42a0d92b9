"""Parameters as a file holds them, widened when they are looked at.

    params = StoredParams({"w": a float16 array}, np.float32)
    params["w"]           float32: the very array where that is what is stored, else a wider copy
    params.stored["w"]    what is stored, often a view of a mapped file; bfloat16 as BFLOAT16

Promise: nothing is widened before it is asked for, and a stored array is never changed. A wider
copy is kept for the next time, but for the names in `unkept`: the matrices that the CPU engine
holds in a form of its own, so that looking at them costs time, not memory. No files here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .bfloat16 import BFLOAT16, widen

Array = np.ndarray
Name = str

# Values widened at a time where a whole matrix is not needed: 16 MiB of float32.
BLOCK = 2**22
# Bits of the exponent: all are set in infinities and NaN, and in nothing else.
EXPONENTS: dict[Any, tuple[np.dtype[Any], int]] = {
    BFLOAT16: (np.dtype("<u2"), 0x7F80),
    np.dtype("<f2"): (np.dtype("<u2"), 0x7C00),
    np.dtype("<f4"): (np.dtype("<u4"), 0x7F80_0000),
    np.dtype("<f8"): (np.dtype("<u8"), 0x7FF0_0000_0000_0000),
}


class StoredParams(Mapping[Name, Array]):
    """Name -> array of `dtype`, float32 or float64; read-only. See above."""

    def __init__(
        self, stored: Mapping[Name, Array], dtype: np.dtype | type, unkept: Iterable[Name] = ()
    ) -> None:
        self.stored = dict(stored)
        self.dtype = np.dtype(dtype)
        self.unkept = frozenset(unkept)
        self._kept: dict[Name, Array] = {}

    def __getitem__(self, name: Name) -> Array:
        stored = self.stored[name]
        if stored.dtype == self.dtype:
            return stored
        found = self._kept.get(name)
        if found is None:
            found = widened(stored, self.dtype)
            if name not in self.unkept:
                self._kept[name] = found
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.stored

    def __iter__(self) -> Iterator[Name]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def only(self, names: Iterable[Name]) -> StoredParams:
        """Those of some names; what is kept is shared."""
        part = StoredParams({n: self.stored[n] for n in names}, self.dtype, self.unkept)
        part._kept = self._kept
        return part


def stored(params: Mapping[Name, Array]) -> Mapping[Name, Array]:
    """What is stored, of StoredParams; any other mapping as it is."""
    return params.stored if isinstance(params, StoredParams) else params


def linear_by_rows(
    params: Mapping[Name, Array],
    name: Name,
    bias: Array | None,
    x: Array,
    linear: Callable[[Array, Array, Array | None], Array],
) -> Array:
    """linear(x, params[name], bias), without widening the whole of a matrix that is not kept."""
    if not isinstance(params, StoredParams) or name not in params.unkept:
        return linear(x, params[name], bias)
    weight = params.stored[name]
    if weight.dtype == params.dtype:
        return linear(x, weight, bias)
    out = np.empty((*x.shape[:-1], len(weight)), x.dtype)
    step = max(1, BLOCK // weight.shape[1])
    for start in range(0, len(weight), step):
        rows = slice(start, start + step)
        block = widened(weight[rows], params.dtype)
        out[..., rows] = linear(x, block, None if bias is None else bias[rows])
    return out


def widened(x: Array, dtype: np.dtype | type) -> Array:
    """A stored array in a dtype that holds all its values: itself where it has that dtype."""
    return (widen(x["bits"]) if x.dtype == BFLOAT16 else x).astype(dtype, copy=False)


def dtype_name(x: Array) -> str:
    """The dtype of a stored array as configs and callers spell it."""
    return "bfloat16" if x.dtype == BFLOAT16 else x.dtype.name


def any_infinite(x: Array) -> bool:
    """Whether a stored array holds an infinity or NaN."""
    if x.dtype not in EXPONENTS:  # of another byte order, or no floats
        return x.dtype.kind == "f" and not np.isfinite(x).all()
    bits, exponent = EXPONENTS[x.dtype]
    return x.size > 0 and int((x.view(bits) & bits.type(exponent)).max()) == exponent
