"""Arrays on a CUDA device: DLPack and `__cuda_array_interface__`, in and out without a copy.

An array of torch, cupy or jax is read where it stands; what comes back is a `DeviceArray`, which
they take as it is. The work is put into the caller's stream and not waited for. Only contiguous
arrays of the dtypes that the engine reads are taken, as another would have to be copied. Long
because the structs of both protocols stand here.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable
from typing import Any

import numpy as np

from . import cuda

Array = np.ndarray

CUDA_DEVICE = 2  # kDLCUDA
CODES = {0: "i", 1: "u", 2: "f", 6: "b"}  # of DLDataType
DEFAULT_STREAM = 1


class DLTensor(c.Structure):
    _fields_ = cuda.fields(
        data=c.c_void_p,
        device_type=c.c_int32,
        device_id=c.c_int32,
        ndim=c.c_int32,
        code=c.c_uint8,
        bits=c.c_uint8,
        lanes=c.c_uint16,
        shape=c.POINTER(c.c_int64),
        strides=c.POINTER(c.c_int64),
        byte_offset=c.c_uint64,
    )


class DLManaged(c.Structure):
    _fields_ = [("tensor", DLTensor), ("context", c.c_void_p), ("deleter", c.c_void_p)]


Deleter = c.CFUNCTYPE(None, c.c_void_p)
Destructor = c.PYFUNCTYPE(None, c.c_void_p)


def _capsules(name: str, result: Any, *arguments: Any) -> Any:
    return c.PYFUNCTYPE(result, *arguments)((f"PyCapsule_{name}", c.pythonapi))


_new = _capsules("New", c.py_object, c.c_void_p, c.c_char_p, c.c_void_p)
_is_valid = _capsules("IsValid", c.c_int, c.c_void_p, c.c_char_p)
_get_pointer = _capsules("GetPointer", c.c_void_p, c.c_void_p, c.c_char_p)
_set_name = _capsules("SetName", c.c_int, c.c_void_p, c.c_char_p)

FRESH, USED = b"dltensor", b"used_dltensor"

# What was given away and not given back: address of its DLManaged -> that, and all that must stay.
_lent: dict[int, tuple[Any, ...]] = {}


@Deleter
def _take_back(address: int) -> None:
    _lent.pop(address, None)


@Destructor
def _unused(capsule: int) -> None:
    if _is_valid(capsule, FRESH):
        _lent.pop(_get_pointer(capsule, FRESH), None)


class DeviceArray:
    """A float32 array on a device, contiguous; its memory is given back with it.

    stream: in which it is computed, as a number; `numpy()` waits for that.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, ...], device: int, stream: int = DEFAULT_STREAM) -> None:
        self.shape, self.device, self.stream = shape, device, stream
        memory = c.c_void_p()
        cuda.call("allocate", device, c.c_size_t(max(1, self.nbytes)), c.byref(memory))
        self.pointer: int = memory.value or 0
        self._free = cuda.library().modernbert_cuda_free

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __del__(self) -> None:
        if getattr(self, "_free", None):
            self._free(self.device, self.pointer)

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype=float32, device='cuda:{self.device}')"

    def numpy(self) -> Array:
        """A copy on the host."""
        self.finish()
        return to_host(self.pointer, self.shape, self.dtype, self.device)

    def finish(self) -> None:
        """Wait for its stream."""
        cuda.call("finish", self.device, c.c_size_t(self.stream))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "stream": self.stream or DEFAULT_STREAM,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA_DEVICE, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
        **_: Any,
    ) -> Any:
        """A capsule "dltensor", safe to be read in `stream` (-1: whoever reads it waits itself).

        Raises BufferError for another device or a copy, ValueError for stream 0, which the protocol
        leaves undefined.
        """
        if dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"the array is on cuda:{self.device}, and is not brought elsewhere")
        if copy:
            raise BufferError("the array is not copied; numpy() gives a copy on the host")
        wanted = DEFAULT_STREAM if stream is None else stream
        if wanted == 0:
            raise ValueError("stream is 0, which may be two; 1 is the default stream, 2 a thread's")
        if wanted != -1:
            after(self.device, wanted, self.stream)
        shape = (c.c_int64 * len(self.shape))(*self.shape)
        tensor = DLTensor(self.pointer, CUDA_DEVICE, self.device, len(self.shape), 2, 32, 1)
        tensor.shape = shape
        managed = DLManaged(tensor, None, c.cast(_take_back, c.c_void_p))
        address = c.addressof(managed)
        _lent[address] = managed, shape, self
        return _new(address, FRESH, c.cast(_unused, c.c_void_p))


class View:
    """Somebody's array on a device, for as long as this lives."""

    def __init__(
        self,
        pointer: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        device: int | None,
        let_go: Callable[[], Any] = lambda: None,
    ) -> None:
        self.pointer, self.shape, self.dtype, self.device = pointer, shape, dtype, device
        self._let_go = let_go

    def __del__(self) -> None:
        self._let_go()


def is_there(x: Any) -> bool:
    """Whether an array stands on a CUDA device."""
    if hasattr(x, "__dlpack_device__"):
        return int(x.__dlpack_device__()[0]) == CUDA_DEVICE
    return hasattr(x, "__cuda_array_interface__")


def after(device: int, stream: int, other: int) -> None:
    """What `stream` is given from now on begins when what `other` was given is done."""
    if stream != other:
        cuda.call("wait", device, c.c_size_t(stream), c.c_size_t(other))


def view(x: Any, name: str, stream: int, device: int) -> View:
    """The array, ready to be read in a stream of a device. Raises ValueError, TypeError."""
    if hasattr(x, "__dlpack__"):
        return _by_dlpack(x, name, stream)
    return _by_interface(x, name, stream, device)


def _by_dlpack(x: Any, name: str, stream: int) -> View:
    capsule = x.__dlpack__(stream=stream)
    if not _is_valid(id(capsule), FRESH):
        raise TypeError(f"{name}: __dlpack__ gave no capsule of the name dltensor")
    address = _get_pointer(id(capsule), FRESH)
    _set_name(id(capsule), USED)
    managed = DLManaged.from_address(address)
    t = managed.tensor

    def let_go() -> None:
        if managed.deleter:
            Deleter(managed.deleter)(address)

    shape = tuple(t.shape[i] for i in range(t.ndim))
    strides = [t.strides[i] for i in range(t.ndim)] if t.strides else None
    dtype = np.dtype(f"{CODES.get(t.code, 'V')}{t.bits // 8}") if t.bits >= 8 else np.dtype("V1")
    out = View((t.data or 0) + t.byte_offset, shape, dtype, t.device_id, let_go)
    if t.device_type != CUDA_DEVICE:
        raise ValueError(
            f"{name} is on a device of type {t.device_type}; it must be on a CUDA device"
        )
    if strides is not None and not _contiguous(shape, strides):
        raise ValueError(f"{name} is not contiguous, and is not copied")
    return out


def _by_interface(x: Any, name: str, stream: int, device: int) -> View:
    given = x.__cuda_array_interface__
    dtype, shape = np.dtype(given["typestr"]), tuple(given["shape"])
    strides = given.get("strides")
    if given.get("mask") is not None:
        raise ValueError(f"{name} has a mask, which is not read")
    if strides is not None and not _contiguous(shape, [s // dtype.itemsize for s in strides]):
        raise ValueError(f"{name} is not contiguous, and is not copied")
    own = given.get("stream")
    if own == 0:
        raise ValueError(f"{name} says that its stream is 0, which may be two; 1 is the default")
    if own is not None:
        after(device, stream, own)
    keep = [x]
    return View(given["data"][0] or 0, shape, dtype, None, keep.clear)


def _contiguous(shape: tuple[int, ...], strides: list[int]) -> bool:
    step = 1
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1 and stride != step:
            return 0 in shape
        step *= n
    return True


def to_host(pointer: int, shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> Array:
    out = np.empty(shape, dtype)
    if out.size:
        to = out.ctypes.data_as(c.c_void_p)
        cuda.call("to_host", device, to, c.c_void_p(pointer), c.c_size_t(out.nbytes))
    return out


def on_host(x: Any, name: str, device: int) -> Array:
    """An array of either side on the host; one of a device is waited for."""
    if not is_there(x):
        return np.asarray(x)
    found = view(x, name, DEFAULT_STREAM, device)
    cuda.call("finish", device, c.c_size_t(DEFAULT_STREAM))
    return to_host(found.pointer, found.shape, found.dtype, device)


def packed(
    model: cuda.Engine,
    input_ids: Any,
    cu_seqlens: Any,
    *,
    inputs_embeds: Any = None,
    token_type_ids: Any = None,
    position_ids: Any = None,
    key_mask: Any = None,
    stream: int | None = None,
) -> DeviceArray:
    """Last hidden state [total, hidden] of sequences laid end to end, all of it on the device.

    input_ids and token_type_ids int64, inputs_embeds float32, key_mask bool or uint8, on the
    model's device; cu_seqlens and position_ids on either side, where one on the device is waited
    for. stream: the caller's, as a number (torch: `torch.cuda.current_stream().cuda_stream`); None
    for the default one. The arrays must stay until it is over. An id that there is no row for gives
    NaN. Raises ValueError, TypeError, MemoryError.
    """
    stream = stream or DEFAULT_STREAM
    cu = np.require(on_host(cu_seqlens, "cu_seqlens", model.device), np.int64, ["C"])
    if cu.ndim != 1 or len(cu) == 0:
        raise ValueError("cu_seqlens must have one axis, from 0 to the number of tokens")
    total, hidden = int(cu[-1]), int(model.facts.hidden)
    wanted = {
        "ids": (input_ids, "input_ids", ("<i8",), (total,)),
        "embeddings": (inputs_embeds, "inputs_embeds", ("<f4",), (total, hidden)),
        "token_types": (token_type_ids, "token_type_ids", ("<i8",), (total,)),
        "visible": (key_mask, "key_mask", ("|b1", "|u1", "|i1"), (total,)),
    }
    views: dict[str, View] = {}
    for field, (x, name, dtypes, shape) in wanted.items():
        if x is None:
            continue
        if not is_there(x):
            raise ValueError(f"{name} is on the host; all arrays of a call must be on the device")
        v = views[field] = view(x, name, stream, model.device)
        if v.dtype.str not in dtypes:
            names = " or ".join(np.dtype(d).name for d in dtypes)
            raise TypeError(f"{name} is {v.dtype.name} on the device; it must be {names}")
        if v.shape != shape:
            raise ValueError(f"{name} has shape {list(v.shape)}; it must be {list(shape)}")
        if v.device is not None and v.device != model.device:
            raise ValueError(f"{name} is on device {v.device}; the model is on {model.device}")
    positions = None
    if position_ids is not None:
        positions = np.require(on_host(position_ids, "position_ids", model.device), np.int64, ["C"])
        if positions.shape != (total,):
            raise ValueError(
                f"position_ids has shape {list(positions.shape)}; it must be [{total}]"
            )
    out = DeviceArray((max(0, total), hidden), model.device, stream)
    given = cuda.Input(
        sequences=len(cu) - 1,
        cu_seqlens=cu.ctypes.data,
        positions=cuda.pointer(positions),
        **{field: v.pointer for field, v in views.items()},
    )
    model.forward_there(given, stream, out.pointer, out.size)
    return out
