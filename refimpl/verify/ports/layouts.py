"""From the shape in which a port keeps a step to the shape of the reference.

Taken without asking, because they can mean one thing only: heads joined; leading axes flattened;
real tokens alone, packed, or those that the dump itself lists; more padding on the right than the
case has; a leading axis of 1 before the whole or before real tokens; rotary tables without a batch
axis, or of half the width. Everything else is taken only with a layout in words ("batch heads seq
head_dim"): when seq equals heads, a shape does not tell. What cannot be read this way is said in
words, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..truth.passes import of_sequences

Array = np.ndarray
Shape = tuple[int, ...]
Arrange = Callable[[Array], Array]
AXES = ("batch", "seq", "total", "heads", "head_dim")


def arrange(
    step: str,
    shape: Shape,
    expected: Shape,
    real: Array,
    layout: str | None,
    listed: Array | None = None,
) -> Arrange | str:
    """How to bring an array of `shape` to `expected`, or why that cannot be done.

    real: bool [batch, seq] or [total], tokens that are no padding; layout: axes in words, or None;
    listed: as real, tokens that the dump says it holds. Tokens that a packed array does not hold
    become NaN.
    """
    if layout is not None:
        return _named(shape, expected, real.ndim, layout)
    for wanted, finish in _readings(step, expected, real, listed):
        if shape == wanted:
            return finish
    wide = _wider(step, shape, expected, real)
    if wide is not None:
        return wide
    problem = f"has the shape {list(shape)}; expected {list(expected)}"
    if expected[: real.ndim] == real.shape and not of_sequences(step) and not real.all():
        problem += f", or of real tokens alone {[int(real.sum()), *expected[real.ndim :]]}"
    if sorted(n for n in shape if n != 1) == sorted(n for n in expected if n != 1):
        words = "batch heads seq head_dim" if len(expected) == 4 else "seq batch hidden"
        problem += f" (the same axes in another order? then give its layout, as in {words!r})"
    return problem


def _readings(
    step: str, expected: Shape, real: Array, listed: Array | None
) -> list[tuple[Shape, Arrange]]:
    """(shape, how to read it) of everything that is accepted unasked."""
    out: list[tuple[Shape, Arrange]] = []
    tokens = real.ndim if expected[: real.ndim] == real.shape and not of_sequences(step) else 1
    if listed is not None:
        some: Array = listed if tokens == real.ndim else np.asarray(listed.any(axis=1))
        for one in ((), (1,)):
            shape = (*one, int(some.sum()), *expected[tokens:])
            out.append((shape, lambda x: _scatter(x, expected, some)))
    lead, width = expected[:tokens], expected[tokens:]
    for last in dict.fromkeys((width, (math.prod(width),) if len(width) > 1 else width)):
        alone: tuple[Shape, ...] = ((),) if lead == (1,) else ()
        for first in dict.fromkeys((lead, (math.prod(lead),), (1, *lead), *alone)):
            out.append(((*first, *last), lambda x: x.reshape(expected)))
        if tokens == real.ndim and lead == real.shape:
            for one in ((), (1,)):
                shape = (*one, int(real.sum()), *last)
                out.append((shape, lambda x: _scatter(x, expected, real)))
    if step.startswith("rope.") and step.endswith(("cos", "sin")):
        dim = expected[-1]
        for first in dict.fromkeys((lead, lead[-1:], (1, *lead[-1:]))):
            out.append(((*first, dim), lambda x: np.broadcast_to(x, expected)))
            out.append(((*first, dim // 2), lambda x: np.broadcast_to(np.tile(x, 2), expected)))
    return out


def _wider(step: str, shape: Shape, expected: Shape, real: Array) -> Arrange | None:
    """[batch, more than seq, ...]: of a port that pads to a length of its own, on the right."""
    if real.ndim != 2 or expected[:2] != real.shape or of_sequences(step):
        return None
    (batch, seq), width = real.shape, expected[2:]
    for last in dict.fromkeys((width, (math.prod(width),) if len(width) > 1 else width)):
        for lead in ((batch,), ()) if batch == 1 else ((batch,),):
            at = len(lead)
            if shape[:at] == lead and shape[at + 1 :] == last and len(shape) > at:
                if shape[at] > seq:
                    return lambda x: x.reshape(batch, -1, *width)[:, :seq]
    return None


def _scatter(x: Array, expected: Shape, real: Array) -> Array:
    out = np.full(expected, np.nan, x.dtype)
    out[real] = x.reshape(-1, *expected[real.ndim :])
    return out


def _named(shape: Shape, expected: Shape, tokens: int, layout: str) -> Arrange | str:
    """A layout in words: a permutation of the step's axes."""
    words = layout.split()
    lead: tuple[str, ...] = ("total",) if tokens == 1 else ("batch", "seq")
    axes = lead if len(expected) > tokens else lead[: len(expected) - 1]
    axes += ("heads", "head_dim") if len(expected) - len(axes) == 2 else ("width",)
    # The last axis has many names: any word that names no other axis is that one.
    plain = [word if word in AXES and word in axes else "width" for word in words]
    if sorted(plain) != sorted(axes):
        return f"has the layout {layout!r}; its axes must be those of {' '.join(axes)!r}"
    order = [plain.index(axis) for axis in axes]
    if len(shape) != len(words) or tuple(shape[i] for i in order) != expected:
        sizes = " ".join(f"{axis} {n}" for axis, n in zip(axes, expected, strict=True))
        return f"has the shape {list(shape)} under the layout {layout!r}; expected {sizes}"
    return lambda x: x.transpose(order)
