"""Looking at the steps of the forward pass: recorders for `tap`, and attention maps from them.

A tap is called as `x = tap(name, x)` at every step (names in MODEL.md). These return x unchanged; a
caller's own tap may return another array of the same shape, which then stands in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import ops as equations
from .config import ModernBertConfig
from .encoder import Tap

Array = np.ndarray


class Recorder:
    """Keeps what `model(...)` was asked for, and passes every step on to another tap.

    hidden_states: "embedding", each layer's "residual_2" but the last one's, and "final_norm", as
    transformers 5 has them; attentions: each layer's rotated q, k.
    """

    def __init__(self, *, hidden_states: bool, attentions: bool, then: Tap | None) -> None:
        self._keep_hidden, self._keep_rotated = hidden_states, attentions
        self._then = then
        self._hidden: list[Array] = []
        self.rotated: dict[str, Array] = {}

    def __call__(self, name: str, value: Array) -> Array:
        if self._then is not None:
            value = replacement(name, value, self._then(name, value))
        if self._keep_hidden:
            if name == "final_norm":
                self._hidden[-1] = value
            elif name == "embedding" or name.endswith(".residual_2"):
                self._hidden.append(value)
        if self._keep_rotated and name.endswith(("q_rot", "k_rot")):
            self.rotated[name] = value
        return value

    @property
    def hidden_states(self) -> tuple[Array, ...]:
        """num_hidden_layers + 1 arrays [batch, seq, hidden]; the last is behind the final norm."""
        return tuple(self._hidden)


def replacement(name: str, value: Array, returned: Any) -> Array:
    """What a tap returned for a step, in the step's dtype. ValueError where it cannot stand there,
    as None from a tap that only looks."""
    if returned is value:
        return value
    shape = getattr(returned, "shape", None)
    if not isinstance(returned, np.ndarray) or shape != value.shape:
        what = type(returned).__name__ if shape is None else f"an array {list(shape)}"
        raise ValueError(
            f"tap returned {what} for {name!r}; it must return the array that it was given, or "
            f"another of shape {list(value.shape)}"
        )
    return returned.astype(value.dtype, copy=False)


def record(store: dict[str, Array]) -> Tap:
    """A tap that puts every step into `store` under its name."""

    def tap(name: str, value: Array) -> Array:
        store[name] = value
        return value

    return tap


def attention_maps(
    config: ModernBertConfig,
    rotated: Mapping[str, Array],
    attention_mask: Array | None,
    ops: Any = equations,
) -> tuple[Array, ...]:
    """Softmax weights of each layer [batch, heads, seq, seq], zero where masked (MODEL.md (27)).

    rotated: the taps `layers.{i}.q_rot` and `.k_rot` [batch, seq, heads, head_dim]; attention_mask
    [batch, seq] or None; ops: the equations that computed them. For looking at: the forward pass
    never holds a whole map.
    """
    maps = []
    for i in range(config.num_hidden_layers):
        q, k = (rotated[f"layers.{i}.{x}_rot"].swapaxes(1, 2) for x in "qk")
        axis = np.arange(q.shape[2])
        mask = ops.visible(axis, axis, config.window(i))[None, None]
        if attention_mask is not None:
            mask = mask & (attention_mask != 0)[:, None, None, :]
        maps.append(ops.attention_probs(q, k, mask))
    return tuple(maps)
