"""Numbers with a bound on how far a rounded evaluation may stand from them.

A `Bounded` is a float64 value and a bound on the error of any evaluation of it in a dtype of unit
`eps`, kept to first order in eps by the textbook rules (a sum of n terms: n roundings of the sum of
magnitudes). `agrees` allows twice the bound, which covers the terms of second order and the float64
rounding of the value itself. Written from the equations; shares no line with `refimpl`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import erf

# Roundings that one call of exp, tanh or erf may cost: what vector maths libraries promise.
CALL = 4


@dataclass
class Bounded:
    """value and error, arrays of one shape; eps of the dtype that is being bounded."""

    value: np.ndarray
    error: np.ndarray
    eps: float

    def __getitem__(self, at):
        return Bounded(self.value[at], self.error[at], self.eps)

    def agrees(self, got):
        """True when every entry of got is within twice the bound; equal where that is 0."""
        off = np.abs(got.astype(np.float64) - self.value)
        return bool((off <= 2 * self.error).all()) and got.shape == self.value.shape


def exactly(x):
    """An input: no error yet."""
    return Bounded(x.astype(np.float64), np.zeros(x.shape), float(np.finfo(x.dtype).eps))


def stack(rows):
    return Bounded(
        np.stack([r.value for r in rows]), np.stack([r.error for r in rows]), rows[0].eps
    )


def concatenate(parts):
    values, errors = [p.value for p in parts], [p.error for p in parts]
    return Bounded(np.concatenate(values, -1), np.concatenate(errors, -1), parts[0].eps)


def total(x):
    """Sum over the last axis."""
    n, magnitude = x.value.shape[-1], np.abs(x.value).sum(-1)
    return Bounded(x.value.sum(-1), x.error.sum(-1) + n * x.eps * magnitude, x.eps)


def times(a, b):
    value = a.value * b.value
    error = np.abs(a.value) * b.error + np.abs(b.value) * a.error + a.eps * np.abs(value)
    return Bounded(value, error, a.eps)


def minus(a, b):
    value = a.value - b.value
    return Bounded(value, a.error + b.error + a.eps * np.abs(value), a.eps)


def magnitude(x):
    return Bounded(np.abs(x.value), x.error, x.eps)


def ratio(a, b):
    value = a.value / b.value
    error = (a.error + np.abs(value) * b.error) / np.abs(b.value) + a.eps * np.abs(value)
    return Bounded(value, error, a.eps)


def root(x):
    value = np.sqrt(x.value)
    return Bounded(value, x.error / (2 * value) + x.eps * value, x.eps)


def dense(x, weight, bias):
    """x W^T + b, one output after the other; x [..., n]."""
    w = weight.astype(np.float64)
    rows = [total(times(x, exactly_like(w[i], x))) for i in range(len(w))]
    y = Bounded(np.stack([r.value for r in rows], -1), np.stack([r.error for r in rows], -1), x.eps)
    if bias is None:
        return y
    value = y.value + bias
    return Bounded(value, y.error + x.eps * np.abs(value), x.eps)


def exactly_like(w, x):
    return Bounded(np.broadcast_to(w, x.value.shape), np.zeros(x.value.shape), x.eps)


def layer_norm(x, weight, bias, eps):
    n = x.value.shape[-1]
    mean = total(x)
    mean = Bounded(mean.value[..., None] / n, (mean.error / n)[..., None], x.eps)
    centred = minus(x, mean)
    square = total(times(centred, centred))
    sigma = root(Bounded(square.value / n + eps, square.error / n + x.eps * eps, x.eps))
    sigma = Bounded(sigma.value[..., None], sigma.error[..., None], x.eps)
    y = times(ratio(centred, sigma), exactly_like(weight.astype(np.float64), x))
    if bias is None:
        return y
    value = y.value + bias
    return Bounded(value, y.error + x.eps * np.abs(value), x.eps)


def gelu(x):
    """x Phi(x); its slope is below 1.13 everywhere (largest at x = sqrt 2)."""
    value = x.value * (1 + erf(x.value / np.sqrt(2))) / 2
    return Bounded(value, 1.13 * x.error + (CALL + 4) * x.eps * np.abs(x.value), x.eps)


def tanh(x):
    value = np.tanh(x.value)
    return Bounded(value, x.error + CALL * x.eps * np.abs(value), x.eps)


def sigmoid(x):
    """1 / (1 + exp(-x)); slope at most 1 / 4."""
    value = 1 / (1 + np.exp(-x.value))
    return Bounded(value, x.error / 4 + (CALL + 3) * x.eps, x.eps)


def softmax(x):
    """Over the last axis: a relative error of the exponentials of twice that of the scores."""
    n = x.value.shape[-1]
    top = x.value.max(-1, keepdims=True)
    e = np.exp(x.value - top)
    value = e / e.sum(-1, keepdims=True)
    spread = (x.eps * np.abs(x.value - top) + 2 * x.error).max(-1, keepdims=True)
    return Bounded(value, value * (2 * spread + (2 * CALL + n + 2) * x.eps), x.eps)
