"""One JSON object of a model folder being read: values by key, each of its type, no key forgotten.

    entry.get("bias", bool, True)     the value, or the default where the key is absent
    entry.neutral("use_residual", False, why)     refused unless it has the value that does nothing
    entry.finish(HARMLESS)            refused when a key was not asked for and is not harmless

Promise: every refusal is a ModelFormatError with file and key.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from ..errors import ModelFormatError, shown
from ..reference.config_keys import does_nothing

NAMES: dict[type, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


class Entry:
    """The values of one JSON object, and which of them were asked for."""

    def __init__(self, file: Path, values: dict[str, Any]) -> None:
        self.file, self.values, self.taken = file, values, set[str]()

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        """values[key], which must be of that type (null when the default is None)."""
        self.taken.add(key)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        value = self.values.get(key, default)
        if value is ...:
            raise ModelFormatError("this key is missing", file=self.file, key=key)
        if value is not default and type(value) not in kinds:
            name = NAMES[float if float in kinds else kinds[0]]
            raise self.refuse(key, f"it must be {name}{', or null' if default is None else ''}")
        return value

    def neutral(self, key: str, values: tuple[Any, ...], why: str) -> None:
        """Refuses a value that does something: `values` are those that do not (null never does)."""
        self.taken.add(key)
        if not does_nothing(self.values.get(key), values):
            raise self.refuse(key, why)

    def refuse(self, key: str, wanted: str) -> ModelFormatError:
        value = shown(self.values.get(key))
        return ModelFormatError(f"is {value}; {wanted}", file=self.file, key=key)

    def finish(self, harmless: Container[str] = ()) -> None:
        """ModelFormatError when a key was neither asked for nor is harmless."""
        for key in self.values:
            if key not in self.taken and key not in harmless:
                known = ", ".join(sorted(self.taken))
                raise ModelFormatError(f"unknown key; known: {known}", file=self.file, key=key)
