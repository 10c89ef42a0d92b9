"""The extension as Python sees it; csrc/bindings.cpp. Only backend.py imports it.

Arrays are float32 and integers as named; what is not contiguous or narrower is copied, a wider
dtype is a TypeError, a shape or value that does not fit a ValueError.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray

compiler: str

def tiers() -> list[str]: ...
def missing_tiers() -> dict[str, str]: ...
def best_tier(cap: str = "") -> str: ...
def default_threads() -> int: ...
def linear(
    tier: str,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    residual: Array | None = None,
    row_split: int = 168,
    panel_split: int = 1,
) -> Array: ...
def layer_norm(
    tier: str, x: Array, weight: Array, bias: Array | None = None, eps: float = 1e-5
) -> Array: ...
def glu(tier: str, u: Array, activation: str) -> Array: ...
def rope(tier: str, x: Array, cos: Array, sin: Array) -> Array: ...
def attention(
    tier: str,
    q: Array,
    k: Array,
    v: Array,
    window: int | None = None,
    visible: Array | None = None,
) -> Array: ...

class Engine:
    def __init__(self, plan: Mapping[str, Any], params: Mapping[str, Array], tier: str) -> None: ...
    def forward(
        self,
        ids: Array | None,
        embeds: Array | None,
        cu_seqlens: Array,
        positions: Array | None = None,
        visible: Array | None = None,
        threads: int = 1,
    ) -> Array: ...
    def packed_bytes(self) -> int: ...
    def workspace_bytes(self, total: int, batch: int, threads: int = 1) -> int: ...
    @property
    def tier(self) -> str: ...
