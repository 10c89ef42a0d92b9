"""The embedding-space digest: one short string for all that vectors depend on.

    es1-<weights>-<tokenizer>-<pooling>-<texts>-<width>[n]-<dtype>-<tier>

weights: sha256 of the tensors as stored and the numbers of the config that the forward pass reads;
tokenizer: of tokenizer.json and the settings beside it; pooling: of the modules behind the encoder;
texts: of the prompt and of where texts are cut; n: length 1; tier: the name of those with the same
bits. Two strings that are equal promise equal bits on backend native; where they differ,
`differences` says in what. Not here: how far vectors of two tiers or dtypes lie apart, which is
little.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import SpaceError
from ..files.safetensors import in_memory
from ..models.model import ModernBERT
from ..models.task_model import ModernBERTForTask
from ..reference.heads import Head
from ..text.tokenizer import Tokenizer

FORMAT = "es1"
EXAMPLE = "es1-d47d93cbf116-3df0691d-807a4faf-78ad6391-256n-float32-avx512"
# What must agree for similarities between vectors to mean anything; a query may have a prompt of
# its own, and dtypes and tiers differ by rounding.
COMPARABLE = ("weights", "tokenizer", "pooling")
# Tiers that compute a dtype with the kernels of another one have its bits, and its name.
CLASSES = {("float32", "avx512bf16"): "avx512"}
BLOCK = 2**24  # bytes hashed at a time
WEIGHTS, SHORT = 12, 8  # hexadecimal digits


@dataclass(frozen=True)
class Space:
    """See above; `str` of it is the digest."""

    weights: str
    tokenizer: str
    pooling: str
    texts: str
    width: int
    normalized: bool
    dtype: str
    tier: str

    @classmethod
    def of(
        cls,
        *,
        weights: str,
        tokenizer: str,
        pooling: Any,
        texts: Any,
        width: int,
        normalized: bool,
        dtype: str,
        tier: str,
    ) -> Space:
        """weights and tokenizer are sha256; pooling and texts anything whose `repr` says it all."""
        return cls(
            weights[:WEIGHTS],
            tokenizer[:SHORT],
            _sha256(repr(pooling))[:SHORT],
            _sha256(repr(texts))[:SHORT],
            width,
            normalized,
            dtype,
            CLASSES.get((dtype, tier), tier),
        )

    def __str__(self) -> str:
        width = f"{self.width}{'n' * self.normalized}"
        parts = (self.weights, self.tokenizer, self.pooling, self.texts, width)
        return "-".join((FORMAT, *parts, self.dtype, self.tier))

    @classmethod
    def parse(cls, text: str) -> Space:
        """The Space of a digest. Raises ValueError for what is none."""
        parts = text.split("-") if isinstance(text, str) else []
        if len(parts) != 8 or parts[0] != FORMAT or not parts[5].removesuffix("n").isdigit():
            raise ValueError(f"{text!r} is no embedding-space digest; one looks like {EXAMPLE}")
        width = parts[5]
        return cls(
            weights=parts[1],
            tokenizer=parts[2],
            pooling=parts[3],
            texts=parts[4],
            width=int(width.removesuffix("n")),
            normalized=width.endswith("n"),
            dtype=parts[6],
            tier=parts[7],
        )

    def differences(self, other: Space) -> list[str]:
        """The names of the fields in which two of them differ."""
        mine, its = asdict(self), asdict(other)
        return [name for name in mine if mine[name] != its[name]]


def check_space(
    stored: str, now: Space, what: str, fields: Iterable[str] = tuple(Space.__annotations__)
) -> None:
    """SpaceError, which says what differs, unless a stored digest agrees with this one.

    what: who has the stored one; fields: those that must agree, all by default.
    """
    made = Space.parse(stored)
    differing = [name for name in made.differences(now) if name in tuple(fields)]
    if differing:
        said = ", ".join(
            f"{name} ({getattr(made, name)} there, {getattr(now, name)} here)" for name in differing
        )
        raise SpaceError(f"{what} was made in another embedding space: {said}")


def score_space(model: ModernBERT, tokenizer: Tokenizer, limit: int | None, *said: Any) -> Space:
    """The same for scores of a head, which stands for the pooling with what becomes of its logits:
    the labels, and `said`, whose `repr` says it all. limit: most tokens of a text; the width is the
    number of labels. Raises OSError; ValueError for a model that came from no folder."""
    config = model.config
    known: Any = model.head if isinstance(model, ModernBERTForTask) else None
    if isinstance(known, Head):  # its functions have no lasting names
        known = (known.kind, config.classifier_activation, config.classifier_pooling)
    return Space.of(
        weights=weights_digest(model, model.shapes()),
        tokenizer=tokenizer.digest(),
        pooling=(known, sorted(config.id2label.items()), said),
        texts=(limit, tokenizer.truncation_side),
        width=config.num_labels,
        normalized=False,
        dtype=model.compute_dtype,
        tier=model.tier or "numpy",
    )


def weights_digest(model: ModernBERT, names: Iterable[str]) -> str:
    """sha256 of tensors as they are stored, by name, and of what the pass reads of the config.

    The same numbers stored in another dtype give another one. Reads a mapped file in blocks; raises
    OSError where it was changed since the model was loaded.
    """
    config = model.config
    layers = range(config.num_hidden_layers)
    read = (
        config.num_attention_heads,
        config.norm_eps,
        config.hidden_activation,
        [config.window(i) for i in layers],
        [config.rope_theta(i) for i in layers],
    )
    h = hashlib.sha256(repr(read).encode())
    for name in sorted(names):
        stored = model.params.stored[name]
        h.update(f"\n{name} {stored.dtype.str} {stored.dtype.names} {stored.shape}\n".encode())
        rows = max(1, BLOCK // max(1, stored.nbytes // max(1, len(stored))))
        for start in range(0, len(stored), rows):
            block = np.ascontiguousarray(in_memory(stored[start : start + rows]))
            h.update(block.view(np.uint8).data)
    return h.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
