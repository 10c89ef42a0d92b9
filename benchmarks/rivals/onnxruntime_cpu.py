"""ONNX Runtime's CPU provider, float32 and int8 by dynamic quantisation.

Its threads spin within a run and stop at its end, so that they do not take cores from the next.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rivals.onnx_file import exported, quantised

CONTENDERS = {"onnxruntime float32": "float32", "onnxruntime int8": "int8"}


def load(name, files: Path, threads: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    path = quantised(files) if name.endswith("int8") else exported(files)
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    return run
