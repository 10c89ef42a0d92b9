"""This package's engine through its public call, padded batches in and out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CONTENDERS = {
    "refimpl float32": "float32",
    "refimpl bf16x3": "bf16x3",
    "refimpl bfloat16": "bfloat16",
    "refimpl int8": "int8",
}


def load(name, files: Path, threads: int):
    import refimpl

    dtype = name.split()[1]
    model = refimpl.load(files, backend="native", dtype=dtype, num_threads=threads)

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return model({"input_ids": ids, "attention_mask": mask})["last_hidden_state"]

    return run
