"""keras-hub's ModernBertBackbone and ModernBertMaskedLM on JAX, loaded from a folder of the hub.

    keras_hub_modernbert.py KIT OUT

Its converter asks for `global_attn_every_n_layers`: a config in new keys alone it refuses. It takes
no positions. Its classifier has no converter: those cases end with the encoder.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import keras  # noqa: E402
import keras_hub  # noqa: E402
import numpy as np  # noqa: E402
from kit import Case, Refused, main  # noqa: E402
from safetensors import SafetensorError  # noqa: E402


@cache
def loaded(folder: Path):
    """(the encoder with every layer's output, the masked language model or None)."""
    masked_lm = None
    backbone = keras_hub.models.ModernBertBackbone.from_preset(str(folder))
    try:
        masked_lm = keras_hub.models.ModernBertMaskedLM.from_preset(str(folder), preprocessor=None)
    except SafetensorError as error:  # a tensor of the head is not in the file
        print(f"{folder.name}: no masked_lm, {error}")
    outputs = {
        f"layers.{i}.residual_2": x.output for i, x in enumerate(backbone.transformer_layers)
    }
    outputs["embedding"] = backbone.embedding_norm.output
    return keras.Model(backbone.inputs, outputs | {"final_norm": backbone.output}), masked_lm


def steps(case: Case):
    case.plain()
    if "global_attn_every_n_layers" not in case.config:
        raise Refused("its converter raises KeyError: 'global_attn_every_n_layers'")
    encoder, masked_lm = loaded(case.model)
    given = {"token_ids": case.ids.astype("int32"), "padding_mask": case.mask.astype("int32")}
    out = encoder(given)
    if case.head == "masked_lm" and masked_lm is not None:
        every = np.broadcast_to(np.arange(case.ids.shape[1], dtype="int32"), case.ids.shape)
        out["logits"] = masked_lm({**given, "mask_positions": every})
    return out


if __name__ == "__main__":
    main(steps)
