"""Checks of what a user hands in as labels, before any computation.

Each gives an array of known shape and dtype, or raises a ValueError that names the argument, the
offending value with its place, and what would be right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .losses import IGNORED

Array = np.ndarray


def classes(name: str, value: Any, shape: tuple[int, ...], n: int) -> Array:
    """Integers in 0 .. n - 1, or IGNORED, in that shape -> int64."""
    x = _shaped(name, value, shape)
    if not np.issubdtype(x.dtype, np.integer):
        raise ValueError(f"{name} has dtype {x.dtype}; it must hold integers")
    bad = (x != IGNORED) & ((x < 0) | (x >= n))
    if bad.any():
        at = _first(bad)
        raise ValueError(f"{name}{at} is {x[tuple(at)]}; it must be in 0 .. {n - 1}, or {IGNORED}")
    return x.astype(np.int64)


def numbers(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Finite numbers in that shape, float64; a last axis of 1 may be left out."""
    x = array(name, value)
    if shape[-1:] == (1,) and x.shape == shape[:-1]:
        x = x[..., None]
    x = _shaped(name, x, shape)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {x.dtype}; it must hold numbers")
    bad = ~np.isfinite(x)
    if bad.any():
        at = _first(bad)
        raise ValueError(f"{name}{at} is {x[tuple(at)]}; it must be finite")
    return x.astype(np.float64)


def yes_or_no(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Numbers in [0, 1]: whether each class holds."""
    x = numbers(name, value, shape)
    bad = (x < 0) | (x > 1)
    if bad.any():
        at = _first(bad)
        raise ValueError(f"{name}{at} is {x[tuple(at)]:g}; it must be in 0 .. 1")
    return x


def at_real_tokens(name: str, labels: Array, real: Array) -> None:
    """ValueError where a padded token has a label. labels, real: one shape."""
    bad = (labels != IGNORED) & ~real
    if bad.any():
        at = _first(bad)
        raise ValueError(
            f"{name}{at} is {labels[tuple(at)]}, but the mask hides that token; it must be "
            f"{IGNORED}"
        )


def array(name: str, value: Any) -> Array:
    """value as an array of numbers, or at least of one dtype. Raises ValueError."""
    try:
        x = np.asarray(value)
    except ValueError:
        x = np.empty(0, object)
    if x.dtype == object:
        raise ValueError(f"{name} is not rectangular or not numeric; it must be an array")
    return x


def weights_of_classes(value: Any, classes: int) -> Array:
    """Positive and finite, [classes]."""
    x = numbers("class_weights", value, (classes,))
    if (x <= 0).any():
        at = _first(x <= 0)
        raise ValueError(f"class_weights{at} is {x[tuple(at)]:g}; it must be positive")
    return x


def fraction(name: str, value: float) -> float:
    """A share in [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value!r}; it must be in [0, 1)")
    return float(value)


def whole(name: str, value: Any) -> int:
    """A number of 32 bits to count or to key with."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{name} is {value!r}; it must be an integer")
    if not 0 <= value < 2**32:
        raise ValueError(f"{name} is {value}; it must be in 0 .. 2^32 - 1")
    return int(value)


def _shaped(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    x = array(name, value)
    if x.shape != shape:
        raise ValueError(f"{name} has shape {list(x.shape)}; it must be {list(shape)}")
    return x


def _first(bad: Array) -> list[int]:
    return [int(i) for i in np.argwhere(bad)[0]]
