"""The equations with some of them replaced: what `model(..., ops=)` computes with.

    ops = replaced({"visible": causal})      every other equation that calls it calls the new one

For looking at what a step does. Promise: `ops` itself stays as it is; a name that it does not have,
or an object that lacks some, is refused; another `visible` is asked about every key, not only about
those within the window, unless `query_blocks` is given too. Not here: replacing the value of one
step in one layer, which is what a tap does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FunctionType, SimpleNamespace
from typing import Any

from . import ops

NAMES = tuple(
    name
    for name, value in vars(ops).items()
    if isinstance(value, FunctionType) and value.__module__.startswith(str(ops.__package__))
)
"""Those that can be replaced, `erf` among them."""


def replaced(
    given: Mapping[str, Callable[..., Any]] | Any, uncalled: set[str] | None = None
) -> Any:
    """`ops` with the functions of a mapping in place of its own; anything else must have them all.

    A function takes and gives what the one that it stands for does (ops.py). uncalled: a set that
    holds the names given until their function is called. Raises ValueError.
    """
    if not isinstance(given, Mapping):
        missing = [name for name in NAMES if not callable(getattr(given, name, None))]
        if missing:
            raise ValueError(f"ops lacks {missing[0]!r}; give a dict of those that differ")
        return given
    for name, function in given.items():
        if name not in NAMES:
            raise ValueError(f"ops has no equation {name!r}; those: {', '.join(NAMES)}")
        if not callable(function):
            raise ValueError(f"ops[{name!r}] is {function!r}; it must be a function")
    if uncalled is not None:
        uncalled |= set(given)
        given = {name: _noted(name, function, uncalled) for name, function in given.items()}
    space = dict(vars(ops))

    def own(function: Any) -> Any:
        """The function, looking up others in `space` instead of ops."""
        if not isinstance(function, FunctionType) or function.__module__ != ops.__name__:
            return function
        copy = FunctionType(function.__code__, space, function.__name__, function.__defaults__)
        copy.__kwdefaults__ = function.__kwdefaults__
        return copy

    space |= {name: own(value) for name, value in vars(ops).items()}
    if "visible" in given:  # may see beyond the window, so every key is asked about
        space["query_blocks"] = lambda seq, heads, window: ops.query_blocks(seq, heads, None)
    space |= given
    space["ACTIVATIONS"] = {
        name: replace(a, function=given.get(getattr(a.function, "__name__", ""), own(a.function)))
        for name, a in ops.ACTIVATIONS.items()
    }
    return SimpleNamespace(**space)


def _noted(name: str, function: Callable[..., Any], uncalled: set[str]) -> Callable[..., Any]:
    """The function, which takes its name out of `uncalled` when it is called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        uncalled.discard(name)
        return function(*args, **kwargs)

    return call


def warn_uncalled(uncalled: set[str], activation: str) -> None:
    """UserWarning for equations that were given and took no part in a pass."""
    if uncalled:
        warnings.warn(
            f"ops has {', '.join(sorted(uncalled))}, which this pass does not call, so it changes "
            f"nothing (hidden_activation is {activation!r})",
            UserWarning,
            stacklevel=4,
        )
