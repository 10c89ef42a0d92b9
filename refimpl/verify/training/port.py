"""What a training step is to the kit: something that answers a case with an `Answer`.

Names of what it gives: `loss`, `grad.NAME`, `after_1.NAME`, `after_10.NAME`; where it has them, the
steps inside the passes of step 1, `STEP` and `d.STEP` [micro, ..] (names of MODEL.md; micro-batches
may be joined), and `grad_K.NAME`, its gradients at step K. NAME is a parameter's, with or without
`model.`. `ReferencePort` is the reference behind this interface, whole or with a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..findings import Finding
from ..ports.tensors import Stored, Unreadable
from .cases import STEPS, TrainingCase
from .compare import Told, values
from .step import Training

Array = np.ndarray
FLOATS = ("float64", "float32", "float16", "bfloat16")
LISTED = 5
LATER = re.compile(r"grad_(\d+)\.")
TABLE, DECODER = "embeddings.tok_embeddings.weight", "decoder.weight"


@dataclass(frozen=True)
class Answer:
    """What a port gave for a case; dtype: what it says it computes in."""

    told: Told = field(default_factory=lambda: Told({}))
    dtype: str = "float32"
    findings: tuple[Finding, ...] = ()


class TrainingPort(Protocol):
    """Something that trains. It never raises for what the ported code does."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    def run(self, case: TrainingCase, shapes: Mapping[str, tuple[int, ...]]) -> Answer:
        """shapes: every value that there is, in order."""


def refused(case: TrainingCase, why: str) -> Answer:
    return Answer(findings=(Finding("port", "note", f"not run: {why}", case.name),))


def failed(case: TrainingCase, why: str) -> Answer:
    return Answer(findings=(Finding("port", "fail", why, case.name),))


def from_arrays(
    case: TrainingCase,
    shapes: Mapping[str, tuple[int, ...]],
    arrays: Mapping[str, Array],
    dtype: str,
) -> Answer:
    """Arrays in memory, as a dump of them would be read."""
    tensors = [Stored(name, x.dtype.name, x.shape, lambda x=x: x) for name, x in arrays.items()]  # type: ignore[misc]
    return collect(case, shapes, tensors, dtype)


def collect(
    case: TrainingCase,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[Stored | Unreadable],
    dtype: str,
) -> Answer:
    """Tensors under a port's names; what is wrong with one is a finding. One is read only when its
    size is that of a value."""
    found: dict[str, Array] = {}
    later: dict[int, dict[str, Array]] = {}
    findings: list[Finding] = []
    extra: list[str] = []

    def say(level: str, message: str, tap: str | None = None) -> None:
        findings.append(Finding("port", level, message, case.name, tap))  # type: ignore[arg-type]

    for tensor in tensors:
        if isinstance(tensor, Unreadable):
            say("fail", str(tensor))
            continue
        name, step = ours(tensor.name), 1
        if match := LATER.match(name):
            step, name = int(match[1]), "grad." + name[match.end() :]
        if name not in shapes or not 1 <= step <= STEPS:
            if not name.endswith("." + DECODER) or f"grad.{TABLE}" not in shapes:
                extra.append(tensor.name)
            continue
        want, size = shapes[name], int(np.prod(shapes[name], dtype=np.int64))
        # A loss may be told as one number or as that of every step, the first of which counts.
        several = name == "loss" and len(tensor.shape) == 1 and tensor.shape[0] > 0
        right = tensor.shape == want or name == "loss" and several
        if not name.startswith(("grad.", "after_")) and name != "loss":
            right = int(np.prod(tensor.shape, dtype=np.int64)) == size and (
                tensor.shape[-1:] == want[-1:]
            )
        if tensor.dtype not in FLOATS:
            say("fail", f"{tensor.name} is of dtype {tensor.dtype}; values are floats", name)
        elif not right:
            turned = " (transposed?)" if tensor.shape == want[::-1] else ""
            shape = list(tensor.shape)
            say("fail", f"{tensor.name} has the shape {shape}; expected {list(want)}{turned}", name)
        else:
            try:
                x = np.asarray(tensor.read(), np.float64)
            except Unreadable as error:
                say("fail", str(error), name)
                continue
            x = x.reshape(-1)[0].reshape(()) if several else x.reshape(want)
            if step == 1:
                found[name] = np.array(x)
            else:
                later.setdefault(step, {})[name.removeprefix("grad.")] = np.array(x)
    if extra:
        more = f" and {len(extra) - LISTED} more" if len(extra) > LISTED else ""
        say("note", f"not used: {', '.join(extra[:LISTED])}{more}")
    missing = [n for n in shapes if n.startswith(("loss", "grad.", "after_")) and n not in found]
    if not found:
        say("fail", "no tensor is a value under a name that is known")
    elif missing:
        said = ", ".join(missing[:LISTED])
        more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        say("note", f"{len(missing)} values are not given: {said}{more}")
    params = {n.removeprefix("grad.") for n in shapes if n.startswith("grad.")}
    whole = all(set(later.get(k, {})) == params for k in range(2, STEPS + 1))
    told = Told(
        {n: found[n] for n in shapes if n in found},
        tuple(later[k] for k in range(2, STEPS + 1)) if whole else (),
    )
    return Answer(told, dtype, tuple(findings))


def ours(name: str) -> str:
    """grad.model.layers.0.. is grad.layers.0.."""
    kind, dot, rest = name.partition(".")
    return f"{kind}{dot}{rest.removeprefix('model.')}"


@dataclass(frozen=True)
class ReferencePort:
    """The reference, in float32 or float64, possibly with a mistake: Training -> Training.

    inside: whether it gives the steps of both passes, too.
    """

    dtype: str = "float32"
    mistake: Callable[[Training], Training] | None = None
    name: str = "reference"
    inside: bool = False

    def run(self, case: TrainingCase, shapes: Mapping[str, tuple[int, ...]]) -> Answer:
        t = case.training().astype(np.dtype(self.dtype))
        with np.errstate(all="ignore"):
            made = values(t if self.mistake is None else self.mistake(t))
        kept = ("loss", "grad.", "after_")
        given = {
            name: x.astype(np.float64)
            for name, x in made.items()
            if self.inside or name.startswith(kept)
        }
        return Answer(Told(given), self.dtype)
