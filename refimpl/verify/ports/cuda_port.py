"""This project's engine on a CUDA device as a port, in float32, bf16x3 or bfloat16, where that has
a budget.

As EnginePort. The library that REFIMPL_CUDA_LIBRARY names is taken where that is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...backends import backend as backends
from ...backends.engine import Engine
from ...reference.config import ModernBertConfig
from ..truth.rounding import DTYPES
from .engine_port import EnginePort

Array = np.ndarray


class CudaPort(EnginePort):
    """device: "cuda", "cuda:1". Raises ValueError for a device or a dtype that is not there, or has
    no budget."""

    def __init__(self, device: str, dtype: str = "float32") -> None:
        known = [name for name in backends.BACKENDS["cuda"] if name in DTYPES]
        if dtype not in known:
            raise ValueError(f"dtype {dtype!r} is not verified on {device}: {', '.join(known)}")
        backends.resolve(device, dtype)
        self.tier, self.num_threads, self.dtype = device, None, dtype
        self._loaded: tuple[Mapping[str, Array], dict[str, Array], Any] | None = None

    @property
    def name(self) -> str:
        return f"engine on {self.tier}"

    def make(self, config: ModernBertConfig, params: Mapping[str, Array]) -> Engine:
        return Engine(config, params, dtype=self.dtype, backend=self.tier)
