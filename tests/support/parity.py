"""The reference run on a generated case, in the form of `naive.run` and `oracle/hf.py`.

    run(case, inputs, dtype) -> {"hidden": [layers + 2, batch, seq, hidden], <head>: logits}

Hidden states come through the taps: embedding, every layer's residual_2, final_norm.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refimpl.reference import ops as equations
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.reference.heads import HEADS

from .cases import HEAD_KINDS, Case, Inputs, choices


def states_of(
    params: dict[str, np.ndarray], config: ModernBertConfig, *args: Any, **kwargs: Any
) -> list[np.ndarray]:
    """Outputs of embedding, every layer and final norm of one `encode` call."""
    states: list[np.ndarray] = []

    def tap(name: str, x: np.ndarray) -> np.ndarray:
        if name in ("embedding", "final_norm") or name.endswith(".residual_2"):
            states.append(x)
        return x

    encode(params, config, *args, tap=tap, **kwargs)
    return states


def run(
    case: Case,
    inputs: Inputs,
    dtype: type = np.float64,
    kinds: tuple[str, ...] = HEAD_KINDS,
    ops: Any = equations,
) -> dict[str, np.ndarray]:
    """Hidden states and the logits of every head."""
    config, mask = ModernBertConfig.from_dict(case.config()), inputs.given_mask
    states = states_of(
        case.params(dtype=dtype), config, inputs.input_ids, attention_mask=mask, ops=ops
    )
    out = {"hidden": np.stack(states)}
    for kind in kinds:
        hidden, head_mask = states[-1], mask
        if kind == "multiple_choice":
            shape = (-1, choices(len(hidden)), hidden.shape[1])
            hidden = hidden.reshape(*shape, case.hidden)
            head_mask = None if mask is None else mask.reshape(shape)
        y = HEADS[kind].forward(case.params(kind, dtype), config, hidden, head_mask, ops)
        if kind == "question_answering":
            out[kind] = np.stack([y["start_logits"], y["end_logits"]], axis=-1)
        else:
            out[kind] = y["logits"]
    return out
