"""An exported ONNX file, run with ONNX Runtime on the CPU, as a port.

The file holds the weights of one model: that of the cases on which it is run (the exported kit has
it as a Hugging Face folder). Its inputs are known by name: input_ids, attention_mask, position_ids;
its outputs are read as a dump's tensors are, so a file may give any step as a further output. The
dtype that it is held to is that of most of its weights (onnx_types.py). A file that takes a fixed
number of rows is given them one batch after the other, one of a fixed length padded rows; an input
that it does not take, or that is longer, is a refusal, not a failure.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import MissingExtraError
from ..findings import Finding
from ..truth.rounding import DTYPES, base_of
from ..truth.shapes import axes_of
from .collect import from_arrays
from .names import Description
from .onnx_types import compute_dtype, weight_types
from .port import PortResult, Request

Array = np.ndarray
INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_,
            "tensor(float)": np.float32}  # fmt: skip


class OnnxPort:
    """path: the file; dtype: what it computes in, None for the type of its weights; description:
    the user's map of output names.

    Raises MissingExtraError without onnxruntime, ValueError for a file that it does not load.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        dtype: str | None = None,
        description: Description | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("onnxruntime", "onnx", "running an ONNX file") from None
        self.path = Path(path)
        self.description = description or Description()
        try:
            self.session: Any = onnxruntime.InferenceSession(
                os.fspath(path), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has its own kinds, derived from Exception
            raise ValueError(f"{self.path.name} does not load: {error}") from None
        self.types = weight_types(self.path)
        known = compute_dtype(self.types)
        self.dtype = dtype or (known if known in DTYPES else "float32")
        self.takes = {x.name: x for x in self.session.get_inputs()}
        self.gives = [x.name for x in self.session.get_outputs()]
        positions = {"positions"} if "position_ids" in self.takes else set()
        self.abilities = frozenset({"inputs", "state", "threads", *positions})

    @property
    def name(self) -> str:
        return self.path.name

    def run(self, request: Request) -> PortResult:
        problem, feed = self.feed(request)
        if problem is not None:
            note = Finding("port", "note", f"not run: {problem}", request.name)
            return PortResult(findings=(note,))
        try:
            arrays = self.outputs(feed)
        except Exception as error:  # as above
            message = f"ONNX Runtime raises {type(error).__name__}: {error}"
            return PortResult(findings=(Finding("port", "fail", message, request.name),))
        result = from_arrays(request, arrays, self.description, self.dtype)
        return replace(result, findings=(*result.findings, *self.stored_in(request)))

    def stored_in(self, request: Request) -> list[Finding]:
        """A note when weights are kept in another type than the one that the file is held to."""
        floats = ("float64", "float32", "float16", "bfloat16", "int8", "uint8")
        other = {
            t: n
            for t, n in self.types.items()
            if t in floats and t != base_of(self.dtype) and n > 1
        }
        if not other:
            return []
        listed = ", ".join(f"{n:,} in {t}" for t, n in sorted(other.items()))
        message = f"judged as {self.dtype}; of the file's weights, {listed}"
        return [Finding("port", "note", message, request.name)]

    def run_together(self, requests: Sequence[Request]) -> list[PortResult]:
        with ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(self.run, requests))

    def feed(self, request: Request) -> tuple[str | None, dict[str, Array]]:
        """(why it cannot be run, or None; the inputs under the file's names and types)."""
        axes = axes_of(request.inputs)
        if len(axes) != 2:
            return "the file takes no packed input", {}
        given = {name: x for name, x in request.inputs.items() if x is not None}
        given.setdefault("attention_mask", np.ones(axes, np.int64))
        if "position_ids" in self.takes:
            given.setdefault("position_ids", np.broadcast_to(np.arange(axes[1]), axes))
        if request.inputs.get("attention_mask") is None and "attention_mask" not in self.takes:
            del given["attention_mask"]
        for name in sorted(given.keys() - self.takes.keys()):
            return f"the file takes no {name}", {}
        for name, told in self.takes.items():
            if name not in given:
                return f"the file asks for {name!r}, which the case does not have", {}
            if told.type not in INTEGERS:
                return f"its input {name} is of type {told.type}", {}
        batch, seq = self.fixed()
        if seq is not None and (seq < axes[1] or seq > axes[1] and "attention_mask" not in given):
            return f"its inputs are {seq} tokens long, the case {axes[1]}", {}
        return None, {
            name: np.ascontiguousarray(given[name], INTEGERS[self.takes[name].type])
            for name in self.takes
        }

    def fixed(self) -> tuple[int | None, int | None]:
        """Rows and tokens that the file takes in a call, None where it takes any number."""
        told = [x.shape for x in self.takes.values() if len(x.shape) == 2]
        batch, seq = (
            next((shape[axis] for shape in told if isinstance(shape[axis], int)), None)
            for axis in (0, 1)
        )
        return batch, seq

    def outputs(self, feed: dict[str, Array]) -> dict[str, Array]:
        """What the file gives. With a fixed batch rows go in so many at a time, the last repeated;
        with a fixed length they are padded on the right. Either is undone again."""
        batch, seq = self.fixed()
        rows, width = next(iter(feed.values())).shape
        step, parts = batch or rows, []
        for start in range(0, rows, step):
            some = np.minimum(np.arange(start, start + step), rows - 1)
            more = (seq or width) - width
            part = {n: np.pad(x[some], ((0, 0), (0, more))) for n, x in feed.items()}
            if "position_ids" in part:
                part["position_ids"][:, width:] = np.arange(width, width + more)
            outputs = zip(self.gives, self.session.run(self.gives, part), strict=True)
            parts.append({n: x for n, x in outputs if hasattr(x, "dtype")})
        return {name: self.joined(name, [p[name] for p in parts], rows, width) for name in parts[0]}

    def joined(self, name: str, parts: list[Array], rows: int, width: int) -> Array:
        batch, seq = self.fixed()
        if not all(x.ndim and x.shape[0] == (batch or rows) for x in parts):
            return parts[0]
        x = parts[0] if len(parts) == 1 else np.concatenate(parts)
        of_tokens = x.ndim > 2 or name in ("start_logits", "end_logits")
        cut = seq is not None and of_tokens and x.shape[1] == seq
        return x[:rows, :width] if cut else x[:rows]
