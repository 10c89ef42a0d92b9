"""The device engine compiles for devices without a warning; what its kernels take, and are made of.

Where nvcc is (of PyPI's nvidia-cuda-nvcc, or a toolkit): setup.py's own build, whole. No device is
asked for, and nothing runs. cuobjdump tells of every kernel registers, stack and shared memory, and
its instructions. With REFIMPL_CUDA=1 a missing nvcc is a failure and no reason to skip.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cuda import ROOT, SOURCES

from refimpl.backends import cuda

MUST = os.environ.get("REFIMPL_CUDA") == "1"
pytestmark = pytest.mark.heavy  # minutes
if not SOURCES or not (MUST or (shutil.which("nvcc") and shutil.which("cuobjdump"))):
    pytest.skip(
        "no sources of the engine, or no nvcc with cuobjdump, here", allow_module_level=True
    )

ARCHITECTURES = ["sm_80", "sm_90a"]
# They multiply in tensor cores.
HOT = ("product_kernel", "attention_kernel")
MOST_SHARED = 99 * 1024
BUILD = """
import sys
from pathlib import Path
import setuptools
from distutils.core import run_setup
command = run_setup("setup.py", stop_after="init").get_command_obj("build_ext")
command.inplace, command.build_temp = 0, sys.argv[1]
command.build_cuda(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The library, as an install has it. REFIMPL_CUDA_BUILT names a folder that keeps it."""
    folder = Path(os.environ.get("REFIMPL_CUDA_BUILT") or tmp_path_factory.mktemp("cuda"))
    env = {**os.environ, "REFIMPL_CUDA": "1"}
    command = [sys.executable, "-c", BUILD, str(folder)]
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "warning" not in (run.stdout + run.stderr).lower(), run.stderr
    assert (folder / "modernbert_cuda.h").exists()
    return folder / "libmodernbert_cuda.so"


@pytest.fixture(scope="module")
def kernels(made: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import gpu_floors

        yield gpu_floors.kernels_in(gpu_floors.cuobjdump("-res-usage", made))


def hot(name: str) -> bool:
    return any(kernel in name for kernel in HOT)


def test_it_loads_and_says_what_it_is_for(made: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REFIMPL_CUDA_LIBRARY", str(made))
    facts = cuda.facts()
    assert facts["built"] is True and facts["architectures"] == ARCHITECTURES
    if not facts["devices"]:
        assert re.search("no CUDA driver|there is no device", facts["reason"])


def test_both_architectures_have_every_kernel(kernels):
    of = {a: {k.name for k in kernels if k.architecture == a} for a in ARCHITECTURES}
    assert of["sm_80"] == of["sm_90a"] and len(of["sm_80"]) > 50
    # Three heights and four ends of each dtype; three head sizes of each dtype.
    assert sum("product_kernel" in name for name in of["sm_80"]) == 3 * 3 * 4
    assert sum("attention_kernel" in name for name in of["sm_80"]) == 3 * 3


def test_nothing_spills_and_every_block_fits(kernels):
    """stack: what registers had no room for."""
    for k in kernels:
        assert k.stack == 0, k
        assert k.registers <= 255 and k.shared <= MOST_SHARED and k.threads <= 1024, k
        assert k.blocks >= 1, k


def test_two_blocks_of_a_hot_kernel_run_at_once(kernels):
    """While one waits for memory, another multiplies; of float, which is six products a number, one
    of 256 threads is enough."""
    alone = {k.name for k in kernels if hot(k.name) and k.blocks < 2}
    assert all("product_kernelIfLj" in name and "ELj4E" in name for name in alone)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_matrix_instructions_are_where_they_belong(made: Path, architecture: str):
    """mma of bf16 with float32 sums and copies past registers in products and attention, matrices
    loaded as such where operands are bf16, and none of it elsewhere."""
    command = ["cuobjdump", "-sass", "-arch", architecture, made]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    functions = re.split(r"Function : (\w+)", said)[1:]
    assert len(functions) > 100
    for name, code in zip(functions[::2], functions[1::2], strict=True):
        for instruction, belongs in {
            "HMMA.16816.F32.BF16": hot(name),
            "LDGSTS": hot(name),
            "LDSM.16": hot(name) and "NS_4bf16E" in name.split("_kernel")[1][:10],
        }.items():
            assert (instruction in code) == belongs, (name, instruction)
