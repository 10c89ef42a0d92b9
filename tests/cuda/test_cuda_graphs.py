"""Graphs of short passes: the bits of kernels that are started one by one, and a bounded number."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import CASES, integers
from support.cuda import asked, usable

from refimpl.backends.engine import Engine
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.sentence import Normalize, Pooling, SentenceHead

# A minute to build, and a kernel is slow here.
pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("its_library")]
if not usable():
    pytest.skip("no sources of the engine, or no C++ compiler, here", allow_module_level=True)

CASE = CASES[0]
HEAD = SentenceHead((Pooling(CASE.hidden, ("mean",)), Normalize()))


def engine_of(dtype: str = "float32", graphs: bool = True) -> Engine:
    config = ModernBertConfig.from_dict(CASE.config())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFIMPL_CUDA_GRAPHS", str(int(graphs)))
        params = CASE.params(dtype=np.float32)
        return Engine(config, params, dtype=dtype, head=HEAD, backend="cuda")


def ids_of(counts: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    ids = integers((sum(counts),), CASE.vocab, seed, f"ids {counts}")
    return ids, np.cumsum([0, *counts])


def launches(here: Path) -> int:
    return asked(here, "graph_launches")


def test_a_bucket_is_one_launch_from_its_second_pass_on(here: Path):
    engine, before = engine_of(), launches(here)
    # 33 .. 48 tokens of one sequence, 17 .. 32 of two.
    for counts, expected in (([40], 0), ([33], 1), ([48], 2), ([49], 2), ([9, 9], 2), ([1, 31], 3)):
        engine.packed(*ids_of(counts))
        assert launches(here) - before == expected, counts
    plain, before = engine_of(graphs=False), launches(here)
    for _ in range(3):
        plain.packed(*ids_of([40]))
    assert launches(here) == before


@pytest.mark.parametrize("dtype", ["float32", "bf16x3", "bfloat16"])
@settings(max_examples=5)
@given(st.data())
def test_passes_of_a_bucket_have_the_bits_of_kernels_one_by_one(dtype: str, data: st.DataObject):
    """Whatever stood in the bucket before: longer sequences, more of them, hidden tokens."""
    graphs, plain = engine_of(dtype), engine_of(dtype, graphs=False)
    tokens = data.draw(st.sampled_from([16, 48, 80]))
    for i in range(data.draw(st.integers(3, 6))):
        counts = data.draw(st.lists(st.integers(0, tokens), min_size=1, max_size=4))
        while sum(counts) > tokens:
            counts[counts.index(max(counts))] //= 2
        ids, cu = ids_of(counts, i)
        visible = ids % 4 != 0 if data.draw(st.booleans()) else None
        given_arrays = ids, None, cu, None, None, visible
        for ask in ("forward", "embed"):
            got, expected = (getattr(e.opened, ask)(*given_arrays) for e in (graphs, plain))
            np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


def test_longer_tables_and_larger_workspaces_leave_no_graph_behind(here: Path):
    """A graph knows where the rotary tables and its workspace were."""
    graphs, plain = engine_of(), engine_of(graphs=False)
    for counts in ([20], [20], [600], [20], [20], [700], [20], [700], [20]):
        ids, cu = ids_of(counts)
        np.testing.assert_array_equal(graphs.packed(ids, cu), plain.packed(ids, cu))


def test_there_are_no_more_graphs_than_the_interface_says(here: Path):
    gc.collect()
    before, engine = asked(here, "graphs"), engine_of()
    for tokens in (48, 32, 16):  # the first one needs the largest workspace
        for sequences in (4, 2, 1):
            ids, cu = ids_of([tokens // sequences] * sequences)
            for ask in ("forward", "embed") * 2:
                getattr(engine.opened, ask)(ids, None, cu)
    assert asked(here, "graphs") - before == 16
    engine.opened.trim()
    assert asked(here, "graphs") == before
    engine.packed(*ids_of([8])), engine.packed(*ids_of([8]))
    del engine
    gc.collect()
    assert asked(here, "graphs") == before


def test_a_pass_that_is_stopped_while_its_graph_is_made_is_stopped(here: Path, monkeypatch):
    import ctypes

    from refimpl.backends import cuda

    engine = engine_of()
    given_arrays = ids_of([40])
    expected = engine.packed(*given_arrays)
    asked_for = []

    def stop(_: object) -> int:
        asked_for.append(1)
        return int(len(asked_for) == 2)  # in the first layer, while the graph is made

    given_input, keep = engine.opened._input(given_arrays[0], None, given_arrays[1])
    out = np.empty_like(expected)
    how = cuda.Run(interrupt=cuda.Interrupt(stop))
    status = cuda.library().modernbert_cuda_forward(
        engine.opened._handle, ctypes.byref(given_input), ctypes.byref(how),
        out.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(out.size),
    )  # fmt: skip
    assert status == cuda.INTERRUPTED and len(keep) == 6
    before = launches(here)
    np.testing.assert_array_equal(engine.packed(*given_arrays), expected)
    assert launches(here) == before + 1
