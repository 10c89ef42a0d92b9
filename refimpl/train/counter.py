"""Random numbers by counter, keyed by what they are for: Philox4x32-10 (MODEL.md (51)).

    words(key, counter)    four words of 32 random bits for each counter, a pure function of the two
    purpose(seed, text)    the key of one use, e.g. purpose(7, "dropout layers.3.attn_out")

Nothing is drawn in an order, so nothing depends on how often a run was stopped, how its batches
were split, or what else was drawn. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as
easy as 1, 2, 3" (SC 2011), whose published answers the tests compare with.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

ROUNDS = 10
# Multipliers of the two products of a round, and what the two key words grow by after it.
M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = 0x9E3779B9, 0xBB67AE85
LOW, HALF = np.uint64(0xFFFF_FFFF), np.uint64(32)
# FNV-1a of 64 bits: where it starts, and what it multiplies with.
FNV_START, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


def words(key: int, counter: tuple[Array | int, Array | int, Array | int, Array | int]) -> Array:
    """Four random words for each counter.

    key: 64 bits. counter: four integers of 32 bits, or arrays that broadcast together to a shape
    [..] -> uint32 [.., 4].
    """
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(c, np.uint64) for c in counter))
    k0, k1 = key & 0xFFFF_FFFF, key >> 32
    for _ in range(ROUNDS):
        p0, p1 = c0 * M0, c2 * M1
        c0, c1, c2, c3 = (
            (p1 >> HALF) ^ c1 ^ np.uint64(k0),
            p1 & LOW,
            (p0 >> HALF) ^ c3 ^ np.uint64(k1),
            p0 & LOW,
        )
        k0, k1 = (k0 + W0) & 0xFFFF_FFFF, (k1 + W1) & 0xFFFF_FFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def purpose(seed: int, text: str) -> int:
    """The key of a use: FNV-1a, 64 bits, of "<seed> <text>" in UTF-8."""
    out = FNV_START
    for byte in f"{seed} {text}".encode():
        out = (out ^ byte) * FNV_PRIME & 0xFFFF_FFFF_FFFF_FFFF
    return out
