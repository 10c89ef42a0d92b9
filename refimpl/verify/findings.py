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
    # of a training step
    "loss",
    "gradients",
    "update",
    "run",
)
"""The gates in the order in which they are worked through: a failure early explains those later."""
MISSING = "missing"
"""Key in the data of a note on how many steps of a case are not given."""


def counted(n: int, what: str) -> str:
    """counted(1, "step") -> "1 step"; counted(1234, "step") -> "1,234 steps"."""
    return f"{n:,} {what}" + ("" if n == 1 else "s")


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

    id: a key of ZOO or FAULTY (of a training step: of training.zoo.ZOO); title: what it is, with
    the fitted value if there is one; explained: share of the squared error that goes with it, over
    `steps`, those at which it makes a difference, as (case, step); of a rounding, the share of the
    steps at which the error has its size; citations: public threads on it; tied_with: ids that
    would do as well in its place, in every case that was given; together_with: the other mistakes
    that are there as well; together: what all of them explain; residual: the distance that is left
    at its steps, relative.
    """

    id: str
    title: str
    explained: float
    citations: tuple[str, ...] = ()
    tied_with: tuple[str, ...] = ()
    together_with: tuple[str, ...] = ()
    together: float | None = None
    residual: float | None = None
    steps: tuple[tuple[str, str], ...] = ()
