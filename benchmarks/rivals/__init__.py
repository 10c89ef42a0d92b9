"""Who runs the same model: one file per engine, each with `CONTENDERS` and `load`.

CONTENDERS: name in the tables -> precision class, "float32", "bf16x3", "bfloat16" or "int8".
load(name, files, threads): the contender as a function of ids and mask, int64 [batch, seq] each,
that gives the last hidden state [batch, seq, hidden]. Raises ImportError when a package is missing
and RuntimeError or ValueError, with the reason, when it does not do that precision here.
No file imports its engine before `load`: environment variables that cap it come first.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]

FILES = (
    "this_package",
    "torch_cpu",
    "sentence_transformers_cpu",
    "openvino_cpu",
    "onnxruntime_cpu",
    "llama_cpu",
)

# Variables that hold libraries back to AVX2; ONNX Runtime has none and picks its kernels by CPUID.
CAPS = {
    "avx2": {
        "REFIMPL_ISA": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "DNNL_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    }
}


def contenders() -> dict[str, tuple[str, str]]:
    """Name of each contender -> (precision class, file)."""
    return {
        name: (precision, file)
        for file in FILES
        for name, precision in module(file).CONTENDERS.items()
    }


def module(file: str) -> Any:
    return importlib.import_module(f"rivals.{file}")


def load(name: str, files: Path, threads: int) -> Run:
    """The contender `name` on the model in the folder `files`."""
    return module(contenders()[name][1]).load(name, files, threads)
