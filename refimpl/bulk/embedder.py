"""A column of texts to a column of vectors, wherever the rows are.

    embed = Embedder(folder, column="text", out="embedding")
    embed({"text": array}) / embed(pandas frame) / embed(Arrow table or batch) -> the same kind,
    with `embedding` [rows] of `width` float32, `truncated` (tokens lost) and `error` (or null)

What it promises of rows, errors and workers is that of every RowTask (row_task.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..tasks import SentenceEncoder
from ..tasks.space import Space
from ..text.tokenizer import Encoded
from .batches import arrow
from .row_task import Array, RowTask


@dataclass(frozen=True)
class Embedder(RowTask):
    """See RowTask. prompt, prompt_name, normalize, truncate_dim: as `SentenceEncoder.encode`."""

    name = comes_along = "embed"

    out: str = "embedding"
    prompt: str | None = None
    prompt_name: str | None = None
    normalize: bool = False
    truncate_dim: int | None = None

    @property
    def width(self) -> int:
        """Values of a vector."""
        return len(self._blank(self.task(), 0).T)

    def _open(self, folder: str | None, **where: Any) -> SentenceEncoder:
        return SentenceEncoder(folder, **where)

    def _space(self, task: SentenceEncoder) -> Space:
        return task.space(
            normalize_embeddings=self.normalize, truncate_dim=self.truncate_dim, **self._texts()
        )

    def _tokenized(self, task: SentenceEncoder, rows: Sequence[Any]) -> list[list[Encoded]]:
        found = task.tokenized(list(rows), truncate=self.truncate, **self._texts())
        return [[encoded] for encoded in found]

    def _values(
        self, task: SentenceEncoder, rows: Sequence[Any], tokens: list[list[Encoded]]
    ) -> Array:
        return task.embedded(
            [encoded for (encoded,) in tokens],
            normalize_embeddings=self.normalize,
            truncate_dim=self.truncate_dim,
            **self._texts(),
        )

    def _blank(self, task: SentenceEncoder, count: int) -> Array:
        width = task.embedded([], truncate_dim=self.truncate_dim).shape[1]
        return np.full((count, width), np.nan, np.float32)

    def arrow_type(self) -> Any:
        pa = arrow()
        return pa.list_(pa.float32(), self.width)

    def arrow_values(self, values: Array, bad: Array) -> Any:
        pa = arrow()
        flat = pa.array(values.reshape(-1))
        mask = pa.array(bad) if len(values) else None
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=mask)

    def _texts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("prompt", "prompt_name", "max_length")}
