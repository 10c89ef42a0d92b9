"""When no known mistake fits: what can be measured at a wrong step, and where it may come from.

    port = a x + b,  a, b: one number, one per channel or one per token;  x permuted;  x normalised

x is the step as the reference makes it of the port's own values, the mistakes that were found
included. The simplest relation that leaves less than a thousandth of the squared error is told,
with the parameter or the constant that its numbers are. A measurement names no mistake of the zoo.

Long because the relations stand here, a few lines each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ...reference.config import ModernBertConfig
from ..truth.passes import per_token

Array = np.ndarray
# The share of the squared error that may stay, and how close a number must be to a known one.
LEFT, NEAR = 1e-3, 1e-3


@dataclass(frozen=True)
class Fact:
    """What was measured at a step of a case: a sentence, and the share of the error it takes."""

    case: str
    tap: str
    text: str
    share: float


def measured(
    tap: str, x: Array, y: Array, real: Array, params: Mapping[str, Array], c: ModernBertConfig
) -> tuple[str, float] | None:
    """The simplest relation between the right step x and the port's y, and its share; or None."""
    if per_token(tap, x, real):
        x, y = x[real], y[real]
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    fine = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    if not fine.all():
        return f"{int((~fine).sum())} of {len(fine)} tokens are not finite", 0.0
    error = float(((y - x) ** 2).sum())
    if not error:
        return None
    for relation in RELATIONS:
        for text, made in relation(x, y, params, c):
            left = float(((y - made) ** 2).sum())
            if left <= LEFT * min(error, float((y * y).sum())):
                return text, 1.0 - left / error
    return None


# -- numbers that one knows -----------------------------------------------------------------------


def origin(a: float, c: ModernBertConfig) -> str:
    """Where a factor may come from, in brackets; nothing when no known number is near."""
    n, d = c.hidden_size, c.head_dim
    names = {
        "the opposite sign": -1.0,
        "a variance over n - 1, sqrt((n - 1) / n)": math.sqrt((n - 1) / n),
        "a variance over n where n - 1 was meant": math.sqrt(n / (n - 1)),
        "sqrt(hidden)": math.sqrt(n),
        "1 / sqrt(hidden)": 1 / math.sqrt(n),
        "sqrt(head_dim)": math.sqrt(d),
        "1 / sqrt(head_dim)": 1 / math.sqrt(d),
        "sqrt(2)": math.sqrt(2.0),
        "1 / sqrt(2)": math.sqrt(0.5),
        "doubled": 2.0,
        "halved": 0.5,
    }
    near = [name for name, value in names.items() if abs(a / value - 1.0) < NEAR]
    return f" ({near[0]})" if near else ""


def vector_origin(v: Array, params: Mapping[str, Array], what: str) -> str:
    """The parameter that a vector is, or is the opposite or the inverse of."""
    for name, w in params.items():
        if w.shape != v.shape:
            continue
        with np.errstate(all="ignore"):
            known = {name: w, f"minus {name}": -w, f"1 / {name}": 1.0 / w}
        for text, value in known.items():
            if np.linalg.norm(v - value) < 0.1 * np.linalg.norm(value):
                return f" (it is {text})"
    return f" ({what} from {v.min():.5g} to {v.max():.5g})"


# -- relations ------------------------------------------------------------------------------------

Found = Iterator[tuple[str, Array]]


def constant(x: Array, y: Array, params: Mapping[str, Array], c: ModernBertConfig) -> Found:
    yield "all entries are zero", np.zeros_like(y)
    if len(y) > 1:
        yield "all tokens are alike", np.broadcast_to(y[:1], y.shape) if len(y) else y


def factor(x: Array, y: Array, params: Mapping[str, Array], c: ModernBertConfig) -> Found:
    a = float((x * y).sum() / max(float((x * x).sum()), 1e-300))
    yield f"it is {a:.6g} times what it should be{origin(a, c)}", a * x


def offset(x: Array, y: Array, params: Mapping[str, Array], c: ModernBertConfig) -> Found:
    b = float((y - x).mean())
    yield f"{b:.6g} is added to every entry", x + b


def factor_and_offset(
    x: Array, y: Array, params: Mapping[str, Array], c: ModernBertConfig
) -> Found:
    if x.size >= 4:
        a, b = np.polyfit(x.reshape(-1), y.reshape(-1), 1) if np.ptp(x) else (1.0, 0.0)
        text = f"it is {a:.6g} times what it should be{origin(float(a), c)}, plus {b:.6g}"
        yield text, a * x + b


def normalised(x: Array, y: Array, params: Mapping[str, Array], c: ModernBertConfig) -> Found:
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    yield "each token is divided by its length", x / np.where(length == 0.0, 1.0, length)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    yield "it is the softmax of what it should be", e / e.sum(axis=-1, keepdims=True)


def per_channel(x: Array, y: Array, params: Mapping[str, Array], c: ModernBertConfig) -> Found:
    if len(x) < 4:
        return
    b = (y - x).mean(axis=0)
    yield f"each channel has an offset of its own{vector_origin(b, params, 'offsets')}", x + b
    squares = (x * x).sum(axis=0)
    a = (x * y).sum(axis=0) / np.where(squares == 0.0, 1.0, squares)
    if (np.abs(np.abs(a) - 1.0) < NEAR).all():
        yield f"{int((a < 0).sum())} of {len(a)} channels have the opposite sign", a * x
    yield f"each channel has a factor of its own{vector_origin(a, params, 'factors')}", a * x


def per_row(x: Array, y: Array, params: Mapping[str, Array], c: ModernBertConfig) -> Found:
    if x.shape[1] < 4:
        return
    squares = (x * x).sum(axis=1, keepdims=True)
    a = (x * y).sum(axis=1, keepdims=True) / np.where(squares == 0.0, 1.0, squares)
    yield f"each token has a factor of its own, from {a.min():.5g} to {a.max():.5g}", a * x
    b = (y - x).mean(axis=1, keepdims=True)
    yield f"each token has an offset of its own, from {b.min():.5g} to {b.max():.5g}", x + b


def permuted(x: Array, y: Array, params: Mapping[str, Array], c: ModernBertConfig) -> Found:
    for axis, name in ((1, "channels"), (0, "tokens")):
        n = x.shape[axis]
        if not 1 < n <= 2048:
            continue
        a, b = np.moveaxis(x, axis, 0), np.moveaxis(y, axis, 0)
        apart = (a * a).sum(axis=1)[None] + (b * b).sum(axis=1)[:, None] - 2.0 * b @ a.T
        order = apart.argmin(axis=1)
        if len(set(order.tolist())) == n and (order != np.arange(n)).any():
            text = f"the {name} are permuted: {_pattern(order, c)}"
            yield text, np.moveaxis(a[order], 0, axis)


def _pattern(order: Array, c: ModernBertConfig) -> str:
    """A permutation in words, or its first places."""
    n = len(order)
    axis = np.arange(n)
    known = {
        "in reverse": axis[::-1],
        "the halves are swapped": np.roll(axis, n // 2),
        "moved on by one": np.roll(axis, 1),
        "moved back by one": np.roll(axis, -1),
    }
    if n % 2 == 0:
        known["even ones first"] = np.concatenate([axis[0::2], axis[1::2]])
        known["the halves are interleaved"] = axis.reshape(2, -1).T.reshape(-1)
    if n % c.num_attention_heads == 0:
        known["heads and their entries are transposed"] = axis.reshape(
            c.num_attention_heads, -1
        ).T.reshape(-1)
    for text, other in known.items():
        if np.array_equal(order, other):
            return text
    return f"{', '.join(map(str, order[:6]))}{', ...' if n > 6 else ''}"


RELATIONS: tuple[Callable[..., Found], ...] = (
    constant, factor, offset, normalised, permuted, factor_and_offset, per_channel, per_row,
)  # fmt: skip
