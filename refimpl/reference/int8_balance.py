"""Columns of equal size: size moves from activations to weights, and both lose less as integers.

    y = W x = (W diag(m)) (x / m)     m_c = 2^k, near sqrt(max |x_c| / max |W_c|)

x / m costs nothing where what makes x is linear in it: the norm before Wqkv and Wi (its weight and
bias / m), the values before attention's Wo (rows of Wqkv / m, one m for a component of a head), the
up half before the MLP's Wo (rows of Wi / m). Layer 0 has no norm before Wqkv: that stays. m is a
power of 2: every number is exact, and the model in float32 has the same bits.

Columns that are large in few channels, as ModernBERT's are, would else set the scale of all of a
token. (SmoothQuant, Xiao et al. 2023, with an exponent of 1 / 2.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .config import ModernBertConfig
from .encoder import Params

Array = np.ndarray

MOST_STEPS = 12
"""Of 2 in m, either way: a bound for columns that calibration hardly saw."""


class Peaks:
    """A tap that keeps the largest |x| of every column of what the layers' matrices read."""

    STEPS = ("attn_norm", "attention", "mlp_norm", "glu")

    def __init__(self) -> None:
        self.largest: dict[str, Array] = {}

    def __call__(self, name: str, x: Array) -> Array:
        if name.startswith("layers.") and name.rsplit(".", 1)[1] in self.STEPS:
            now = np.abs(x.reshape(-1, x.shape[-1])).max(axis=0)
            self.largest[name] = np.maximum(now, self.largest.get(name, now))
        return x


def balanced(params: Params, config: ModernBertConfig, peaks: Peaks) -> dict[str, Array]:
    """params (float32) with balanced columns; what does not change is the same array.

    peaks: of some batches through the model. Where a power of two would leave the numbers of
    float32, a column stays as it is.
    """
    out = dict(params)
    hidden, inter = config.hidden_size, config.intermediate_size
    for i in range(config.num_hidden_layers):
        at = f"layers.{i}."
        if i:
            _move(
                out, peaks.largest[at + "attn_norm"], at + "attn.Wqkv", _of_norm(at + "attn_norm")
            )
        _move(out, peaks.largest[at + "mlp_norm"], at + "mlp.Wi", _of_norm(at + "mlp_norm"))
        values = slice(2 * hidden, 3 * hidden)
        _move(
            out, peaks.largest[at + "attention"], at + "attn.Wo", _of_rows(at + "attn.Wqkv", values)
        )
        up = slice(inter, 2 * inter)
        _move(out, peaks.largest[at + "glu"], at + "mlp.Wo", _of_rows(at + "mlp.Wi", up))
    return out


Divide = Callable[[dict[str, Array], Array], None]


def _move(params: dict[str, Array], of_x: Array, matrix: str, divide: Divide) -> None:
    """Columns of a matrix times m, and what makes its x divided by it."""
    weight = params[matrix + ".weight"]
    of_w = np.abs(weight).max(axis=0)
    some = (of_x > 0) & (of_w > 0) & np.isfinite(of_x) & np.isfinite(of_w)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(some, np.rint((np.log2(of_x) - np.log2(of_w)) / 2.0), 0.0)
    # Only their differences matter: around 0 the numbers stay where they were.
    steps -= np.rint(np.median(steps[some])) if some.any() else 0.0
    m = np.exp2(np.clip(np.where(some, steps, 0.0), -MOST_STEPS, MOST_STEPS)).astype(np.float32)
    trial = dict(params)
    trial[matrix + ".weight"] = weight * m
    divide(trial, m)
    if np.array_equal(trial[matrix + ".weight"] / m, weight):
        params.update(trial)


def _of_norm(name: str) -> Divide:
    def divide(params: dict[str, Array], m: Array) -> None:
        for part in (".weight", ".bias"):
            if name + part in params:
                params[name + part] = params[name + part] / m

    return divide


def _of_rows(matrix: str, rows: slice) -> Divide:
    def divide(params: dict[str, Array], m: Array) -> None:
        weight = params[matrix + ".weight"].copy()
        weight[rows] /= m[:, None]
        params[matrix + ".weight"] = weight
        if matrix + ".bias" in params:
            bias = params[matrix + ".bias"].copy()
            bias[rows] /= m
            params[matrix + ".bias"] = bias

    return divide
