"""What shows after many calls only: forks, memory that grows, allocations that fail under a limit.

`pytest -m soak tests/engine/test_native_soak.py -s` prints the figures; the default run leaves it
out.
"""

from __future__ import annotations

import multiprocessing
import resource
from pathlib import Path

import numpy as np
import pytest
from support.cases import Case, integers
from support.children import in_child
from support.native import engine_of, extension, repeated, tiers
from support.process_memory import anonymous

native = extension()
pytestmark = pytest.mark.soak

CASE = Case("soak", "v5", "fsfs", 64, 4, 96, 61, 16, 1e4, 1e3)
IDS = integers((400,), CASE.vocab, 1, "ids")
WHOLE = np.array([0, 400])
MEGABYTE = 2**20


def random_calls(engine, rng, calls: int, longest: int) -> None:
    for _ in range(calls):
        lengths = rng.integers(0, longest + 1, rng.integers(1, 5))
        ids = rng.integers(0, CASE.vocab, lengths.sum())
        engine.packed(ids, np.concatenate([[0], np.cumsum(lengths)]))


def test_memory_after_20000_calls_is_that_after_200():
    engine, rng = engine_of(CASE, tiers()[0], num_threads=2), np.random.default_rng(0)
    random_calls(engine, rng, 200, 256)
    early = anonymous()
    random_calls(engine, rng, 19_800, 256)
    late = anonymous()
    print(f"RssAnon after 200 calls {early / MEGABYTE:.1f} MB, after 20,000 {late / MEGABYTE:.1f}")
    assert late <= early + 2 * MEGABYTE


def test_a_thousand_forks_after_use_answer():
    engine = engine_of(CASE, tiers()[0], num_threads=4)
    expected = engine.packed(IDS, WHOLE)

    def answers():
        return np.array_equal(engine.packed(IDS, WHOLE), expected)

    assert [in_child(answers) for _ in range(1000)] == [0] * 1000
    assert in_child(lambda: [in_child(answers) for _ in range(100)] == [0] * 100) == 0
    assert answers()


def test_a_thousand_forks_while_others_compute_answer():
    engine = engine_of(CASE, tiers()[0], num_threads=3)
    expected = engine.packed(IDS, WHOLE)

    def answers():
        assert np.array_equal(engine.packed(IDS, WHOLE), expected)

    with repeated(answers, threads=2):
        for _ in range(1000):
            assert in_child(lambda: np.array_equal(engine.packed(IDS, WHOLE), expected)) == 0


def test_a_pool_of_forked_processes_answers():
    engine = engine_of(CASE, tiers()[0], num_threads=2)
    global _answer

    def _answer(n):
        return engine.packed(IDS[:n], np.array([0, n])).sum()

    expected = [_answer(n) for n in range(1, 400)]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(_answer, range(1, 400)) == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_a_limit_of_address_space_is_a_memory_error(threads):
    """Headroom from nothing up: each pass answers, or raises MemoryError and leaves all whole."""
    engine = engine_of(CASE, tiers()[0], num_threads=threads)
    expected = engine.packed(IDS, WHOLE)
    ids, cu = np.tile(IDS, 40), 400 * np.arange(41)

    def limited():
        engine.packed(IDS, WHOLE)  # this process's own helpers
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        failed = 0
        for headroom in range(0, 40 * MEGABYTE, MEGABYTE // 2):
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + headroom, hard))
            try:
                engine.packed(ids, cu)
            except MemoryError:
                failed += 1
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
            assert np.array_equal(engine.packed(IDS, WHOLE), expected)
        return 0 < failed < 80

    assert in_child(limited) == 0
