"""mlx-embeddings' ModernBERT on MLX's CPU kernels.

    mlx_embeddings_modernbert.py KIT OUT

The model is built from config.json and loaded as the package does it. Where its heads do not take
the file's tensors, the encoder is loaded alone. Every layer's output comes from
`output_hidden_states`; positions are handed in, since it takes them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np
from kit import ENCODER, Case, Refused, main, weights
from mlx_embeddings.models.modernbert import Model, ModelArgs, ModernBertModel


@cache
def loaded(folder: Path):
    """(the encoder, the whole model or None)."""
    args = ModelArgs.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    try:
        model = Model(args)
        tensors = model.sanitize(mx.load(str(folder / "model.safetensors")))
        model.load_weights(list(tensors.items()))
        return model.model, model
    except ValueError as error:
        print(f"{folder.name}: the encoder alone, {str(error)[:200]}")
    encoder = ModernBertModel(args)
    ours = {n: mx.array(x) for n, x in weights(folder).items() if n.startswith(ENCODER)}
    encoder.load_weights(list(ours.items()))
    return encoder, None


def steps(case: Case):
    if "cu_seqlens" in case.inputs:
        raise Refused("it takes no packed input")
    encoder, model = loaded(case.model)
    given = {name: mx.array(x.astype(np.int32)) for name, x in case.inputs.items()}
    given.setdefault("attention_mask", mx.ones(case.ids.shape))
    out = encoder(**given, output_hidden_states=True)
    states = out["hidden_states"]
    found = {"embedding": states[0], "final_norm": out["last_hidden_state"]}
    found |= {f"layers.{i}.residual_2": x for i, x in enumerate(states[1:])}
    if model is not None and case.head in ("masked_lm", "sequence_classification"):
        found["logits"] = model(**given).pooler_output
    return {name: np.array(x) for name, x in found.items()}


if __name__ == "__main__":
    main(steps)
