"""How far a step is from another: per-token relative L2 error, and its statistics over tokens.

    e = ||got - want|| / ||want||     of each real token; of each sequence for pooled steps

Padding is never looked at. Each token is held against its own length, so that a large one hides no
error of a small one.
"""

from __future__ import annotations

import numpy as np

from .passes import Pass, per_token
from .shapes import axes_of

Array = np.ndarray
STATISTICS = ("mean", "p95", "max")


def real_rows(p: Pass) -> Array:
    """bool [batch, seq], or [total] when packed: tokens that are compared; neither padding is, nor
    what is not shown."""
    mask = p.inputs.get("attention_mask")
    real = np.ones(axes_of(p.inputs), bool) if mask is None else np.asarray(mask) != 0
    return real if p.shown is None else real & p.shown


def token_errors(name: str, got: Array, want: Array, real: Array) -> Array:
    """||got - want|| / ||want|| of each real token (or sequence, for pooled steps) -> [n].

    Rotary tables are measured against the norm of a unit rotation, not against a sine of zero, and
    span scores, one number per token, against their RMS over the tokens.
    """
    with np.errstate(all="ignore"):
        return lengths(name, got - want, real) / scales(name, want, real)


def lengths(name: str, x: Array, real: Array) -> Array:
    """||x|| of each real token or sequence of a step -> [n]."""
    rows = compared(name, x, real).reshape(-1, _width(name, x))
    return np.asarray(np.sqrt(np.add.reduce(rows * rows, axis=-1)))


def scales(name: str, want: Array, real: Array) -> Array:
    """What the errors of a step are relative to -> [n]; see token_errors."""
    scale, width = lengths(name, want, real), _width(name, want)
    if name.startswith("rope."):
        scale = np.full(len(scale), (width / 2.0) ** 0.5)
    if width == 1:
        scale = np.full(len(scale), np.linalg.norm(scale) / max(len(scale), 1) ** 0.5)
    return np.where(scale == 0.0, 1.0, scale)


def error(name: str, got: Array, want: Array, real: Array) -> dict[str, float]:
    """mean, p95 and max over tokens of the relative L2 error; inf where anything is not finite."""
    e = token_errors(name, got, want, real)
    if not np.isfinite(e).all():
        return dict.fromkeys(STATISTICS, float("inf"))
    if not e.size:
        return dict.fromkeys(STATISTICS, 0.0)
    return {"mean": float(e.mean()), "p95": _quantile(e, 0.95), "max": float(e.max())}


def _quantile(e: Array, q: float) -> float:
    """np.quantile of finite numbers, which takes as long as a step of a short case."""
    e = np.sort(e)
    i = q * (len(e) - 1)
    low, high = float(e[int(i)]), float(e[min(int(i) + 1, len(e) - 1)])
    return low + (high - low) * (i - int(i))


def compared(name: str, x: Array, real: Array) -> Array:
    """The compared part of a step's array."""
    if per_token(name, x, real):
        return x[real]
    return x[real.reshape(len(x), -1).any(axis=1)] if real.ndim == 2 and len(x) == len(real) else x


def _width(name: str, x: Array) -> int:
    """Entries of one token or sequence: heads are joined; spans and scores are taken as a whole."""
    if name in ("start_logits", "end_logits"):
        return 1
    if name.split(".")[-1] in ("q", "k", "v", "q_rot", "k_rot"):
        return x.shape[-1] * x.shape[-2]
    return x.shape[-1]
