"""Every kernel compiles for devices without a warning, and spills nothing.

Where nvcc is: no device is asked for, and none runs anything here.
"""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from support.cuda import ROOT, SOURCES

NVCC = shutil.which("nvcc")
pytestmark = pytest.mark.heavy  # a minute for each architecture
if not SOURCES or NVCC is None:
    pytest.skip("no sources of the engine, or no nvcc, here", allow_module_level=True)

FLAGS = ["-std=c++17", "-fmad=false", "-Xcompiler=-Wall,-Wextra", "-Werror=all-warnings"]


@pytest.mark.parametrize("architecture", ["80", "90a"])
def test_compiles_without_a_warning_and_spills_nothing(architecture, tmp_path):
    target = f"arch=compute_{architecture},code=sm_{architecture}"
    command = [NVCC, *FLAGS, f"-gencode={target}", f"-I{ROOT / 'csrc'}", "-Xptxas=-v", "-cubin"]
    run = subprocess.run(
        [*command, "-o", tmp_path / "kernels.cubin", ROOT / "csrc" / "cuda" / "kernels.cu"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    report = run.stdout + run.stderr
    kernels = re.findall(r"Compiling entry function '(\w+)' for 'sm_\w+'", report)
    assert len(kernels) == len(set(kernels)) > 50
    spilled = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", report)
    assert len(spilled) >= len(kernels)
    assert set(spilled) == {("0", "0")}
