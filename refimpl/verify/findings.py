"""What the kit says: findings of the gates, in one plain form for terminal, JSON and HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

GATES = (
    "plan",
    "weights",
    "inputs",
    "rope",
    "operations",
    "layers",
    "cumulative",
    "heads",
    "runtime",
)
"""The gates in the order in which they are worked through: a failure early explains those later."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    gate: a name of GATES, or "port" when the port itself misbehaved (crash, hang, unreadable
    output); level: "fail" (not ModernBERT), "deviation" (a known, named departure), "note" (worth
    knowing, no verdict); message: one sentence that a person can act on; data: numbers behind it.
    """

    gate: str
    level: Literal["fail", "deviation", "note"]
    message: str
    case: str | None = None
    tap: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
