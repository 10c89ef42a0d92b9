"""A column of texts to a column of vectors, wherever the rows are.

    embed = Embedder(folder, column="text", out="embedding")
    embed({"text": array}) / embed(pandas frame) / embed(Arrow table or batch) -> the same kind,
    with `embedding` [rows] of `width` float32, `truncated` (tokens lost) and `error` (or null)

Promise: rows keep their places; a row that is no text gets an error and no vector, and the others
go on (on_error="raise": ValueError instead); the object holds a folder's name and the digest of its
embedding space and no weights, so that it can be sent: each process loads the model once, at the
first batch, and refuses a folder that gives other vectors. Not here: files (job.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..files.hub import BUNDLED
from ..tasks import SentenceEncoder
from ..tasks.space import check_space
from ..text.tokenizer import Encoded

Array = np.ndarray
Report = Callable[[int, int], object]
"""Is told of rows and tokens that are done."""

WINDOW = 1024  # texts tokenized at a time, among which passes choose by length
MODEL_OPTIONS = ("folder", "dtype", "backend", "threads")
ADDED = ("truncated", "error")


@dataclass(frozen=True)
class Columns:
    """What a column of texts becomes: vectors [rows, width], NaN where errors [rows] is no None;
    truncated int32 [rows], tokens lost; tokens that the model read, all together."""

    vectors: Array
    truncated: Array
    errors: list[str | None]
    tokens: int


@dataclass(frozen=True)
class Embedder:
    """See above. folder: a model folder, a cached hub id, or None for the bundled model.

    dtype, backend, threads: as `load` (num_threads); prompt, prompt_name, normalize, truncate_dim,
    max_length: as `SentenceEncoder.encode`. truncate: "silent" counts what is cut, "error" makes it
    an error of its row. on_error: "column" or "raise". space: the digest that the model must have;
    by default it is taken here, for which the weights are read once. Raises ValueError, TypeError,
    SpaceError, and what `SentenceEncoder` raises.
    """

    folder: str | None = None
    column: str = "text"
    out: str = "embedding"
    dtype: str = "float32"
    backend: str = "auto"
    threads: int | None = None
    prompt: str | None = None
    prompt_name: str | None = None
    normalize: bool = False
    truncate_dim: int | None = None
    max_length: int | None = None
    truncate: str = "silent"
    on_error: str = "column"
    space: str = ""

    def __post_init__(self) -> None:
        for name, known in (("truncate", ("silent", "error")), ("on_error", ("column", "raise"))):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        if self.out == self.column or {self.out, self.column} & set(ADDED):
            raise ValueError(
                f"column is {self.column!r} and out {self.out!r}; they must differ from each other "
                f"and from {' and '.join(ADDED)}, which are added"
            )
        folder = BUNDLED if self.folder is None else Path(self.folder)
        if folder.is_dir():  # a worker may stand in another folder
            object.__setattr__(self, "folder", str(folder.resolve()))
        if not self.space:
            object.__setattr__(self, "space", str(self._encoder().space(**self._vectors())))

    @property
    def width(self) -> int:
        """Values of a vector."""
        return len(self.columns([]).vectors.T)

    def columns(self, texts: Sequence[Any], report: Report | None = None) -> Columns:
        """Vectors, losses and errors of texts; what is no str is an error of its row."""
        encoder = self.encoder()
        options = self._texts()
        out = Columns(
            np.full((len(texts), encoder.embedded([], **self._width()).shape[1]), np.nan, "f4"),
            np.zeros(len(texts), np.int32),
            [None] * len(texts),
            0,
        )
        tokens = 0
        for start in range(0, len(texts), WINDOW):
            window = texts[start : start + WINDOW]
            encodings = self._tokenized(encoder, window, start, out.errors)
            good = [i for i, encoded in enumerate(encodings) if encoded is not None]
            some = [encoded for encoded in encodings if encoded is not None]
            vectors = encoder.embedded(
                some, normalize_embeddings=self.normalize, **self._width(), **options
            )
            places = start + np.array(good, np.intp)
            out.vectors[places] = vectors
            out.truncated[places] = [encoded.lost for encoded in some]
            read = sum(map(len, some))
            tokens += read
            if report is not None:
                report(len(window), read)
        return Columns(out.vectors, out.truncated, out.errors, tokens)

    def __call__(self, batch: Any) -> Any:
        """A batch with the new columns: a dict of arrays, a pandas frame, an Arrow table or batch.

        In a dict of arrays `error` is an array of str and None, and the vectors are [rows, width].
        Raises TypeError for another kind, ValueError for a missing column or one that is there.
        """
        from . import batches

        return batches.with_columns(self, batch)

    def encoder(self) -> SentenceEncoder:
        """The model, loaded by this process once. SpaceError where its vectors are not those that
        were meant."""
        encoder = self._encoder()
        with _lock:
            known = _checked.get(self)
            if known is not encoder:
                what = f"this Embedder ({self.folder})"
                check_space(self.space, encoder.space(**self._vectors()), what)
                _checked[self] = encoder
        return encoder

    def _encoder(self) -> SentenceEncoder:
        key = tuple(getattr(self, name) for name in MODEL_OPTIONS)
        with _lock:
            if key not in _loaded:
                _loaded[key] = SentenceEncoder(
                    self.folder, dtype=self.dtype, backend=self.backend, num_threads=self.threads
                )
            return _loaded[key]

    def _tokenized(
        self, encoder: SentenceEncoder, texts: Sequence[Any], start: int, errors: list[str | None]
    ) -> list[Encoded | None]:
        """Encodings, None for a row whose error is noted."""
        options = self._texts() | {"truncate": self.truncate}
        try:
            return list(encoder.tokenized(list(texts), **options))
        except (ValueError, TypeError):
            pass
        out: list[Encoded | None] = []
        for i, text in enumerate(texts):
            try:
                out += encoder.tokenized([text], **options)
            except (ValueError, TypeError) as error:
                told = str(error).replace("texts[0]", "the text")
                if self.on_error == "raise":
                    raise type(error)(f"row {start + i}: {told}") from None
                errors[start + i] = told
                out.append(None)
        return out

    def _texts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("prompt", "prompt_name", "max_length")}

    def _width(self) -> dict[str, Any]:
        return {"truncate_dim": self.truncate_dim}

    def _vectors(self) -> dict[str, Any]:
        return self._texts() | self._width() | {"normalize_embeddings": self.normalize}

    def options(self) -> Mapping[str, Any]:
        """All that was said, by name, as JSON can hold it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


# Of this process: the models of all Embedders, and which of them were found to be the right ones.
_loaded: dict[tuple[Any, ...], SentenceEncoder] = {}
_checked: dict[Embedder, SentenceEncoder] = {}
_lock = threading.RLock()
