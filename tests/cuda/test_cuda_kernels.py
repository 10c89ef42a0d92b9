"""Every kernel of csrc/cuda on this processor, in C++ alone: built here and run.

The cases, bounds and poisoned memory are those of the CPU's tiers (tests/native), and more where a
kernel has no twin there. Nothing here has run on a device. That a mistake would be seen is shown in
test_cuda_planted.py, by the same twelve rounds.
"""

from __future__ import annotations

import re

import pytest
from support.cuda import COMPILER, SOURCES, built, lines

if not SOURCES or COMPILER is None:
    pytest.skip("no sources of the engine, or no C++ compiler, here", allow_module_level=True)

ROWS = ["layer_norm", "residual_norm", "embedding_norm", "glu", "rope", "rope_rows", "pool"]
ROWS += ["unknown_rows", "activate", "unit", "narrow"]
EACH_DTYPE = ["pack", "project", "infinite", "infinite_w", "project_glu", "project_qkv", "heights"]
EACH_DTYPE += ["norm_operand", "attention", "launch", "untouched"]
KERNELS = ROWS + [name for name in EACH_DTYPE for _ in range(3)]
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return built(tmp_path_factory.mktemp("cuda") / "kernels", "kernels.cpp", "-Wall", "-Wextra")


@pytest.mark.parametrize(
    "rounds",
    [pytest.param("1", marks=pytest.mark.heavy), pytest.param("12", marks=pytest.mark.soak)],
)
def test_every_kernel_stays_within_its_bound_and_its_memory(program, rounds, record_property):
    status, report = lines(program, "--rounds", rounds)
    assert status == 0, "\n".join(report)
    assert [line.split()[0] for line in report[:-1]] == KERNELS
    worst = max(float(re.search(r"worst error ([\d.]+)", line)[1]) for line in report[:-1])
    record_property("observed / bound", worst)


@pytest.mark.heavy
def test_seed_chooses_the_cases_and_nothing_to_do_is_a_failure(program):
    first, again, other = (lines(program, "--op", "rope", "--seed", seed) for seed in "112")
    assert first == again != other
    assert lines(program, "--op", "gemm")[0] == 1


@pytest.mark.heavy
@pytest.mark.parametrize(
    "flags",
    [SANITIZERS, ("-DREFIMPL_UCONTEXT",)],  # fibres where a switch has not been written
    ids=["sanitizers", "ucontext"],
)
def test_the_same_under_sanitizers_and_on_other_processors(tmp_path, flags):
    status, report = lines(built(tmp_path / "kernels", "kernels.cpp", *flags), "--rounds", "1")
    assert status == 0 and len(report) == len(KERNELS) + 1, "\n".join(report)


@pytest.mark.heavy
def test_a_whole_pass_by_these_kernels_stays_within_the_budget(tmp_path):
    """Three layers against double, as of every tier; the CPU engine calls the kernels."""
    status, report = lines(built(tmp_path / "pass", "pass.cpp"), "--rounds", "4")
    assert status == 0 and len(report) == 4, "\n".join(report)
