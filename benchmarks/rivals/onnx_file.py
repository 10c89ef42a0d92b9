"""model.onnx beside the weights, exported once with torch: batch and sequence are dynamic."""

from __future__ import annotations

from pathlib import Path


def exported(files: Path) -> Path:
    """The float32 ONNX file of the model in `files`."""
    path = files / "model.onnx"
    if path.exists():
        return path
    import torch
    from transformers import AutoModel

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(files, attn_implementation="sdpa").eval()

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    encoder = Encoder()
    longest = encoder.model.config.max_position_embeddings
    dims = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("seq", min=2, max=longest)}
    ids = torch.zeros(2, 64, dtype=torch.int64)
    torch.onnx.export(
        encoder,
        (ids, torch.ones_like(ids)),
        str(path),
        dynamo=True,
        dynamic_shapes=(dims, dims),
        input_names=["input_ids", "attention_mask"],
        output_names=["last_hidden_state"],
    )
    return path


def quantised(files: Path) -> Path:
    """The same with int8 weights and activations quantised at run time."""
    path = files / "model.int8.onnx"
    if not path.exists():
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(str(exported(files)), str(path), use_external_data_format=True)
    return path
