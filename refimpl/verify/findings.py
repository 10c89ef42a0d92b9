"""What the kit says: findings of the gates, and suspects, in one plain form for every report."""

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


@dataclass(frozen=True)
class Suspect:
    """A known mistake that would explain the port.

    id: a key of ZOO or FAULTY; title: what it is, with the fitted value if there is one;
    explained: share of the squared error at the culprit (1: all of it; negative: it makes it
    worse); citations: public threads on it; tied_with: ids of the same class, which give the same
    numbers in every case; together_with: the id of a second mistake that is there as well;
    residual: the distance that is left at the culprit, relative.
    """

    id: str
    title: str
    explained: float
    citations: tuple[str, ...] = ()
    tied_with: tuple[str, ...] = ()
    together_with: str | None = None
    residual: float | None = None
