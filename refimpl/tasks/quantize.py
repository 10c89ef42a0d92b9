"""From a model folder to one that int8 may be trusted with, and a certificate that says why.

    quantize(folder, out, texts)

Columns are balanced (reference/int8_balance.py: in float32 the model keeps its bits), from a third
of the texts; on the others int8 is held against float32 of the same folder (agreement.py). A folder
is written only where every figure reaches the GATE. Else the matrix that costs most is named; with
`mixed` as many of the costliest as it takes are kept in bfloat16 or, where all of them in that do
not suffice, some in float32. What each costs is asked of the texts that balanced: those that
measure say how many, and have no part in which. Long because the steps from a folder to a folder
stand together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from .._version import __version__
from ..errors import shown
from ..files.certificate import (
    Certificate,
    TextsSeen,
    digest_of_texts,
    digest_of_weights,
    write_certificate,
)
from ..files.checkpoint import write_checkpoint
from ..files.folder import ModelFolder
from ..files.hub import resolve
from ..files.stored import StoredParams, dtype_name
from ..models.model import ModernBERT
from ..models.task_model import ModernBERTForTask, load
from ..reference.encoder import encode
from ..reference.int8 import Kept, matrix_names
from ..reference.int8_balance import Peaks, balanced
from ..text.tokenizer import Encoded, Tokenizer
from .agreement import Figures, agreement, cosine

Array = np.ndarray
Tell = Callable[[str], None]

GATE: Mapping[str, float] = MappingProxyType(
    {"cosine_p1": 0.999, "argmax": 0.995, "ndcg_at_10": 0.99}
)
"""The least of each figure; those that a model has not are not asked for."""
LEAST_TEXTS = 30
CALIBRATING = 3  # every third text balances, the others measure
MOST_TOKENS = 16_384  # that balance: more change nothing
RANKING = 4_096  # that rank the matrices


class BelowGateError(ValueError):
    """int8 loses more of this model than the gate allows. `figures`, and `costs_most`: a matrix;
    all: with every matrix kept in float32."""

    def __init__(self, figures: Figures, costs_most: str, all: bool = False) -> None:
        self.figures, self.costs_most = figures, costs_most
        low = ", ".join(
            f"{name} is {figures[name]:.5f}, at least {GATE[name]} is wanted"
            for name in below(figures)
        )
        how = "with all matrices in float32" if all else "in int8"
        super().__init__(
            f"not saved: {how} {low}; {costs_most} costs most"
            + ("" if all else " (mixed keeps it in bfloat16)")
        )


@dataclass(frozen=True)
class _Measured:
    """What is kept, what that gives, and where."""

    kept: Kept
    figures: Figures
    where: dict[str, str]


def below(figures: Figures) -> list[str]:
    """The figures that do not reach the gate; NaN does not."""
    return [name for name, x in figures.items() if name in GATE and not x >= GATE[name]]


@dataclass(frozen=True)
class _Model:
    """A model with balanced columns, to be computed with in float32 and in int8."""

    truth: ModernBERT
    params: Mapping[str, Array]
    backend: str
    num_threads: int | None

    def in_int8(self, kept: Kept) -> ModernBERT:
        how = dict(backend=self.backend, dtype="int8", num_threads=self.num_threads, kept=kept)
        truth = self.truth
        if isinstance(truth, ModernBERTForTask):
            return ModernBERTForTask(truth.config, self.params, truth.head, **how)  # type: ignore[arg-type]
        return ModernBERT(truth.config, self.params, **how)  # type: ignore[arg-type]


def quantize(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    texts: Sequence[str],
    *,
    mixed: bool = False,
    max_length: int = 256,
    backend: str = "auto",
    num_threads: int | None = None,
    tell: Tell = lambda line: None,
) -> Certificate:
    """Write `out`, the model of `folder` with what int8 needs, and int8.json beside it.

    texts: of the kind that the model is for, at least 30 that are not blank, cut to max_length
    tokens. mixed: keep as many of the costliest matrices in floats as the gate needs.
    tell: is given a line of what is being done. Raises BelowGateError, and ValueError,
    ModelFormatError, HubError, OSError; then nothing was written.
    """
    given = _checked(texts)
    if max_length < 8:
        raise ValueError(f"max_length is {max_length}; it must be at least 8")
    source = load(resolve(folder), backend=backend, dtype="float32", num_threads=num_threads)
    if source.folder is not None and _same(source.folder, Path(out)):
        raise ValueError(f"out is {shown(os.fspath(out))}, the folder itself; name another one")
    tokenizer = Tokenizer.from_folder(source.source.root)  # type: ignore[union-attr]
    calibrate = given[::CALIBRATING]
    measure = [text for i, text in enumerate(given) if i % CALIBRATING]
    few, rows = (
        tokenizer.encode_batch(some, max_length=max_length, truncate="silent")
        for some in (calibrate, measure)
    )
    few = _first_tokens(few, MOST_TOKENS)

    tell(f"balancing with {sum(map(len, few))} tokens")
    peaks = Peaks()
    ids, cu = _packed(few)
    encode(source.params, source.config, ids, cu_seqlens=cu, tap=peaks)
    params = balanced(source.params, source.config, peaks)
    changed = any(params[name] is not source.params[name] for name in params)
    model = _Model(source, params, source.backend, num_threads)

    def measured(kept: Kept) -> _Measured:
        int8 = model.in_int8(kept)
        figures = agreement(source, int8, tokenizer, rows)
        tell(", ".join(f"{n} {x:.5f}" for n, x in figures.items()) + f"; {len(kept)} kept")
        return _Measured(kept, figures, _where(int8))

    found = measured({})
    if below(found.figures):
        tell("asking each matrix what it costs")
        some = _first_tokens(few, RANKING)
        lost = losses(model, some, "int8")
        order = sorted(lost, key=lambda name: -lost[name])
        if not mixed:
            raise BelowGateError(found.figures, order[0])
        steps = [(name, "bfloat16") for name in order]
        enough = measured(dict(steps))
        if below(enough.figures):
            tell("asking what each costs in bfloat16")
            steps = to_float32(lost, losses(model, some, "bfloat16"))
            enough = measured(dict(steps))
        if below(enough.figures):
            raise BelowGateError(enough.figures, order[0], all=True)
        found = fewest(steps, enough, measured)

    layers = source.config.num_hidden_layers
    certificate = Certificate(
        weights=digest_of_weights(params, layers),
        kept={n: found.kept[n] for n in matrix_names(layers) if n in found.kept},
        balanced=changed,
        texts=TextsSeen(len(measure), sum(map(len, rows)), digest_of_texts(measure)),
        calibration=TextsSeen(len(calibrate), sum(map(len, few)), digest_of_texts(calibrate)),
        figures=found.figures,
        gate={name: GATE[name] for name in found.figures if name in GATE},
        measured=found.where,
    )
    head = source.head if isinstance(source, ModernBERTForTask) else None
    write_checkpoint(
        out, source.config, params, head, dtype=_on_disk(source.params), source=source.source
    )
    write_certificate(ModelFolder(out).root, certificate)
    return certificate


def losses(model: _Model, rows: Sequence[Encoded], dtype: str) -> dict[str, float]:
    """What each matrix costs alone in int8 or bfloat16, the others in float32: how far the tokens'
    cosines fall short of 1, on average."""
    ids, cu = _packed(rows)
    truth = model.truth.encode_packed(ids, cu)
    whole = dict.fromkeys(matrix_names(model.truth.config.num_hidden_layers), "float32")

    def lost(name: str) -> float:
        kept = {n: dtype if n == name else x for n, x in whole.items()}
        alone = model.in_int8({n: x for n, x in kept.items() if x != "int8"})
        return float(np.mean(1.0 - cosine(truth, alone.encode_packed(ids, cu))))

    return {name: lost(name) for name in whole}


Step = tuple[str, str]
"""A matrix, and what it is kept in from here on."""


def to_float32(in_int8: Mapping[str, float], in_bfloat16: Mapping[str, float]) -> list[Step]:
    """From all in int8 to all in float32, first what gains most for a byte of each weight; losses
    of every matrix, which are taken to add up."""
    found: list[tuple[float, Step]] = []
    for name, lost in in_int8.items():
        half, rest = lost - in_bfloat16[name], in_bfloat16[name] / 2  # 1 byte, 2 bytes, 4 bytes
        if half > rest:
            found += [(half, (name, "bfloat16")), (rest, (name, "float32"))]
        else:  # no gain on the way
            found.append((lost / 3, (name, "float32")))
    return [step for _, step in sorted(found, key=lambda item: -item[0])]


def fewest(
    steps: Sequence[Step], enough: _Measured, measured: Callable[[Kept], _Measured]
) -> _Measured:
    """The first steps that have to be taken, by halving; what is returned reached the gate, as
    `enough`, all of them, did."""
    low, high = 0, len(steps)  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        tried = measured(dict(steps[:middle]))
        if below(tried.figures):
            low = middle
        else:
            enough, high = tried, middle
    return enough


def _checked(texts: Sequence[str]) -> list[str]:
    """The texts that are not blank. ValueError."""
    if isinstance(texts, (str, bytes)):
        raise ValueError(f"texts is a {type(texts).__name__}; it must be a list of texts")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{i}] is a {type(text).__name__}; it must be a str")
    found = [text for text in texts if text.strip()]
    if len(found) < LEAST_TEXTS:
        raise ValueError(
            f"{len(found)} texts that are not blank; at least {LEAST_TEXTS} are needed, of the "
            "kind that the model is for"
        )
    return found


def _first_tokens(rows: list[Encoded], most: int) -> list[Encoded]:
    """The first texts, up to so many tokens; at least one."""
    ends = np.cumsum([len(row) for row in rows])
    return rows[: max(1, int(np.searchsorted(ends, most, side="right")))]


def _packed(rows: Sequence[Encoded]) -> tuple[Array, Array]:
    """ids [total] and cu_seqlens."""
    ids = np.concatenate([np.asarray(row.ids, np.int64) for row in rows])
    return ids, np.concatenate([[0], np.cumsum([len(row) for row in rows])])


def _same(a: Path, b: Path) -> bool:
    return b.exists() and a.samefile(b)


def _on_disk(params: StoredParams) -> str | None:
    """The dtype that all tensors had, where it holds every power of 2 that balancing brings; else
    float32."""
    found = {dtype_name(x) for x in params.stored.values()}
    return found.pop() if found in ({"bfloat16"}, {"float32"}) else "float32"


def _where(model: ModernBERT) -> dict[str, str]:
    tier = {} if model.engine is None else {"tier": model.engine.tier}
    return {"backend": model.backend, "version": __version__, **tier}
