"""Which examples a step learns from: a new order for every epoch, from a counter (MODEL.md (51)).

    batch_at(step, n, batch_size, seed) -> the numbers of its examples

A pure function of its arguments: a run that was stopped goes on with the batches that it would have
had. The last batch of an epoch may be smaller, and is divided by its own count.
"""

from __future__ import annotations

import numpy as np

from .counter import purpose, words

Array = np.ndarray


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Batches that n examples make."""
    return -(-n // batch_size)


def shuffled(n: int, seed: int, epoch: int) -> Array:
    """0 .. n - 1 in the order of an epoch: sorted by 64 random bits each."""
    drawn = words(purpose(seed, "order"), (np.arange(n), epoch, 0, 0)).astype(np.uint64)
    return np.argsort(drawn[:, 0] << np.uint64(32) | drawn[:, 1], kind="stable")


def batch_at(step: int, n: int, batch_size: int, seed: int) -> Array:
    """The examples of a step, steps counting from 0 through all epochs."""
    epoch, place = divmod(step, steps_per_epoch(n, batch_size))
    return shuffled(n, seed, epoch)[place * batch_size : (place + 1) * batch_size]


def chunks(lengths: Array, most_tokens: int) -> list[slice]:
    """Runs of consecutive sequences: together at most most_tokens tokens, or a longer one alone."""
    out, start, total = [], 0, 0
    for i, length in enumerate(lengths):
        if i > start and total + length > most_tokens:
            out.append(slice(start, i))
            start, total = i, 0
        total += int(length)
    return [*out, slice(start, len(lengths))]
