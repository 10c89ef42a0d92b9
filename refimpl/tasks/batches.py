"""Batches of similar length: less padding, and the order of the texts restored afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..progress import progress
from ..text.tokenizer import Encoded
from .task import check_batch_size


def in_length_order(
    encodings: Sequence[Encoded],
    batch_size: int,
    run: Callable[[list[Encoded]], np.ndarray],
    empty: np.ndarray,
    label: str,
    verbose: bool | None,
) -> np.ndarray:
    """`run` on batches of the longest texts first -> its rows in the order of `encodings`.

    run: encodings -> [batch, ...]; empty [0, ...] is the result for no encodings; label and verbose
    are those of a progress bar.
    """
    check_batch_size(batch_size)
    order = np.argsort([-len(e) for e in encodings], kind="stable")
    starts = range(0, len(order), batch_size)
    rows = [empty]
    for start in progress(starts, label, verbose):
        rows.append(run([encodings[i] for i in order[start : start + batch_size]]))
    return np.concatenate(rows)[np.argsort(order)]
