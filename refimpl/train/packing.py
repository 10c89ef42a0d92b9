"""Sequences into rows of a fixed number of tokens, greedily by best fit (MODEL.md (58)).

    best_fit(lengths, capacity) -> [[0, 3], [1], [2, 4], ..]

Each sequence, in the order given, goes to the row whose room it leaves smallest, else opens a row.
So rows are nearly full, and a batch of them has little to pad or nothing, where a pass is packed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of sequence numbers, each of together at most `capacity` tokens, in the order opened.

    Of rows with the same room, the first opened takes a sequence. ValueError for a length below 1
    or above the capacity.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for i, length in enumerate(lengths):
        if not 1 <= length <= capacity:
            raise ValueError(f"lengths[{i}] is {length}; it must be in 1 .. capacity {capacity}")
        at = bisect_left(room, (length, -1))
        if at == len(room):
            rows.append([])
            left, row = capacity, len(rows) - 1
        else:
            left, row = room.pop(at)
        rows[row].append(i)
        insort(room, (left - length, row))
    return rows
