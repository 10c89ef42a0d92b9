"""The kinds of batches that engines hand over, with the columns that a RowTask adds.

    dict of arrays     the values as they are: vectors [rows, width] float32, NaN for a row with an
                       error; results [rows] of lists, None for one
    Arrow, pandas      fixed-size lists of float32, lists of structs; null for a row with an error

Vectors never pass through Python floats. pandas gets Arrow's types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingExtraError

if TYPE_CHECKING:
    from .row_task import Columns, RowTask


def with_columns(task: RowTask, batch: Any) -> Any:
    """See RowTask.__call__."""
    kind = type(batch).__module__.partition(".")[0]
    names = names_of(batch, kind)
    if lacking := [name for name in task.needed if name not in names]:
        raise ValueError(f"the batch has no column {lacking[0]!r}; its columns: {names}")
    if taken := {task.out, "truncated", "error"} & set(names):
        raise ValueError(f"the batch has a column {sorted(taken)[0]!r} already; rename it")
    read = [name for name in (task.column, *task.beside) if name in names]
    found = task.columns(task.rows_of({name: cells_of(batch, kind, name) for name in read}))
    if isinstance(batch, Mapping):
        new = (found.values, found.truncated, np.array(found.errors, object))
        return {**batch, **dict(zip((task.out, "truncated", "error"), new, strict=True))}
    if kind == "pandas":
        return batch.assign(**pandas_columns(task, found))
    for name, column in arrow_columns(task, found).items():
        batch = batch.append_column(name, column)
    return batch


def cells_of(batch: Any, kind: str, name: str) -> list[Any]:
    """A column of a batch, None where it has no value."""
    if kind == "pandas":
        column = batch[name].astype(object)
        return list(column.where(column.notna(), None))
    return list(batch[name]) if isinstance(batch, Mapping) else batch.column(name).to_pylist()


def names_of(batch: Any, kind: str) -> list[str]:
    """The columns of a batch. TypeError for what is none."""
    if isinstance(batch, Mapping):
        return [str(name) for name in batch]
    if kind == "pandas" and hasattr(batch, "assign"):
        return [str(name) for name in batch.columns]
    if kind == "pyarrow" and hasattr(batch, "append_column"):
        return list(batch.schema.names)
    raise TypeError(
        f"batch is a {type(batch).__name__}; it must be a dict of arrays, a pandas DataFrame, or a "
        "Table or RecordBatch of Arrow"
    )


def arrow_columns(task: RowTask, found: Columns) -> dict[str, Any]:
    """Arrow's arrays for the new columns."""
    pa = arrow()
    bad = np.array([error is not None for error in found.errors], bool)
    return {
        task.out: task.arrow_values(found.values, bad),
        "truncated": pa.array(found.truncated),
        "error": pa.array(found.errors, pa.string()),
    }


def pandas_columns(task: RowTask, found: Columns) -> dict[str, Any]:
    """The same for a pandas frame."""
    import pandas as pd

    types = pandas_types(task)
    return {
        name: pd.arrays.ArrowExtensionArray(column).astype(types[name])
        for name, column in arrow_columns(task, found).items()
    }


def pandas_types(task: RowTask) -> dict[str, Any]:
    """Column -> dtype of a pandas frame."""
    import pandas as pd

    return {name: pd.ArrowDtype(kind) for name, kind in arrow_types(task).items()}


def arrow_types(task: RowTask) -> dict[str, Any]:
    """Column -> type of Arrow."""
    pa = arrow()
    return {task.out: task.arrow_type(), "truncated": pa.int32(), "error": pa.string()}


def arrow() -> Any:
    """The package. MissingExtraError without it."""
    try:
        import pyarrow
    except ImportError:
        raise MissingExtraError("pyarrow", "bulk", "a column of vectors or results") from None
    return pyarrow
