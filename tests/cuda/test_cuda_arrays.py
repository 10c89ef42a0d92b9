"""Arrays of a device in and out: DLPack and `__cuda_array_interface__`, without copies, in the
caller's stream.

The library is that of csrc/cuda for this processor; its memory is closed to the host, so that a
copy which nobody asked for ends the program. Producers and consumers are fakes that follow the
protocols' documents; torch, cupy and jax need a device.
"""

from __future__ import annotations

import ctypes as c
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cases import CASES, integers
from support.cuda import asked, stand_in, usable, used

from refimpl import ModernBERT
from refimpl.backends import cuda, device_arrays
from refimpl.backends.device_arrays import FRESH, DLManaged, DLTensor, packed
from refimpl.backends.engine import Engine
from refimpl.reference.config import ModernBertConfig

# A minute to build.
pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("its_library")]
if not usable():
    pytest.skip("no sources of the engine, or no C++ compiler, here", allow_module_level=True)

CASE = CASES[0]
LENGTHS = (1, 70, 0, 33)
CU = np.cumsum([0, *LENGTHS])
IDS = integers((int(CU[-1]),), CASE.vocab, 1, "ids")


def opened_of(**more: Any) -> cuda.Engine:
    config = ModernBertConfig.from_dict({**CASE.config(), **more})
    params = CASE.params(dtype=np.float32)
    if more.get("type_vocab_size"):
        name = "embeddings.token_type_embeddings.weight"
        params |= {name: np.random.default_rng(0).normal(size=(2, CASE.hidden)).astype(np.float32)}
    return Engine(config, params, backend="cuda").opened


class OnDevice:
    """An array in memory of a device, as its owner has it: what is told of it, and what was done
    with it."""

    def __init__(self, x: np.ndarray, device: int = 0, strides: tuple[int, ...] | None = None):
        x = np.ascontiguousarray(x)
        self.x, self.device, self.strides = x, device, strides
        self.free = cuda.library().modernbert_cuda_free
        memory = c.c_void_p()
        cuda.call("allocate", device, c.c_size_t(max(1, x.nbytes)), c.byref(memory))
        self.pointer = memory.value
        from_, to = x.ctypes.data_as(c.c_void_p), c.c_void_p(self.pointer)
        cuda.call("to_device", device, to, from_, c.c_size_t(x.nbytes))

    def __del__(self) -> None:
        self.free(self.device, self.pointer)


class ByDLPack(OnDevice):
    """asked: the streams; given_back: how often a consumer has called the deleter."""

    def __init__(self, *arguments: Any, **more: Any):
        super().__init__(*arguments, **more)
        self.asked: list[int | None] = []
        self.given_back = 0
        self.keep: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        self.asked.append(stream)
        shape = (c.c_int64 * self.x.ndim)(*self.x.shape)
        code = {"i": 0, "u": 1, "f": 2, "b": 6}[self.x.dtype.kind]
        bits = 8 * self.x.dtype.itemsize
        tensor = DLTensor(self.pointer - 8, 2, self.device, self.x.ndim, code, bits, 1)
        tensor.shape, tensor.byte_offset = shape, 8
        if self.strides:
            tensor.strides = (c.c_int64 * len(self.strides))(*self.strides)

        @device_arrays.Deleter
        def delete(_: int) -> None:
            self.given_back += 1

        managed = DLManaged(tensor, None, c.cast(delete, c.c_void_p))
        self.keep += [shape, delete, managed]
        return device_arrays._new(c.addressof(managed), FRESH, None)


class ByInterface(OnDevice):
    stream: int | None = None
    mask: Any = None

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = self.strides and tuple(s * self.x.itemsize for s in self.strides)
        told = {"shape": self.x.shape, "typestr": self.x.dtype.str, "data": (self.pointer, False)}
        told |= {"strides": strides, "stream": self.stream, "version": 3}
        return told | ({"mask": self.mask} if self.mask is not None else {})


every_form = pytest.mark.parametrize("form", [ByDLPack, ByInterface])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """What the library is asked for meanwhile, by name, and numbers of it."""
    told: list[tuple[Any, ...]] = []
    real = cuda.call

    def call(name: str, *arguments: Any) -> None:
        told.append((name, *(getattr(a, "value", a) for a in arguments)))
        real(name, *arguments)

    monkeypatch.setattr(cuda, "call", call)
    yield told


@every_form
def test_arrays_of_a_device_give_the_bits_of_the_hosts(form):
    model = opened_of(type_vocab_size=2)
    host = {
        "token_type_ids": IDS % 2,
        "position_ids": np.concatenate([np.arange(n) * 2 for n in LENGTHS]),
        "key_mask": IDS % 5 != 0,
    }
    for names in ((), ("token_type_ids",), ("key_mask",), ("position_ids",), tuple(host)):
        given = [host[n] if n in names else None for n in host]
        expected = model.forward(IDS, None, CU, *given)
        for cu in (CU, form(CU)):
            got = packed(model, form(IDS), cu, **{n: form(host[n]) for n in names})
            assert got.shape == (len(IDS), CASE.hidden) and got.device == 0
            np.testing.assert_array_equal(got.numpy(), expected)


@every_form
def test_embeddings_and_every_byte_type_of_a_mask(form):
    model = opened_of()
    rows = np.random.default_rng(1).normal(size=(len(IDS), CASE.hidden)).astype(np.float32)
    visible = IDS % 3 != 0
    expected = model.forward(None, rows, CU, None, None, visible)
    for dtype in (np.bool_, np.uint8, np.int8):
        mask = form(visible.astype(dtype))
        got = packed(model, None, CU, inputs_embeds=form(rows), key_mask=mask)
        np.testing.assert_array_equal(got.numpy(), expected)


def test_a_producer_is_asked_for_the_callers_stream_and_gets_its_array_back(here: Path):
    model = opened_of()
    for stream, wanted in ((None, 1), (1, 1), (7000, 7000)):
        ids = ByDLPack(IDS)
        got = packed(model, ids, CU, stream=stream)
        assert ids.asked == [wanted] and ids.given_back == 1
        assert got.stream == wanted
        last = asked(here, "last_stream")
        assert wanted < last < wanted + 1000  # its launches, one after the other


def test_the_callers_stream_waits_for_that_of_an_interface(calls):
    model = opened_of()
    for own, waits in ((None, []), (9, [("wait", 0, 7, 9)]), (7, []), (1, [("wait", 0, 7, 1)])):
        ids = ByInterface(IDS)
        ids.stream = own
        calls.clear()
        packed(model, ids, CU, stream=7)
        assert [call for call in calls if call[0] in ("wait", "finish")] == waits
        assert [call[0] for call in calls][-1] == "forward_there"
    ids.stream = 0
    with pytest.raises(ValueError, match="input_ids says that its stream is 0"):
        packed(model, ids, CU)


def test_a_result_is_read_where_it_stands(calls):
    model = opened_of()
    expected = model.forward(IDS, None, CU)
    got = packed(model, ByDLPack(IDS), CU, stream=7)
    told = got.__cuda_array_interface__
    assert told["shape"] == expected.shape and told["stream"] == 7 and told["version"] == 3
    assert told["typestr"] == "<f4" and told["strides"] is None and told["data"][0] == got.pointer
    assert got.__dlpack_device__() == (2, 0)
    for stream, waits in ((None, [(1, 7)]), (9, [(9, 7)]), (7, []), (-1, [])):
        calls.clear()
        read = device_arrays.view(_Again(got, stream), "x", 0, 0)
        assert [call[2:] for call in calls if call[0] == "wait"] == waits
        assert read.pointer == got.pointer and read.shape == expected.shape
        assert (read.dtype, read.device) == (np.dtype(np.float32), 0)
    back = device_arrays.to_host(read.pointer, read.shape, read.dtype, 0)
    np.testing.assert_array_equal(back, expected)
    again = packed(model, None, CU, inputs_embeds=got)  # in, as it came out
    np.testing.assert_array_equal(again.numpy(), model.forward(None, expected, CU))
    for wrong in ({"copy": True}, {"dl_device": (1, 0)}, {"dl_device": (2, 1)}):
        with pytest.raises(BufferError):
            got.__dlpack__(**wrong)
    with pytest.raises(ValueError, match="stream is 0"):
        got.__dlpack__(stream=0)


class _Again:
    """Asks an array for a capsule in one stream, whatever it is asked itself."""

    def __init__(self, x: Any, stream: int | None):
        self.x, self.stream = x, stream

    def __dlpack__(self, *, stream: int | None) -> Any:
        return self.x.__dlpack__(stream=self.stream, max_version=(1, 0))


def test_memory_lives_as_long_as_whoever_reads_it(here: Path):
    gc.collect()
    before = used(here)
    array = device_arrays.DeviceArray((3, 5), 0)
    one = used(here) - before
    assert one > 0
    capsule = array.__dlpack__()
    del array
    gc.collect()
    assert used(here) - before == one  # the capsule has it
    del capsule  # and nobody read it
    gc.collect()
    assert used(here) == before
    array = device_arrays.DeviceArray((3, 5), 0)
    read = device_arrays.view(array, "x", 1, 0)
    del array
    gc.collect()
    assert used(here) - before == one
    del read
    gc.collect()
    assert used(here) == before and not device_arrays._lent


REFUSED = [
    (lambda form: dict(ids=form(IDS.astype(np.int32))), TypeError, "input_ids is int32 on the"),
    (lambda form: dict(ids=form(IDS[:-1])), ValueError, r"input_ids has shape \[103\]"),
    (
        lambda form: dict(ids=form(IDS), key_mask=form(IDS)),
        TypeError,
        "key_mask is int64 on the device; it must be bool or uint8",
    ),
    (
        lambda form: dict(ids=form(IDS), key_mask=IDS > 0),
        ValueError,
        "key_mask is on the host; all arrays of a call must be on the device",
    ),
    (
        lambda form: dict(ids=form(IDS, strides=(2,))),
        ValueError,
        "input_ids is not contiguous, and is not copied",
    ),
    (
        lambda form: dict(ids=form(IDS), position_ids=form(IDS[:3])),
        ValueError,
        "position_ids has shape",
    ),
    (lambda form: dict(ids=form(IDS), token_type_ids=form(IDS)), ValueError, "no token types"),
    (lambda form: dict(ids=None), ValueError, "exactly one of"),
]


@every_form
@pytest.mark.parametrize(("make", "error", "message"), REFUSED)
def test_what_cannot_be_read_is_refused_and_given_back(form, make, error, message):
    given = make(form)
    ids = given.pop("ids")
    model = opened_of()
    given |= {} if ids is not None else {"key_mask": form(IDS > 0)}
    with pytest.raises(error, match=message):
        device_arrays.packed(model, ids, CU, **given)
    gc.collect()
    for x in (ids, *given.values()):
        if isinstance(x, ByDLPack):
            assert x.given_back == len(x.asked)


def test_arrays_of_another_device_and_masked_ones_are_refused(here: Path):
    with stand_in(here, devices=2):
        model = opened_of()
        with pytest.raises(ValueError, match="input_ids is on device 1; the model is on 0"):
            packed(model, ByDLPack(IDS, device=1), CU)
        ids = ByInterface(IDS)
        ids.mask = ids
        with pytest.raises(ValueError, match="input_ids has a mask"):
            packed(model, ids, CU)


def test_memory_of_the_host_that_calls_itself_a_devices_is_refused():
    class Liar:
        __cuda_array_interface__ = {
            "shape": IDS.shape, "typestr": "<i8", "data": (IDS.ctypes.data, False), "version": 3,
        }  # fmt: skip

    with pytest.raises(ValueError, match="input->ids is no memory of a device"):
        packed(opened_of(), Liar(), CU)


def test_an_id_that_nobody_looked_at_makes_its_sequence_nan():
    ids = IDS.copy()
    ids[5] = CASE.vocab  # of the second sequence
    got = packed(opened_of(), ByDLPack(ids), CU).numpy()
    expected = opened_of().forward(IDS, None, CU)
    assert np.isnan(got[1:71]).all()
    np.testing.assert_array_equal(got[:1], expected[:1])
    np.testing.assert_array_equal(got[71:], expected[71:])


def test_the_public_call_takes_and_gives_them():
    config = ModernBertConfig.from_dict(CASE.config())
    model = ModernBERT(config, CASE.params(dtype=np.float32), backend="cuda:0")
    some = CU[[0, 1, 2, 4]]  # sequences of at least one token
    got = model.encode_packed(ByDLPack(IDS), some, stream=7)
    assert isinstance(got, device_arrays.DeviceArray) and got.stream == 7
    np.testing.assert_array_equal(got.numpy(), model.encode_packed(IDS, some))


def test_streams_and_threads_share_a_model():
    model = opened_of()
    sequences = [integers((n,), CASE.vocab, n, "ids") for n in (5, 70, 129, 33)]
    expected = [model.forward(s, None, np.array([0, len(s)])) for s in sequences]

    def one(i: int) -> np.ndarray:
        s = sequences[i % 4]
        return packed(model, ByDLPack(s), [0, len(s)], stream=1000 * (1 + i)).numpy()

    with ThreadPoolExecutor(4) as pool:
        for i, got in enumerate(pool.map(one, range(12))):
            np.testing.assert_array_equal(got, expected[i % 4])
