"""What is done to rows, wherever they are: a value, tokens lost and an error for each.

    does = Embedder(folder, column="text", ...)      a small object, without weights
    does({"text": array}) / does(pandas frame) / does(Arrow table or batch) -> the same kind,
    with the column `out`, `truncated` (tokens lost) and `error` (or null)

Promise: rows keep their places; a row that cannot be read gets an error and no value, and the
others go on (on_error="raise": the error instead); the object holds a folder's name and the digest
of what its values depend on, so that it can be sent: each process loads the model once, at the
first batch, and refuses a folder that gives others. Here is what the kinds share (embedder.py,
scorers.py), long because of what each has to say; not here: files (job.py).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..files.hub import BUNDLED
from ..tasks.space import Space, check_space
from ..text.tokenizer import Encoded
from . import batches

Array = np.ndarray
Report = Callable[[int, int], object]
"""Is told of rows and tokens that are done."""

MODEL_OPTIONS = ("folder", "dtype", "backend", "threads")
ADDED = ("truncated", "error")
POSITION = re.compile(r"\b(texts|inputs)\[0\]")  # how tasks name the only text that they were given


@dataclass(frozen=True)
class Columns:
    """What rows become: values [rows, ..], NaN or None where errors [rows] is no None; truncated
    int32 [rows], tokens lost; tokens that the model read, all together."""

    values: Array
    truncated: Array
    errors: list[str | None]
    tokens: int


@dataclass(frozen=True)
class RowTask:
    """See above. folder: a model folder, a cached hub id, or None for a bundled one.

    column: of the texts; dtype, backend, threads: as `load` (num_threads); max_length: most tokens
    of a text. truncate: "silent" counts what is cut, "error" makes it an error of its row.
    on_error: "column" or "raise". space: the digest that the model must have; by default it is
    taken here, for which the weights are read once. Raises ValueError, TypeError, SpaceError, and
    what the task raises for a folder.
    """

    name: ClassVar[str]  # the verb's
    comes_along: ClassVar[str] = BUNDLED.name  # the bundled model that it takes by default
    beside: ClassVar[tuple[str, ...]] = ()  # columns that a row has beside `column`
    optional: ClassVar[bool] = False  # whether it may lack them
    plain: ClassVar[Any] = ""  # a row that nothing is wrong with
    window: ClassVar[int] = 1024  # rows tokenized at a time, among which passes choose by length

    folder: str | None = None
    column: str = "text"
    out: str = "results"
    dtype: str = "float32"
    backend: str = "auto"
    threads: int | None = None
    max_length: int | None = None
    truncate: str = "silent"
    on_error: str = "column"
    space: str = ""

    def __post_init__(self) -> None:
        for name, known in (("truncate", ("silent", "error")), ("on_error", ("column", "raise"))):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        read = {self.column, *self.beside}
        if self.out in read or {self.out, *read} & set(ADDED) or self.column in self.beside:
            raise ValueError(
                f"column is {self.column!r} and out {self.out!r}; they must differ from each other "
                f"and from {' and '.join((*self.beside, *ADDED))}"
            )
        folder = BUNDLED.with_name(self.comes_along) if self.folder is None else Path(self.folder)
        if folder.is_dir():  # a worker may stand in another folder
            object.__setattr__(self, "folder", str(folder.resolve()))
        if not self.space:
            task = self._loaded()
            self._tokenized(task, [self.plain])  # or no row of all would be read
            object.__setattr__(self, "space", str(self._space(task)))

    # -- what a kind says -------------------------------------------------------------------------

    def _open(self, folder: str | None, **where: Any) -> Any:
        """The task with its model."""
        raise NotImplementedError

    def _space(self, task: Any) -> Space:
        """What values depend on."""
        raise NotImplementedError

    def _tokenized(self, task: Any, rows: Sequence[Any]) -> list[list[Encoded]]:
        """Of each row what the model reads for it. ValueError, TypeError for a bad one."""
        raise NotImplementedError

    def _values(self, task: Any, rows: Sequence[Any], tokens: list[list[Encoded]]) -> Array:
        """Of each row its value, from what `_tokenized` gave."""
        raise NotImplementedError

    def _blank(self, task: Any, count: int) -> Array:
        """Values for so many rows that have none."""
        return np.full(count, None, object)

    def arrow_type(self) -> Any:
        """Of the column `out`."""
        raise NotImplementedError

    def arrow_values(self, values: Array, bad: Array) -> Any:
        """The column `out` as an Arrow array. bad [rows]: is null."""
        return batches.arrow().array(values.tolist(), self.arrow_type())

    def asked(self) -> dict[str, Any]:
        """What job.json says of it."""
        names = ("space", "column", "out", "truncate")
        return {"task": self.name, **{name: getattr(self, name) for name in names}}

    # -- what they share --------------------------------------------------------------------------

    @property
    def limits(self) -> dict[str, Any]:
        """How tasks are told of lengths."""
        return {"max_length": self.max_length, "truncate": self.truncate}

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns without which a file is refused."""
        return (self.column,) if self.optional else (self.column, *self.beside)

    def rows_of(self, columns: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Rows from the cells of `column`, with others `beside` as tuples; None where one lacks."""
        texts = list(columns[self.column])
        if not self.beside:
            return texts
        missing = [None] * len(texts)
        beside = [columns.get(name, missing) for name in self.beside]
        return list(zip(texts, *beside, strict=True))

    def columns(self, rows: Sequence[Any], report: Report | None = None) -> Columns:
        """Values, losses and errors of rows; what cannot be read is an error of its row."""
        task = self.task()
        values = self._blank(task, len(rows))
        truncated = np.zeros(len(rows), np.int32)
        errors: list[str | None] = [None] * len(rows)
        tokens = 0
        for start in range(0, len(rows), self.window):
            window = rows[start : start + self.window]
            each = self._tokenized_or_not(task, window, start, errors)
            good = [i for i, of_row in enumerate(each) if of_row is not None]
            some = [of_row for of_row in each if of_row is not None]
            places = start + np.array(good, np.intp)
            values[places] = self._values(task, [window[i] for i in good], some)
            truncated[places] = [sum(piece.lost for piece in of_row) for of_row in some]
            read = sum(len(piece) for of_row in some for piece in of_row)
            tokens += read
            if report is not None:
                report(len(window), read)
        return Columns(values, truncated, errors, tokens)

    def __call__(self, batch: Any) -> Any:
        """A batch with the new columns: a dict of arrays, a pandas frame, an Arrow table or batch.

        In a dict of arrays `error` is an array of str and None. Raises TypeError for another kind,
        ValueError for a missing column or one that is there.
        """
        return batches.with_columns(self, batch)

    def task(self) -> Any:
        """The model with what runs it, loaded by this process once. SpaceError where it gives other
        values than those that were meant."""
        task = self._loaded()
        with _lock:
            if _checked.get(self) is not task:
                what = f"this {type(self).__name__} ({self.folder})"
                check_space(self.space, self._space(task), what)
                _checked[self] = task
        return task

    def _loaded(self) -> Any:
        key = (self.name, *(getattr(self, name) for name in MODEL_OPTIONS))
        with _lock:
            if key not in _opened:
                where = {"dtype": self.dtype, "backend": self.backend, "num_threads": self.threads}
                _opened[key] = self._open(self.folder, **where)
            return _opened[key]

    def _tokenized_or_not(
        self, task: Any, rows: Sequence[Any], start: int, errors: list[str | None]
    ) -> list[list[Encoded] | None]:
        """What the model reads, None for a row whose error is noted."""
        try:
            return list(self._tokenized(task, rows))
        except (ValueError, TypeError):
            pass
        out: list[list[Encoded] | None] = []
        for i, row in enumerate(rows):
            try:
                out += self._tokenized(task, [row])
            except (ValueError, TypeError) as error:
                told = POSITION.sub("the text", str(error))
                if self.on_error == "raise":
                    raise type(error)(f"row {start + i}: {told}") from None
                errors[start + i] = told
                out.append(None)
        return out


# Of this process: the models of all of them, and which were found to be the right ones.
_opened: dict[tuple[Any, ...], Any] = {}
_checked: dict[RowTask, Any] = {}
_lock = threading.RLock()
