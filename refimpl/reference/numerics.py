"""What numpy is asked for at the public entries: arrays of what is handed in, quiet underflow.

    x = as_array("attention_mask", value)      whatever numpy can read, else a ValueError
    @underflow_is_zero                         of a function: an exp that becomes 0 loses nothing

Promise: the numbers are the same whatever numpy.seterr says of underflow. Other events (overflow,
division by zero, invalid) stay the caller's to hear of.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")


def underflow_is_zero(function: Callable[P, R]) -> Callable[P, R]:
    """The function, in which what is too small for its dtype becomes 0 in silence."""

    @wraps(function)
    def quiet(*args: P.args, **kwargs: P.kwargs) -> R:
        with np.errstate(under="ignore"):
            return function(*args, **kwargs)

    return quiet


def as_array(name: str, value: Any, wanted: str, dtype: Any = None) -> np.ndarray:
    """value as an array of numbers. ValueError that names the argument and what is wanted for what
    is ragged, no number, or refuses to become an array, as tensors on other devices do."""
    try:
        x = np.asarray(value, dtype)
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(value, (list, tuple)) and isinstance(error, ValueError):
            x = np.empty(0, object)
        else:
            cause = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"{name} is a {type(value).__name__} that numpy cannot read ({cause}); give an "
                f"array of {wanted}"
            ) from error
    if x.dtype == object:
        raise ValueError(f"{name} is not rectangular or not numeric; pad it to {wanted}")
    return x
