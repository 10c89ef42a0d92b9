"""Two texts in one input dict: keys that end in `_2` belong to the second.

    {"input_ids", "attention_mask", "input_ids_2", "attention_mask_2"}

The two may differ in length, not in the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any

SUFFIX = "_2"


def split_pair(inputs: Mapping[str, Any] | Any) -> tuple[Any, dict[str, Any] | None]:
    """The input of the first text, and that of the second, None when there is none.

    Raises ValueError when their numbers of rows differ.
    """
    if not isinstance(inputs, Mapping):
        return inputs, None
    own = {name: x for name, x in inputs.items() if not str(name).endswith(SUFFIX)}
    second = {
        str(name)[: -len(SUFFIX)]: x
        for name, x in inputs.items()
        if name not in own and x is not None
    }
    one, two = rows_of(own), rows_of(second)
    if one is not None and two is not None and one[1] != two[1]:
        raise ValueError(f"{two[0]}{SUFFIX} has {two[1]} rows, {one[0]} has {one[1]}")
    return own, second or None


def rows_of(inputs: Mapping[str, Any]) -> tuple[str, int] | None:
    """The key that holds a text, as ids or as embeddings, and its number of rows; None without."""
    for name in ("input_ids", "inputs_embeds"):
        text = inputs.get(name)
        if isinstance(text, Sized) and getattr(text, "ndim", 1) > 0:
            return name, len(text)
    return None


@contextmanager
def second_text() -> Iterator[None]:
    """Errors raised inside say that they are about the second text."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"in the second text (keys in {SUFFIX}): {error}") from None
