"""What runs the kernels here refuses what a device forbids (csrc/cuda/on_cpu.h)."""

from __future__ import annotations

import re

import pytest
from support.cuda import COMPILER, SOURCES, built, lines

if not SOURCES or COMPILER is None:
    pytest.skip("no sources of the engine, or no C++ compiler, here", allow_module_level=True)

REFUSED = {
    "block_race": "is (read|written) by thread .* with no barrier between",
    "warp_race": "is (read|written) by thread .* with no barrier between",
    "overwriting_race": "is (read|written) by thread .* with no barrier between",
    "warp_barrier_for_a_block": "is (read|written) by thread .* with no barrier between",
    "barrier_of_some": "32 of 64 threads never end, one of them waits at barrier",
    "lanes_apart": "a lane of a warp is at (shuffle_xor|any_lane), another at",
    "lane_left": "62 of 64 threads never end, one of them waits at shuffle_xor",
    "never_written": "is read, and nobody wrote it",
    "beyond_its_count": "element 63 of 63 in shared memory",
    "beyond_the_block": "64 elements at 4 of 256 bytes of shared memory",
    "not_aligned": "an access of 8 bytes at an address that is no multiple of 8",
    "copies_not_waited_for": "is (read|written) by thread .* with no barrier between",
    "copied_and_left": "thread [0-9]+ ends before its copies do",
    "copied_askew": "a copy of 16 bytes from an address that is no multiple of them",
    "copied_to_askew": "16 bytes at 4 of shared memory",
    "odd_block": "a block of 33 threads: it has to be a multiple of 32, at most 1024",
    "large_block": "a block of 1056 threads",
    "much_shared": "101377 bytes of shared memory: at most 101376",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return built(tmp_path_factory.mktemp("cuda") / "refusals", "refusals.cpp")


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_kernel_ends_with_what_is_wrong(program, name):
    status, report = lines(program, name)
    assert status == 1
    assert re.search("the kernel is wrong: .*" + REFUSED[name], report[0])


RIGHT = ["block_barrier", "warp_barrier", "overwriting_barrier", "sums"]
RIGHT += ["copies_waited_for", "product", "product_of_matrices", "product_of_turned_matrices"]


@pytest.mark.parametrize("name", RIGHT)
def test_its_right_twin_runs(program, name):
    assert lines(program, name) == (0, ["done"])


def test_threads_go_in_an_order_of_the_seed(program):
    first, again, other = (lines(program, "order", seed)[1][0].split() for seed in "112")
    assert first == again != other
    assert sorted(map(int, first)) == sorted(map(int, other)) == list(range(64))
