"""The pass of a case, cut where a step that the port gave is its whole state.

    given      embedding      layers.0.residual_2      layers.1.residual_2      final_norm
    segments  [ the norm ]  [     layer 0      ]  [     layer 1     ]  [ 2, 3, norm ]  [ head ]

Whatever comes after such a step depends on it alone, so a mistake is replayed segment by segment
from the PORT's own values: a fraction of a millisecond for one layer of a short case, in which
fewer mistakes meet than in the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ...reference.encoder import embed, layers, norm
from ..truth.passes import Pass, forced
from ..zoo.mistake import GIVEN
from .evidence import Array, Change, Evidence

# Tokens that could be computed in the time that a replay of one stage takes for itself.
REPLAY = 220


@dataclass(eq=False)
class Segment:
    """Stages first .. stop - 1 of a case's pass: 0 embedding, 1 .. n layers, n + 1 final norm,
    n + 2 head and vectors; steps: those of them that the port gave. start: the given step that it
    begins with, None for the input."""

    of: Evidence
    first: int
    stop: int
    start: str | None
    steps: tuple[str, ...]
    known: dict[Any, Any] = field(default_factory=dict)
    """What was replayed here already, by whoever replayed it."""

    @property
    def cost(self) -> int:
        """Tokens times stages."""
        return (self.of.tokens + 8) * (self.stop - self.first)

    @property
    def work(self) -> int:
        """The same with what a replay takes however short the case is: some 5 us each."""
        return (self.of.tokens + REPLAY) * (self.stop - self.first)

    @cached_property
    def p(self) -> Pass:
        """The reference's pass of these stages alone, from the port's step before them."""
        one, n = self.of, self.of.p.config.num_hidden_layers
        which = range(max(self.first - 1, 0), min(self.stop - 1, n))
        start = self.start

        def encode(
            params: Any, config: Any, input_ids: Any = None, *, inputs_embeds: Any = None,
            token_type_ids: Any = None, attention_mask: Any = None, position_ids: Any = None,
            cu_seqlens: Any = None, ops: Any, tap: Any,
        ) -> Array:  # fmt: skip
            if start is None:
                x = embed(params, config, input_ids, inputs_embeds, token_type_ids, ops)
                x = tap("embedding", x)
            else:
                x = tap(GIVEN + start, one.port[start])
            x = layers(params, config, x, which, attention_mask, position_ids, cu_seqlens, ops, tap)
            if self.first <= n + 1 < self.stop:
                x = tap("final_norm", norm(params, "final_norm", x, config, ops))
            return x

        p = replace(one.p, encode=encode)
        return p if self.stop > n + 2 else replace(p, head=None, vectors=None)

    def replay(self, change: Change, whole: bool = False) -> dict[str, Array]:
        """The given steps as the changed reference makes them. whole: from the input on, for a
        mistake after whose steps the pass goes on with others."""
        made = forced(change(self.of.p if whole else self.p), self.of.starts)
        return {name: made[name] for name in self.steps if name in made}

    def distances(self, made: Mapping[str, Array]) -> dict[str, float]:
        """Of the port to a replay, per step."""
        return {name: self.of.distance(name, made.get(name)) for name in self.steps}

    def spread(self, change: Change, made: Mapping[str, Array], whole: bool) -> dict[str, float]:
        """What rounding may do to each step under a change."""
        return self.of.spread(change, self.of.p if whole else self.p, made)

    @property
    def stages(self) -> Iterator[str]:
        """A name for each stage, as a pattern of a mistake's `taps` could meet its steps."""
        n = self.of.p.config.num_hidden_layers
        for i in range(self.first, self.stop):
            yield (
                "embedding"
                if i == 0
                else "final_norm"
                if i == n + 1
                else ("head" if i > n + 1 else f"layers.{i - 1}")
            )


def segments_of(one: Evidence) -> Iterator[Segment]:
    """All of them, in order; one only where the port gave some of the tokens."""
    n = one.p.config.num_hidden_layers
    ends = {0: "embedding", n + 1: "final_norm"}
    ends |= {i + 1: f"layers.{i}.residual_2" for i in range(n)}
    if one.p.shown is not None:  # the other tokens go on with what the pass itself makes
        ends = {}
    last = n + 3 if one.p.head or one.p.vectors else n + 2
    first, start = 0, None
    stages = {name: stage_of(name, one.p) for name in one.right}
    for stage in range(last):
        if ends.get(stage) in one.right or stage == last - 1:
            steps = tuple(name for name, at in stages.items() if first <= at <= stage)
            if steps:
                yield Segment(one, first, stage + 1, start, steps)
            first, start = stage + 1, ends.get(stage)


def stage_of(name: str, p: Pass) -> int:
    """The stage in which a step is made; rotary tables in the first layer that takes them."""
    n = p.config.num_hidden_layers
    if name.startswith("layers."):
        return int(name.split(".")[1]) + 1
    if name.startswith("rope."):
        return p.config.layer_types.index(name.split(".")[1] + "_attention") + 1
    return {"embedding": 0, "final_norm": n + 1}.get(name, n + 2)
