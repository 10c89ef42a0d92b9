"""Mistakes that take several calls to show: wrappers of a port that otherwise is right.

    wrong = FAULTY["X3a"].wrap(port)

A wrapper keeps something between calls, or lets calls that run together touch each other. The
single case of every gate before the runtime gate passes; that gate must find it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from ..ports.port import Port, PortResult, ReferencePort, Request
from .mistake import axes
from .rotary import with_table

Array = np.ndarray


@dataclass(frozen=True)
class Faulty:
    """A mistake of a port's runtime; fields as in Mistake, `wrap` makes the wrong port."""

    id: str
    title: str
    text: str
    citations: tuple[str, ...]
    wrap: Callable[[Port], Port]


@dataclass
class Wrapped:
    """A port around another. `memory` is what it keeps between calls."""

    port: Port
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.port.name

    @property
    def dtype(self) -> str:
        return self.port.dtype

    @property
    def abilities(self) -> frozenset[str]:
        return self.port.abilities

    def run(self, request: Request) -> PortResult:
        return self.port.run(request)

    def run_together(self, requests: Sequence[Request]) -> list[PortResult]:
        return [self.run(request) for request in requests]


def with_steps(result: PortResult, change: Callable[[Array], Array]) -> PortResult:
    """The last step of a result changed."""
    last = list(result.taps)[-1]
    return replace(result, taps={**result.taps, last: change(result.taps[last])})


class CachedTable(Wrapped):
    """The rotary table is as long as the first input was, and serves all later ones."""

    def run(self, request: Request) -> PortResult:
        length = axes(request.to_pass())[-1]
        last: int = self.memory.setdefault(request.name, length) - 1
        port = ReferencePort(
            self.dtype, lambda p: with_table(p, "*", lambda x: np.minimum(x, last))
        )
        # Explicit positions are turned into angles at once, without the table.
        given = request.inputs.get("position_ids") is not None
        return self.port.run(request) if given or length <= last + 1 else port.run(request)


class StaleBuffer(Wrapped):
    """The output buffer is not cleared: its first row is the longest one of the calls before."""

    def run(self, request: Request) -> PortResult:
        result = self.port.run(request)
        held = self.memory.get(request.name)
        new = list(result.taps.values())[-1]
        self.memory[request.name] = new
        if held is None or held.ndim != new.ndim or held.shape[1] <= new.shape[1]:
            return result
        return with_steps(result, lambda x: np.concatenate([held[:1, : x.shape[1]], x[1:]]))


class ChangedWeights(Wrapped):
    """Every call folds the scale of the scores into the weights once more, in place."""

    def run(self, request: Request) -> PortResult:
        calls = self.memory.get(request.name, 0)
        self.memory[request.name] = calls + 1
        name = "layers.0.attn.Wqkv.weight"
        weight = np.array(request.params[name])
        weight[: len(weight) // 3] *= 2.0**-calls
        return self.port.run(replace(request, params={**request.params, name: weight}))


class Race(Wrapped):
    """Calls at once share a scratch row: the last row of one ends up in the next."""

    def run_together(self, requests: Sequence[Request]) -> list[PortResult]:
        results = [self.port.run(request) for request in requests]
        rows = [list(result.taps.values())[-1][-1] for result in results]

        def mixed(row: Array) -> Callable[[Array], Array]:
            def change(x: Array) -> Array:
                out = x.copy()
                out[-1] = row if row.shape == x[-1].shape else 0.0
                return out

            return change

        shared = [rows[0], *rows[:-1]]
        return [with_steps(r, mixed(row)) for r, row in zip(results, shared, strict=True)]


FAULTY: Mapping[str, Faulty] = MappingProxyType(
    {
        f.id: f
        for f in (
            Faulty(
                "R4b", "cached rotary table reused for another length",
                "The table of the first input is kept; later positions take its last row.",
                (), CachedTable,
            ),
            Faulty(
                "X2", "thread races",
                "Calls at once on one model share a buffer.",
                (), Race,
            ),
            Faulty(
                "X3a", "stale buffers across calls",
                "A shorter input after a longer one finds the longer one's output.",
                (), StaleBuffer,
            ),
            Faulty(
                "X3b", "a call changes the model",
                "The first call is right, and each later one works on weights that it altered.",
                (), ChangedWeights,
            ),
        )
    }
)  # fmt: skip
