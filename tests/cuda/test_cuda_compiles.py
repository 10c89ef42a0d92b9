"""The device engine compiles for devices without a warning; what its kernels take, and are made of.

Where nvcc is: no device is asked for, and none runs anything here. Of every kernel ptxas reports
registers, spills and stack; cuobjdump, where it is, shows the matrix instructions.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from support.cuda import ROOT, SOURCES

NVCC = shutil.which("nvcc")
CUOBJDUMP = shutil.which(os.environ.get("CUOBJDUMP", "cuobjdump"))
pytestmark = pytest.mark.heavy  # a minute for each architecture
if not SOURCES or NVCC is None:
    pytest.skip("no sources of the engine, or no nvcc, here", allow_module_level=True)

FLAGS = ["-std=c++17", "-O3", "-fmad=false", "-Xcompiler=-Wall,-Wextra", "-Werror=all-warnings"]
FILES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
# Of a multiprocessor, and of a thread.
REGISTERS, MOST_REGISTERS = 65_536, 255
# Kernels with these in their names multiply in tensor cores: their threads in a block.
HOT = {"product_kernel": 256, "attention_kernel": 128}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
@pytest.mark.parametrize("architecture", ["80", "90a"])
def test_compiles_without_a_warning_and_spills_nothing(architecture, path, tmp_path):
    target = f"arch=compute_{architecture},code=sm_{architecture}"
    command = [NVCC, *FLAGS, f"-gencode={target}", f"-I{ROOT / 'csrc'}", "-Xptxas=-v", "-cubin"]
    made = tmp_path / "kernels.cubin"
    run = subprocess.run([*command, "-o", made, path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    report = run.stdout + run.stderr
    kernels = re.findall(r"Compiling entry function '(\w+)' for 'sm_\w+'", report)
    assert len(kernels) == len(set(kernels)) >= 1
    spilled = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", report)
    assert len(spilled) >= len(kernels)
    assert set(spilled) == {("0", "0")}
    used = re.findall(
        r"Compiling entry function '(\w+)' for.*?Used (\d+) registers", report, re.DOTALL
    )
    assert len(used) == len(kernels)
    for kernel, registers in used:
        threads = next((n for name, n in HOT.items() if name in kernel), 256)
        assert int(registers) <= MOST_REGISTERS
        assert int(registers) * threads <= REGISTERS, kernel  # a block fits a multiprocessor
    if CUOBJDUMP is not None:
        check_instructions(made)


def check_instructions(cubin) -> None:
    """bf16 matrix instructions in products and attention, and nowhere else."""
    run = subprocess.run([CUOBJDUMP, "-sass", cubin], check=True, capture_output=True, text=True)
    functions = re.split(r"Function : (\w+)", run.stdout)[1:]
    for name, code in zip(functions[::2], functions[1::2], strict=True):
        hot = any(kernel in name for kernel in HOT)
        assert ("HMMA.16816.F32.BF16" in code) == hot, name
