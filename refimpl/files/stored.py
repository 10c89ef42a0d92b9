"""Parameters as a file holds them, widened when they are looked at.

    params = StoredParams({"w": a float16 array}, np.float32)
    params["w"]           float32: the very array where that is in memory, else a copy
    params.stored["w"]    what is stored, often a view of a mapped file; bfloat16 as BFLOAT16
    ForProducts(params)   the same, with no wide copy of a large matrix that is only multiplied with

Promise: nothing is read or widened before it is asked for, and a stored array is never changed.
What was read of a file, or widened, is kept for the next time, but for the names in `unkept`: the
matrices that the CPU engine holds in a form of its own, so that looking at them costs time, not
memory. A file that was changed since it was opened is an OSError when it is asked for more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from .bfloat16 import BFLOAT16, widen
from .safetensors import in_file, in_memory

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
        if stored.dtype == self.dtype and in_file(stored) is None:
            return stored
        found = self._kept.get(name)
        if found is None:
            found = widened(in_memory(stored), self.dtype)
            found.flags.writeable = False
            if name not in self.unkept:
                self._kept[name] = found
        return found

    def __setitem__(self, name: Name, value: Any) -> NoReturn:
        raise TypeError(
            "params of a model are read-only; change dict(model.params), and make a new model: "
            "type(model)(model.config, params), with a head "
            "type(model)(model.config, params, model.head)"
        )

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


class ForProducts(Mapping[Name, Any]):
    """StoredParams for `ops.linear`: an unkept matrix that would have to be read or widened is
    ByRows."""

    def __init__(self, params: StoredParams) -> None:
        self._params = params

    def __getitem__(self, name: Name) -> Any:
        params = self._params
        stored = params.stored[name]
        if name in params.unkept and stored.ndim == 2:
            if stored.dtype != params.dtype or in_file(stored) is not None:
                return ByRows(stored, params.dtype)
        return params[name]

    def __contains__(self, name: object) -> bool:
        return name in self._params

    def __iter__(self) -> Iterator[Name]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)


class ByRows:
    """A stored matrix [rows, columns] in x @ matrix.T, read and widened BLOCK values at a time."""

    __array_ufunc__ = None  # x @ this is asked of this, not of x

    def __init__(self, stored: Array, dtype: np.dtype) -> None:
        self.shape, self.dtype = stored.shape, dtype
        self._stored = stored

    @property
    def T(self) -> ByRows:
        """Itself: it stands transposed, on the right of a product, and nowhere else."""
        return self

    def __rmatmul__(self, x: Array) -> Array:
        """x [n, columns] -> x @ matrix.T [n, rows]."""
        rows, columns = self.shape
        out = np.empty((len(x), rows), x.dtype)
        step = max(1, BLOCK // columns)
        for start in range(0, rows, step):
            some = slice(start, start + step)
            out[:, some] = x @ widened(in_memory(self._stored[some]), self.dtype).T
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
