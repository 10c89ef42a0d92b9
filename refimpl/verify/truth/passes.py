"""One forward pass as a value, so that it can be run, forced, broken and run again.

A `Pass` holds everything that the numbers depend on: config, parameters, inputs, head, the module
of equations, and an edit between steps. A mistake of the zoo is a function Pass -> Pass; a
legitimate evaluation in another dtype is one, too. `trace(p)` gives every step; `forced(p, given)`
gives every step computed from the inputs that `given` holds, step by step: with a port's own dump
for `given`, what the reference makes of the port's inputs (teacher forcing, read backwards).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...reference import ops as equations
from ...reference.config import ModernBertConfig
from ...reference.encoder import Tap, encode, no_tap
from ...reference.heads import HEADS
from .vectors import VECTORS, Vectors

Array = np.ndarray
Taps = Mapping[str, Array]


@dataclass(frozen=True)
class Pass:
    """A forward pass of one model on one input.

    inputs: keyword arguments of `encoder.encode` (input_ids, attention_mask, position_ids, ...);
    head: a key of heads.HEADS or None; ops: the equations; edit: called on every step's value
    before anybody sees it; encode, head_forward: the two stages, replaceable by a mistake; shown:
    bool [batch, seq] or [total], the tokens that somebody has given values for, None for all;
    written: the content of the config.json that the config was read from; vectors: makes the steps
    of one vector a sequence, None where nobody asks for them.
    """

    config: ModernBertConfig
    params: Mapping[str, Array]
    inputs: Mapping[str, Array | None]
    head: str | None = None
    ops: Any = equations
    edit: Tap = no_tap
    encode: Callable[..., Array] = encode
    head_forward: Callable[..., dict[str, Array]] | None = field(default=None)
    shown: Array | None = None
    written: Mapping[str, Any] = field(default_factory=dict)
    vectors: Vectors | None = None

    def with_ops(self, **equations: Callable[..., Any]) -> Pass:
        """The same pass with some equations replaced."""
        return replace(self, ops=SimpleNamespace(**{**vars(self.ops), **equations}))

    def with_edit(self, edit: Tap) -> Pass:
        """The same pass with one more edit, applied after those that it has."""
        before = self.edit
        return replace(self, edit=lambda name, value: edit(name, before(name, value)))

    def with_inputs(self, **inputs: Array | None) -> Pass:
        """The same pass on changed inputs."""
        return replace(self, inputs={**self.inputs, **inputs})

    def astype(self, dtype: np.dtype | type) -> Pass:
        """The same pass with parameters in another float dtype."""
        return replace(self, params={k: x.astype(dtype) for k, x in self.params.items()})


def config_of(written: Mapping[str, Any]) -> ModernBertConfig:
    """The config that a config.json says, read once; that its keys contradict each other is not
    told again: it is what some case is about."""
    return _config_of(json.dumps(written))


@lru_cache(maxsize=256)
def _config_of(written: str) -> ModernBertConfig:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is not used: rope_parameters")
        return ModernBertConfig.from_dict(json.loads(written))


def run(p: Pass, tap: Tap = no_tap) -> None:
    """Run encoder and head; `tap` sees (and may replace) every step after the pass's own edit."""

    def edited(name: str, value: Array) -> Array:
        return tap(name, p.edit(name, value))

    with np.errstate(all="ignore"):
        hidden = p.encode(p.params, p.config, **p.inputs, ops=p.ops, tap=edited)
        mask = p.inputs.get("attention_mask")
        if p.vectors is not None:
            p.vectors(hidden, mask, edited)
        if p.head is not None:
            forward = p.head_forward or HEADS[p.head].forward
            forward(p.params, p.config, hidden, mask, p.ops, edited)


def trace(p: Pass) -> dict[str, Array]:
    """Every step of the pass by name."""
    return forced(p, {})


def forced(p: Pass, given: Taps) -> dict[str, Array]:
    """Every step, computed from `given` wherever it holds the step's inputs.

    Each step's own result is returned, then replaced by given[name] (where there is one) for all
    that follows. given has the shapes of the pass; its padded rows may hold NaN. A token that is
    not shown goes on with the pass's own value.
    """
    out: dict[str, Array] = {}

    def tap(name: str, value: Array) -> Array:
        out[name] = value
        if name not in given:
            return value
        x = given[name].astype(value.dtype, copy=False)
        return x if p.shown is None else np.where(entries_of(name, x, p.shown), x, value)

    run(p, tap)
    return out


def per_token(name: str, x: Array, tokens: Array) -> bool:
    """Whether the step has one entry per token of `tokens` (else one per sequence)."""
    return x.shape[: tokens.ndim] == tokens.shape and not of_sequences(name)


def of_sequences(name: str) -> bool:
    """Whether a step's name says that it has one entry per sequence, whatever its shape."""
    return name == "pooled" or name in VECTORS


def entries_of(name: str, x: Array, tokens: Array) -> Array:
    """bool, broadcastable to x: a step's entries of the tokens, or of the sequences with any."""
    rows = np.asarray(tokens.reshape(len(tokens), -1).any(axis=1))
    some: Array = tokens if per_token(name, x, tokens) else rows
    return some.reshape(some.shape + (1,) * (x.ndim - some.ndim))
