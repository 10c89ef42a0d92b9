"""Masked-language modelling as work for a trainer: on texts that are held, or on a stream.

    Masked(sequences, masks)     a new order each epoch (`modernbert finetune mask`)
    Stream(files, ..)            documents as they come, in rows packed full (`modernbert pretrain`)

Masks are drawn when a step is taken, by seed, step, number of the sequence and position: they are
the same however a run was stopped. Evaluation masks EVALUATION_RATE of the tokens, always the same.
Long because a stream has to say where it stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..models.task_model import ModernBERTForTask
from ..text.tokenizer import Tokenizer
from .documents import DocumentFile, Reader
from .examples import Unit
from .labels import fraction
from .losses import IGNORED, cross_entropy
from .masking import RATE, mask_tokens
from .native import NativeStep
from .order import batch_at, shuffled, steps_per_epoch
from .packing import best_fit
from .settings import Settings
from .work import Stepped, Work, of_units

Array = np.ndarray

EVALUATION_RATE = 0.15
NO_STEP = 2**32 - 1  # what the masks of an evaluation are keyed by: no run gets there
SAMPLE = 256  # documents by which the length of a pass is told
POOL = 2**20  # tokens that are shuffled together
CHOICE = 4  # times the tokens of a step wait to be packed: the more, the fuller the rows


@dataclass(frozen=True)
class Held:
    """Ids, int64 [length], special tokens included, and where they stand."""

    ids: Array
    where: str


@dataclass(frozen=True)
class Masks:
    """What masks are made of. rate: share of the tokens to guess; later: (share of a run, rate)
    for rates that take its place from there on. Raises ValueError."""

    mask_id: int
    vocab_size: int
    rate: float = RATE
    later: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        for rate in (self.rate, *(rate for _, rate in self.later)):
            fraction("rate", rate)
        starts = [0.0, *(start for start, _ in self.later), 1.0]
        if any(b <= a for a, b in zip(starts, starts[1:], strict=False)):
            raise ValueError(
                f"later rates start at {starts[1:-1]} of the run; it must rise, between 0 and 1"
            )

    def at(self, done: float) -> Masks:
        """Those of a step before which that share of the run is done."""
        rate = [r for start, r in ((0.0, self.rate), *self.later) if start <= done][-1]
        return Masks(self.mask_id, self.vocab_size, rate)

    def units(self, sequences: Sequence[Held], seed: int, step: int) -> list[Unit]:
        """Each sequence as the model sees it, with its labels; numbered as they come."""
        out = []
        for n, x in enumerate(sequences):
            at = np.arange(len(x.ids))
            seen, labels = mask_tokens(
                x.ids, np.full_like(at, n), at, mask_id=self.mask_id, vocab_size=self.vocab_size,
                seed=seed, step=step, rate=self.rate,
            )  # fmt: skip
            out.append(Unit([seen], labels, x.where))
        return out


def pieces(tokenizer: Tokenizer, text: str, where: str, length: int) -> list[Held]:
    """A text in sequences of at most `length` tokens: nothing is lost, and special tokens stand
    where the text begins and ends, not where it is cut. [] for one without any other."""
    whole = tokenizer.encode(text, truncate="never")
    ids, of_text = np.array(whole.ids, np.int64), ~np.array(whole.special, bool)
    starts = (i for i in range(0, len(ids), length) if of_text[i : i + length].any())
    return [Held(ids[i : i + length], where) for i in starts]


class Masked(Work):
    """Texts that are held in memory. Raises ValueError for none."""

    task = "mask"

    def __init__(self, sequences: Sequence[Held], masks: Masks) -> None:
        if not sequences:
            raise ValueError("data holds no text")
        self.sequences, self.masks = sequences, masks

    def steps_per_epoch(self, settings: Settings) -> int:
        return steps_per_epoch(len(self.sequences), settings.texts_a_step)

    def step(
        self,
        model: ModernBERTForTask,
        step: int,
        settings: Settings,
        wanted: Collection[str],
        engine: NativeStep | None = None,
    ) -> Stepped:
        some = batch_at(step, len(self.sequences), settings.texts_a_step, settings.seed)
        units = self.masks.units([self.sequences[i] for i in some], settings.seed, step)
        return of_units(model, "mask", units, settings, step, wanted, engine)

    def evaluate(self, model: ModernBERTForTask) -> dict[str, float]:
        masks = Masks(self.masks.mask_id, self.masks.vocab_size, EVALUATION_RATE)
        total, count, right = 0.0, 0.0, 0
        for unit in masks.units(self.sequences, 0, NO_STEP):
            (ids,), labels = unit.sequences, unit.labels
            rows = labels != IGNORED
            if rows.any():
                hidden = model.encode_packed(ids, [0, len(ids)])[rows]
                logits = model.head.forward(dict(model.params), model.config, hidden)["logits"]
                loss = cross_entropy(logits, labels[rows])
                total, count = total + loss.total, count + loss.count
                right += int((logits.argmax(axis=-1) == labels[rows]).sum())
        return {"loss": total / (count or 1.0), "accuracy": right / (count or 1.0)}

    def digest(self) -> str:
        h = hashlib.sha256(repr(self.masks).encode())
        for x in self.sequences:
            h.update(len(x.ids).to_bytes(8, "little") + x.ids.astype("<i8").tobytes())
        return h.hexdigest()


class Stream(Work):
    """Documents as they come, cut to `length`, shuffled in pools, in rows packed by best fit.

    The sequences are shuffled, not the documents: those of a long one would make whole steps that
    know nothing else. A step has the sequences of texts_a_step rows; what does not fit waits for
    the next.
    """

    task = "mask"

    def __init__(
        self, files: Sequence[DocumentFile], tokenizer: Tokenizer, length: int, masks: Masks
    ) -> None:
        self.files, self.tokenizer = list(files), tokenizer
        self.length, self.masks = length, masks
        self.reader = Reader(self.files)
        self.pending: list[Held] = []
        self.empty = 0  # documents without a token
        # The pool: its number, where it begins in the files, how many were empty before it, its
        # sequences, their order when it is drawn, and how many were taken.
        self._number, self._start, self._empty_before = -1, self.reader.place(), 0
        self._pool, self._taken = list[Held](), 0
        self._order: Array | None = None

    def steps_per_epoch(self, settings: Settings) -> int:
        """About one pass: by the tokens a byte of the first documents."""
        reader, tokens, size = Reader(self.files), 0, 0
        for _ in range(SAMPLE):
            text = reader.next().text
            if reader.epoch:
                break
            tokens += len(self.tokenizer.encode(text, truncate="never"))
            size += len(text.encode())
        whole = sum(file.size for file in self.files) * tokens / max(size, 1)
        return max(1, round(whole / (self.length * settings.texts_a_step)))

    def rows(self, step: int, settings: Settings) -> int:
        """Rows of a step: they grow linearly over the share batch_warmup of the run."""
        full, first = settings.texts_a_step, settings.batch_start
        over = round(settings.batch_warmup * settings.steps)
        if not first or step >= over:
            return full
        return first + (full - first) * step // over

    def units(self, step: int, settings: Settings) -> list[Unit]:
        """The sequences of a step, in the order in which they were read: the row of the one that
        waits longest, and the fullest of the others."""
        rows = self.rows(step, settings)
        tokens = sum(len(x.ids) for x in self.pending)
        while tokens < CHOICE * rows * self.length:
            self.pending.append(self._next(settings.seed))
            tokens += len(self.pending[-1].ids)
        lengths = [len(x.ids) for x in self.pending]
        first, *packed = best_fit(lengths, self.length)
        packed.sort(key=lambda row: -sum(lengths[i] for i in row))
        chosen = {i for row in (first, *packed[: rows - 1]) for i in row}
        mine = [self.pending[i] for i in sorted(chosen)]
        self.pending = [x for i, x in enumerate(self.pending) if i not in chosen]
        masks = self.masks.at(step / max(settings.steps, 1))
        return masks.units(mine, settings.seed, step)

    def step(
        self,
        model: ModernBERTForTask,
        step: int,
        settings: Settings,
        wanted: Collection[str],
        engine: NativeStep | None = None,
    ) -> Stepped:
        units = self.units(step, settings)
        return of_units(model, "mask", units, settings, step, wanted, engine)

    def evaluate(self, model: ModernBERTForTask) -> dict[str, float]:
        raise ValueError("a stream has no end to evaluate; hold the texts, as Masked")

    def digest(self) -> str:
        own = [f"{self.length} {self.masks!r}", *(file.digest() for file in self.files)]
        return hashlib.sha256("\n".join(own).encode()).hexdigest()

    # -- where it stands --------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        lengths = [len(x.ids) for x in self.pending]
        ids = np.concatenate([np.zeros(0, np.int64), *(x.ids for x in self.pending)])
        facts = {
            "pool": self._start, "number": self._number, "taken": self._taken,
            "empty": self._empty_before, "where": [x.where for x in self.pending],
        }  # fmt: skip
        return {"ids": ids, "lengths": np.array(lengths, np.int64)}, facts

    def restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        parts = np.split(arrays["ids"], np.cumsum(arrays["lengths"])[:-1])
        own = zip(parts, facts["where"], strict=False)
        self.pending = [Held(ids, where) for ids, where in own]
        self.reader.go_to(facts["pool"])
        self.empty, self._number = facts["empty"], facts["number"]
        if self._number >= 0:
            self._read()
        self._taken = facts["taken"]

    def _next(self, seed: int) -> Held:
        """The next sequence of the pool, in the order that the seed gives it."""
        passes = self.reader.epoch
        while self._taken == len(self._pool):
            if self.reader.epoch > passes + 1:
                raise ValueError("data holds no text: a whole pass over it gave no token")
            self._number += 1
            self._read()
        if self._order is None:
            self._order = shuffled(len(self._pool), seed, self._number)
        self._taken += 1
        return self._pool[self._order[self._taken - 1]]

    def _read(self) -> None:
        """The next POOL tokens, to the end of a document, or those that are left of a pass."""
        self._start, self._empty_before = self.reader.place(), self.empty
        self._pool, self._order, self._taken = list[Held](), None, 0
        tokens, documents = 0, 0
        while tokens < POOL:
            before, epoch = self.reader.place(), self.reader.epoch
            document = self.reader.next()
            if documents and self.reader.epoch != epoch:
                self.reader.go_to(before)
                return
            documents += 1
            found = pieces(self.tokenizer, document.text, document.where, self.length)
            self.empty += not found
            self._pool += found
            tokens += sum(len(x.ids) for x in found)
