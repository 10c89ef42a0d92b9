"""The gate of the rotary tables: inverse frequencies, cos and sin, each within its own bound.

    |cos error| <= |sin a| e + e^2 / 2 + one ulp + storage
    e = |position| ulp(inv_freq) + ulp(a) / 2, the error of the angle a

Honest libraries differ by one unit in the last place of a float32 inverse frequency; the bound is
what that does at each position. It is a bound and no statistic: there is no factor on it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...reference import ops
from ..findings import Finding
from ..ports.port import PortResult, Request
from ..truth.errors import real_rows
from ..truth.passes import config_of
from ..truth.rounding import base_of, precision
from .exact import expected_inputs, finding

Array = np.ndarray
# Half the distance of float16's subnormal numbers: a sine of 2e-5, as heads of 64 have it at
# position 1, is one.
LEAST = {"float16": 2.0**-25}


def rope_gate(request: Request, result: PortResult) -> list[Finding]:
    """Inverse frequencies within one float32 ulp; cos and sin within what that implies."""
    config = config_of(request.config)
    real = real_rows(replace(request.to_pass(), shown=result.shown))
    positions = np.broadcast_to(expected_inputs(request, real)["position_ids"], real.shape)[real]
    findings = []
    for kind in dict.fromkeys(config.layer_types):
        theta = config.rope_theta(config.layer_types.index(kind))
        at = f"rope.{kind.removesuffix('_attention')}."
        inv_freq = theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
        told = result.taps.get(at + "inv_freq")
        if told is not None:
            ulps = np.abs(told.astype(np.float64) - inv_freq) / _ulp(inv_freq)
            if not ulps.max() <= 1.0:
                message = (
                    f"inverse frequency {int(ulps.argmax())} is {ulps.max():.3g} float32 ulps off"
                )
                findings.append(finding("rope", "fail", message, request, at + "inv_freq"))
        truth = ops.rope_table(positions, config.head_dim, theta, np.dtype(np.float64))
        bounds = table_bounds(positions, inv_freq, result.dtype)
        for function, right, bound in zip(("cos", "sin"), truth, bounds, strict=True):
            got = result.taps.get(at + function)
            if got is not None:
                findings += _table(request, at + function, got[real], right, bound, positions)
    return findings


def _table(
    request: Request, tap: str, got: Array, right: Array, bound: Array, positions: Array
) -> list[Finding]:
    off = np.abs(got.astype(np.float64) - right)
    over = ~(off <= bound)
    if not over.any():
        return []
    row = int(np.flatnonzero(over.any(axis=-1))[0])
    column = int(np.flatnonzero(over[row])[0])
    first = int(positions[row])
    message = (
        f"over its bound at {int(over.any(axis=-1).sum())} of {len(over)} tokens, first at "
        f"position {first}, entry {column}: {got[row, column]:.9g} for "
        f"{right[row, column]:.9g}, bound {bound[row, column]:.3g}"
    )
    data = {"position": first, "ratio": float(np.max(off / bound))}
    return [finding("rope", "fail", message, request, tap, data)]


def table_bounds(positions: Array, inv_freq: Array, dtype: str) -> tuple[Array, Array]:
    """Largest honest error of cos and sin, [n, head_dim] each.

    The angle: one ulp of the inverse frequency times the position, and half an ulp of the angle
    itself, in float32 (float64 when that is declared). The functions: one ulp of a good library.
    The table: half an ulp of what it is stored in, of a subnormal number, too.
    |cos(a + e) - cos a| <= |sin a| e + e^2 / 2.
    """
    position = np.asarray(positions, np.float64)[..., None]
    angle = position * inv_freq
    u = precision(dtype)
    scale = u.angle / 2.0**-24
    phase = scale * (np.abs(position) * _ulp(inv_freq) + 0.5 * _ulp(angle))
    store, least = max(u.store, u.tables), LEAST.get(base_of(dtype), 0.0)

    def bound(value: Array, slope: Array) -> Array:
        moved = np.abs(slope) * phase + 0.5 * phase**2
        size = np.abs(value) + moved
        moved = moved + scale * _ulp(size)
        return np.concatenate([moved + np.maximum(store * size, least)] * 2, axis=-1)

    cos, sin = np.cos(angle), np.sin(angle)
    return bound(cos, sin), bound(sin, cos)


def _ulp(x: Array) -> Array:
    """Distance between float32 numbers at |x|."""
    return np.spacing(np.abs(x).astype(np.float32)).astype(np.float64)
