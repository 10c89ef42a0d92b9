"""Dropout as the config has it, by random numbers that depend on their place alone (MODEL.md 14).

    drop(name, x) = x * keep / (1 - rate),  keep = 1 with probability 1 - rate, else 0

A `Dropout` is a tap: given to the forward pass it drops steps out, and its adjoint is the same
product, so given to the backward pass it drops their gradients. Attention weights are no step: they
take `ops` in the forward pass and `keep` in the backward. Each number is keyed by seed, step of the
run, name, sequence and position: the same masks packed or padded, however a batch is split, and
when a pass is repeated (a token's position is its column: padding on the left shifts it). Where
transformers drops, so does this; the masks are our own.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..nlp.head import NLPHead
from ..nlp.multi_task import MultiTaskHead
from ..reference import ops as equations
from ..reference.config import ModernBertConfig
from ..reference.heads import Head
from ..reference.sentence import SentenceHead
from .adjoints import Keep, attention_blocks, for_row, masked
from .counter import purpose, words

Array = np.ndarray

# The place of the attention weights among the steps of a layer.
PROBS = "probs"


def rates(
    config: ModernBertConfig, head: Head | NLPHead | MultiTaskHead | SentenceHead | None
) -> dict[str, float]:
    """Name of a step (of a layer: without `layers.{i}.`) -> rate, those above 0.

    `attention_dropout` is both that of the weights and that of `attn_out`, as in transformers.
    """
    found = {
        "embedding": config.embedding_dropout,
        PROBS: config.attention_dropout,
        "attn_out": config.attention_dropout,
        "glu": config.mlp_dropout,
    }
    if isinstance(head, Head) and head.kind != "masked_lm":
        found["head.norm"] = config.classifier_dropout
    for one in head.heads if isinstance(head, MultiTaskHead) else [head]:
        if isinstance(one, NLPHead):
            for name in ("head.norm", "head.intermediate.act"):
                found[one.scope + name] = one.task.dropout_rate
    return {name: rate for name, rate in found.items() if rate}


@dataclass(frozen=True)
class Dropout:
    """The dropout of one step of a run.

    rates: see above. seed, step: of the run. first: the number, within the step, of this batch's
    first sequence, which counts over all micro-batches. heads: of the attention. sequence,
    position: int, of each token, in the shape that the steps have before their last axis.
    """

    rates: Mapping[str, float]
    seed: int
    step: int
    first: int
    heads: int
    sequence: Array
    position: Array

    def __call__(self, name: str, x: Array) -> Array:
        """The tap: x [.., width] with its entries dropped, where the step has a rate."""
        rate = self._rate(name)
        if not rate:
            return x
        axes = (*x.shape[:-1], 1)
        where = self.position.reshape(axes), self.sequence.reshape(axes)
        return x * self._factors(name, rate, (0, x.shape[-1]), *where, x.dtype)

    def at(self, sequence: Array, position: Array) -> Dropout:
        """The same for other tokens: some of them, or one vector per sequence (position 0)."""
        return replace(self, sequence=sequence, position=position)

    def keep(self, layer: int, dtype: np.dtype) -> Keep | None:
        """The factors of that layer's attention weights, block by block; None without a rate."""
        name = f"layers.{layer}.{PROBS}"
        rate = self._rate(name)

        def factors(row: int, start: int, stop: int, first: int, last: int) -> Array:
            queries, sequence = np.arange(start, stop)[:, None], np.full((1, 1), row)
            return np.stack(
                [
                    self._factors(f"{name}.{h}", rate, (first, last), queries, sequence, dtype)
                    for h in range(self.heads)
                ]
            )

        return factors if rate else None

    def ops(self) -> Any:
        """The module of equations for one forward pass, its attention with dropped weights."""
        if not self.rates.get(PROBS):
            return equations
        layers = itertools.count()  # the encoder calls attention once per layer, in their order

        def padded(q: Array, k: Array, v: Array, key_mask: Array, window: int | None) -> Array:
            return attention(q, k, v, key_mask, window, self.keep(next(layers), v.dtype))

        def packed(q: Array, k: Array, v: Array, cu_seqlens: Array, window: int | None) -> Array:
            keep = self.keep(next(layers), v.dtype)
            return attention_packed(q, k, v, cu_seqlens, window, keep)

        own = {"attention": padded, "attention_packed": packed}
        return SimpleNamespace(**{**vars(equations), **own})

    def _rate(self, name: str) -> float:
        return self.rates.get(name.split(".", 2)[2] if name.startswith("layers.") else name, 0.0)

    def _factors(
        self,
        name: str,
        rate: float,
        columns: tuple[int, int],
        position: Array,
        sequence: Array,
        dtype: np.dtype,
    ) -> Array:
        """MODEL.md (51), (52): a word a column, the counter (column / 4, position, sequence, step).

        position, sequence [.., 1] -> 0 or 1 / (1 - rate), [.., columns[1] - columns[0]].
        """
        first, last = columns
        groups = np.arange(first // 4, -(-last // 4))
        key = purpose(self.seed, "dropout " + name)
        drawn = words(key, (groups, position, self.first + sequence, self.step))
        drawn = drawn.reshape(*drawn.shape[:-2], -1)[..., first % 4 :][..., : last - first]
        return (drawn >= np.uint32(round(rate * 2**32))) / np.asarray(1.0 - rate, dtype)


def attention(
    q: Array, k: Array, v: Array, key_mask: Array, window: int | None, keep: Keep | None
) -> Array:
    """`ops.attention` with the weights times `keep`'s factors. -> [batch, seq, hidden]."""
    v, out = masked(v, key_mask), np.empty_like(q)
    for row, some, keys, probs, factors in attention_blocks(q, k, key_mask, window, keep):
        kept = probs if factors is None else probs * factors
        out[row, some] = (kept @ v[row, keys].swapaxes(0, 1)).swapaxes(0, 1)
    return out.reshape(*q.shape[:2], -1)


def attention_packed(
    q: Array, k: Array, v: Array, cu_seqlens: Array, window: int | None, keep: Keep | None
) -> Array:
    """`ops.attention_packed` with the weights times `keep`'s factors. -> [total, hidden]."""
    out = np.empty((len(q), q.shape[1] * q.shape[2]), v.dtype)
    for b, (start, stop) in enumerate(zip(cu_seqlens[:-1], cu_seqlens[1:], strict=True)):
        one, every_key = slice(start, stop), np.ones((1, stop - start), bool)
        own = None if keep is None else functools.partial(for_row, keep, b)
        out[one] = attention(q[None, one], k[None, one], v[None, one], every_key, window, own)[0]
    return out
