"""Numbers of a page: each is rounded once to decimals, and kept as the integer of its digits.

    kept = Kept.of(name, x)        n = round(x * 10^decimals), shown as n / 10^decimals
    packed([kept, ..])             base64 of deflate of the integers' bytes, the inverse is unpacked

Promise: what a page shows is what it holds: x rounded to `decimals`, so many that the root mean
square of the array has DIGITS digits. Nothing is rounded twice, and nothing is computed from
rounded numbers to be shown. ValueError for what is not finite, or too large for a page.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray

DIGITS = 4  # of an array's root mean square
MOST_DECIMALS = 9
LARGEST = 2**30  # of the integers: JavaScript has them in 32 bits, one of them for the sign


@dataclass(frozen=True)
class Kept:
    """An array as a page holds it: integers of `shape`, each times 10^-decimals the number."""

    name: str
    integers: Array
    decimals: int

    @classmethod
    def of(cls, name: str, x: Array, decimals: int | None = None) -> Kept:
        """x rounded to so many decimals (None: those that suit it). x float or int, any shape."""
        x = np.asarray(x, np.float64)
        if not np.isfinite(x).all():
            place = np.argwhere(~np.isfinite(x))[0].tolist()
            raise ValueError(
                f"{name} is {x[tuple(place)]} at {place}; a page shows finite numbers alone"
            )
        places = fitting_decimals(x) if decimals is None else decimals
        scaled = np.rint(x * 10.0**places)
        if x.size and np.abs(scaled).max() >= LARGEST:
            largest = float(np.abs(x).max())
            raise ValueError(f"{name} holds {largest:g}, which is too large for a page")
        return cls(name, scaled.astype(np.int64), places)

    @property
    def planes(self) -> int:
        """Bytes that an integer takes here: 1 to 4."""
        return max(1, (int(zigzag(self.integers).max(initial=0)).bit_length() + 7) // 8)

    @property
    def numbers(self) -> Array:
        """What is shown, float64."""
        return self.integers / 10.0**self.decimals

    @property
    def entry(self) -> list[Any]:
        """Its line in a block's list: what unpacked, and data.js, need to know."""
        return [self.name, list(self.integers.shape), self.decimals, self.planes]


def fitting_decimals(x: Array) -> int:
    """Decimals with which the root mean square has DIGITS digits, and the largest number fits."""
    largest = float(np.abs(x).max(initial=0.0))
    if largest == 0.0:
        return DIGITS
    size = largest * math.sqrt(float(np.mean((x / largest) ** 2)))
    wanted = DIGITS - 1 - math.floor(math.log10(size))
    room = math.floor(math.log10((LARGEST - 1) / largest))
    return max(0, min(wanted, room, MOST_DECIMALS))


def zigzag(integers: Array) -> Array:
    """0, -1, 1, -2, .. as 0, 1, 2, 3, ..: small numbers of either sign have zeros in front."""
    return ((integers << 1) ^ (integers >> 63)).astype(np.uint32)


def packed(arrays: Iterable[Kept]) -> str:
    """All of them, one after the other: first the lowest bytes of an array, then the next ones."""
    parts = []
    for kept in arrays:
        bytes_of_each = zigzag(kept.integers).astype("<u4").reshape(-1, 1).view(np.uint8)
        parts.append(np.ascontiguousarray(bytes_of_each[:, : kept.planes].T).tobytes())
    return base64.b64encode(zlib.compress(b"".join(parts), 9)).decode("ascii")


def unpacked(text: str, entries: Sequence[Sequence[Any]]) -> dict[str, Kept]:
    """The arrays of a block by their names. Raises ValueError for text that is no such block."""
    data = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), np.uint8)
    out, at = {}, 0
    for name, shape, decimals, planes in entries:
        size = math.prod(shape)
        if at + size * planes > data.size:
            raise ValueError(f"the block ends within {name}")
        found = np.zeros(size, np.int64)
        for plane in range(planes):
            found |= data[at : at + size].astype(np.int64) << (8 * plane)
            at += size
        out[name] = Kept(name, ((found >> 1) ^ -(found & 1)).reshape(shape), decimals)
    if at != data.size:
        raise ValueError(f"{data.size - at} bytes follow the last array of the block")
    return out
