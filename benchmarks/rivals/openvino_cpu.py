"""OpenVINO's CPU plugin on the ONNX file, with the precision hint f32 or bf16.

int8 is the file that ONNX Runtime's dynamic quantisation makes of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rivals.onnx_file import exported, quantised

CONTENDERS = {
    "openvino float32": "float32",
    "openvino bfloat16": "bfloat16",
    "openvino int8": "int8",
}


def load(name, files: Path, threads: int):
    import openvino

    wanted = "bf16" if name.endswith("bfloat16") else "f32"
    core = openvino.Core()
    if wanted == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise RuntimeError("the plugin has no bfloat16 on this processor")
    hints = {"INFERENCE_PRECISION_HINT": wanted, "INFERENCE_NUM_THREADS": threads}
    path = quantised(files) if name.endswith("int8") else exported(files)
    model = core.compile_model(str(path), "CPU", hints)

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return model({"input_ids": ids, "attention_mask": mask})[0]

    return run
