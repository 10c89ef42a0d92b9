"""Which values of a test's parameter every run takes, and which the `heavy` step of CI alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def heavy_but_first(values: Iterable[Any], count: int = 1) -> list[Any]:
    """Values of a parameter: the first `count` (of tiers: the best) in every run; the others are
    `heavy`."""
    return [v if i < count else _heavy(v) for i, v in enumerate(values)]


def _heavy(value: Any) -> Any:
    several = value if isinstance(value, tuple) else (value,)
    return pytest.param(*several, marks=pytest.mark.heavy)
