"""One vector a sequence, as embedders hand it out: steps of every case that is not packed.

    mean_pooled, mean_normalised    [batch, hidden]: the mean over real tokens; that / its length
    cls_pooled, cls_normalised      column 0, where it is a real token of every row that has any

They are made of `final_norm`, whatever head the model has, so that a port that gives nothing else
can be judged. Under left padding column 0 is padding, where a port may give what it likes: such
cases have the mean alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

import numpy as np

from ...reference.encoder import Tap
from ...reference.pooling import pool

Array = np.ndarray
VECTORS = ("mean_pooled", "mean_normalised", "cls_pooled", "cls_normalised")
Vectors = Callable[[Array, Array | None, Tap], None]
"""hidden [batch, seq, hidden], attention_mask [batch, seq] or None, tap -> the steps are tapped."""


def vector_steps(inputs: Mapping[str, Array | None]) -> tuple[str, ...]:
    """Those that a case with these inputs has."""
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if inputs.get("cu_seqlens") is not None or ids is not None and ids.ndim != 2:
        return ()
    return VECTORS if mask is None or _starts_real(mask) else VECTORS[:2]


def _starts_real(mask: Array) -> bool:
    visible = mask != 0
    return bool((visible[:, 0] | ~visible.any(axis=1)).all())


def vectors_of(inputs: Mapping[str, Array | None]) -> Vectors | None:
    """What makes them of a case with these inputs, whatever a mistake makes of the mask."""
    steps = vector_steps(inputs)
    return partial(vectors, steps) if steps else None


def vectors(steps: Collection[str], hidden: Array, mask: Array | None, tap: Tap) -> None:
    """The steps, in their order. A row without any real token gives zeros."""
    for how in ("mean", "cls"):
        if f"{how}_pooled" in steps:
            x = tap(f"{how}_pooled", pool(hidden, mask, how))
            tap(f"{how}_normalised", normalised(x))


def normalised(x: Array) -> Array:
    """x / |x| of each row; a row of zeros stays."""
    length = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / np.where(length == 0.0, length.dtype.type(1), length)
