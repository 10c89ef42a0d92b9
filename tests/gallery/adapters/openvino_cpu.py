"""OpenVINO's CPU plugin on the ONNX files that onnx_export.py writes, in float32.

    openvino_cpu.py KIT OUT

The exporter is that of torch.onnx through TorchScript. The plugin would take bfloat16 where the
processor has it; the hint asks for float32.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import openvino
from kit import Case, main
from onnx_export import export

FILES = Path(tempfile.mkdtemp())


@cache
def compiled(folder: Path) -> openvino.CompiledModel:
    path = FILES / f"{folder.name}.onnx"
    export(folder, path, "script")
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(str(path), "CPU", hints)


def steps(case: Case):
    case.plain()
    model = compiled(case.model)
    out = model({"input_ids": case.ids, "attention_mask": case.mask})
    return {port.any_name: out[port] for port in model.outputs}


if __name__ == "__main__":
    main(steps)
