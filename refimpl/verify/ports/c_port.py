"""This project's CPU engine as a port, through the C interface of libmodernbert.so (modernbert.h).

As EnginePort, but nothing of Python stands between the kit and the library: the model is written as
a folder, the library opens it, and cffi calls it with the header's own declarations.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from ...backends.backend import library, library_header
from ...backends.engine import Engine
from ...errors import MissingExtraError
from ...files.checkpoint import write_checkpoint
from ...reference.config import ModernBertConfig
from ...reference.params import encoder_shapes
from .engine_port import EnginePort

Array = np.ndarray


class CPort(EnginePort):
    """As EnginePort. Raises MissingExtraError without cffi."""

    def __init__(
        self, tier: str | None = None, num_threads: int | None = None, dtype: str = "float32"
    ) -> None:
        if find_spec("cffi") is None:
            raise MissingExtraError("cffi", "verify", "calling the C interface")
        super().__init__(tier, num_threads, dtype)

    @property
    def name(self) -> str:
        return f"libmodernbert.so, tier {self.tier}"

    def make(self, config: ModernBertConfig, params: Mapping[str, Array]) -> Engine:
        return CEngine(config, params, self.num_threads, self.tier, self.dtype)


class CEngine(Engine):
    """The engine behind the encoder's signature, every call through modernbert.h."""

    def __init__(
        self,
        config: ModernBertConfig,
        params: Mapping[str, Array],
        num_threads: int | None,
        tier: str,
        dtype: str,
    ) -> None:
        from cffi import FFI

        self._ffi: Any = FFI()
        self._ffi.cdef(declarations())
        self._lib: Any = self._ffi.dlopen(str(library()))
        self._hidden, self.num_threads = config.hidden_size, num_threads or 0
        names = [self._ffi.new("char[]", text.encode()) for text in (tier, dtype)]
        options = self._struct("options", tier_cap=names[0], dtype=names[1])
        made = self._ffi.new("modernbert_model **")
        with tempfile.TemporaryDirectory(prefix="modernbert-verify-") as folder:
            own = {name: params[name] for name in encoder_shapes(config)}
            write_checkpoint(folder, config, own, None)
            self._check(self._lib.modernbert_open(folder.encode(), options, made))
        self._model = self._ffi.gc(made[0], self._lib.modernbert_close)

    def packed(
        self,
        input_ids: Array | None,
        cu_seqlens: Array,
        *,
        inputs_embeds: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        key_mask: Array | None = None,
    ) -> Array:
        given = {
            "cu_seqlens": (cu_seqlens, np.int64, "int64_t *"),
            "ids": (input_ids, np.int64, "int64_t *"),
            "embeddings": (inputs_embeds, np.float32, "float *"),
            "token_types": (token_type_ids, np.int64, "int64_t *"),
            "positions": (position_ids, np.int64, "int64_t *"),
            "visible": (key_mask, np.uint8, "unsigned char *"),
        }
        arrays = {n: np.ascontiguousarray(x, t) for n, (x, t, _) in given.items() if x is not None}
        pointers = {n: self._ffi.cast(given[n][2], x.ctypes.data) for n, x in arrays.items()}
        input = self._struct("input", sequences=len(cu_seqlens) - 1, **pointers)
        run = self._struct("run", threads=self.num_threads)
        out = np.empty((int(cu_seqlens[-1]), self._hidden), np.float32)
        y = self._ffi.cast("float *", out.ctypes.data)
        self._check(self._lib.modernbert_forward(self._model, input, run, y, out.size))
        return out

    def _struct(self, kind: str, **fields: Any) -> Any:
        name = f"modernbert_{kind}"
        return self._ffi.new(f"{name} *", {"struct_size": self._ffi.sizeof(name), **fields})

    def _check(self, status: int) -> None:
        if status:
            raise ValueError(self._ffi.string(self._lib.modernbert_last_error()).decode())


def declarations() -> str:
    """The part of modernbert.h that cffi reads."""
    text = library_header().read_text(encoding="utf-8").replace("MODERNBERT_API ", "")
    return text.split("/* declarations */")[1].split("/* end of declarations */")[0]
