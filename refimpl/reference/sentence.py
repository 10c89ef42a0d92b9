"""What sentence-transformers puts behind an encoder, as data and as one pure function.

    hidden -> Pooling -> (Dense | LayerNorm | Normalize)* -> embeddings [batch, width], or logits

Logits come from a modular reranker: its last Dense writes "scores". Promise: the numbers of
sentence-transformers 6 (its cls is the first visible token; Normalize divides by max(|x|, 1e-12)).
Not here: files (sentence_files.py), texts and prompts (tasks/), the poolings (pooling.py). Long
because every kind of module, and what a folder says beside them, is described here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from . import ops as equations
from .config import ModernBertConfig
from .encoder import Params, Tap, no_tap
from .params import Shapes, linear_shapes
from .pooling import named, pool

Array = np.ndarray

LAYER_NORM_EPS = 1e-5  # torch.nn.LayerNorm's default; the files do not say
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
NORMALIZE_FLOOR = 1e-12  # torch.nn.functional.normalize's default


@dataclass(frozen=True)
class Pooling:
    """Token vectors [batch, seq, dimension] to one vector; several modes are concatenated.

    modes: names of pooling.py's column `sentence`, whose cls is the first visible token.
    """

    dimension: int
    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True


@dataclass(frozen=True)
class Dense:
    """act(x W^T + b); `activation` is a name of ops.ACTIVATIONS; `scores`: a reranker's end."""

    in_features: int
    out_features: int
    bias: bool = True
    activation: str = "tanh"
    scores: bool = False


@dataclass(frozen=True)
class LayerNorm:
    """Layer norm with weight and bias, eps 1e-5."""

    dimension: int


@dataclass(frozen=True)
class Normalize:
    """x / |x|."""


Module: TypeAlias = "Pooling | Dense | LayerNorm | Normalize"


@dataclass(frozen=True)
class Settings:
    """What a folder says about texts and scores; the forward pass uses none of it. None: default.

    Lengths: the most tokens of a text, of one encoded as a query, as a document. `activation_fn`:
    class path, a reranker's. `truncate_dim`: values kept of an embedding.
    """

    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    max_seq_length: int | None = None
    do_lower_case: bool = False
    activation_fn: str | None = None
    truncate_dim: int | None = None
    query_length: int | None = None
    document_length: int | None = None


@dataclass(frozen=True)
class SentenceHead:
    """The modules after the Transformer, in order, the first a Pooling; used as heads.Head is."""

    modules: tuple[Module, ...]
    settings: Settings = Settings()

    kind = "sentence_embedding"
    architecture = "ModernBertModel"

    @property
    def makes_scores(self) -> bool:
        """True for a modular reranker: the output is `logits`, not `embeddings`."""
        last = self.modules[-1]
        return isinstance(last, Dense) and last.scores

    @property
    def dimension(self) -> int:
        """Width of the output."""
        width = 0
        for module in self.modules:
            width = width_out(module, width)
        return width

    def named(self) -> list[tuple[str, Module]]:
        """Modules under the names of their folders and parameters: 1_Pooling, 2_Dense, ..."""
        return [(f"{i}_{type(m).__name__}", m) for i, m in enumerate(self.modules, start=1)]

    def shapes(self, config: ModernBertConfig) -> Shapes:
        """Name -> shape of every tensor. ValueError when the widths of the modules do not fit."""
        out: Shapes = {}
        width = config.hidden_size
        for name, module in self.named():
            if width_in(module) not in (None, width):
                raise ValueError(f"{name} takes vectors of {width_in(module)}, it gets {width}")
            width = width_out(module, width)
            if isinstance(module, Dense):
                out |= linear_shapes(f"{name}.linear", width, module.in_features, module.bias)
            elif isinstance(module, LayerNorm):
                out |= {f"{name}.norm.weight": (width,), f"{name}.norm.bias": (width,)}
        return out

    def forward(
        self,
        params: Params,
        config: ModernBertConfig,
        hidden: Array,
        attention_mask: Array | None = None,
        ops: Any = equations,
        tap: Tap = no_tap,
        *,
        prompt_length: int = 0,
    ) -> dict[str, Array]:
        """hidden [batch, seq, hidden] -> embeddings [batch, width], or logits for a reranker.

        prompt_length: tokens of the prompt and before it, for a Pooling that leaves them out.
        """
        x = sentence_embedding(hidden, attention_mask, self, params, ops, tap, prompt_length)
        key = "logits" if self.makes_scores else "embeddings"
        return {key: tap(key, x)}


def sentence_embedding(
    hidden: Array,
    attention_mask: Array | None,
    head: SentenceHead,
    params: Params,
    ops: Any = equations,
    tap: Tap = no_tap,
    prompt_length: int = 0,
) -> Array:
    """The modules one after the other. hidden [batch, seq, hidden] -> [batch, width]."""
    x = hidden
    for name, module in head.named():
        x = step(name, module, x, attention_mask, params, prompt_length, ops, tap)
    return x


def step(
    name: str,
    module: Module,
    x: Array,
    attention_mask: Array | None,
    params: Params,
    prompt_length: int = 0,
    ops: Any = equations,
    tap: Tap = no_tap,
) -> Array:
    """One module. x [batch, seq, hidden] for a Pooling, else [batch, width] -> [batch, width]."""
    if isinstance(module, Pooling):
        skip = 0 if module.include_prompt else prompt_length
        return tap("pooled", pooled(x, attention_mask, module.modes, skip))
    if isinstance(module, Dense):
        bias = params.get(f"{name}.linear.bias")
        x = ops.linear(x, params[f"{name}.linear.weight"], bias)
        return ops.activate(x, module.activation)
    if isinstance(module, LayerNorm):
        weight, bias = params[f"{name}.norm.weight"], params[f"{name}.norm.bias"]
        return ops.layer_norm(x, weight, bias, LAYER_NORM_EPS)
    return normalize(x)


def pooled(
    hidden: Array, attention_mask: Array | None, modes: tuple[str, ...], prompt_length: int = 0
) -> Array:
    """[batch, seq, hidden] -> [batch, len(modes) * hidden]; cls is the first visible token."""
    rows = named("sentence")
    parts = [pool(hidden, attention_mask, rows[m], prompt_length=prompt_length) for m in modes]
    return np.concatenate(parts, axis=-1)


def activation_of(torch_class: str) -> str | None:
    """The row of ops.ACTIVATIONS that a class path of torch names, where it is or as torch.nn has
    it; None for any other path."""
    for name, row in equations.ACTIVATIONS.items():
        if row.torch and torch_class in (row.torch, f"torch.nn.{row.torch.rpartition('.')[2]}"):
            return name
    return None


def normalize(x: Array) -> Array:
    """x / max(|x|, 1e-12) over the last axis; a zero vector stays zero."""
    norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / np.maximum(norm, x.dtype.type(NORMALIZE_FLOOR))


def width_in(module: Module) -> int | None:
    """Width of the vectors that a module takes, None when it takes any."""
    if isinstance(module, Dense):
        return module.in_features
    return None if isinstance(module, Normalize) else module.dimension


def width_out(module: Module, width: int) -> int:
    """Width of the vectors that a module gives for vectors of `width`."""
    if isinstance(module, Pooling):
        return module.dimension * len(module.modes)
    return module.out_features if isinstance(module, Dense) else width
