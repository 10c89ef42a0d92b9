"""Which texts share a pass of the model, by their tokens, for all that runs a model on texts.

    fits(lengths) -> how many of them, from the first on, one pass takes
    in_passes(encodings, run): longest first -> passes -> (places, what `run` gives for them)

Promise: a pass has at most `batch_size` texts, and at most TOKENS tokens unless it is one text. The
engine computes no padding and gives a text the same bits in any company, so the budget is a choice
of latency and memory alone; with numpy texts of similar length waste least.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from ..progress import Progress
from ..text.tokenizer import Encoded

T = TypeVar("T")

TOKENS = 1024
"""Tokens of a pass: beyond it the engine is hardly faster, and whoever waits waits longer."""


def check_batch_size(batch_size: int | None) -> None:
    """ValueError for what is neither None nor an int of at least 1."""
    if batch_size is None:
        return
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be an int of at least 1, or None, not {batch_size!r}")


def fits(lengths: Iterable[int], batch_size: int | None = None, tokens: int = TOKENS) -> int:
    """How many texts of these lengths, from the first on, one pass takes; the first in any case."""
    total = 0
    count = 0
    for length in lengths:
        total += length
        if count and (total > tokens or count == batch_size):
            break
        count += 1
    return count


def in_passes(
    encodings: Sequence[Encoded],
    run: Callable[[list[Encoded]], T],
    batch_size: int | None = None,
    *,
    key: Hashable = None,
    label: str = "",
    verbose: bool | None = False,
) -> Iterator[tuple[np.ndarray, T]]:
    """Places in `encodings`, int64 [batch], and `run` of what stands there, until all have run.

    batch_size: most texts of a pass; None leaves it to their tokens. label, verbose: of a progress
    bar that counts texts. key: calls with equal ones may share passes, where somebody else than
    this function brings calls together (serve/lanes.py takes its place). Raises ValueError, before
    anything is run, for a batch_size.
    """
    check_batch_size(batch_size)
    lengths = [len(e) for e in encodings]
    order = np.argsort([-n for n in lengths], kind="stable")

    def passes() -> Iterator[tuple[np.ndarray, T]]:
        start = 0
        with Progress(label, len(order), verbose) as shown:
            while start < len(order):
                count = fits((lengths[i] for i in order[start:]), batch_size)
                places = order[start : start + count]
                yield places, run([encodings[i] for i in places])
                shown.advance(count)
                start += count

    return passes()


Passes = Callable[..., Iterator[tuple[np.ndarray, Any]]]
"""`in_passes`, or what stands in its place with the same arguments."""
