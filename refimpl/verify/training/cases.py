"""The training cases: which model learns what, from which micro-batches, with which optimiser.

Losses x optimisers x configs, each differing from every default that could hide a mistake: labels
counted unequally in the micro-batches of a step, a last step with fewer of them, padding, ids that
repeat, rows longer than the window, thetas, eps, betas and decay of their own. Ten steps each.
Everything is drawn from numpy's Philox stream (truth/fixtures.py): the same bytes everywhere. Long
because the list stands here with its reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np

from ...reference.config import ModernBertConfig
from ...train.losses import IGNORED
from ...train.schedules import Schedule
from ...train.task_loss import ANSWER, MULTI, REGRESSION, SINGLE
from ..truth.cases import mask_row, words
from ..truth.fixtures import THREE, Fixture, integers, uniform, unit
from .step import Micro, Rule, Training

Array = np.ndarray
STEPS = 10
"""Of every case: parameters are compared after the first and after the last."""
TASKS = {
    "masked_lm": "mask",
    "sequence_classification": "classify",
    "token_classification": "tokens",
    "question_answering": "answer",
    "multiple_choice": "choice",
}
"""Head -> the task of refimpl.train that trains it."""


@dataclass(frozen=True)
class TrainingCase:
    """One run. shape: of a micro-batch's ids; rows: how each of its rows is padded, (how, real
    tokens); windows: micro-batches of each step; accumulate: of a full step; packed: lengths of the
    sequences, in place of rows; stop_after: where the run is saved, ended and gone on with."""

    name: str
    fixture: Fixture
    why: str
    rule: Rule
    seq: int = 14
    rows: tuple[tuple[str, int], ...] = (("none", 14), ("right", 9))
    windows: tuple[int, ...] = (1,) * STEPS
    accumulate: int = 1
    problem: str = SINGLE
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    packed: tuple[int, ...] | None = None
    choices: int = 0
    token_types: int = 0
    stop_after: int | None = None

    @property
    def head(self) -> str:
        assert self.fixture.head is not None
        return self.fixture.head

    @property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        c = self.fixture.config()
        if self.head == "sequence_classification":
            c["problem_type"] = self.problem
        if self.token_types:
            c["type_vocab_size"] = self.token_types
        return c

    def params(self) -> dict[str, Array]:
        """float64 arrays of float32 numbers, read-only, under the reference's names."""
        return dict(_params(self))

    def batch(self) -> dict[str, Array]:
        """Every array of the run: `input_ids`, `labels` and, where the case has them,
        `attention_mask`, `token_type_ids`, `cu_seqlens`; the first axes are [steps, micro-batches].
        A step that has fewer micro-batches than others holds padding in place of the rest."""
        return dict(_batch(self))

    def training(self) -> Training:
        """The right run; in float64 it is the truth."""
        return training(self, self.batch(), self.params())


def training(
    case: TrainingCase, batch: Mapping[str, Array], params: Mapping[str, Array]
) -> Training:
    """A case's run on those arrays."""
    windows = [
        [
            Micro(
                {name: x[k, m] for name, x in batch.items() if name != "labels"},
                batch["labels"][k, m],
            )
            for m in range(case.windows[k])
        ]
        for k in range(STEPS)
    ]
    weights = None if case.class_weights is None else np.array(case.class_weights)
    return Training(
        ModernBertConfig.from_dict(case.config), params, case.head, case.problem, windows,
        case.accumulate, case.rule, case.label_smoothing, weights, case.stop_after,
    )  # fmt: skip


@cache
def _params(case: TrainingCase) -> Mapping[str, Array]:
    f, types = case.fixture, "embeddings.token_type_embeddings.weight"
    out = f.params()
    if case.token_types:
        x = unit((case.token_types, f.hidden), f.seed, types)
        out[types] = x.astype(np.float32).astype(np.float64)
    for x in out.values():
        x.flags.writeable = False
    return MappingProxyType(out)


# -- data -----------------------------------------------------------------------------------------


@cache
def _batch(case: TrainingCase) -> Mapping[str, Array]:
    most = max(case.windows)
    micros = [[_micro(case, k, m) for m in range(most)] for k in range(STEPS)]
    out = {
        name: np.stack([np.stack([one[name] for one in step]) for step in micros])
        for name in micros[0][0]
    }
    for x in out.values():
        x.flags.writeable = False
    return MappingProxyType(out)


def _micro(case: TrainingCase, k: int, m: int) -> dict[str, Array]:
    f, at = case.fixture, f"{case.name}:{k}:{m}"
    if case.packed is not None:
        ends = np.cumsum([0, *case.packed])
        real = np.ones(int(ends[-1]), bool)
        parts = [words(np.ones(n, np.int64), f.seed, f"{at}:{b}", f.vocab)
                 for b, n in enumerate(case.packed)]  # fmt: skip
        labels = _token_labels(case, real, at, m)
        return {"input_ids": np.concatenate(parts), "cu_seqlens": ends, "labels": labels}
    masks = np.stack([mask_row(how, n, case.seq, f.seed, f"{at}:m{b}")
                      for b, (how, n) in enumerate(case.rows)])  # fmt: skip
    ids = np.stack([words(mask, f.seed, f"{at}:{b}", f.vocab) for b, mask in enumerate(masks)])
    out = {"input_ids": ids}
    if not masks.all():
        out["attention_mask"] = masks
    if case.token_types:
        half = np.arange(case.seq) >= case.seq // 2
        out["token_type_ids"] = np.broadcast_to(half.astype(np.int64), ids.shape).copy()
    return out | {"labels": _labels(case, masks != 0, at, m)}


def _labels(case: TrainingCase, real: Array, at: str, m: int) -> Array:
    f, rows, n = case.fixture, len(real), len(case.fixture.labels)
    if case.head in ("masked_lm", "token_classification"):
        return _token_labels(case, real, at, m)
    if case.head == "multiple_choice":
        return integers((rows // case.choices,), 0, case.choices, f.seed, at + ":choice")
    if case.problem == ANSWER:
        ends = uniform((rows, 2), f.seed, at + ":answer") * real.sum(axis=1, keepdims=True)
        first = real.argmax(axis=1)[:, None]
        out = np.sort(ends.astype(np.int64), axis=1) + first
        # A question without an answer in its text counts for nothing, as where transformers' own
        # ignored index stands; it makes the micro-batches of a step unequal.
        out[0] = IGNORED if m == 1 else out[0]
        return out
    if case.problem == REGRESSION:
        x = 2.0 * uniform((rows, n), f.seed, at + ":number") - 1.0
        return x.astype(np.float32).astype(np.float64)
    if case.problem == MULTI:
        return (uniform((rows, n), f.seed, at + ":classes") < 0.4).astype(np.float64)
    return integers((rows,), 0, n, f.seed, at + ":class")


def _token_labels(case: TrainingCase, real: Array, at: str, m: int) -> Array:
    """A share of the real tokens has a label: a third in the first micro-batch of a step, more in
    those behind it, so that a mean of means is not the mean."""
    f = case.fixture
    n = f.vocab if case.head == "masked_lm" else len(f.labels)
    labels = integers(real.shape, 0, n, f.seed, at + ":labels")
    chosen = uniform(real.shape, f.seed, at + ":chosen") < (0.3, 0.75, 0.5, 0.9)[m % 4]
    chosen |= np.cumsum(real.reshape(-1)).reshape(real.shape) == 3
    return np.where(real & chosen, labels, IGNORED)


# -- the list -------------------------------------------------------------------------------------


def adamw(
    betas: tuple[float, float] = (0.8, 0.95),
    eps: float = 3e-3,
    weight_decay: float = 0.3,
    peak: float = 8e-3,
) -> Rule:
    """torch's AdamW, a schedule that rises and falls, an eps that gradients here do not dwarf."""
    return Rule("adamw", betas, eps, weight_decay, peak, rates(peak))


def stable(
    betas: tuple[float, float] = (0.85, 0.96),
    eps: float = 2e-3,
    weight_decay: float = 4e-3,
    peak: float = 6e-3,
) -> Rule:
    """ModernBERT's own."""
    return Rule("stable_adamw", betas, eps, weight_decay, peak, rates(peak))


def rates(peak: float) -> tuple[float, ...]:
    """Up over three steps, level, and down with 1 - sqrt; the first is not 0, so that it shows."""
    schedule = Schedule("trapezoidal", warmup=4, total=12, decay=6, floor=0.1)
    return tuple(peak * schedule(k + 1) for k in range(STEPS))


def _fixture(name: str, head: str, **more: Any) -> Fixture:
    given: dict[str, Any] = {"pattern": "fsf", "inter": 20, "vocab": 61, "eps": 1e-4}
    return Fixture(name, "v4", head, **given | more)


TIED = _fixture("train-tied", "masked_lm", biases="d")
UNTIED = _fixture(
    "train-silu", "masked_lm", activation="silu", head_activation="silu", tied=False, window=5,
    eps=1e-3, theta_full=40000.0, theta_sliding=25.0,
)  # fmt: skip
FIVE = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
BIASED = _fixture("train-biased", "token_classification", biases="namc", tied=False, labels=FIVE)
TWO = ("first", "second")
MEAN = _fixture("train-mean", "sequence_classification", tied=False, labels=THREE)
CLS = _fixture(
    "train-cls", "sequence_classification", pattern="fss", hidden=48, window=7, biases="c",
    pooling="cls", tied=False, labels=THREE,
)  # fmt: skip
NUMBERS = _fixture("train-numbers", "sequence_classification", tied=False, labels=TWO)
SPANS = _fixture("train-spans", "question_answering", tied=False, labels=("start", "end"))
CHOICE = _fixture("train-choice", "multiple_choice", tied=False, pooling="cls")

CASES: tuple[TrainingCase, ...] = (
    TrainingCase(
        "mask-tied", TIED,
        "the workhorse: a tied decoder, padding, two micro-batches a step with a third and three "
        "quarters of their tokens labelled, so that a mean of means is not the mean",
        adamw(), windows=(2,) * STEPS, accumulate=2,
    ),
    TrainingCase(
        "mask-silu", UNTIED,
        "one batch a step, silu, an untied decoder, an odd window, padding on the left, and "
        "ModernBERT's own optimiser",
        stable(), rows=(("none", 14), ("left", 9)),
    ),
    TrainingCase(
        "tokens-biased", BIASED,
        "every bias that the config can switch on, none of which decays; holes in a row; three "
        "micro-batches a step",
        adamw(), rows=(("none", 14), ("holes", 10)), windows=(3,) * STEPS, accumulate=3,
    ),
    TrainingCase(
        "classes-weighted", MEAN,
        "mean pooling over real tokens only; class weights, whose sum is the normaliser, and label "
        "smoothing over all classes",
        stable(), windows=(2,) * STEPS, accumulate=2, label_smoothing=0.15,
        class_weights=(1.0, 2.5, 0.5), rows=(("none", 14), ("right", 6), ("right", 9)),
    ),
    TrainingCase(
        "classes-plain", MEAN,
        "the plainest step there is: one label a text, no accumulation, torch's own eps",
        adamw((0.9, 0.99), 1e-8, 0.05, 1e-3),
    ),
    TrainingCase(
        "several-labels", CLS,
        "labels that do not exclude each other, divided by all of them; cls pooling; three heads",
        adamw(), windows=(2,) * STEPS, accumulate=2, problem=MULTI,
    ),
    TrainingCase(
        "regression", NUMBERS,
        "two numbers a text: the squares are divided by their number, and not halved",
        adamw((0.85, 0.9)), problem=REGRESSION,
    ),
    TrainingCase(
        "answer", SPANS,
        "start and end are half of the loss each; a question without an answer counts for nothing. "
        "No padding: its scores would be in the softmax, and what padding holds is free",
        stable(), windows=(2,) * STEPS, accumulate=2, problem=ANSWER,
        rows=(("none", 14),) * 3,
    ),
    TrainingCase(
        "choice", CHOICE,
        "a row of scores is one question's choices, each a sequence of its own",
        adamw(), rows=(("none", 14), ("right", 9), ("right", 11), ("none", 14)), choices=2,
    ),
    TrainingCase(
        "packed", BIASED,
        "sequences end to end: the backward pass must not cross from one into the next either",
        stable(), packed=(13, 1, 9, 2), windows=(2,) * STEPS, accumulate=2,
    ),
    TrainingCase(
        "partial-window", TIED,
        "steps of four micro-batches, the first and the last with fewer, as at the end of an "
        "epoch: they are divided by what they hold",
        adamw((0.75, 0.9)), seq=10, rows=(("none", 10), ("right", 7)),
        windows=(3, *(4,) * (STEPS - 2), 2), accumulate=4,
    ),
    TrainingCase(
        "resumed", UNTIED,
        "saved, ended and gone on with after five steps: moments, schedule and the order of data",
        adamw((0.9, 0.97)), seq=10, rows=(("none", 10), ("right", 7)), stop_after=5,
    ),
    TrainingCase(
        "token-types", TIED,
        "a table of token types, which a config may ask for, learns as well",
        stable(), seq=10, rows=(("none", 10), ("right", 7)), token_types=2,
    ),
)  # fmt: skip

BY_NAME: Mapping[str, TrainingCase] = MappingProxyType({c.name: c for c in CASES})


def case(name: str) -> TrainingCase:
    """The case of that name. ValueError lists those that there are."""
    if name not in BY_NAME:
        raise ValueError(f"case {name!r} is unknown; known: {', '.join(BY_NAME)}")
    return BY_NAME[name]
