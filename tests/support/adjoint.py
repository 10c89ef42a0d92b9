"""The dot-product test of an adjoint, without step size: <u, J v> = <J^T u, v>.

    J v = Im f(x + i h v) / h,  h = 2^-100       by the same numpy forward, in complex128

With h so small, its square is nothing beside a rounding: the imaginary part is the derivative, to
the rounding of float64. The forward pass is analytic but for three leaves: erf and |x|, which
`complex_forward` continues into the complex plane, and comparisons, which go by the real part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np

from refimpl.nlp import families
from refimpl.reference import erf as real_erf
from refimpl.reference import ops

STEP = 2.0**-100
# What the identity may miss, of |u| |J v|: the promise of the package.
TOLERANCE = 1e-12

Arrays = Mapping[str, np.ndarray]


def erf(x: np.ndarray) -> np.ndarray:
    """erf; of x + i y, y tiny: erf(x) + i y erf'(x)."""
    if not np.iscomplexobj(x):
        return real_erf.erf(x)
    return real_erf.erf(x.real) + 1j * x.imag * 2.0 / np.sqrt(np.pi) * np.exp(-(x.real**2))


def magnitude(x: np.ndarray) -> np.ndarray:
    """|x| for real x, continued: the sign is that of the real part."""
    return np.where(np.real(x) < 0, -x, x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-magnitude(x))
    return np.where(np.real(x) >= 0, 1.0, e) / (1.0 + e)


class ComplexNumpy:
    """numpy, but for `abs`."""

    abs = staticmethod(magnitude)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


@contextlib.contextmanager
def complex_forward() -> Iterator[None]:
    """The equations take complex numbers."""
    with (
        mock.patch.object(ops, "erf", erf),
        mock.patch.object(ops, "sigmoid", sigmoid),
        mock.patch.dict(ops.ACTIVATIONS, sigmoid=ops.Activation(sigmoid)),
        mock.patch.object(families, "np", ComplexNumpy()),
    ):
        yield


def derivative(f: Callable[[Arrays], Any], x: Arrays, v: Arrays) -> np.ndarray:
    """J v of f, which takes arrays by name and gives one array, at x along v."""
    moved = {name: x[name] + 1j * STEP * v[name] for name in x}
    with complex_forward():
        return np.asarray(f(moved)).imag / STEP


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def directions(x: Arrays, seed: int) -> dict[str, np.ndarray]:
    """A random direction for each array."""
    return {
        name: np.random.default_rng([seed, n]).standard_normal(x[name].shape)
        for n, name in enumerate(x)
    }


def check(
    f: Callable[[Arrays], Any],
    adjoint: Callable[[np.ndarray], Arrays],
    x: Arrays,
    seed: int = 0,
) -> float:
    """The identity for a random u and v; adjoint(u) gives what belongs to each array of x.

    Returns what was missed, of |u| |J v| + |J^T u| |v|. AssertionError beyond TOLERANCE.
    """
    v = directions(x, seed)
    jv = derivative(f, x, v)
    u = np.random.default_rng([seed, 2**31]).standard_normal(jv.shape)
    back = adjoint(u)
    assert set(back) == set(x), f"gradients of {set(back)}, not of {set(x)}"
    for name in x:
        assert back[name].shape == x[name].shape, name
        assert back[name].dtype == x[name].dtype, name
    left = float((u * jv).sum())
    right = sum(float((back[name] * v[name]).sum()) for name in x)
    scale = np.linalg.norm(u) * np.linalg.norm(jv)
    scale += sum(np.linalg.norm(back[name]) * np.linalg.norm(v[name]) for name in x)
    missed = abs(left - right) / scale if scale else abs(left - right)
    assert missed <= TOLERANCE, f"<u, J v> is {left}, <J^T u, v> is {right}: {missed:.3g}"
    return missed
