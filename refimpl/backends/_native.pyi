"""The extension as Python sees it; csrc/bindings*.cpp. Only backend.py imports it.

Arrays are float32 and integers as named, weights as files store them: float32, float16, or uint16
with the bits of bfloat16. What is not contiguous or narrower is copied, a wider dtype is a
TypeError, a shape or value that does not fit a ValueError.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray

compiler: str

def tiers() -> list[str]: ...
def missing_tiers() -> dict[str, str]: ...
def best_tier(cap: str = "") -> str: ...
def dtypes(tier: str) -> list[str]: ...
def default_threads() -> int: ...
def give_way() -> None: ...
def scores(function: str, logits: Array) -> Array: ...
def linear(
    tier: str,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    residual: Array | None = None,
    row_split: int = 84,
    panel_split: int = 1,
    dtype: str = "float32",
) -> Array: ...
def linear_glu(
    tier: str,
    x: Array,
    weight: Array,
    activation: str,
    bias: Array | None = None,
    row_split: int = 84,
    panel_split: int = 1,
    dtype: str = "float32",
) -> Array: ...
def layer_norm(
    tier: str,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    eps: float = 1e-5,
    dtype: str = "float32",
) -> Array: ...
def glu(tier: str, u: Array, activation: str, dtype: str = "float32") -> Array: ...
def rope(tier: str, x: Array, cos: Array, sin: Array, dtype: str = "float32") -> Array: ...
def attention(
    tier: str,
    q: Array,
    k: Array,
    v: Array,
    window: int | None = None,
    visible: Array | None = None,
    dtype: str = "float32",
) -> Array: ...

class Engine:
    def __init__(
        self,
        plan: Mapping[str, Any],
        params: Mapping[str, Array],
        tier: str,
        dtype: str = "float32",
        reading: Callable[[int], Any] | None = None,
        packed: Callable[[int], Any] | None = None,
        embedding_in: tuple[int, int] | None = None,
    ) -> None: ...
    @staticmethod
    def open_packed(folder: str, tier: str, dtype: str, packs: str | None = None) -> Engine: ...
    @staticmethod
    def make_pack(folder: str, tier: str, dtype: str, packs: str | None = None) -> None: ...
    @property
    def pack(self) -> str | None: ...
    def forward(
        self,
        ids: Array | None,
        embeds: Array | None,
        cu_seqlens: Array,
        token_types: Array | None = None,
        positions: Array | None = None,
        visible: Array | None = None,
        threads: int = 1,
    ) -> Array: ...
    def trace(
        self,
        ids: Array | None,
        embeds: Array | None,
        cu_seqlens: Array,
        token_types: Array | None = None,
        positions: Array | None = None,
        visible: Array | None = None,
        threads: int = 1,
        fused: bool = False,
        *,
        tap: Callable[[str, int | None, int, Array], Any],
    ) -> Array: ...
    def embed(
        self,
        ids: Array | None,
        embeds: Array | None,
        cu_seqlens: Array,
        token_types: Array | None = None,
        positions: Array | None = None,
        visible: Array | None = None,
        threads: int = 1,
        *,
        width: int = 0,
        normalize: bool = False,
        prompt_tokens: int = 0,
    ) -> Array: ...
    def logits(
        self,
        ids: Array | None,
        embeds: Array | None,
        cu_seqlens: Array,
        token_types: Array | None = None,
        positions: Array | None = None,
        visible: Array | None = None,
        threads: int = 1,
    ) -> Array: ...
    def packed_bytes(self) -> int: ...
    def workspace_bytes(self, total: int, batch: int, threads: int = 1) -> int: ...
    @property
    def tier(self) -> str: ...
    @property
    def dtype(self) -> str: ...

def rows_linear(
    tier: str, dtype: str, x: Array, weight: Array, bias: Array | None = None, threads: int = 1
) -> Array: ...
def rows_linear_adjoint(
    tier: str,
    dtype: str,
    ends: Array,
    dy: Array,
    x: Array,
    weight: Array,
    dw: Array | None = None,
    db: Array | None = None,
    threads: int = 1,
) -> Array: ...
def rows_cross_entropy(
    tier: str,
    dtype: str,
    ends: Array,
    x: Array,
    weight: Array,
    bias: Array | None,
    labels: Array,
    smoothing: float,
    share: float,
    dw: Array | None = None,
    db: Array | None = None,
    threads: int = 1,
) -> tuple[Array, Array]: ...
def rows_layer_norm_adjoint(
    tier: str,
    ends: Array,
    dy: Array,
    x: Array,
    weight: Array,
    eps: float,
    dw: Array,
    db: Array | None = None,
) -> Array: ...
def rows_glu_adjoint(tier: str, dy: Array, u: Array, activation: str) -> Array: ...
def rows_attention_adjoint(
    tier: str,
    dtype: str,
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    window: int | None = None,
    visible: Array | None = None,
) -> tuple[Array, Array, Array]: ...
def update(
    tier: str, p: Array, g: Array, m: Array, v: Array, rule: dict[str, float], threads: int = 1
) -> None: ...
def all_finite(x: Array, threads: int = 1) -> bool: ...
def clear(x: Array, threads: int = 1) -> None: ...

class Training:
    def __init__(
        self,
        plan: Mapping[str, Any],
        weights: Mapping[str, Array],
        gradients: Mapping[str, Array],
        tier: str,
        dtype: str = "float32",
    ) -> None: ...
    def forward(
        self,
        ids: Array,
        cu_seqlens: Array,
        token_types: Array | None = None,
        positions: Array | None = None,
        visible: Array | None = None,
        recomputed: int = 0,
        threads: int = 1,
    ) -> Array: ...
    def backward(self, part: int, d: Array | None = None, threads: int = 1) -> None: ...
    def finish(self, threads: int = 1) -> None: ...
    @property
    def tier(self) -> str: ...

class Tokenizer:
    def __init__(self, file: str, content: bytes | None = None) -> None: ...
    def add(
        self, tokens: list[tuple[str, bool, bool, bool, bool, bool]], split_special: bool
    ) -> None: ...
    def encode(
        self, text: str, pair: str | None = None, special: bool = True
    ) -> dict[str, Array]: ...
    def template_tokens(self, pair: bool) -> int: ...
    def token(self, id: int) -> str | None: ...
    def id(self, token: str) -> int | None: ...
    def vocabulary(self) -> dict[str, int]: ...
    def added(self) -> list[tuple[int, tuple[str, bool, bool, bool, bool, bool]]]: ...
    @property
    def ids(self) -> int: ...
    @property
    def facts(self) -> tuple[str, str, str]: ...
