"""What a port is to the kit: something that answers a Request with a PortResult.

A Request is one forward pass in plain arrays; a PortResult holds whatever steps the port gives, by
their names of MODEL.md, and the findings about the port itself (it crashed, it hung, a shape is
wrong). A port never raises for what the ported code does: isolation is inside the port, and its
misbehaviour is a finding. `ReferencePort` is the numpy reference behind this interface, in float32
or float64, whole or with a mistake of the zoo: the port that the kit tests itself with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..findings import Finding
from ..truth.passes import Pass, config_of, trace
from ..truth.plan import plan_of
from ..truth.vectors import vectors_of

Array = np.ndarray


@dataclass(frozen=True)
class Request:
    """One forward pass that a port is asked for.

    name: of the case; config: the content of config.json; params: name -> array whose values are
    float32 numbers; inputs: `input_ids` [batch, seq] and, where the case has them,
    `attention_mask`, `position_ids` of that shape, or `cu_seqlens` [n + 1] with everything else
    [total]; head: a key of heads.HEADS or None; wanted: names of the steps to give, None for all
    that the port has; inject: step -> array that the port is to go on with in place of its own
    (asked only of a port that can "inject").
    """

    name: str
    config: Mapping[str, Any]
    params: Mapping[str, Array]
    inputs: Mapping[str, Array | None]
    head: str | None = None
    wanted: tuple[str, ...] | None = None
    inject: Mapping[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, config: Mapping[str, Any], p: Pass) -> Request:
        """The request that asks for what `p` computes."""
        return cls(name, config, p.params, p.inputs, p.head)

    def to_pass(self) -> Pass:
        """The same in the reference, in the dtype of params."""
        return Pass(
            config_of(self.config), self.params, self.inputs, self.head,
            written=self.config, vectors=vectors_of(self.inputs),
        )  # fmt: skip


@dataclass(frozen=True)
class PortResult:
    """What a port gave.

    taps: step -> array in the reference's shape, float32 or float64, any subset; dtype: a key of
    rounding.DTYPES, what the port says it computes in; plan: as `plan.plan_of` tells it, any
    subset, or None; weights: parameter name -> array as the port holds it, any subset, or None;
    inputs: ids, mask and positions that the port says it used, any subset; findings: about the
    port itself; shown: bool [batch, seq] or [total], the tokens that taps hold, None for all.
    """

    taps: Mapping[str, Array] = field(default_factory=dict)
    dtype: str = "float32"
    plan: Mapping[str, Any] | None = None
    weights: Mapping[str, Array] | None = None
    inputs: Mapping[str, Array] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    shown: Array | None = None


class Port(Protocol):
    """Something that runs ModernBERT.

    dtype: what it says it computes in. abilities: a subset of "inputs" (runs any input, not just
    the cases it knows), "state" (one loaded model answers call after call, so that it can remember
    too much), "threads" (`run_together`), "packed" (cu_seqlens), "positions" (explicit
    position_ids), "inject" (teacher forcing).
    """

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def abilities(self) -> frozenset[str]: ...

    def run(self, request: Request) -> PortResult:
        """One forward pass. Never raises for what the port does."""

    def run_together(self, requests: Sequence[Request]) -> list[PortResult]:
        """Several at once on one loaded model, from as many threads; asked of "threads" only."""


@dataclass(frozen=True)
class ReferencePort:
    """The numpy reference as a port, possibly with a mistake: Pass -> Pass.

    dtype: float32 or float64. It tells its plan, its weights and its inputs, those of the mistake.
    """

    dtype: str = "float32"
    mistake: Callable[[Pass], Pass] | None = None
    name: str = "reference"
    abilities: frozenset[str] = frozenset(
        {"inputs", "state", "threads", "packed", "positions", "inject"}
    )

    def run(self, request: Request) -> PortResult:
        p = request.to_pass().astype(np.dtype(self.dtype))
        if self.mistake is not None:
            p = self.mistake(p)
        given = request.inject
        plan = plan_of(p.config, p.head)
        p = p.with_edit(lambda name, x: given[name].astype(x.dtype) if name in given else x)
        taps = trace(p)
        if request.wanted is not None:
            taps = {name: x for name, x in taps.items() if name in request.wanted}
        inputs = {name: x for name, x in p.inputs.items() if x is not None}
        return PortResult(taps, self.dtype, plan, p.params, inputs)

    def run_together(self, requests: Sequence[Request]) -> list[PortResult]:
        return [self.run(request) for request in requests]
