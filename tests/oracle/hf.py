"""transformers' ModernBERT, built from a generated case: the other side of every parity test.

    run(case, batch, dtype=, attention=, exact_rotary=) -> {"hidden": ..., <head>: logits}

Same keys and shapes as `naive.run`, so that one comparison serves both. Each model is built from
the case's config.json dict (in its own spelling) and a strict load_state_dict. Hidden states are
taken with forward hooks, so that nobody has to know what a version's `hidden_states` holds.
`exact_rotary` replaces transformers' float32 rotary tables and its casts of q and k to float32 by
float64 ones. Use attention="sdpa" in float64: the eager path casts its softmax to float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from support.cases import HEAD_KINDS, Case, Inputs, choices
from transformers import ModernBertConfig
from transformers.models.modernbert import modeling_modernbert as hf

CLASSES = {
    "masked_lm": hf.ModernBertForMaskedLM,
    "sequence_classification": hf.ModernBertForSequenceClassification,
    "token_classification": hf.ModernBertForTokenClassification,
    "question_answering": hf.ModernBertForQuestionAnswering,
    "multiple_choice": hf.ModernBertForMultipleChoice,
}


def state_dict(params: dict[str, np.ndarray], kind: str | None) -> dict[str, torch.Tensor]:
    """Our names to those of the checkpoint; the tied decoder is spelled out for the strict load."""
    of_head = ("head.", "classifier.", "decoder.")
    out = {
        name if kind is None or name.startswith(of_head) else f"model.{name}": torch.tensor(x)
        for name, x in params.items()
    }
    if kind == "masked_lm":
        out.setdefault("decoder.weight", out["model.embeddings.tok_embeddings.weight"])
    return out


def build(
    config: dict[str, Any],
    params: dict[str, np.ndarray],
    kind: str | None,
    dtype: torch.dtype,
    attention: str,
) -> torch.nn.Module:
    settings = ModernBertConfig.from_dict(config)
    if kind == "question_answering":
        settings.num_labels = 2
    settings._attn_implementation = attention
    with torch.device("meta"):  # no time spent on random weights that are replaced at once
        skeleton = (CLASSES[kind] if kind else hf.ModernBertModel)(settings)
    model = skeleton.to_empty(device="cpu").to(dtype)
    model.load_state_dict(state_dict(params, kind), strict=True)
    encoder = model.model if kind else model
    encoder.rotary_emb = hf.ModernBertRotaryEmbedding(settings)  # its buffers are not in the file
    return model.eval()


@contextlib.contextmanager
def exact_rotary(model: torch.nn.Module) -> Iterator[None]:
    """Angles, cos, sin and the rotation itself in float64."""
    encoder = getattr(model, "model", model)
    config, original = encoder.config, hf.apply_rotary_pos_emb

    def table(x: torch.Tensor, positions: torch.Tensor, layer_type: str) -> tuple[Any, Any]:
        theta = config.rope_parameters[layer_type]["rope_theta"]
        d = config.hidden_size // config.num_attention_heads
        freq = float(theta) ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
        angle = positions[..., None].to(torch.float64) * freq
        angle = torch.cat((angle, angle), dim=-1)
        return angle.cos().to(x.dtype), angle.sin().to(x.dtype)

    def rotate(q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> tuple[Any, Any]:
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return tuple(x * cos + hf.rotate_half(x) * sin for x in (q, k))

    encoder.rotary_emb.forward, hf.apply_rotary_pos_emb = table, rotate
    try:
        yield
    finally:
        del encoder.rotary_emb.forward
        hf.apply_rotary_pos_emb = original


@contextlib.contextmanager
def recorded_states(model: torch.nn.Module) -> Iterator[list[np.ndarray]]:
    """Outputs of embedding, every layer and final norm, in order, as they are computed."""
    encoder = getattr(model, "model", model)
    states: list[np.ndarray] = []

    def record(module: Any, args: Any, output: torch.Tensor) -> None:
        states.append(output.numpy().copy())

    parts = [encoder.embeddings, *encoder.layers, encoder.final_norm]
    hooks = [part.register_forward_hook(record) for part in parts]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def forward(model: torch.nn.Module, kind: str | None, inputs: Inputs) -> np.ndarray | None:
    """Logits of one head, in the shapes of `naive.run`; None for the bare encoder."""
    ids = torch.from_numpy(inputs.input_ids)
    mask = None if inputs.given_mask is None else torch.from_numpy(inputs.given_mask)
    if kind == "multiple_choice":
        # One question per `choices` rows; its mean pooling needs a mask.
        shape = (-1, choices(len(ids)), ids.shape[1])
        ids, mask = ids.reshape(shape), torch.from_numpy(inputs.mask).reshape(shape)
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask)
    if kind is None:
        return None
    if kind == "question_answering":
        return np.stack([out.start_logits.numpy(), out.end_logits.numpy()], axis=-1)
    return out.logits.numpy()


def run(
    case: Case,
    inputs: Inputs,
    *,
    dtype: type = np.float64,
    attention: str = "sdpa",
    float64_rotary: bool = False,
    kinds: tuple[str, ...] = HEAD_KINDS,
) -> dict[str, np.ndarray]:
    """Hidden states and the logits of every head, in the form of `naive.run`."""
    torch_dtype = {np.float32: torch.float32, np.float64: torch.float64}[dtype]
    out: dict[str, np.ndarray] = {}
    for kind in (None, *kinds):
        model = build(case.config(), case.params(kind, dtype), kind, torch_dtype, attention)
        with contextlib.ExitStack() as stack:
            if float64_rotary:
                stack.enter_context(exact_rotary(model))
            states = stack.enter_context(recorded_states(model))
            logits = forward(model, kind, inputs)
        if kind is None:
            out["hidden"] = np.stack(states)
        else:
            out[kind] = logits
    return out
