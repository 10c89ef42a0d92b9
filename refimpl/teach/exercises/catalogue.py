"""Every exercise by its id, in the order in which they are listed: equations, bugs by degree."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ...errors import ExerciseError
from .bugs import BUGS
from .equations import EQUATIONS
from .table import DEGREES, Exercise
from .training_bugs import TRAINING_BUGS

EXERCISES: Mapping[str, Exercise] = MappingProxyType(
    {e.id: e for e in (*EQUATIONS, *sorted((*BUGS, *TRAINING_BUGS), key=lambda e: e.degree))}
)


def exercise(id: str) -> Exercise:
    """The exercise of that id. ExerciseError says how to see those that there are."""
    if id not in EXERCISES:
        raise ExerciseError(
            f"exercise {id!r} is unknown; known: eq-NAME, bug-01 .. {BUGS[-1].id}, step-01 .. "
            f"{TRAINING_BUGS[-1].id}: modernbert exercise list"
        )
    return EXERCISES[id]


def heading(e: Exercise) -> str:
    """What is to be done."""
    if e.kind == "bug":
        return f"Find the bug, degree {e.degree}: {DEGREES[e.degree]}."
    return "Write an equation."


def listing() -> str:
    """The list as text: a heading for each kind and degree, then a line each."""
    parts: dict[str, list[str]] = {}
    for e in EXERCISES.values():
        training = " (training)" if e.training else ""
        parts.setdefault(heading(e), []).append(f"  {e.id:{WIDTH}s}  {e.title}{training}")
    return "\n\n".join("\n".join([name, *rows]) for name, rows in parts.items())


WIDTH = max(map(len, EXERCISES))
