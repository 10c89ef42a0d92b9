"""Checks of what a user hands to a model, before any computation.

`check_inputs` turns a dict or an array of ids into arrays of known shape and dtype, or raises a
ValueError that names the argument, the offending value with its position, and what would be right.
Nothing is repaired: a wrong mask is an error, not a guess. Long because every argument's refusals
stand in one place.
"""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import LongInputWarning
from ..reference.config import ModernBertConfig
from ..reference.numerics import as_array
from ..text.tokenizer import Encoded

Array = np.ndarray
KEYS = ("input_ids", "inputs_embeds", "attention_mask", "token_type_ids", "position_ids")


@dataclass(frozen=True)
class Inputs:
    """Checked input. Leading axes: [batch, seq], or [batch, choices, seq] for multiple choice."""

    input_ids: Array | None
    inputs_embeds: Array | None
    attention_mask: Array
    token_type_ids: Array | None
    position_ids: Array | None

    @property
    def axes(self) -> tuple[int, ...]:
        return self.attention_mask.shape

    def rows(self) -> dict[str, Array | None]:
        """The encoder's keyword arguments, leading axes flattened to [rows, seq]."""
        n = len(self.axes)
        return {
            key: None if x is None else x.reshape(-1, *x.shape[n - 1 :])
            for key, x in vars(self).items()
        }


def check_inputs(
    config: ModernBertConfig,
    inputs: Mapping[str, Any] | Any,
    attention_mask: Any = None,
    position_ids: Any = None,
    *,
    dtype: np.dtype,
    axes: tuple[str, ...] = ("batch", "seq"),
) -> Inputs:
    """Check and convert. `inputs` is a dict with keys of KEYS, or an array of ids of shape `axes`.

    A mask that is left out means that every token is visible. Raises ValueError.
    """
    given = dict(inputs) if isinstance(inputs, Mapping) else {"input_ids": inputs}
    unknown = sorted(set(map(str, given)) - set(KEYS))
    if unknown:
        refuse_text(unknown[0], given.get(unknown[0]))
        raise ValueError(f"inputs has the unknown key {unknown[0]!r}; known: {', '.join(KEYS)}")
    for name, value in (("attention_mask", attention_mask), ("position_ids", position_ids)):
        if value is not None:
            if given.get(name) is not None:
                raise ValueError(f"{name} is given twice, in inputs and as an argument")
            given[name] = value
    values = {name: given.get(name) for name in KEYS}
    if (values["input_ids"] is None) == (values["inputs_embeds"] is None):
        raise ValueError("inputs needs exactly one of input_ids and inputs_embeds")

    ids = embeds = None
    if values["input_ids"] is not None:
        refuse_text("input_ids", values["input_ids"])
        ids = _integers("input_ids", values["input_ids"], axes)
        _in_range("input_ids", ids, config.vocab_size, "vocab_size")
        shape = ids.shape
    else:
        embeds = _embeddings(values["inputs_embeds"], axes, config.hidden_size, dtype)
        shape = embeds.shape[:-1]

    mask = values["attention_mask"]
    types = values["token_type_ids"]
    positions = values["position_ids"]
    checked = Inputs(
        ids,
        embeds,
        np.ones(shape, np.int64) if mask is None else _mask(mask, shape),
        None if types is None else _token_types(types, shape, config),
        None if positions is None else _positions(positions, shape),
    )
    warn_if_long(shape[-1], config)
    return checked


def check_packed(config: ModernBertConfig, input_ids: Any, cu_seqlens: Any) -> tuple[Array, Array]:
    """Ids [total] and cumulative lengths [n + 1] of packed sequences, int64. Raises ValueError."""
    refuse_text("input_ids", input_ids)
    ids = _integers("input_ids", input_ids, ("total",))
    _in_range("input_ids", ids, config.vocab_size, "vocab_size")
    cu = _integers("cu_seqlens", cu_seqlens, ("n + 1",))
    if cu[0] != 0 or cu[-1] != len(ids):
        raise ValueError(
            f"cu_seqlens goes from {cu[0]} to {cu[-1]}; it must go from 0 to total = {len(ids)}"
        )
    lengths = np.diff(cu)
    if (lengths <= 0).any():
        at = int(np.argmax(lengths <= 0))
        raise ValueError(
            f"cu_seqlens goes from {cu[at]} to {cu[at + 1]} at [{at}]; lengths must be at least 1"
        )
    warn_if_long(int(lengths.max()), config)
    return ids, cu


_warned_long = False


def warn_if_long(seq: int, config: ModernBertConfig) -> None:
    """Warn once per process when a sequence is longer than the model was trained for."""
    global _warned_long
    if seq > config.max_position_embeddings and not _warned_long:
        _warned_long = True
        warnings.warn(
            f"a sequence of {seq} tokens is longer than max_position_embeddings "
            f"{config.max_position_embeddings}; RoPE is computed, quality is not known",
            LongInputWarning,
            stacklevel=4,
        )


def refuse_text(name: str, value: Any) -> None:
    """ValueError that names the way of texts, and of encodings, where a value holds any."""
    first = value
    while isinstance(first, (list, tuple)) and len(first):
        first = first[0]
    if isinstance(first, (str, bytes)):
        raise ValueError(
            f"{name} holds text, {reprlib.repr(first)}; a model takes token ids. Texts go to "
            "refimpl.pipeline(task, model), SentenceEncoder(model).encode or Reranker(model)."
            "predict; with ids = Tokenizer.from_folder(model.folder).encode(text).ids, one text is "
            "model([ids])"
        )
    if isinstance(first, Encoded):
        raise ValueError(
            f"{name} holds an encoding; tokenizer.pad([encoding, ...]) makes input_ids and "
            "attention_mask of several"
        )


def _array(name: str, value: Any, axes: tuple[str, ...]) -> Array:
    """value as an array of len(axes) dimensions, none of them empty."""
    x = as_array(name, value, f"[{', '.join(axes)}]")
    if x.ndim != len(axes):
        raise ValueError(f"{name} has shape {list(x.shape)}; it must be [{', '.join(axes)}]")
    if 0 in x.shape:
        raise ValueError(f"{name} has shape {list(x.shape)}; {axes[x.shape.index(0)]} is 0")
    return x


def _integers(name: str, value: Any, axes: tuple[str, ...]) -> Array:
    x = _array(name, value, axes)
    if not np.issubdtype(x.dtype, np.integer):
        raise ValueError(f"{name} has dtype {x.dtype}; it must hold integers")
    if x.dtype == np.uint64 and (x > np.iinfo(np.int64).max).any():
        raise ValueError(f"{name} holds {x.max()}, which does not fit 64 signed bits")
    return x.astype(np.int64, copy=False)


def _in_range(name: str, x: Array, limit: int, limit_name: str) -> None:
    bad = (x < 0) | (x >= limit)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name}{list(at)} is {x[at]}; it must be in 0 .. {limit - 1} ({limit_name} {limit})"
        )


def _embeddings(value: Any, axes: tuple[str, ...], hidden: int, dtype: np.dtype) -> Array:
    x = _array("inputs_embeds", value, (*axes, "hidden"))
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"inputs_embeds has dtype {x.dtype}; it must be floating")
    if x.shape[-1] != hidden:
        raise ValueError(f"inputs_embeds has {x.shape[-1]} columns; hidden_size is {hidden}")
    return x.astype(dtype, copy=False)


def _mask(value: Any, shape: tuple[int, ...]) -> Array:
    x = as_array("attention_mask", value, str(list(shape)))
    if x.shape != shape:
        raise ValueError(f"attention_mask has shape {list(x.shape)}; it must be {list(shape)}")
    if x.dtype.kind not in "biuf":
        raise ValueError(f"attention_mask has dtype {x.dtype}; it must hold 0 and 1")
    bad = (x != 0) & (x != 1)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"attention_mask{list(at)} is {x[at]}; it must be 0 or 1")
    return x.astype(np.int64)


def _token_types(value: Any, shape: tuple[int, ...], config: ModernBertConfig) -> Array:
    x = as_array("token_type_ids", value, str(list(shape)))
    if x.shape != shape:
        raise ValueError(f"token_type_ids has shape {list(x.shape)}; it must be {list(shape)}")
    x = _integers("token_type_ids", x, tuple(map(str, shape)))
    _in_range("token_type_ids", x, max(config.type_vocab_size, 1), "type_vocab_size")
    return x


def _positions(value: Any, shape: tuple[int, ...]) -> Array:
    x = as_array("position_ids", value, str(list(shape)))
    if x.ndim == 0 or x.ndim > len(shape) or shape[-1] != x.shape[-1]:
        raise ValueError(f"position_ids has shape {list(x.shape)}; it must be {list(shape)}")
    try:
        x = np.broadcast_to(x, shape)
    except ValueError:
        raise ValueError(
            f"position_ids has shape {list(x.shape)}; it must be {list(shape)}"
        ) from None
    x = _integers("position_ids", x, tuple(map(str, shape)))
    if (x < 0).any():
        at = tuple(int(i) for i in np.argwhere(x < 0)[0])
        raise ValueError(f"position_ids{list(at)} is {x[at]}; it must not be negative")
    return x
