"""Numbers as the verbs write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def single(value: Any) -> Any:
    """Json-ready, every float that is a float32 written with the fewest digits that name it among
    the float32: 0.1, where a float64 of the same value is 0.10000000149011612."""
    import numpy as np

    if isinstance(value, dict):
        return {name: single(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [single(x) for x in value]
    if isinstance(value, np.ndarray):
        return shortest(value) if value.dtype == np.float32 else value.tolist()
    if isinstance(value, float) and abs(value) <= float(np.finfo(np.float32).max):
        near = np.float32(value)  # compared as a float: beside a float32 numpy 2 rounds that too
        return shortest(np.array([near]))[0] if near.item() == value else value
    return value


def shortest(x: np.ndarray) -> list[float]:
    """float32 [n] -> floats that print in few digits and are x again when rounded to float32."""
    import numpy as np

    short = np.array([float(str(value)) for value in x])
    # Rounded twice, to float64 and then to float32, a decimal may end beside its number.
    return np.where(short.astype(np.float32) == x, short, x.astype(np.float64)).tolist()


def bytes_of(size: float) -> str:
    """1 B, 12.3 kB, 4.56 MB, 7.89 GB."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
