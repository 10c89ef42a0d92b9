"""This project's CPU engine as a port, on any tier of the machine, in float32, bfloat16 or int8.

The engine gives its last hidden state; the head's steps are the reference's, in float32, on top of
it. What lies between is not observable here: the engine fuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ...backends.backend import chosen_tier, native
from ...backends.engine import Engine
from ...reference import ops
from ...reference.config import ModernBertConfig
from ...reference.heads import HEADS
from ...reference.taps import record
from ..truth.passes import config_of
from ..truth.plan import plan_of
from ..truth.rounding import DTYPES
from .port import PortResult, Request

Array = np.ndarray
# A dtype of the engine, and what it departs from float32 by.
INT8 = "int8"


class EnginePort:
    """tier: one of `_native.tiers()`, None for the best that REFIMPL_ISA leaves; dtype: one that it
    computes in and that has a budget. Raises ValueError for what is not there, or when the
    extension was not built."""

    abilities = frozenset({"inputs", "state", "threads", "packed", "positions"})

    def __init__(
        self, tier: str | None = None, num_threads: int | None = None, dtype: str = "float32"
    ) -> None:
        here = native().tiers()
        self.tier, self.num_threads = tier or chosen_tier(), num_threads
        if self.tier not in here:
            raise ValueError(f"tier {tier!r} does not run here; these do: {', '.join(here)}")
        known = [name for name in native().dtypes(self.tier) if name in DTYPES or name == INT8]
        if dtype not in known:
            raise ValueError(
                f"dtype {dtype!r} is not verified on tier {self.tier}: {', '.join(known)}"
            )
        self.dtype = dtype
        self._loaded: tuple[Mapping[str, Array], dict[str, Array], Engine] | None = None

    @property
    def judged_as(self) -> str:
        """The dtype as budgets have it."""
        return f"float32+{INT8}" if self.dtype == INT8 else self.dtype

    @property
    def name(self) -> str:
        return f"engine, tier {self.tier}"

    def run(self, request: Request) -> PortResult:
        config = config_of(request.config)
        params, engine = self.load(config, request.params)
        hidden = self.forward(engine, request.inputs)
        taps: dict[str, Array] = {"final_norm": hidden}
        if request.head is not None:
            mask = request.inputs.get("attention_mask")
            HEADS[request.head].forward(params, config, hidden, mask, ops, record(taps))
        if request.wanted is not None:
            taps = {name: x for name, x in taps.items() if name in request.wanted}
        return PortResult(taps, self.judged_as, plan_of(config, request.head))

    def run_together(self, requests: Sequence[Request]) -> list[PortResult]:
        with ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(self.run, requests))

    def load(
        self, config: ModernBertConfig, params: Mapping[str, Array]
    ) -> tuple[dict[str, Array], Engine]:
        """float32 parameters and their engine, for as long as requests carry the same `params`."""
        loaded = self._loaded
        if loaded is None or loaded[0] is not params:
            single = {name: x.astype(np.float32) for name, x in params.items()}
            loaded = self._loaded = params, single, self.make(config, single)
        return loaded[1:]

    def make(self, config: ModernBertConfig, params: Mapping[str, Array]) -> Engine:
        return Engine(config, params, self.num_threads, self.tier, self.dtype)

    def forward(self, engine: Engine, inputs: Mapping[str, Array | None]) -> Array:
        given: dict[str, Any] = {name: x for name, x in inputs.items() if x is not None}
        if "cu_seqlens" in given:
            return engine.packed(given.pop("input_ids"), given.pop("cu_seqlens"), **given)
        defaults = dict.fromkeys(("attention_mask", "token_type_ids", "position_ids"))
        ids, embeds = given.pop("input_ids", None), given.pop("inputs_embeds", None)
        return engine.padded(ids, embeds, **{**defaults, **given})
