"""Two texts in one input dict: keys that end in `_2` belong to the second.

    {"input_ids", "attention_mask", "input_ids_2", "attention_mask_2"}

The two may differ in length, not in the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

SUFFIX = "_2"


def split_pair(inputs: Mapping[str, Any] | Any) -> tuple[Any, dict[str, Any] | None]:
    """The input of the first text, and that of the second, None when there is none.

    Raises ValueError when only a part of the second is there or its number of rows differs.
    """
    if not isinstance(inputs, Mapping):
        return inputs, None
    second = {
        name[: -len(SUFFIX)]: x
        for name, x in inputs.items()
        if isinstance(name, str) and name.endswith(SUFFIX) and x is not None
    }
    if not second:
        return inputs, None
    first = {n: x for n, x in inputs.items() if not (isinstance(n, str) and n.endswith(SUFFIX))}
    for name in ("input_ids", "inputs_embeds"):
        one, two = first.get(name), second.get(name)
        if one is not None and two is not None and len(one) != len(two):
            raise ValueError(f"{name}{SUFFIX} has {len(two)} rows, {name} has {len(one)}")
    return first, second


@contextmanager
def second_text() -> Iterator[None]:
    """Errors raised inside say that they are about the second text."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"in the second text (keys in {SUFFIX}): {error}") from None
