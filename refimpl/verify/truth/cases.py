"""The cases: which model is run on which input, and why each of them is there.

Together the inputs make every known mistake visible: rows longer than the window (a port tested on
65 tokens has not tested its window), positions beyond 128, padding on either side and inside, rows
and queries without any key, packed sequences, a real token with the id of padding, hidden rows that
a careless norm cannot take. `case.model()` is a Pass whose float64 run is the truth.
Deterministic: the same bytes on every platform (see fixtures.py). Long because the list stands here
with its reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np

from .fixtures import (
    CLS_ID,
    FIXTURES,
    LOW_VARIANCE_ID,
    OFFSET_ID,
    ORDINARY_IDS,
    OUTLIER_ID,
    PAD_ID,
    SEP_ID,
    Fixture,
    integers,
    uniform,
)
from .passes import Pass, config_of
from .vectors import vectors_of

Array = np.ndarray
Mask = tuple[str, int]
"""One row: where its padding stands (none, right, left, holes, empty), and its real tokens."""


@dataclass(frozen=True)
class Case:
    """One model on one input.

    inputs: keyword arguments of `encoder.encode`: input_ids int64 [batch, seq] ([total] with
    cu_seqlens), and where given attention_mask, position_ids, cu_seqlens. why: what it is for.
    """

    name: str
    fixture: Fixture
    inputs: Mapping[str, Array]
    why: str

    @property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        return self.fixture.config()

    @property
    def seed(self) -> int:
        return self.fixture.seed

    @property
    def head(self) -> str | None:
        """A key of heads.HEADS, or None for a bare encoder."""
        return self.fixture.head

    @property
    def real(self) -> Array:
        """bool, shape of input_ids: the tokens that count."""
        mask = self.inputs.get("attention_mask")
        ids = self.inputs["input_ids"]
        return np.ones(ids.shape, bool) if mask is None else mask != 0

    def without_head(self) -> Case:
        """The same model and input for a bare encoder."""
        return replace(self, fixture=replace(self.fixture, head=None))

    def params(self) -> dict[str, Array]:
        """float64 arrays of float32 numbers, read-only, under the reference's names."""
        return dict(_params(self.fixture))

    def model(self) -> Pass:
        """The right forward pass; its float64 run is the truth."""
        return Pass(
            config_of(self.config), self.params(), dict(self.inputs), self.head,
            written=self.config, vectors=vectors_of(self.inputs),
        )  # fmt: skip


@cache
def _params(fixture: Fixture) -> Mapping[str, Array]:
    params = fixture.params()
    for x in params.values():
        x.flags.writeable = False
    return MappingProxyType(params)


# -- inputs ---------------------------------------------------------------------------------------


def mask_row(how: str, real: int, seq: int, seed: int, name: str) -> Array:
    """int64 [seq], 1 = a real token. Holes leave the first and the last column real."""
    mask = np.zeros(seq, np.int64)
    if how in ("none", "right"):
        mask[:real] = 1
    elif how == "left":
        mask[seq - real :] = 1
    elif how == "holes":
        order = np.argsort(uniform((seq - 2,), seed, name), kind="stable") + 1
        mask[[0, seq - 1, *order[: real - 2]]] = 1
    return mask


def words(mask: Array, seed: int, name: str, vocab: int) -> Array:
    """Ids int64 [seq]: CLS, ordinary words, SEP on the real tokens, PAD on the others."""
    ids = integers(mask.shape, ORDINARY_IDS, vocab, seed, name)
    real = np.flatnonzero(mask)
    if real.size > 1:
        ids[real[-1]] = SEP_ID
    if real.size:
        ids[real[0]] = CLS_ID
    return np.where(mask != 0, ids, PAD_ID)


def padded(name: str, fixture: str, why: str, seq: int, *rows: Mask, **given: Array) -> Case:
    """A batch of rows of one width. Without padding in any row there is no mask to give."""
    f = FIXTURES[fixture]
    masks = [mask_row(how, n, seq, f.seed, f"{name}:mask:{b}") for b, (how, n) in enumerate(rows)]
    ids = [words(m, f.seed, f"{name}:ids:{b}", f.vocab) for b, m in enumerate(masks)]
    inputs: dict[str, Array] = {"input_ids": np.stack(ids)}
    if any(how != "none" for how, _ in rows):
        inputs["attention_mask"] = np.stack(masks)
    return _case(name, f, why, inputs | given)


def packed(name: str, fixture: str, why: str, *lengths: int) -> Case:
    """Sequences laid end to end."""
    f = FIXTURES[fixture]
    ids = [
        words(np.ones(n, np.int64), f.seed, f"{name}:ids:{b}", f.vocab)
        for b, n in enumerate(lengths)
    ]
    cu = np.cumsum([0, *lengths], dtype=np.int64)
    return _case(name, f, why, {"input_ids": np.concatenate(ids), "cu_seqlens": cu})


def _case(name: str, fixture: Fixture, why: str, inputs: Mapping[str, Array]) -> Case:
    for x in inputs.values():
        x.flags.writeable = False
    return Case(name, fixture, MappingProxyType(dict(inputs)), why)


def with_ids(case: Case, at: Mapping[tuple[int, int], int]) -> Case:
    """The same case with single ids replaced, {(row, column): id}."""
    ids = case.inputs["input_ids"].copy()
    for place, value in at.items():
        ids[place] = value
    return _case(case.name, case.fixture, case.why, {**case.inputs, "input_ids": ids})


def _counted(mask: tuple[Mask, ...], seq: int) -> Array:
    """Positions that count real tokens from 0, 1 under the padding, as decoders pass them."""
    masks = np.stack([mask_row(how, n, seq, 0, "") for how, n in mask])
    return np.where(masks != 0, np.cumsum(masks, axis=1) - 1, 1)


LEFT_ROWS: tuple[Mask, ...] = (("left", 7), ("none", 12))

CASES: tuple[Case, ...] = (
    padded(
        "plain-short", "plain",
        "the first to run: GELU, no biases, old keys, no head, and so short that the window hides "
        "nothing; norms, angles, attention and MLP are right or not",
        4, ("none", 4),
    ),
    padded(
        "plain-window", "plain",
        "the same model past its window, three tokens to either side: a window that is missing, "
        "not halved or off by one shows here and not in the case before",
        24, ("none", 24),
    ),
    padded(
        "plain-padded", "plain",
        "the same with padding on the right, as tokenizers pad: the mask hides keys and does no "
        "more; a port that takes one row at a time runs its rows one by one",
        12, ("none", 12), ("right", 7), ("right", 3),
    ),
    padded(
        "plain-silu", "plain-silu",
        "the same weights with silu: hidden_activation is read, or it is not",
        12, ("none", 12),
    ),
    padded(
        "plain-biases", "plain-biases",
        "the same with biases in norms, attention and MLP, which published checkpoints lack",
        12, ("none", 12),
    ),
    padded(
        "plain-new-keys", "plain-new-keys",
        "the same weights under a config that has layer_types and rope_parameters alone; every "
        "second layer is full and no theta is a default",
        12, ("none", 12),
    ),
    padded(
        "contradicting-keys", "plain-contradicting",
        "both spellings in one config.json, and they do not agree: layer_types and "
        "rope_parameters win over the old keys, as in transformers",
        12, ("none", 12),
    ),
    padded(
        "usual-size-80", "usual-size",
        "a model of usual proportions, four heads of 64: for kernels that take no other, tiles "
        "that are full, and a window of 16 to either side",
        80, ("none", 80),
    ),
    padded(
        "usual-size-padded", "usual-size",
        "the same with a padded row, longer than the window and no multiple of a tile",
        20, ("none", 20), ("right", 9),
    ),
    padded(
        "one-token", "tied",
        "one token sees only itself: norms, MLP and head are right or not, whatever the mask",
        1, ("none", 1),
    ),
    padded(
        "two-tokens", "biased",
        "the smallest input on which q and k matter; every bias the config can switch on",
        2, ("none", 2),
    ),
    padded(
        "eight-tokens", "silu",
        "two tokens per side see each other (window 5): a window that is missing, not halved (5) "
        "or halved twice (1) shows here already, each in its own way",
        8, ("none", 8),
    ),
    padded(
        "window-66", "tied",
        "the workhorse, every step in full: ten windows long, and past 65 where a window taken "
        "from ModernBERT's default of 128 would start to cut",
        66, ("none", 66),
    ),
    padded(
        "silu-64", "silu",
        "silu, an odd window, every second layer full, eps 1e-3, thetas of its own, untied decoder "
        "without bias; the width of a whole tile",
        64, ("none", 64),
    ),
    padded(
        "mean-65", "mean",
        "mean pooling over real tokens only, three labels; a row of 20 beside one of 65: 45 pads "
        "that must not count",
        65, ("none", 65), ("right", 20),
    ),
    padded(
        "cls-padding", "cls",
        "cls pooling is column 0 whatever the padding; three heads; a schedule that begins with a "
        "sliding layer, which only layer_types can say",
        10, ("none", 10), ("right", 6), ("holes", 7),
    ),
    padded(
        "padding-mixed", "biased",
        "all ways to pad in one batch, a row without any token included: no NaN, no row that "
        "depends on another, holes keep their places",
        8, ("none", 8), ("right", 6), ("left", 5), ("holes", 5), ("empty", 0),
    ),
    with_ids(
        padded(
            "pad-id-is-a-word", "tied",
            "real tokens whose id is the padding's, and padding whose id is a word's: the mask "
            "decides, never the id",
            12, ("none", 12), ("right", 8),
        ),
        {(0, 2): PAD_ID, (0, 7): PAD_ID, (1, 3): PAD_ID, (1, 9): ORDINARY_IDS},
    ),
    packed(
        "packed", "tokens",
        "sequences end to end: positions restart, none sees another, a sequence of one token",
        7, 1, 18, 2, 12,
    ),
    padded(
        "positions-left", "silu",
        "explicit positions that count from the first real token of a left-padded row: they turn "
        "the angles and nothing else, the window stays on the index",
        12, *LEFT_ROWS, position_ids=_counted(LEFT_ROWS, 12),
    ),
    padded(
        "positions-far", "tied",
        "explicit positions up to the last that the config allows, some far apart, none in order: "
        "tables in half precision, clamped, wrapped or cached fall apart here",
        12, ("none", 12),
        position_ids=np.array([[8191, 0, 129, 127, 1024, 2047, 4096, 63, 8190, 511, 5000, 1]]),
    ),
    padded(
        "lengths-127-130", "silu",
        "either side of 128, where short tables, tiles and windows of the default size end",
        130, ("right", 127), ("right", 128), ("right", 129), ("none", 130),
    ),
    padded(
        "many-pads-192", "mean",
        "70 trailing pads and 65 leading ones, width a multiple of 32: in the sliding layers many "
        "padded queries have no key at all, and their NaN must not spread",
        192, ("none", 192), ("right", 122), ("left", 127),
    ),
    padded(
        "lengths-255-257", "biased",
        "either side of 256; the first case in which an error growing with the position shows",
        257, ("right", 255), ("right", 256), ("none", 257),
    ),
    padded(
        "long-512", "tied",
        "512 tokens in one row: tables that end early, accumulations that lose digits",
        512, ("none", 512),
    ),
    with_ids(
        padded(
            "hard-rows", "hard",
            "hidden rows of variance below eps, of mean 1000, with one entry of 25000, and a late "
            "layer that swells one channel: one-pass variance, a wrong eps, sums kept in f16",
            32, ("none", 32),
        ),
        {(0, 3): LOW_VARIANCE_ID, (0, 9): OFFSET_ID, (0, 14): OUTLIER_ID,
         (0, 20): LOW_VARIANCE_ID, (0, 26): OFFSET_ID, (0, 29): OUTLIER_ID},
    ),
    padded(
        "spans", "spans",
        "question answering: start and end are the two columns of one classifier, in this order",
        9, ("none", 9), ("left", 6),
    ),
)  # fmt: skip

BY_NAME: Mapping[str, Case] = MappingProxyType({c.name: c for c in CASES})


def case(name: str) -> Case:
    """The case of that name. ValueError lists those that there are."""
    if name not in BY_NAME:
        raise ValueError(f"case {name!r} is unknown; known: {', '.join(BY_NAME)}")
    return BY_NAME[name]
