"""An Embedder on Dask's and Spark's data frames; Ray Data takes the class as it is.

    dask    embed_frame(frame, folder)            a lazy frame with the columns added
    spark   embed_spark(frame, folder)            the same
    ray     dataset.map_batches(Embedder, fn_constructor_kwargs={"folder": folder},
                                batch_format="pyarrow", compute=ray.data.ActorPoolStrategy(size=2))

Rows, partitions and their order stay what they are; a worker loads the model once, for all tasks.
Threads of a worker share it: give each process as many of the engine's as it has cores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .batches import arrow, arrow_types, pandas_types
from .embedder import Embedder


def embed_frame(frame: Any, folder: str | None = None, **options: Any) -> Any:
    """A dask.dataframe with the columns of `Embedder(folder, **options)`. Raises as that does."""
    embedder = Embedder(folder, **options)
    types = pandas_types(embedder)
    empty = frame._meta
    meta = empty.assign(**{name: _empty(empty, kind) for name, kind in types.items()})
    return frame.map_partitions(embedder, meta=meta)


def embed_spark(frame: Any, folder: str | None = None, **options: Any) -> Any:
    """A pyspark.sql.DataFrame with the same columns. Raises as `Embedder` does."""
    from pyspark.sql.pandas.types import from_arrow_type
    from pyspark.sql.types import StructType

    embedder = Embedder(folder, **options)
    types = arrow_types(embedder) | {embedder.out: _spark_vectors()}
    schema = StructType(list(frame.schema.fields))  # `add` changes the one it is called on
    for name, kind in types.items():
        schema = schema.add(name, from_arrow_type(kind))
    return frame.mapInArrow(PerBatch(embedder), schema)


class PerBatch:
    """An Embedder over the batches of a task, as mapInArrow calls it."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def __call__(self, batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            done = self.embedder(batch)
            place = done.schema.names.index(self.embedder.out)
            yield done.set_column(
                place, self.embedder.out, done.column(place).cast(_spark_vectors())
            )


def _spark_vectors() -> Any:
    """Spark has no lists of a fixed size."""
    pa = arrow()
    return pa.list_(pa.float32())


def _empty(meta: Any, kind: Any) -> Any:
    import pandas as pd

    return pd.Series([], index=meta.index[:0], dtype=kind)
