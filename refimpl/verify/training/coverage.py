"""What a verdict on a training step covers: values that were compared, and what was not shown.

A case shows what it is about when loss and gradient of every parameter were compared there; its
optimiser when the parameters after the first step were, and `run` and `resume` when those after the
last were, too. All of it is derived from the cases.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ...train.task_loss import ANSWER, MULTI, REGRESSION
from ..judge.coverage import Coverage
from .cases import BY_NAME, CASES, TASKS, TrainingCase
from .compare import AFTER


def _padded(case: TrainingCase, how: str) -> bool:
    return case.packed is None and any(kind == how for kind, _ in case.rows)


LEARNT: Mapping[str, Callable[[TrainingCase], bool]] = {
    "mask": lambda c: TASKS[c.head] == "mask",
    "one-label": lambda c: TASKS[c.head] == "classify" and c.problem not in (MULTI, REGRESSION),
    "several-labels": lambda c: c.problem == MULTI,
    "regression": lambda c: c.problem == REGRESSION,
    "tokens": lambda c: TASKS[c.head] == "tokens",
    "answer": lambda c: c.problem == ANSWER,
    "choice": lambda c: TASKS[c.head] == "choice",
    "class-weights": lambda c: c.class_weights is not None,
    "label-smoothing": lambda c: c.label_smoothing > 0,
    "accumulation": lambda c: c.accumulate > 1,
    "partial-window": lambda c: c.accumulate > 1 and c.windows[0] < c.accumulate,
    "padding": lambda c: _padded(c, "right"),
    "left-padding": lambda c: _padded(c, "left"),
    "holes": lambda c: _padded(c, "holes"),
    "packed": lambda c: c.packed is not None,
    "tied": lambda c: c.fixture.tied,
    "biases": lambda c: c.fixture.biases == "namc",
    "gelu": lambda c: c.fixture.activation == "gelu",
    "silu": lambda c: c.fixture.activation == "silu",
    "mean-pooling": lambda c: TASKS[c.head] == "classify" and c.fixture.pooling == "mean",
    "cls-pooling": lambda c: TASKS[c.head] == "classify" and c.fixture.pooling == "cls",
    "token-types": lambda c: c.token_types > 0,
}
"""What a step may be asked for -> the cases that are about it."""
UPDATED: Mapping[str, Callable[[TrainingCase], bool]] = {
    "adamw": lambda c: c.rule.optimiser == "adamw",
    "stable_adamw": lambda c: c.rule.optimiser == "stable_adamw",
}
RUN: Mapping[str, Callable[[TrainingCase], bool]] = {
    "run": lambda c: True,
    "resume": lambda c: c.stop_after is not None,
}
NAMES = (*LEARNT, *UPDATED, *RUN)


def names_of(case: TrainingCase) -> list[str]:
    """Every value that a port may give and that is no step inside the passes."""
    params = list(case.params())
    after = [f"after_{k}.{name}" for k in AFTER for name in params]
    return ["loss", *(f"grad.{name}" for name in params), *after]


def covered(given: Mapping[str, Collection[str]], accepted: Collection[str] = ()) -> Coverage:
    """given: case -> the values of it that were compared; accepted: names that the user does
    without."""
    seen: set[str] = set()
    compared, steps = 0, 0
    for name, values in given.items():
        case, told = BY_NAME[name], set(values)
        whole = names_of(case)
        compared += bool(told)
        steps += len(told & set(whole))
        stages = ((LEARNT, ("loss", "grad.")), (UPDATED, (f"after_{AFTER[0]}.",)),
                  (RUN, (f"after_{AFTER[-1]}.",)))  # fmt: skip
        for aspects, kinds in stages:
            if told >= {v for v in whole if v.startswith(kinds)}:
                seen |= {aspect for aspect, about in aspects.items() if about(case)}
    return Coverage(
        (compared, len(CASES)),
        (steps, sum(len(names_of(case)) for case in CASES)),
        tuple(name for name in NAMES if name not in seen),
        accepted=frozenset(accepted),
    )
