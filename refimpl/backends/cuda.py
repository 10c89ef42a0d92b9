"""CUDA devices: libmodernbert_cuda.so (csrc/modernbert_cuda.h) by ctypes, behind the calls of
`_native`.

Imported, and the library loaded, only when a device is asked for. REFIMPL_CUDA_LIBRARY names
another library than the one beside this file: the tests' own, whose devices are this processor.
REFIMPL_CUDA_GRAPHS=0 starts every kernel by itself, where short passes are one launch else.
Errors are ValueError for what is not there or was asked wrongly, MemoryError for a device that is
full, OSError for a file that cannot be read any more. Long because every struct of the interface is
written down here.
"""

from __future__ import annotations

import ctypes as c
import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

Array = np.ndarray

LIBRARY = Path(__file__).with_name("libmodernbert_cuda.so")
# Written by setup.py where it could not build the library: one line that says why.
NOT_BUILT = Path(__file__).with_name("cuda_not_built.txt")
EMBEDDING = "embeddings.tok_embeddings.weight"

OK, INVALID_ARGUMENT, BAD_FILE, OUT_OF_MEMORY, INTERRUPTED, INTERNAL, NO_DEVICE = range(7)
ERRORS = {BAD_FILE: OSError, OUT_OF_MEMORY: MemoryError, INTERNAL: RuntimeError}
# How a tensor is stored.
STORAGE = {"float32": 0, "uint16": 1, "float16": 2}

Told = c.CFUNCTYPE(None, c.c_void_p, c.c_int64)
Asked = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_int64)
Interrupt = c.CFUNCTYPE(c.c_int, c.c_void_p)


def fields(**types: Any) -> list[Any]:
    """`_fields_` of a struct, in order."""
    return list(types.items())


class Sized(c.Structure):
    """A struct that begins with its size."""

    def __init__(self, **given: Any) -> None:
        super().__init__(struct_size=c.sizeof(type(self)), **given)


SIZE = fields(struct_size=c.c_size_t)
SIZES = fields(**dict.fromkeys("vocab hidden inter heads layers types".split(), c.c_int64))


class ModuleOf(c.Structure):
    _fields_ = fields(
        kind=c.c_int,
        modes=c.c_char_p,
        prompt_left_out=c.c_int,
        width=c.c_int64,
        activation=c.c_char_p,
    )


class Config(Sized):
    _fields_ = [*SIZE, *SIZES] + fields(
        windows=c.POINTER(c.c_int64),
        thetas=c.POINTER(c.c_double),
        norm_eps=c.c_double,
        activation=c.c_char_p,
        modules=c.POINTER(ModuleOf),
        module_count=c.c_size_t,
        kept=c.POINTER(c.c_uint32),
        labels=c.c_int64,
        classifier_pooling=c.c_char_p,
        classifier_activation=c.c_char_p,
    )


class File(c.Structure):
    _fields_ = fields(descriptor=c.c_int, offset=c.c_int64)


class TensorOf(c.Structure):
    _fields_ = fields(
        name=c.c_char_p,
        data=c.c_void_p,
        storage=c.c_int,
        rank=c.c_int,
        shape=c.POINTER(c.c_int64),
        file=c.POINTER(File),
    )


class Options(Sized):
    _fields_ = SIZE + fields(
        device=c.c_int,
        dtype=c.c_char_p,
        packed=Told,
        reading=Asked,
        user=c.c_void_p,
        no_graphs=c.c_int,
    )


class DeviceFacts(Sized):
    _fields_ = SIZE + fields(
        name=c.c_char * 256,
        major=c.c_int,
        minor=c.c_int,
        memory=c.c_uint64,
        multiprocessors=c.c_int,
        missing=c.c_char * 512,
    )


class ModelFacts(Sized):
    _fields_ = [*SIZE, *SIZES] + fields(
        device=c.c_int,
        dtype=c.c_char_p,
        weight_bytes=c.c_uint64,
        modules=c.c_int64,
        width=c.c_int64,
        labels=c.c_int64,
    )


class Input(Sized):
    _fields_ = SIZE + fields(
        sequences=c.c_int64,
        cu_seqlens=c.c_void_p,
        ids=c.c_void_p,
        embeddings=c.c_void_p,
        token_types=c.c_void_p,
        positions=c.c_void_p,
        visible=c.c_void_p,
    )


class Run(Sized):
    _fields_ = SIZE + fields(threads=c.c_int, interrupt=Interrupt, user=c.c_void_p)


class Embedding(Sized):
    _fields_ = SIZE + fields(width=c.c_int64, normalize=c.c_int, prompt_tokens=c.c_int64)


class Piece(Sized):
    _fields_ = SIZE + fields(
        step=c.c_char_p,
        layer=c.c_int64,
        first_row=c.c_int64,
        rows=c.c_int64,
        columns=c.c_int64,
        data=c.POINTER(c.c_float),
    )


Tap = c.CFUNCTYPE(c.c_int, c.c_void_p, c.POINTER(Piece))


# -- the library ----------------------------------------------------------------------------------


def library_path() -> Path:
    return Path(os.environ.get("REFIMPL_CUDA_LIBRARY") or LIBRARY)


@cache
def _load(path: Path) -> tuple[c.CDLL | None, str | None]:
    """The library, or why there is none."""
    if not path.exists():
        reason = NOT_BUILT.read_text().strip() if NOT_BUILT.exists() else f"there is no {path.name}"
        return None, f"the library for CUDA was not built: {reason}"
    try:
        library = c.CDLL(str(path))
    except OSError as error:
        return None, f"the library for CUDA does not load: {error}"
    for name in ("last_error", "version", "architectures"):
        getattr(library, f"modernbert_cuda_{name}").restype = c.c_char_p
    library.modernbert_cuda_close.argtypes = [c.c_void_p]
    library.modernbert_cuda_close.restype = library.modernbert_cuda_free.restype = None
    library.modernbert_cuda_free.argtypes = [c.c_int, c.c_void_p]
    return library, None


def library() -> c.CDLL:
    """The library. ValueError that says why there is none."""
    found, why = _load(library_path())
    if found is None:
        raise ValueError(f"backend 'cuda' is not available: {why}")
    return found


def call(name: str, *arguments: Any) -> None:
    """A function of the library. What it refuses is raised."""
    status = getattr(library(), f"modernbert_cuda_{name}")(*arguments)
    if status != OK:
        refuse(status)


def refuse(status: int) -> NoReturn:
    text = library().modernbert_cuda_last_error().decode("utf-8", "replace")
    if status == NO_DEVICE:
        raise ValueError(f"backend 'cuda' is not available: {text}")
    raise ERRORS.get(status, ValueError)(text)


def device_of(backend: str) -> int:
    """The number in "cuda" or "cuda:1". ValueError for another text."""
    found = re.fullmatch(r"cuda(?::([0-9]{1,6}))?", backend)
    if found is None:
        raise ValueError(f"backend {backend!r} is not available; a device is cuda, cuda:1, ..")
    return int(found[1] or 0)


def check(backend: str) -> None:
    """ValueError that says why a model cannot be on a device."""
    facts = device_facts(device_of(backend))
    if facts.missing:
        raise ValueError(f"backend {backend!r} is not available: {facts.missing.decode()}")


def device_facts(device: int) -> DeviceFacts:
    facts = DeviceFacts()
    call("device_facts", device, c.byref(facts))
    return facts


def facts() -> dict[str, Any]:
    """What `info()` tells: whether it was built, for what, which devices there are, or why none."""
    found, why = _load(library_path())
    if found is None:
        return {"built": False, "architectures": [], "devices": [], "reason": why}
    names = found.modernbert_cuda_architectures().decode()
    architectures = names.split() if names.startswith("sm_") else [names]
    out: dict[str, Any] = {"built": True, "architectures": architectures, "devices": []}
    try:
        count = c.c_int()
        call("count", c.byref(count))
        seen = [device_facts(i) for i in range(count.value)]
    except ValueError as error:
        return out | {"reason": str(error)}
    out["devices"] = [
        f"cuda:{i} {d.name.decode()}, compute capability {d.major}.{d.minor}, "
        f"{d.memory / 2**30:.1f} GiB" + (f": {d.missing.decode()}" if d.missing else "")
        for i, d in enumerate(seen)
    ]
    usable = any(not d.missing for d in seen)
    return out | {"reason": None if usable else "there is no device that a model can be on"}


# -- a model --------------------------------------------------------------------------------------


def plain(x: Array | None, dtype: Any) -> Array | None:
    """As the library reads it: contiguous, aligned, of the dtype. TypeError where values would
    change."""
    if x is None:
        return None
    x = np.asarray(x)
    if not np.can_cast(x.dtype, dtype, "same_kind" if x.dtype.kind == "u" else "safe"):
        raise TypeError(f"an array of {x.dtype} cannot be read as {np.dtype(dtype)}")
    return np.require(x, dtype, ["C", "A"])


def pointer(x: Array | None) -> int | None:
    return None if x is None else x.ctypes.data


class Engine:
    """A model on a device, as `_native.Engine` has it."""

    pack = None

    def __init__(
        self,
        plan: Mapping[str, Any],
        params: Mapping[str, Array],
        device: int,
        dtype: str,
        reading: Callable[[int], Any] | None = None,
        packed: Callable[[int], Any] | None = None,
        embedding_in: tuple[int, int] | None = None,
    ) -> None:
        self.device, self.dtype, self.tier = device, dtype, f"cuda:{device}"
        self._handle = c.c_void_p()
        self._close = library().modernbert_cuda_close
        keep: list[Any] = []
        config = _config(plan, keep)
        tensors = _tensors(params, embedding_in, keep)
        errors: list[BaseException] = []

        def told(f: Callable[[int], Any] | None) -> Callable[[Any, int], int]:
            def run(_: Any, layer: int) -> int:
                try:
                    if f is not None and not errors:
                        f(layer)
                except BaseException as error:  # raised when the library has returned
                    errors.append(error)
                return 1 if errors else 0

            return run

        after = told(packed)
        options = Options(
            device=device,
            dtype=dtype.encode(),
            packed=Told(lambda user, layer: None if after(user, layer) else None),
            reading=Asked(told(reading)),
            no_graphs=os.environ.get("REFIMPL_CUDA_GRAPHS") == "0",
        )
        create = library().modernbert_cuda_create
        status = create(
            c.byref(config),
            tensors,
            c.c_size_t(len(tensors)),
            c.byref(options),
            c.byref(self._handle),
        )
        if errors:
            raise errors[0]
        if status != OK:
            refuse(status)
        self.facts = ModelFacts()
        call("model_facts", self._handle, c.byref(self.facts))

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._close(self._handle)
            self._handle = c.c_void_p()

    def workspace_bytes(self, total: int, sequences: int) -> int:
        """Of the device, that a pass takes (modernbert_cuda.h)."""
        out = c.c_uint64()
        call("workspace_bytes", self._handle, c.c_int64(total), c.c_int64(sequences), c.byref(out))
        return out.value

    def trim(self) -> None:
        """Give back what no pass uses."""
        call("trim", self._handle)

    def forward(
        self,
        ids: Array | None,
        embeds: Array | None,
        cu_seqlens: Array,
        token_types: Array | None = None,
        positions: Array | None = None,
        visible: Array | None = None,
        threads: int = 0,
    ) -> Array:
        given, keep = self._input(ids, embeds, cu_seqlens, token_types, positions, visible)
        out = np.empty((max(0, int(keep[0][-1])), self.facts.hidden), np.float32)
        self._run("forward", given, (), out)
        return out

    def embed(
        self, *arguments: Any, width: int = 0, normalize: bool = False, prompt_tokens: int = 0
    ) -> Array:
        given, keep = self._input(*arguments[:6])
        wanted = Embedding(width=width, normalize=normalize, prompt_tokens=prompt_tokens)
        columns = width if width > 0 else self.facts.width
        out = np.empty((len(keep[0]) - 1, columns), np.float32)
        self._run("embed", given, (c.byref(wanted),), out)
        return out

    def logits(self, *arguments: Any) -> Array:
        given, keep = self._input(*arguments[:6])
        out = np.empty((len(keep[0]) - 1, self.facts.labels), np.float32)
        self._run("logits", given, (), out)
        return out

    def trace(
        self,
        *arguments: Any,
        fused: bool = False,
        tap: Callable[[str, int | None, int, Array], Any],
    ) -> Array:
        """`forward`, with every step told to tap(step, layer, first_row, rows)."""
        given, keep = self._input(*arguments[:6])
        out = np.empty((max(0, int(keep[0][-1])), self.facts.hidden), np.float32)
        errors: list[BaseException] = []

        def told(_: Any, piece: Any) -> int:
            p = piece.contents
            try:
                rows = np.ctypeslib.as_array(p.data, (p.rows, p.columns)).copy()
                step = p.step.decode()
                layer = None if p.layer < 0 else p.layer
                step = step if layer is None else step.split(".", 2)[2]
                tap(step, layer, p.first_row, rows)
            except BaseException as error:  # raised when the library has returned
                errors.append(error)
            return 1 if errors else 0

        run = library().modernbert_cuda_trace
        to, count = out.ctypes.data_as(c.c_void_p), c.c_size_t(out.size)
        status = run(self._handle, c.byref(given), int(fused), Tap(told), None, to, count)
        if errors:
            raise errors[0]
        if status != OK:
            refuse(status)
        return out

    def forward_there(self, given: Input, stream: int, out: int, count: int) -> None:
        """Of arrays on the device: their addresses, and where the result goes
        (device_arrays.py)."""
        call(
            "forward_there", self._handle, c.byref(given), c.c_size_t(stream), c.c_void_p(out),
            c.c_size_t(count),
        )  # fmt: skip

    def _input(
        self,
        ids: Array | None,
        embeds: Array | None,
        cu_seqlens: Array,
        token_types: Array | None = None,
        positions: Array | None = None,
        visible: Array | None = None,
    ) -> tuple[Input, list[Any]]:
        """The arrays as the library takes them, of their shapes, and what has to stay."""
        cu = plain(cu_seqlens, np.int64)
        if cu is None or cu.ndim != 1 or len(cu) == 0:
            raise ValueError("cu_seqlens must have one axis, from 0 to the number of tokens")
        total = int(cu[-1])
        own = {
            "ids": (plain(ids, np.int64), (total,)),
            "embeddings": (plain(embeds, np.float32), (total, self.facts.hidden)),
            "token_types": (plain(token_types, np.int64), (total,)),
            "positions": (plain(positions, np.int64), (total,)),
            "visible": (None if visible is None else np.require(visible != 0, np.uint8, ["C"]),
            (total,)),
        }  # fmt: skip
        for name, (x, shape) in own.items():
            if x is not None and x.shape != shape:
                raise ValueError(f"{name} has shape {list(x.shape)}; it must be {list(shape)}")
        pointers = {name: pointer(x) for name, (x, _) in own.items()}
        given = Input(sequences=len(cu) - 1, cu_seqlens=pointer(cu), **pointers)
        return given, [cu, *(x for x, _ in own.values())]

    def _run(self, name: str, given: Input, between: tuple[Any, ...], out: Array) -> None:
        """A pass into out; Ctrl-C ends it. `given` points into arrays that the caller keeps."""
        errors: list[BaseException] = []

        def interrupted(_: Any) -> int:
            try:
                c.pythonapi.PyErr_CheckSignals()  # raises what a handler raised, in the main thread
            except BaseException as error:
                errors.append(error)
            return 1 if errors else 0

        how = Run(interrupt=Interrupt(interrupted))
        f = getattr(library(), f"modernbert_cuda_{name}")
        status = f(
            self._handle, c.byref(given), *between, c.byref(how), out.ctypes.data_as(c.c_void_p),
            c.c_size_t(out.size),
        )  # fmt: skip
        if errors:
            raise errors[0]
        if status != OK:
            refuse(status)


def _config(plan: Mapping[str, Any], keep: list[Any]) -> Config:
    layers = len(plan["thetas"])
    windows = (c.c_int64 * layers)(*[-1 if w is None else w for w in plan["windows"]])
    thetas = (c.c_double * layers)(*plan["thetas"])
    modules = (ModuleOf * len(plan["modules"]))(
        *[
            ModuleOf(
                m["kind"], m["modes"].encode(), m["prompt_left_out"], m["width"],
                m["activation"].encode(),
            )
            for m in plan["modules"]
        ]
    )  # fmt: skip
    keep += [windows, thetas, modules]
    sizes = {name: plan[name] for name in ("vocab", "hidden", "inter", "heads", "types")}
    return Config(
        **sizes,
        layers=layers,
        windows=windows,
        thetas=thetas,
        norm_eps=plan["norm_eps"],
        activation=plan["activation"].encode(),
        modules=modules,
        module_count=len(modules),
        labels=plan["labels"],
        classifier_pooling=plan["classifier_pooling"].encode(),
        classifier_activation=plan["classifier_activation"].encode(),
    )


def _tensors(
    params: Mapping[str, Array], embedding_in: tuple[int, int] | None, keep: list[Any]
) -> Any:
    out = (TensorOf * len(params))()
    for tensor, (name, given) in zip(out, params.items(), strict=True):
        in_file = embedding_in is not None and name == EMBEDDING
        if given.dtype.name not in STORAGE or not given.dtype.isnative:
            raise ValueError(
                f"{name} must be a float32 or float16 array, or uint16 with the bits of bfloat16, "
                "in the machine's byte order"
            )
        x = given if in_file else np.require(given, None, ["C", "A"])
        shape = (c.c_int64 * x.ndim)(*x.shape)
        tensor.name, tensor.storage = name.encode(), STORAGE[x.dtype.name]
        tensor.rank, tensor.shape = x.ndim, shape
        if in_file and embedding_in is not None:
            tensor.file = c.pointer(File(*embedding_in))
        else:
            tensor.data = x.ctypes.data
        keep += [x, shape, tensor.file]
    return out
