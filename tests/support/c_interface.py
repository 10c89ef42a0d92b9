"""libmodernbert.so for the tests, through cffi: declarations are the headers' own text.

A module that imports this is skipped, with the reason, where there is no library or no cffi;
REFIMPL_REQUIRE_NATIVE=1 turns the first into a failure.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refimpl.backends import backend
from refimpl.reference.config import ModernBertConfig

from .native import extension

cffi = pytest.importorskip("cffi")
extension()

CSRC = Path(__file__).resolve().parents[2] / "csrc"
LIBRARY = backend.library()
OK, INVALID, BAD_FILE, OUT_OF_MEMORY, INTERRUPTED = range(5)
HEADERS = ("modernbert.h", "modernbert_ops.h", "modernbert_text.h", "modernbert_training.h")
STORAGE = {"float32": 0, "uint16": 1, "float16": 2}  # uint16: the bits of bfloat16

if not CSRC.exists():
    pytest.skip("no headers here", allow_module_level=True)


def declarations(header: str) -> str:
    """What cffi reads of a header: the part between its marks."""
    text = (CSRC / header).read_text(encoding="utf-8").replace("MODERNBERT_API ", "")
    return text.split("/* declarations */")[1].split("/* end of declarations */")[0]


ffi = cffi.FFI()
for header in HEADERS:
    ffi.cdef(declarations(header))
lib: Any = ffi.dlopen(str(LIBRARY))
# What a struct points to lives as long as it does.
_alive: Any = weakref.WeakKeyDictionary()


def last_error() -> str:
    return ffi.string(lib.modernbert_last_error()).decode()


class Failed(Exception):
    """A status that is not OK, and the text that goes with it."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(last_error())


def check(status: int) -> None:
    if status != OK:
        raise Failed(status)


def data_of(x: np.ndarray | None) -> Any:
    """A pointer to an array's data; the array has to live as long."""
    if x is None:
        return ffi.NULL
    kinds = {"f": "float *", "i": "int64_t *", "b": "unsigned char *", "u": "unsigned char *"}
    return ffi.cast(kinds[x.dtype.kind], x.ctypes.data)


def struct(kind: str, **fields: Any) -> Any:
    """A struct of the interface with its size set; text and arrays live as long as it does."""
    made = ffi.new(f"modernbert_{kind} *", {"struct_size": ffi.sizeof(f"modernbert_{kind}")})
    kept = []
    for name, value in fields.items():
        if isinstance(value, str):
            value = ffi.new("char[]", value.encode())
        elif isinstance(value, np.ndarray):
            kept.append(value)
            value = data_of(value)
        kept.append(value)
        setattr(made, name, value)
    _alive[made] = kept
    return made


class Model:
    """A handle that closes itself."""

    def __init__(self, handle: Any, kept: Any = None) -> None:
        self.handle, self.kept = ffi.gc(handle, lib.modernbert_close), kept

    @classmethod
    def open(cls, folder: Path, **options: Any) -> Model:
        out = ffi.new("modernbert_model **")
        given = struct("options", **options) if options else ffi.NULL
        check(lib.modernbert_open(str(folder).encode(), given, out))
        return cls(out[0])

    @classmethod
    def create(
        cls, config: ModernBertConfig, params: Mapping[str, np.ndarray], **options: Any
    ) -> Model:
        out = ffi.new("modernbert_model **")
        tensors, kept = tensors_of(params)
        given = struct("options", **options)
        check(lib.modernbert_create(config_of(config), tensors, len(params), given, out))
        return cls(out[0], kept)

    def facts(self) -> Any:
        out = struct("facts")
        check(lib.modernbert_model_facts(self.handle, out))
        return out

    def forward(self, input: Any, total: int, run: Any = ffi.NULL) -> np.ndarray:
        out = np.full((total, self.facts().hidden), np.nan, np.float32)
        check(lib.modernbert_forward(self.handle, input, run, data_of(out), out.size))
        return out

    def trace(self, input: Any, total: int, fused: bool) -> tuple[np.ndarray, dict]:
        """The last hidden state, and name -> step [total, columns]."""
        out = np.full((total, self.facts().hidden), np.nan, np.float32)
        steps: dict[str, np.ndarray] = {}

        @ffi.callback("modernbert_tap")
        def tap(user: Any, piece: Any) -> int:
            name = ffi.string(piece.step).decode()
            size = piece.rows * piece.columns
            rows = np.frombuffer(ffi.buffer(piece.data, 4 * size), np.float32).copy()
            step = steps.setdefault(name, np.full((total, piece.columns), np.nan, np.float32))
            step[piece.first_row : piece.first_row + piece.rows] = rows.reshape(piece.rows, -1)
            return 0

        status = lib.modernbert_trace(
            self.handle, input, 1, fused, tap, ffi.NULL, data_of(out), out.size
        )
        check(status)
        return out, steps


def config_of(config: ModernBertConfig, **changes: Any) -> Any:
    """modernbert_config of a config.json."""
    layers = range(config.num_hidden_layers)
    windows = [config.window(i) for i in layers]
    fields = {
        "vocab": config.vocab_size,
        "hidden": config.hidden_size,
        "inter": config.intermediate_size,
        "heads": config.num_attention_heads,
        "layers": config.num_hidden_layers,
        "types": config.type_vocab_size,
        "windows": np.array([-1 if w is None else w for w in windows], np.int64),
        "thetas": ffi.new("double[]", [config.rope_theta(i) for i in layers]),
        "norm_eps": config.norm_eps,
        "activation": config.hidden_activation,
    }
    return struct("config", **{**fields, **changes})


def tensors_of(params: Mapping[str, np.ndarray]) -> tuple[Any, list]:
    """modernbert_tensor [n], and what must live as long."""
    tensors, kept = ffi.new("modernbert_tensor[]", len(params)), []
    for tensor, (name, x) in zip(tensors, params.items(), strict=True):
        kept += [ffi.new("char[]", name.encode()), ffi.new("int64_t[]", x.shape), x]
        tensor.name, tensor.shape, tensor.rank = kept[-3], kept[-2], x.ndim
        tensor.data, tensor.storage = ffi.cast("void *", x.ctypes.data), STORAGE[x.dtype.name]
    kept.append(tensors)
    return tensors, kept


def input_of(cu_seqlens: list[int] | np.ndarray, **arrays: np.ndarray) -> Any:
    """modernbert_input of packed sequences."""
    cu = np.asarray(cu_seqlens, np.int64)
    return struct("input", sequences=len(cu) - 1, cu_seqlens=cu, **arrays)
