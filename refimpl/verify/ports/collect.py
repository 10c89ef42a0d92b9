"""Tensors under a port's names become a PortResult under ours, and what is wrong a finding.

`collect` is where every port ends: names (names.py), layouts (layouts.py), dtypes, shapes, NaN. A
tensor is read only when its shape is that of a step, so nothing large is ever read. A dump that
holds `tokens`, as the exported kit's expected values do, has steps of these tokens only. Long
because each way to be wrong has its own sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..findings import MISSING, Finding, counted
from ..truth.errors import real_rows
from ..truth.passes import config_of, per_token
from ..truth.shapes import Shape, tap_shapes
from ..truth.vectors import VECTORS
from .layouts import arrange
from .names import Description, ambiguous, layout_of, tap_of
from .port import PortResult, Request
from .tensors import Stored, Unreadable

Array = np.ndarray
INPUTS = ("input_ids", "attention_mask", "position_ids", "cu_seqlens")
FLOATS = ("float64", "float32", "float16", "bfloat16")
# Flat indices, row-major, of the tokens that every step holds; the rows that these are in.
TOKENS, SEQUENCES = "tokens", "sequences"
# How many names a message lists before it only counts.
LISTED = 5


def from_arrays(
    request: Request, arrays: Mapping[str, Array], description: Description, dtype: str
) -> PortResult:
    """Arrays in memory, under the port's names, as a dump of them would be read."""
    tensors = [
        Stored(name, x.dtype.name, x.shape, lambda x=x: x)  # type: ignore[misc]
        for name, x in arrays.items()
    ]
    return collect(request, tensors, description, dtype)


def collect(
    request: Request,
    tensors: Iterable[Stored | Unreadable],
    description: Description,
    dtype: str | None = None,
) -> PortResult:
    """Tensors under the port's names to a PortResult under ours; every port ends here."""
    config = config_of(request.config)
    steps = tap_shapes(config, request.inputs, request.head)
    # A port may give its inverse frequencies too: not a step, but the rotary gate looks at them.
    kinds = {kind.removesuffix("_attention") for kind in config.layer_types}
    shapes = {f"rope.{kind}.inv_freq": (config.head_dim // 2,) for kind in sorted(kinds)} | steps
    reader = _Reader(request, shapes, description)
    every = list(tensors)
    for tensor in every:
        if isinstance(tensor, Stored) and tensor.name == TOKENS:
            reader.take_tokens(tensor)
    for tensor in every:
        reader.take(tensor)
    reader.summarise(len(every))
    taps = {name: reader.taps[name] for name in shapes if name in reader.taps}
    return PortResult(
        taps,
        dtype or description.dtype or "float32",
        description.plan,
        reader.weights or None,
        reader.inputs,
        tuple(reader.findings),
        reader.listed,
    )


class _Reader:
    """Takes tensors one by one; keeps what is a step, says what is not."""

    def __init__(
        self, request: Request, shapes: dict[str, Shape], description: Description
    ) -> None:
        self.request, self.shapes, self.description = request, shapes, description
        self.real = real_rows(request.to_pass())
        self.taps: dict[str, Array] = {}
        self.weights: dict[str, Array] = {}
        self.inputs: dict[str, Array] = {}
        self.findings: list[Finding] = []
        self.extra: list[str] = []
        self.bad: dict[str, list[str]] = {}
        self.listed: Array | None = None

    def say(self, gate: str, level: str, message: str, tap: str | None = None) -> None:
        self.findings.append(Finding(gate, level, message, self.request.name, tap))  # type: ignore[arg-type]

    def take(self, tensor: Stored | Unreadable) -> None:
        if isinstance(tensor, Unreadable):
            self.say("port", "fail", str(tensor))
            return
        kind, _, name = tensor.name.partition(".")
        if kind == "weights":
            self.take_weight(tensor, name)
        elif kind == "inputs":
            self.take_input(tensor, name)
        elif tensor.name not in (TOKENS, SEQUENCES):
            self.take_step(tensor)

    def take_tokens(self, tensor: Stored) -> None:
        """The real tokens, in order, that the steps of this dump hold."""
        said = f"{TOKENS} must be flat indices of real tokens, whole numbers that grow"
        content: dict[str, Array] = {}
        if len(tensor.shape) != 1 or tensor.shape[0] > self.real.size:
            self.say("port", "fail", f"{said}; its shape is {list(tensor.shape)}")
        elif not tensor.dtype.startswith(("int", "uint")):
            self.say("port", "fail", f"{said}; its dtype is {tensor.dtype}")
        elif self.read_into(content, TOKENS, tensor, "port"):
            at = content[TOKENS].astype(np.int64)
            inside = at.size and at[0] >= 0 and at[-1] < self.real.size and (np.diff(at) > 0).all()
            if not inside or not self.real.reshape(-1)[at].all():
                self.say("port", "fail", f"{said}; it is {_listed([str(i) for i in at])}")
                return
            self.listed = np.zeros(self.real.shape, bool)
            self.listed.reshape(-1)[at] = True

    def take_weight(self, tensor: Stored, name: str) -> None:
        own = self.request.params.get(name)
        if own is None:
            self.extra.append(tensor.name)
        elif tensor.shape != own.shape or tensor.dtype not in FLOATS:
            what = f"{tensor.dtype} {list(tensor.shape)}; expected floats {list(own.shape)}"
            turned = " (transposed?)" if tensor.shape == own.shape[::-1] else ""
            self.say("weights", "fail", f"{name} is {what}{turned}", name)
        else:
            self.read_into(self.weights, name, tensor, "weights")

    def take_input(self, tensor: Stored, name: str) -> None:
        lengths = self.request.inputs.get("cu_seqlens")
        own = self.real.shape
        if name == "cu_seqlens":
            own = (0,) if lengths is None else lengths.shape
        if name not in INPUTS:
            self.extra.append(tensor.name)
        elif tensor.shape not in (own, own[-1:], (1, *own[-1:])):
            message = f"{name} has the shape {list(tensor.shape)}; expected {list(own)}"
            self.say("inputs", "fail", message, name)
        elif not tensor.dtype.startswith(("int", "uint", "bool")):
            self.say("inputs", "fail", f"{name} is of dtype {tensor.dtype}, not an integer", name)
        elif self.read_into(self.inputs, name, tensor, "inputs"):
            self.inputs[name] = np.broadcast_to(self.inputs[name], own)

    def take_step(self, tensor: Stored) -> None:
        d = self.description
        step = tap_of(tensor.name, self.shapes, d.names, self.request.params)
        if step is None:
            if ambiguous(tensor.name, self.shapes):
                self.say(
                    "port",
                    "note",
                    f"{tensor.name} is not used: transformers 4 takes it before the final norm, "
                    "version 5 after; map it to the last residual_2 or to final_norm",
                )
            self.extra.append(tensor.name)
            return
        if tensor.dtype not in FLOATS:
            hint = " (bfloat16 is told in .safetensors only)" if "V2" in tensor.dtype else ""
            message = f"{tensor.name} is of dtype {tensor.dtype}; steps are floats{hint}"
            self.say("port", "fail", message, step)
            return
        joined = step.endswith(".qkv")
        expected = self.shapes[step.removesuffix("qkv") + "q" if joined else step]
        if joined:
            expected = (*expected[:-2], 3 * expected[-2] * expected[-1])
        layout = layout_of(step, d.layouts)
        how = arrange(step, tensor.shape, expected, self.real, layout, self.listed)
        if isinstance(how, str):
            self.say("port", "fail", f"{tensor.name} {how}", step)
            return
        content: dict[str, Array] = {}
        if not self.read_into(content, step, tensor, "port"):
            return
        raw = content[step]
        x = how(raw)
        if joined:
            at, p = step.removesuffix("qkv"), self.request.to_pass()
            thirds = p.ops.split_qkv(x, p.config.num_attention_heads)
            for letter, third in zip("qkv", thirds, strict=True):
                self.keep(at + letter, tensor.name, third, x.size == raw.size)
        else:
            self.keep(step, tensor.name, x, x.size == raw.size)

    def read_into(self, store: dict[str, Array], name: str, tensor: Stored, gate: str) -> bool:
        """store[name] = the tensor, or a finding."""
        try:
            store[name] = tensor.read()
        except Unreadable as error:
            self.say(gate, "fail", str(error), name)
        return name in store

    def keep(self, step: str, name: str, x: Array, whole: bool) -> None:
        if step in self.taps:
            if not np.array_equal(self.taps[step], x, equal_nan=True):
                self.say("port", "fail", f"{name} is a second, different {step}", step)
            return
        self.taps[step] = x
        if np.isfinite(x).all():
            return
        rows = ~np.isfinite(x)
        given = self.real if self.listed is None else self.listed
        if per_token(step, x, self.real):
            rows = rows.reshape(*self.real.shape, -1).any(axis=-1) & given
        elif self.listed is not None:
            rows = rows.reshape(len(x), -1).any(axis=-1) & given.reshape(len(x), -1).any(axis=1)
        if rows.any():
            self.bad.setdefault("real tokens", []).append(step)
        elif whole:
            self.bad.setdefault("padding", []).append(step)

    def summarise(self, tensors: int) -> None:
        """Findings about the dump as a whole, each said once. tensors: how many there are."""
        for where, steps in self.bad.items():
            first = next(step for step in self.shapes if step in steps)
            x = self.taps[first]
            at = np.argwhere(~np.isfinite(x))[0].tolist()
            more = f", then in {len(steps) - 1} more steps" if len(steps) > 1 else ""
            message = f"NaN or infinity in {where}, first at {at}{more}"
            self.say("operations", "fail", message, first)
        if self.extra:
            self.say("port", "note", f"not used: {_listed(self.extra)}")
        steps = [step for step in self.shapes if not step.endswith(".inv_freq")]
        if "final_norm" in self.taps:  # which shows whatever they would
            steps = [step for step in steps if step not in VECTORS]
        missing = [step for step in self.request.wanted or steps if step not in self.taps]
        if not tensors:
            self.say("port", "fail", "there is no tensor: a step is a file of its name, STEP.npy")
        elif not self.taps:
            self.say("port", "fail", "no tensor is a step under a name that is known")
        elif missing:
            verb = "is" if len(self.taps) == 1 else "are"
            said = f"{counted(len(self.taps), 'step')} {verb} given, {len(missing)} not"
            self.findings.append(
                Finding("port", "note", f"{said}: {_listed(missing)}", self.request.name, None,
                        {MISSING: len(missing)})
            )  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:LISTED])
    return shown if len(names) <= LISTED else f"{shown} and {len(names) - LISTED} more"
