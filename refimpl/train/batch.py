"""The input of a training step: padded or packed, and the shapes in which heads want it.

    padded   ids [batch, seq] (multiple choice: [batch, choices, seq]), or a dict as models take it
    packed   {"input_ids": [total], "cu_seqlens": [batch + 1]}

Heads with one answer per sequence take [batch, seq, hidden], those with one per token take the
tokens that have a label. Every token knows its sequence and its position, for dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..models.inputs import check_inputs, check_packed
from ..models.model import ModernBERT
from .losses import IGNORED

Array = np.ndarray


@dataclass(frozen=True)
class Batch:
    """inputs: `encode`'s keyword arguments. axes: of the tokens in the encoder, [batch, seq] or
    [total]. mask: real tokens of each sequence, in the shape that heads take. sequence, position:
    of each token, int, shape axes. places: packed, where each token stands in `mask`, flattened."""

    inputs: Mapping[str, Array | None]
    axes: tuple[int, ...]
    mask: Array
    sequence: Array
    position: Array
    places: Array | None

    def sequences(self, hidden: Array) -> Array:
        """[*axes, hidden] -> [*mask.shape, hidden]; zeros where a packed sequence has ended."""
        if self.places is None:
            return hidden.reshape(*self.mask.shape, -1)
        out = np.zeros((self.mask.size, hidden.shape[-1]), hidden.dtype)
        out[self.places] = hidden
        return out.reshape(*self.mask.shape, -1)

    def tokens(self, d: Array) -> Array:
        """The adjoint of `sequences`: [*mask.shape, hidden] -> [*axes, hidden]."""
        if self.places is None:
            return d.reshape(*self.axes, -1)
        return d.reshape(-1, d.shape[-1])[self.places]

    def real(self) -> Array:
        """Whether each token is real, bool, shape axes."""
        if self.places is None:
            return self.mask.reshape(self.axes) != 0
        return np.ones(self.axes, bool)


@dataclass(frozen=True)
class View:
    """What a head sees of the hidden states: `hidden` and `mask` as its forward pass takes them,
    with the labels that belong to them; `back` is the way back to the shape of the encoder.
    sequence, position: int, of each vector in the steps of the head."""

    hidden: Array
    mask: Array | None
    labels: Any
    sequence: Array
    position: Array
    back: Callable[[Array], Array]


def rows_with_labels(batch: Batch, hidden: Array, labels: Array) -> View:
    """The labelled tokens alone, [rows, hidden]: the others cost a head nothing."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    rows = np.flatnonzero(labels != IGNORED)

    def back(d: Array) -> Array:
        out = np.zeros_like(flat)
        out[rows] = d
        return out.reshape(hidden.shape)

    where = batch.sequence.reshape(-1)[rows], batch.position.reshape(-1)[rows]
    return View(flat[rows], None, labels.reshape(-1)[rows], *where, back)


def whole_sequences(batch: Batch, hidden: Array, labels: Any, *, pooled: bool) -> View:
    """[*mask.shape, hidden]. pooled: the head's steps have one vector per sequence."""
    *rows, seq = batch.mask.shape
    n = int(np.prod(rows))
    sequence, position = np.indices((n, 1 if pooled else seq))
    return View(batch.sequences(hidden), batch.mask, labels, sequence, position, batch.tokens)


def batch_of(model: ModernBERT, inputs: Mapping[str, Any] | Any, choices: bool, rows: int) -> Batch:
    """Checked input. choices: a multiple-choice model's, whose packed sequences are the choices of
    `rows` questions, one question after the other. Raises ValueError."""
    if isinstance(inputs, Mapping) and inputs.get("cu_seqlens") is not None:
        return _packed(model, inputs, choices, rows)
    checked = check_inputs(model.config, inputs, dtype=model.dtype, axes=model.axes)
    given = checked.rows()
    assert given["attention_mask"] is not None
    n, seq = given["attention_mask"].shape
    sequence, position = np.indices((n, seq))
    return Batch(given, (n, seq), checked.attention_mask, sequence, position, None)


def _packed(model: ModernBERT, inputs: Mapping[str, Any], choices: bool, rows: int) -> Batch:
    unknown = sorted(set(inputs) - {"input_ids", "cu_seqlens"})
    if unknown:
        raise ValueError(
            f"inputs has the key {unknown[0]!r} beside cu_seqlens; packed inputs are input_ids and "
            "cu_seqlens"
        )
    ids, cu = check_packed(model.config, inputs.get("input_ids"), inputs["cu_seqlens"])
    lengths = np.diff(cu)
    n, seq = len(lengths), int(lengths.max())
    sequence = np.repeat(np.arange(n), lengths)
    position = np.arange(len(ids)) - cu[sequence]
    mask = (np.arange(seq)[None, :] < lengths[:, None]).astype(np.int64)
    if choices:
        if rows < 1 or n % rows:
            raise ValueError(
                f"cu_seqlens holds {n} sequences for {rows} questions; it must be the same number "
                "for each"
            )
        mask = mask.reshape(rows, n // rows, seq)
    given: dict[str, Array | None] = {"input_ids": ids, "cu_seqlens": cu}
    return Batch(given, ids.shape, mask, sequence, position, sequence * seq + position)
