"""The kinds of batches that engines hand over, with the columns that an Embedder adds.

    dict of arrays     vectors [rows, width] float32, NaN for a row with an error
    Arrow, pandas      fixed-size lists of float32, null for a row with an error

Values never pass through Python floats. pandas gets Arrow's type, where pyarrow is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingExtraError

if TYPE_CHECKING:
    from .embedder import Columns, Embedder


def with_columns(embedder: Embedder, batch: Any) -> Any:
    """See Embedder.__call__."""
    kind = type(batch).__module__.partition(".")[0]
    names = names_of(batch, kind)
    if embedder.column not in names:
        raise ValueError(f"the batch has no column {embedder.column!r}; its columns: {names}")
    if taken := {embedder.out, "truncated", "error"} & set(names):
        raise ValueError(f"the batch has a column {sorted(taken)[0]!r} already; rename it")
    if isinstance(batch, Mapping):
        found = embedder.columns(list(batch[embedder.column]))
        new = (found.vectors, found.truncated, np.array(found.errors, object))
        return {**batch, **dict(zip((embedder.out, "truncated", "error"), new, strict=True))}
    if kind == "pandas":
        texts = batch[embedder.column].astype(object)
        found = embedder.columns(texts.where(texts.notna(), None).tolist())
        return batch.assign(**pandas_columns(found, embedder.out))
    found = embedder.columns(batch.column(embedder.column).to_pylist())
    for name, column in arrow_columns(found, embedder.out).items():
        batch = batch.append_column(name, column)
    return batch


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


def arrow_columns(found: Columns, out: str) -> dict[str, Any]:
    """Arrow's arrays for the new columns."""
    pa = arrow()
    rows, width = found.vectors.shape
    values = pa.array(found.vectors.reshape(-1))
    bad = pa.array([error is not None for error in found.errors], pa.bool_())
    vectors = pa.FixedSizeListArray.from_arrays(values, width, mask=bad if rows else None)
    return {
        out: vectors,
        "truncated": pa.array(found.truncated),
        "error": pa.array(found.errors, pa.string()),
    }


def pandas_columns(found: Columns, out: str) -> dict[str, Any]:
    """The same for a pandas frame."""
    import pandas as pd

    types = pandas_types(found.vectors.shape[1], out)
    return {
        name: pd.arrays.ArrowExtensionArray(column).astype(types[name])
        for name, column in arrow_columns(found, out).items()
    }


def pandas_types(width: int, out: str) -> dict[str, Any]:
    """Column -> dtype of a pandas frame."""
    import pandas as pd

    return {name: pd.ArrowDtype(kind) for name, kind in arrow_types(width, out).items()}


def arrow_types(width: int, out: str) -> dict[str, Any]:
    """Column -> type of Arrow."""
    pa = arrow()
    return {out: pa.list_(pa.float32(), width), "truncated": pa.int32(), "error": pa.string()}


def arrow() -> Any:
    """The package. MissingExtraError without it."""
    try:
        import pyarrow
    except ImportError:
        raise MissingExtraError("pyarrow", "bulk", "a column of vectors") from None
    return pyarrow
