"""What a verdict covers: cases and steps that were compared, and by name what was not shown.

    Coverage(cases=(1, 18), steps=(3, 1089), lacking=("padding", "packed", ...))

A case shows what it is about (padding, a spelling of the config, biases) when the port's last
layer, or anything after it, was compared there: whatever goes wrong before reaches that. A head is
shown by its scores. A case that was not run is named itself where nothing else that is lacking says
why. All of it is derived from the cases. It says nothing about whether what was compared is right.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ..truth.cases import BY_NAME, CASES, Case
from ..truth.passes import config_of
from ..truth.shapes import tap_shapes
from ..truth.vectors import VECTORS

SCORES = ("logits", "start_logits", "end_logits")
# Beyond the usual tables, tiles and blocks of 64 and 128.
LONG = 200
COMPANY = "company"


def _masks(case: Case) -> np.ndarray:
    """bool [batch, seq]; packed input has no padding."""
    return np.atleast_2d(case.real)


def _padded(case: Case) -> bool:
    return not case.real.all()


def _left(case: Case) -> bool:
    return any(row.any() and not row[0] for row in _masks(case))


def _holes(case: Case) -> bool:
    return any(row.any() and not row[slice(*np.flatnonzero(row)[[0, -1]])].all()
               for row in _masks(case))  # fmt: skip


def _longest(case: Case) -> int:
    cu = case.inputs.get("cu_seqlens")
    return int(np.diff(cu).max() if cu is not None else case.real.shape[1])


def _third_layers_full(case: Case) -> bool:
    kinds = config_of(case.config).layer_types
    return all((kind == "full_attention") == (i % 3 == 0) for i, kind in enumerate(kinds))


ASPECTS: Mapping[str, Callable[[Case], bool]] = {
    "padding": _padded,
    "left-padding": _left,
    "holes": _holes,
    "empty-rows": lambda case: not _masks(case).any(axis=1).all(),
    "batches": lambda case: case.inputs["input_ids"].ndim == 2 and len(case.real) > 1,
    "past-the-window": lambda case: _longest(case) > case.config["local_attention"],
    "long": lambda case: _longest(case) > LONG,
    "packed": lambda case: "cu_seqlens" in case.inputs,
    "positions": lambda case: "position_ids" in case.inputs,
    "old-keys": lambda case: "rope_parameters" not in case.config,
    "new-keys": lambda case: "global_rope_theta" not in case.config,
    "contradicting-keys": lambda case: case.fixture.spelling == "contradicting",
    "schedules": lambda case: not _third_layers_full(case),
    "biases": lambda case: case.config["norm_bias"],
    "gelu": lambda case: case.config["hidden_activation"] == "gelu",
    "silu": lambda case: case.config["hidden_activation"] == "silu",
    "hard-rows": lambda case: case.fixture.hard_rows,
    "usual-size": lambda case: case.fixture.head_dim == 64,
}
"""What the encoder may be asked for -> the cases that are about it."""
HEADS: Mapping[str, Callable[[Case], bool]] = {
    "masked_lm": lambda case: case.head == "masked_lm",
    "mean-pooling": lambda case: _pooled(case, "mean"),
    "cls-pooling": lambda case: _pooled(case, "cls"),
    "token_classification": lambda case: case.head == "token_classification",
    "question_answering": lambda case: case.head == "question_answering",
}
"""The same for heads."""
NAMES = tuple(dict.fromkeys((*ASPECTS, *HEADS, COMPANY, *BY_NAME)))


def _pooled(case: Case, how: str) -> bool:
    return case.head == "sequence_classification" and case.config["classifier_pooling"] == how


@dataclass(frozen=True)
class Coverage:
    """cases, steps: (compared, there are); tokens: the same in the cases that were compared.
    lacking: names of NAMES that nothing has shown; unasked: whether no call in other company was
    made (a dump cannot be asked, and lacks nothing by that); accepted: those of `lacking` that the
    user does without."""

    cases: tuple[int, int]
    steps: tuple[int, int]
    lacking: tuple[str, ...]
    unasked: bool = False
    accepted: frozenset[str] = frozenset()
    tokens: tuple[int, int] = (0, 0)

    @property
    def complete(self) -> bool:
        """Whether everything was shown that the kit can show of such a port."""
        return not self.lacking

    @property
    def enough(self) -> bool:
        """Whether everything was shown that the user asks for, and something at all."""
        return self.cases[0] > 0 and set(self.lacking) <= self.accepted


def covered(
    given: Mapping[str, Collection[str]],
    asked: bool = False,
    askable: bool = False,
    accepted: Collection[str] = (),
    shown: Mapping[str, np.ndarray | None] = MappingProxyType({}),
    refused: bool = False,
) -> Coverage:
    """given: case -> the steps of it that were compared; asked: whether the calls of the runtime
    gate were made; askable: whether they could have been; refused: whether the port refused one;
    shown: case -> the tokens that were compared (None: every real one). A case of which a whole row
    was left out has shown nothing."""
    compared = [(BY_NAME[name], set(taps)) for name, taps in given.items() if taps]
    tokens = {case.name: _shown(case, shown.get(case.name)) for case, _ in compared}
    whole = [(case, taps) for case, taps in compared if _every_row(case, tokens[case.name])]
    encoder = [case for case, taps in whole if taps & _ends(case)]
    heads = [case for case, taps in whole if taps >= set(SCORES) & set(_steps(case))]
    unseen = {name: about for name, about in ASPECTS.items() if not any(map(about, encoder))}
    seen = {case.name for case in encoder}
    lacking = [*unseen, *(name for name, about in HEADS.items() if not any(map(about, heads)))]
    for case in CASES:
        if case.name not in seen and not any(about(case) for about in unseen.values()):
            lacking.append(case.name)
    lacking += [COMPANY] if askable and (refused or not asked) else []
    return Coverage(
        (len(compared), len(CASES)),
        (
            sum(len(taps) for _, taps in compared),
            sum(len(_steps(case, given.get(case.name, ()))) for case in CASES),
        ),
        tuple(lacking),
        not asked,
        frozenset(accepted),
        (
            sum(int(some.sum()) for some in tokens.values()),
            sum(int(case.real.sum()) for case, _ in compared),
        ),
    )


def _shown(case: Case, tokens: np.ndarray | None) -> np.ndarray:
    return case.real if tokens is None else case.real & tokens


def _every_row(case: Case, tokens: np.ndarray) -> bool:
    """Whether every sequence with a real token has one that was compared."""
    cu = case.inputs.get("cu_seqlens")
    if cu is not None:
        return all(part.any() for part in np.split(tokens, cu[1:-1]))
    return bool((tokens.any(axis=1) == case.real.any(axis=1)).all())


def _steps(case: Case, given: Collection[str] = VECTORS) -> list[str]:
    """Those that the case has; vectors, which are final_norm once more, where they are given."""
    steps = tap_shapes(config_of(case.config), case.inputs, case.head)
    return [step for step in steps if step not in VECTORS or step in given]


def _ends(case: Case) -> set[str]:
    """The last layer's output and what is made of it."""
    steps = _steps(case)
    last = max(i for i, step in enumerate(steps) if step.endswith(".residual_2"))
    return set(steps[last:])
