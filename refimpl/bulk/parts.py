"""A part: the values of one fragment in one file, Parquet or Arrow, written whole or not at all.

    columns: row int64 (its number in the input file), the id if there is one, what was made of the
             rows (embedding: fixed-size lists of float32; null with an error), truncated, error

Promise: the same rows, model, options and version of pyarrow give the same bytes, whoever writes
them. What the manifest says of a part can be made again from the part.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..files.atomic import replacing
from .batches import arrow, arrow_columns
from .inputs import Fragment, Rows
from .row_task import Columns, RowTask

FORMATS = ("parquet", "arrow")
KEY = b"refimpl"  # of the schema's metadata


def write_part(
    path: Path, fragment: Fragment, rows: Rows, task: RowTask, found: Columns, id: str | None
) -> dict[str, Any]:
    """Write a part; its line of the manifest. id: the column of the ids. Raises OSError."""
    pa = arrow()
    columns = {"row": pa.array(range(fragment.first, fragment.first + fragment.count), pa.int64())}
    if id is not None:
        columns[id] = rows.ids
    columns |= arrow_columns(task, found)
    facts = {
        "rows": fragment.count,
        "first_row": fragment.first,
        "errors": sum(error is not None for error in found.errors),
        "truncated": int((found.truncated > 0).sum()),
        "tokens": found.tokens,
    }
    table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(facts)})
    content = _serialised(table, path.suffix[1:])
    with replacing(path) as stream:
        stream.write(content)
    return _line(path, facts, hashlib.sha256(content).hexdigest(), len(content))


def read_line(path: Path) -> dict[str, Any]:
    """The line of a part that is there. Raises OSError; ValueError for a file that is no part."""
    pa = arrow()
    content = path.read_bytes()
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            metadata = pyarrow.parquet.read_schema(pa.BufferReader(content)).metadata
        else:
            metadata = pa.ipc.open_file(pa.BufferReader(content)).schema.metadata
        facts = json.loads(metadata[KEY])
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no part of a job ({error}); delete it") from None
    return _line(path, facts, hashlib.sha256(content).hexdigest(), len(content))


def _serialised(table: Any, kind: str) -> Any:
    pa = arrow()
    sink = pa.BufferOutputStream()
    if kind == "parquet":
        import pyarrow.parquet

        # Vectors neither compress nor repeat; trying would take longer than writing them.
        pyarrow.parquet.write_table(
            table, sink, compression="none", use_dictionary=False, write_statistics=False,
            row_group_size=max(1, len(table)),
        )  # fmt: skip
    else:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
    return sink.getvalue()


def _line(path: Path, facts: dict[str, Any], sha256: str, size: int) -> dict[str, Any]:
    return {"part": path.name, **facts, "bytes": size, "sha256": sha256}
