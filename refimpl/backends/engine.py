"""The engines behind the encoder's signature: padded or packed arrays in, last hidden state out.

Trailing padding is dropped, never computed, and comes back as zeros; so does a row without a real
token. Padding before or between real tokens keeps its place, as windows and default positions count
from the start of the row. What goes in and comes out is float32, whatever the products are computed
in. Steps, hidden states and attention maps are the reference's: model.py asks it for those. The
vectors of a sentence-transformers head, and a sequence classifier's logits, are computed here too.
Long because padded arrays are packed here, and what is read from a file while it is used is
watched.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from ..files.bfloat16 import BFLOAT16
from ..files.safetensors import in_file, in_memory
from ..files.stored import stored
from ..reference.config import ModernBertConfig
from ..reference.heads import HEADS, Head
from ..reference.int8 import KEPT_IN, MATRICES, Kept
from ..reference.params import encoder_shapes
from ..reference.sentence import Dense, LayerNorm, Module, Normalize, Pooling, SentenceHead
from .backend import MOST_THREADS, chosen_tier, default_threads, native, threads_here
from .source import Source

Array = np.ndarray
EMBEDDING = "embeddings.tok_embeddings.weight"
CLASSIFIER = HEADS["sequence_classification"]


class Engine:
    """Weights packed once for one tier, or a device; safe for several threads.

    params: name -> array (params.py), float32, float16 or BFLOAT16. The matrices are read and
    packed layer by layer. Rows of the token embedding are read as they are needed, from their
    file, which makes a pass an OSError when it does not give them any more or was changed, or from
    memory.
    num_threads: None for the default (backend.py), taken now and kept; of more than MOST_THREADS
    those. tier: None for the best that `REFIMPL_ISA` leaves. dtype: what the products are computed
    in, one that the tier has. head: what stands behind the encoder, its tensors in params: modules
    for `embed`, which takes the mean without, or the sequence classifier of HEADS for `logits`.
    kept: matrices that int8 keeps, "layers.0.mlp.Wo" and so on, and what in. backend: "cuda",
    "cuda:1" for a device, whose threads and tier nobody chooses. Raises ValueError, OSError,
    MemoryError.
    """

    def __init__(
        self,
        config: ModernBertConfig,
        params: Mapping[str, Array],
        num_threads: int | None = None,
        tier: str | None = None,
        dtype: str = "float32",
        head: SentenceHead | Head | None = None,
        kept: Kept | None = None,
        backend: str = "native",
    ) -> None:
        if isinstance(head, Head) and head != CLASSIFIER:
            raise ValueError(f"the engine computes no {head.kind} head")
        plan = plan_of(config) | {
            "modules": [_plain(m) for m in head.modules] if isinstance(head, SentenceHead) else [],
            "kept": [_bits_of(kept or {}, i) for i in range(config.num_hidden_layers)],
            "labels": config.num_labels if head == CLASSIFIER else 0,
            "classifier_pooling": config.classifier_pooling,
            "classifier_activation": config.classifier_activation,
        }
        own = encoder_shapes(config)
        arrays = {n: x for n, x in stored(params).items() if n in own}
        of_head = {n: in_memory(stored(params)[n]) for n in (head.shapes(config) if head else ())}
        with ExitStack() as stack:
            place, embedding = None, arrays.pop(EMBEDDING)
            if (found := in_file(embedding)) is not None:
                handle = stack.enter_context(found[0].opened())
                place = None if handle is None else (handle, found[1])
            source = Source(arrays)
            given = (
                source.arrays | of_head | {EMBEDDING: embedding if place else in_memory(embedding)}
            )
            tensors = {n: x["bits"] if x.dtype == BFLOAT16 else x for n, x in given.items()}
            more = dtype, source.read, source.let_go, place
            if backend == "native":
                self._native = native().Engine(plan, tensors, tier or chosen_tier(), *more)
            else:
                from . import cuda

                self._native = cuda.Engine(plan, tensors, cuda.device_of(backend), *more)
            if found is not None:
                found[0].check()
        self._keep(config, head, num_threads if backend == "native" else 1)

    @classmethod
    def over(
        cls,
        opened: Any,
        config: ModernBertConfig,
        head: SentenceHead | Head | None,
        num_threads: int | None,
    ) -> Engine:
        """The same of a model that the library opened by itself (pack.py)."""
        self = cls.__new__(cls)
        self._native = opened
        self._keep(config, head, num_threads)
        return self

    def _keep(
        self,
        config: ModernBertConfig,
        head: SentenceHead | Head | None,
        num_threads: int | None,
    ) -> None:
        self.head = head if isinstance(head, SentenceHead) else None
        self._width = self.head.dimension if self.head else config.hidden_size
        self._typed = config.type_vocab_size > 0
        self._hidden = config.hidden_size
        self.num_threads: int = min(num_threads or default_threads(), MOST_THREADS)

    @property
    def tier(self) -> str:
        return self._native.tier

    @property
    def dtype(self) -> str:
        return self._native.dtype

    @property
    def opened(self) -> Any:
        """The engine as its library has it: `_native.Engine`, or that of cuda.py."""
        return self._native

    @property
    def pack(self) -> str | None:
        """The path of the pack that is mapped; None where weights are in memory."""
        return self._native.pack

    def packed(
        self,
        input_ids: Array | None,
        cu_seqlens: Array,
        *,
        inputs_embeds: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        key_mask: Array | None = None,
    ) -> Array:
        """Last hidden state [total, hidden] of sequences laid end to end.

        cu_seqlens [n + 1] from 0 to total; every other argument [total], inputs_embeds [total,
        hidden] in place of ids; key_mask bool, None when every token can be seen. token_type_ids
        do nothing in a model without types. Raises ValueError, OSError.
        """
        return self._native.forward(
            input_ids,
            inputs_embeds,
            cu_seqlens,
            token_type_ids if self._typed else None,
            position_ids,
            key_mask,
            self._threads(),
        )

    def padded(
        self,
        input_ids: Array | None,
        inputs_embeds: Array | None,
        attention_mask: Array | None,
        token_type_ids: Array | None,
        position_ids: Array | None,
    ) -> Array:
        """Last hidden state [batch, seq, hidden]; arguments as `encoder.encode` takes them."""
        kept, packed = _packed(
            input_ids, inputs_embeds, attention_mask, token_type_ids, position_ids
        )
        out = np.zeros((*kept.shape, self._hidden), np.float32)
        out[kept] = self.packed(**packed)
        return out

    def embed(
        self,
        rows: Mapping[str, Array | None],
        *,
        width: int = 0,
        normalize: bool = False,
        prompt_length: int = 0,
    ) -> Array:
        """The head's vectors [batch, width]; rows: the arguments of `padded`, by name.

        width: values kept of each, 0 for all; normalize: then to length 1. prompt_length: tokens
        of the prompt and before it, for a Pooling that leaves them out. Raises ValueError, OSError.
        """
        return self._native.embed(
            *self._arguments(rows),
            width=width or self._width,
            normalize=normalize,
            prompt_tokens=prompt_length,
        )

    def logits(self, rows: Mapping[str, Array | None]) -> Array:
        """The classifier's logits [batch, labels], or those of modules that end in a Dense; rows:
        the arguments of `padded`, by name. Raises ValueError, OSError."""
        return self._native.logits(*self._arguments(rows))

    def _threads(self) -> int:
        """Of a pass."""
        return min(self.num_threads, threads_here() or self.num_threads)

    def _arguments(self, rows: Mapping[str, Array | None]) -> tuple[Any, ...]:
        """Those of the extension for padded rows."""
        _, packed = _packed(**rows)
        return (
            packed["input_ids"],
            packed["inputs_embeds"],
            packed["cu_seqlens"],
            packed["token_type_ids"] if self._typed else None,
            packed["position_ids"],
            packed["key_mask"],
            self._threads(),
        )


def plan_of(config: ModernBertConfig) -> dict[str, Any]:
    """modernbert_config of modernbert.h, without modules."""
    layers = range(config.num_hidden_layers)
    return {
        "vocab": config.vocab_size,
        "hidden": config.hidden_size,
        "inter": config.intermediate_size,
        "heads": config.num_attention_heads,
        "types": config.type_vocab_size,
        "norm_eps": config.norm_eps,
        "activation": config.hidden_activation,
        "windows": [config.window(i) for i in layers],
        "thetas": [config.rope_theta(i) for i in layers],
    }


def _bits_of(kept: Kept, layer: int) -> int:
    """kept of modernbert_config, of one layer."""
    found = {(m, kept.get(f"layers.{layer}.{name}")) for m, name in enumerate(MATRICES)}
    return sum(1 << m + len(MATRICES) * KEPT_IN.index(dtype) for m, dtype in found if dtype)


def _plain(module: Module) -> dict[str, Any]:
    """modernbert_module of modernbert.h."""
    kind = (Pooling, Dense, LayerNorm, Normalize).index(type(module))
    out: dict[str, Any] = {"kind": kind, "modes": "", "prompt_left_out": False}
    out |= {"width": 0, "activation": "linear"}
    if isinstance(module, Pooling):
        out |= {"modes": " ".join(module.modes), "prompt_left_out": not module.include_prompt}
    if isinstance(module, Dense):
        out |= {"width": module.out_features, "activation": module.activation}
    return out


def _packed(
    input_ids: Array | None,
    inputs_embeds: Array | None,
    attention_mask: Array | None,
    token_type_ids: Array | None,
    position_ids: Array | None,
) -> tuple[Array, dict[str, Any]]:
    """Padded arrays without the padding behind the last real token of each row.

    Which tokens stay, bool [batch, seq], and the arguments of `Engine.packed`.
    """
    if attention_mask is None:
        some = inputs_embeds if input_ids is None else input_ids
        assert some is not None
        attention_mask = np.ones(some.shape[:2], bool)
    real = attention_mask != 0
    lengths = lengths_to_last(real)
    kept = np.arange(real.shape[1]) < lengths[:, None]

    def pack(x: Array | None) -> Array | None:
        return None if x is None else x[kept]

    return kept, {
        "input_ids": pack(input_ids),
        "cu_seqlens": np.concatenate([[0], np.cumsum(lengths)]),
        "inputs_embeds": pack(inputs_embeds),
        "token_type_ids": pack(token_type_ids),
        "position_ids": pack(position_ids),
        "key_mask": None if real[kept].all() else real[kept],
    }


def lengths_to_last(real: Array) -> Array:
    """Tokens up to the last real one of each row, 0 without any. bool [batch, seq] -> [batch]."""
    return np.where(real.any(axis=1), real.shape[1] - real[:, ::-1].argmax(axis=1), 0)


class LazyEngine:
    """The engine of one model, made when it is first asked for, once.

    Several threads may ask. ready: it was made by now, over a pack. A copy that was pickled, or
    deep-copied, makes its own.
    """

    def __init__(
        self,
        config: ModernBertConfig,
        params: Mapping[str, Array],
        num_threads: int | None,
        dtype: str,
        head: SentenceHead | Head | None = None,
        kept: Kept | None = None,
        ready: Engine | None = None,
        backend: str = "native",
    ) -> None:
        self._arguments = config, params, num_threads, None, dtype, head, kept, backend
        self._engine = ready

    def get(self) -> Engine:
        if self._engine is None:
            with _making:
                if self._engine is None:
                    self._engine = Engine(*self._arguments)
        return self._engine

    @property
    def tier(self) -> str:
        """That of the engine, or the one that it would take now: of the processor, or a device.
        ValueError (REFIMPL_ISA)."""
        if self._engine is not None:
            return self._engine.tier
        backend = self._arguments[-1]
        return chosen_tier() if backend == "native" else backend

    def __getstate__(self) -> dict[str, Any]:
        return {"_arguments": self._arguments, "_engine": None}


_making = threading.Lock()


def _fresh_lock() -> None:
    """After a fork: whoever held the lock is not there to let go of it."""
    global _making
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_lock)
