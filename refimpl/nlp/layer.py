"""Heads that stand alone: configuration and parameters behind one callable.

    head = create_nlp_head(task_config, input_dim=256)
    head(hidden, attention_mask)            -> the task's outputs

For hidden states from anywhere; a model with its encoder comes from create_modern_bert_with_head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..reference.config import ModernBertConfig
from ..reference.numerics import as_array, underflow_is_zero
from ..reference.params import count, initialise
from .families import Outputs
from .head import NLPHead, nlp_head
from .keras_names import OF_A_HEAD, KerasNames, check_training
from .multi_task import MultiTaskHead, multi_task_head
from .task_config import NLPTaskConfig

Array = np.ndarray
OF_AN_ENCODER = ("last_hidden_state", "last_hidden_state_2", "attentions")


class HeadLayer(KerasNames):
    """A head with its parameters: `.head`, `.params` (name -> array), `.dtype`."""

    _counterparts = OF_A_HEAD

    def __init__(self, head: NLPHead | MultiTaskHead, seed: int, dtype: str) -> None:
        self.head = head
        self.dtype = np.dtype(dtype)
        self.params = initialise(head.shapes(), ModernBertConfig(), seed, self.dtype)

    def __repr__(self) -> str:
        heads = self.head.heads if isinstance(self.head, MultiTaskHead) else (self.head,)
        tasks = ", ".join(f"{one.task.name}: {one.task.task_type}" for one in heads)
        width, n = heads[0].input_dim, count(self.head.shapes())
        return f"HeadLayer({tasks}, hidden {width:,}, {n:,} parameters, {self.dtype})"

    @underflow_is_zero
    def __call__(
        self,
        hidden_states: Any,
        attention_mask: Any = None,
        hidden_states_2: Any = None,
        attention_mask_2: Any = None,
        training: bool = False,
    ) -> Outputs:
        """The task's outputs (families.py).

        hidden_states [batch, seq, input_dim] ([batch, choices, seq, input_dim] for multiple
        choice), or a dict of these arguments, or what an encoder returned (`last_hidden_state`,
        `attention_mask`, its other keys are not read); attention_mask the same without the last
        axis, nonzero = real, default all. The second two are the other text of a similarity task.
        training is that of Keras, and False. Raises ValueError.
        """
        check_training(training)
        if isinstance(hidden_states, Mapping):
            given = (attention_mask, hidden_states_2, attention_mask_2)
            if any(x is not None for x in given):
                raise ValueError("hidden_states is a dict; the other arguments belong into it")
            return self(**_arguments(hidden_states))
        first = self._one("", hidden_states, attention_mask)
        if hidden_states_2 is None:
            return first
        if not self.head.takes_pairs:
            raise ValueError(f"hidden_states_2 is given; a {self.head.kind} head takes one text")
        if len(hidden_states_2) != len(hidden_states):
            rows = f"{len(hidden_states_2)} rows, hidden_states {len(hidden_states)}"
            raise ValueError(f"hidden_states_2 has {rows}")
        second = self._one("_2", hidden_states_2, attention_mask_2)
        return self.head.compare(self.params, first, second)

    def _one(self, suffix: str, hidden_states: Any, attention_mask: Any) -> Outputs:
        wanted = "[batch, seq, hidden]"
        hidden = as_array("hidden_states" + suffix, hidden_states, wanted, self.dtype)
        choices = ("choices",) if self.head.kind == "multiple_choice" else ()
        axes = ("batch", *choices, "seq")
        heads = self.head.heads if isinstance(self.head, MultiTaskHead) else (self.head,)
        width = heads[0].input_dim
        if hidden.ndim != len(axes) + 1 or hidden.shape[-1] != width or 0 in hidden.shape:
            raise ValueError(
                f"hidden_states{suffix} has shape {list(hidden.shape)}; it must be "
                f"[{', '.join(axes)}, {width}], none of them 0"
            )
        mask = None
        if attention_mask is not None:
            mask = as_array("attention_mask" + suffix, attention_mask, wanted)
        if mask is not None and mask.shape != hidden.shape[:-1]:
            raise ValueError(
                f"attention_mask{suffix} has shape {list(mask.shape)}; it must be "
                f"{list(hidden.shape[:-1])}"
            )
        return self.head.forward(self.params, None, hidden, mask)


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a dict holds, of the caller's own or as an encoder returned it."""
    out = {name: x for name, x in given.items() if name not in OF_AN_ENCODER}
    if "last_hidden_state" in given:
        # In place of the tuple of every layer's, which it has on request.
        out["hidden_states"] = given["last_hidden_state"]
    if "last_hidden_state_2" in given:
        out["hidden_states_2"] = given["last_hidden_state_2"]
    known = ("hidden_states", "attention_mask", "hidden_states_2", "attention_mask_2")
    unknown = sorted(set(out) - set(known))
    if unknown or "hidden_states" not in out:
        raise ValueError(
            f"hidden_states has the keys {sorted(given)}; it needs hidden_states or "
            f"last_hidden_state, and may have {', '.join(known[1:])}"
        )
    return out


def create_nlp_head(
    task_config: NLPTaskConfig,
    input_dim: int,
    *,
    seed: int = 0,
    dtype: str = "float32",
    **head_options: Any,
) -> HeadLayer:
    """A head for one task over hidden states of width input_dim, randomly initialised.

    head_options: see HeadOptions (pooling_type, use_intermediate, intermediate_size,
    activation_type, similarity_function, norm_eps, norm_bias). Raises ValueError for a task that no
    head serves (it lists those served) or a wrong value, TypeError for an unknown option.
    """
    return HeadLayer(nlp_head(task_config, input_dim, head_options), seed, dtype)


def create_multi_task_nlp_head(
    task_configs: Mapping[str, NLPTaskConfig] | Iterable[NLPTaskConfig],
    input_dim: int,
    *,
    seed: int = 0,
    dtype: str = "float32",
    **head_options: Any,
) -> HeadLayer:
    """One head per task over the same hidden states; the outputs are {task: outputs}.

    task_configs: name -> config, or the configs alone. Each head takes the options that it reads;
    an option that none reads is a ValueError.
    """
    return HeadLayer(multi_task_head(task_configs, input_dim, head_options), seed, dtype)
