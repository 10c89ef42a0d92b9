"""transformers 5 exported to ONNX by torch: a file a model, for `modernbert verify --onnx`.

    onnx_export.py KIT OUT dynamo|script float32|int8|float16

A head gives its scores, an encoder its last hidden state; every file gives the hidden states as
well, as exports with `output_hidden_states` do. int8 is ONNX Runtime's dynamic quantisation,
float16 the conversion that comes with it; both of the file in float32. Batch and sequence are
dynamic. A file takes ids and mask, so explicit positions are not run.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import onnx
import torch
import transformers
from kit import OPTIONS
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16

warnings.simplefilter("ignore")


class Outputs(torch.nn.Module):
    """The model as it is exported: two inputs, its scores and hidden states in order."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        out = self.model(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True
        )
        found = {name: out[name] for name in SCORES if name in out}
        return (*out.hidden_states, *found.values())


SCORES = ("logits", "start_logits", "end_logits")
HEADS = {"ForQuestionAnswering": SCORES[1:], "Model": ()}


def names(config: dict) -> list[str]:
    """Of the outputs: from version 5 on the last hidden state is that after the final norm. The
    first is not called `embedding`: dynamo gives that name to a value inside."""
    layers = config["num_hidden_layers"]
    kind = config["architectures"][0].removeprefix("ModernBert")
    states = [f"layers.{i}.residual_2" for i in range(layers - 1)]
    return ["hidden_states.0", *states, "final_norm", *HEADS.get(kind, SCORES[:1])]


def export(folder: Path, path: Path, exporter: str) -> None:
    """Write the model of a folder in float32."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = getattr(transformers, config["architectures"][0])
    model = Outputs(kind.from_pretrained(folder, attn_implementation="sdpa").eval())
    ids = torch.full((2, 9), 8)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    given = {"input_names": ["input_ids", "attention_mask"], "output_names": names(config)}
    if exporter == "dynamo":
        axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("seq", min=2)}
        torch.onnx.export(model, (ids, mask), path, dynamo=True, verbose=False,
                          dynamic_shapes=(axes, axes), external_data=False, **given)  # fmt: skip
        return
    axes = dict.fromkeys((*given["input_names"], *given["output_names"]), {0: "batch", 1: "seq"})
    if "ForSequenceClassification" in config["architectures"][0]:
        axes["logits"] = {0: "batch"}
    torch.onnx.export(model, (ids, mask), path, dynamo=False, dynamic_axes=axes,
                      opset_version=18, **given)  # fmt: skip


def convert(path: Path, kind: str) -> None:
    """The file in its place, in int8 or float16."""
    if kind == "int8":
        quantize_dynamic(path, path)
    elif kind == "float16":
        onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), path)


if __name__ == "__main__":
    exporter, kind = OPTIONS
    for folder in sorted((Path(sys.argv[1]) / "models").iterdir()):
        file = Path(sys.argv[2]) / f"{folder.name}.onnx"
        export(folder, file, exporter)
        convert(file, kind)
        print(file.name, file.stat().st_size, flush=True)
