"""Where in a step the error sits: by head, position, reach beyond the window, layer type, padding.

An error that starts at one position bucket, one head or one side of the window says more about its
cause than its size does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..truth.errors import real_rows, token_errors
from ..truth.passes import Pass, Taps, forced, per_token

Array = np.ndarray
POSITION_EDGES = (0, 1, 8, 64, 65, 128, 129, 256, 512, 1024, 8192)


@dataclass(frozen=True)
class Slice:
    """Some tokens (or one head) of a step: how many, their mean and largest relative L2 error."""

    kind: str
    name: str
    tokens: int
    mean: float
    max: float


def slices(p: Pass, port: Taps, tap: str) -> list[Slice]:
    """The teacher-forced error of one step of `port`, sliced. p: the reference pass of the case."""
    truth, real = forced(p, port)[tap], real_rows(p)
    got, want = port[tap], truth
    if not per_token(tap, want, real):
        return [_slice("all", "sequences", token_errors(tap, got, want, real))]
    out = [_slice("tokens", "real", token_errors(tap, got, want, real))]
    positions, lengths = index_on_axis(p, real)
    layer = re.match(r"layers\.(\d+)\.", tap)
    if layer:
        window = p.config.window(int(layer[1]))
        out[0] = _slice("tokens", "full layer" if window is None else "sliding layer",
                        token_errors(tap, got, want, real))  # fmt: skip
        reach = p.config.local_attention // 2
        beyond = (positions > reach) | (lengths - 1 - positions > reach)
        for name, some in (("whole sequence in reach", ~beyond), ("window bites", beyond)):
            out += _some("window", name, got, want, tap, real & some)
    for low, high in zip(POSITION_EDGES, (*POSITION_EDGES[1:], None), strict=True):
        some = (positions >= low) & (positions < (high or positions.max() + 1))
        name = str(low) if high == low + 1 else f"{low} - {high - 1}" if high else f"{low} -"
        out += _some("position", name, got, want, tap, real & some)
    return out + _heads(p, tap, got, want, real)


def index_on_axis(p: Pass, real: Array) -> tuple[Array, Array]:
    """Each token's index in its sequence, and that sequence's length, with the shape of `real`."""
    cu = p.inputs.get("cu_seqlens")
    if cu is None:
        return np.broadcast_to(np.arange(real.shape[-1]), real.shape), np.full(
            real.shape, real.shape[-1]
        )
    lengths = np.diff(cu)
    return p.ops.packed_positions(cu), np.repeat(lengths, lengths)


def _some(kind: str, name: str, got: Array, want: Array, tap: str, some: Array) -> list[Slice]:
    return [_slice(kind, name, token_errors(tap, got, want, some))] if some.any() else []


def _heads(p: Pass, tap: str, got: Array, want: Array, real: Array) -> list[Slice]:
    """Per-head errors of the steps that have heads, each relative to its own head."""
    step, heads = tap.split(".")[-1], p.config.num_attention_heads
    if not tap.startswith("layers.") or step not in ("q", "k", "v", "q_rot", "k_rot", "attention"):
        return []
    shape = (*real.shape, heads, p.config.head_dim)
    got, want = got.reshape(shape), want.reshape(shape)
    return [
        _slice("head", str(h), token_errors("", got[..., h, :], want[..., h, :], real))
        for h in range(heads)
    ]


def _slice(kind: str, name: str, errors: Array) -> Slice:
    bad = ~np.isfinite(errors)
    if bad.any():
        return Slice(kind, name, errors.size, float("inf"), float("inf"))
    return Slice(kind, name, errors.size, float(errors.mean()), float(errors.max()))
