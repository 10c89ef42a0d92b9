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
    for name in ("input_ids", "inputs_embeds"):
        one, two = own.get(name), second.get(name)
        if one is not None and two is not None and len(one) != len(two):
            raise ValueError(f"{name}{SUFFIX} has {len(two)} rows, {name} has {len(one)}")
    return own, second or None


@contextmanager
def second_text() -> Iterator[None]:
    """Errors raised inside say that they are about the second text."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"in the second text (keys in {SUFFIX}): {error}") from None
