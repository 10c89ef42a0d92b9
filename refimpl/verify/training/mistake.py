"""What a mistake of a training step is: a named change of a `Training`, and tools to write one.

    broken = mistake.apply(t)           Training -> Training, nothing is changed in place

Mistakes of the loss stand in zoo_loss.py, of the backward pass in zoo_backward.py, of the update
and of a run in zoo_update.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ...reference.encoder import Tap
from .step import Training

Array = np.ndarray
Stage = Literal["gradient", "update", "run"]


@dataclass(frozen=True)
class Mistake:
    """A known mistake. text: what the port does; citations: public threads where somebody made it;
    stage: where it shows first, in the loss or the gradients, in the first update, or only as the
    run goes on; klass: mistakes of one class give the same numbers, whatever the case."""

    id: str
    title: str
    text: str
    apply: Callable[[Training], Training]
    stage: Stage
    citations: tuple[str, ...] = ()
    klass: str = ""

    def __post_init__(self) -> None:
        if not self.klass:
            object.__setattr__(self, "klass", self.id)


# A change of a gradient between two steps: (name, d, seen, steps) -> d. seen: gradients handed on
# so far, by name; steps: what the forward pass recorded.
Change = Callable[[str, Array, Mapping[str, Array], Mapping[str, Array]], Array]


def rewired(t: Training, change: Change) -> Training:
    """Every gradient of the encoder's steps is change(..), in a free run and in a forced one."""

    def back(
        params: Any,
        config: Any,
        steps: Any,
        d: Array,
        grads: Any,
        inputs: Any,
        *,
        ops: Any,
        tap: Tap,
    ) -> Array:
        seen: dict[str, Array] = {}

        def wired(name: str, x: Array) -> Array:
            seen[name] = tap(name, change(name, x, seen, steps))
            return seen[name]

        return t.encoder_back(params, config, steps, d, grads, inputs, ops=ops, tap=wired)

    return replace(t, encoder_back=back)


def with_grads(t: Training, change: Callable[[str, Array], Array]) -> Training:
    """The gradients of a step, parameter by parameter, changed once they are whole."""
    return replace(
        t, total=lambda parts, own: {n: change(n, x) for n, x in t.total(parts, own).items()}
    )
