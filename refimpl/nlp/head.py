"""The configurable head: hidden states in, a task's outputs out, as pure functions of parameters.

    [pool] -> LayerNorm -> dropout -> [Dense -> LayerNorm -> activation -> dropout] -> Dense

All Dense layers have biases; dropout acts in training only, so it is not here. What comes after the
last Dense is the family's (families.py). Steps are tapped as `pooled`, `head.norm`,
`head.intermediate.{dense,norm,act}` and the names of the outputs. Tensors stand under `nlp_head.`.
Checkpoints in Hugging Face form have the heads of heads.py instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..reference import ops as equations
from ..reference.config import ModernBertConfig
from ..reference.encoder import Params, Tap, no_tap
from ..reference.params import Shapes, linear_shapes
from ..reference.pooling import named, pool, weighted_sum
from .families import FAMILY_OUTPUTS, Outputs, compare_embeddings
from .options import HeadOptions, resolve_options
from .task_config import FIXED_CLASSES, POOLED_FAMILIES, NLPTaskConfig

Array = np.ndarray
PREFIX = "nlp_head."


@dataclass(frozen=True)
class NLPHead:
    """One task's head over hidden states of width input_dim.

    `kind` names it among all heads, as those of heads.py where the outputs are the same: a
    regression is a sequence classification with one label. `scope` is "" for a model with one task,
    "<task>." under a multi-task head.
    """

    task: NLPTaskConfig
    options: HeadOptions
    input_dim: int
    scope: str = ""

    architecture = "ModernBertModel"

    @property
    def family(self) -> str:
        return self.task.family

    @property
    def kind(self) -> str:
        return "sequence_classification" if self.family == "regression" else self.family

    @property
    def max_length(self) -> int:
        """Tokens that text is cut to."""
        return self.task.max_length

    @property
    def takes_pairs(self) -> bool:
        """True when `compare` has something to say about two texts."""
        return self.family == "text_similarity"

    @property
    def width_out(self) -> int:
        """Of the output Dense."""
        o, task = self.options, self.task
        own = {"text_similarity": o.intermediate_size, "masked_lm": task.vocabulary_size}
        return own.get(self.family) or task.num_classes or FIXED_CLASSES[self.family]

    def shapes(self, config: ModernBertConfig | None = None) -> Shapes:
        """Name -> shape of its tensors. With a config: ValueError unless the widths fit."""
        o, at, width = self.options, PREFIX + self.scope, self.input_dim
        if config is not None and config.hidden_size != width:
            raise ValueError(f"input_dim is {width}, but hidden_size is {config.hidden_size}")
        out: Shapes = {}
        if o.pooling_type == "attention":
            out |= linear_shapes(at + "pooling.attention", width, width, False)
            out |= linear_shapes(at + "pooling.score", 1, width, False)
        out |= self._norm_shapes("norm", width)
        if o.use_intermediate:
            assert o.intermediate_size is not None
            out |= linear_shapes(at + "intermediate.dense", o.intermediate_size, width, True)
            out |= self._norm_shapes("intermediate.norm", o.intermediate_size)
            width = o.intermediate_size
        out |= linear_shapes(at + "output", self.width_out, width, True)
        if o.similarity_function == "learned":
            n = self.width_out
            out |= linear_shapes(at + "similarity.dense", n, 4 * n, True)
            out |= linear_shapes(at + "similarity.output", 1, n, True)
        return out

    def _norm_shapes(self, name: str, width: int) -> Shapes:
        at = PREFIX + self.scope + name
        out: Shapes = {f"{at}.weight": (width,)}
        return out | ({f"{at}.bias": (width,)} if self.options.norm_bias else {})

    def forward(
        self,
        params: Params,
        config: ModernBertConfig | None,
        hidden: Array,
        attention_mask: Array | None = None,
        ops: Any = equations,
        tap: Tap = no_tap,
    ) -> Outputs:
        """The task's outputs for one text per row.

        hidden [batch, seq, input_dim] ([batch, choices, seq, input_dim] for multiple choice),
        attention_mask the same without the last axis, None = all real -> see families.py.
        """
        tap = self._scoped(tap)
        x = hidden
        if self.family in POOLED_FAMILIES:
            seq, width = hidden.shape[-2:]
            mask = None if attention_mask is None else attention_mask.reshape(-1, seq)
            x = self._pool(params, hidden.reshape(-1, seq, width), mask, ops)
            x = tap("pooled", x.reshape(*hidden.shape[:-2], width))
        x = tap("head.norm", self._norm(params, "norm", x, ops))
        if self.options.use_intermediate:
            x = tap("head.intermediate.dense", self._linear(params, "intermediate.dense", x, ops))
            x = tap("head.intermediate.norm", self._norm(params, "intermediate.norm", x, ops))
            x = tap("head.intermediate.act", ops.activate(x, self.options.activation_type))
        x = self._linear(params, "output", x, ops)
        return FAMILY_OUTPUTS[self.family](x, attention_mask, self.task, ops, tap)

    def compare(
        self,
        params: Params,
        first: Outputs,
        second: Outputs,
        ops: Any = equations,
        tap: Tap = no_tap,
    ) -> Outputs:
        """From the outputs of two texts: similarity_score [batch], embeddings_1, embeddings_2."""
        if not self.takes_pairs:
            return first
        a, b, o = first["embeddings"], second["embeddings"], self.options

        def learned(x: Array) -> Array:
            x = ops.activate(self._linear(params, "similarity.dense", x, ops), o.activation_type)
            return self._linear(params, "similarity.output", x, ops)[..., 0]

        score = compare_embeddings(a, b, o.similarity_function, learned)
        score = self._scoped(tap)("similarity_score", score)
        return {"similarity_score": score, "embeddings_1": a, "embeddings_2": b}

    def to_dict(self) -> dict[str, Any]:
        """Json-ready description, the inverse of head_from_dict."""
        return {
            "task": self.task.to_dict(),
            "options": self.options.to_dict(),
            "input_dim": self.input_dim,
        }

    # -- steps ------------------------------------------------------------------------------------

    def _scoped(self, tap: Tap) -> Tap:
        """The tap with the task's name before the step's, in a multi-task head."""
        scope = self.scope
        return (lambda name, x: tap(scope + name, x)) if scope else tap

    def _linear(self, params: Params, name: str, x: Array, ops: Any) -> Array:
        at = PREFIX + self.scope + name
        return ops.linear(x, params[at + ".weight"], params.get(at + ".bias"))

    def _norm(self, params: Params, name: str, x: Array, ops: Any) -> Array:
        at = PREFIX + self.scope + name
        return ops.layer_norm(
            x, params[at + ".weight"], params.get(at + ".bias"), self.options.norm_eps
        )

    def _pool(self, params: Params, hidden: Array, mask: Array | None, ops: Any) -> Array:
        """hidden [rows, seq, width] -> [rows, width]; "last" is the last real token."""
        how = self.options.pooling_type
        if how != "attention":
            return pool(hidden, mask, named("head")[str(how)])
        real = np.ones(hidden.shape[:2], bool) if mask is None else mask != 0
        safe = np.where(real[..., None], hidden, hidden.dtype.type(0))
        scores = np.tanh(self._linear(params, "pooling.attention", safe, ops))
        scores = self._linear(params, "pooling.score", scores, ops)[..., 0]
        return weighted_sum(safe, ops.softmax(scores, real))


def nlp_head(
    task: NLPTaskConfig, input_dim: int, options: Mapping[str, Any], scope: str = ""
) -> NLPHead:
    """The head of a task, its options resolved. ValueError (no head serves it, a wrong option),
    TypeError (an unknown one)."""
    if not isinstance(task, NLPTaskConfig):
        raise TypeError(f"task_config is {task!r}; it must be an NLPTaskConfig")
    if not isinstance(input_dim, int) or isinstance(input_dim, bool) or input_dim < 1:
        raise ValueError(f"input_dim is {input_dim!r}; it must be an integer >= 1")
    if task.family == "masked_lm" and task.vocabulary_size is None:
        raise ValueError(f"vocabulary_size is missing; {task.task_type} needs it")
    return NLPHead(task, resolve_options(task, input_dim, options), input_dim, scope)
