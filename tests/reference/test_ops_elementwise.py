"""erf, activations, LayerNorm and softmax against exact or higher-precision values.

Bounds are in eps of the dtype times the operation's own condition; each says what it counts.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erf as scipy_erf
from scipy.special import erfc, expit
from support.cases import OUTLIER, unit

from refimpl.reference import ops
from refimpl.reference.erf import erf

# Units in the last place that one call of exp or tanh may be off: what vector libraries promise.
CALL = 4
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def eps(dtype: type) -> float:
    return float(np.finfo(dtype).eps)


# -- erf ------------------------------------------------------------------------------------------


def exact_erf(x: float) -> Decimal:
    """Its Taylor series in 120 digits; the largest term at |x| <= 7 has 22, so 90 are right."""
    with localcontext() as context:
        context.prec = 120
        square, power, total, n = Decimal(x) ** 2, Decimal(x), Decimal(0), 0
        while True:
            term = power / (2 * n + 1)
            total += term
            if n > square and abs(term) < Decimal(10) ** -100 * (1 + abs(total)):
                return total * 2 / _pi().sqrt()
            n += 1
            power = -power * square / n


def _pi() -> Decimal:
    """Machin: 16 arctan(1/5) - 4 arctan(1/239)."""

    def arctan_of_inverse(k: int) -> Decimal:
        total, power, n = Decimal(0), Decimal(1) / k, 0
        while abs(power) > Decimal(10) ** -115:
            total += (-1) ** n * power / (2 * n + 1)
            power, n = power / (k * k), n + 1
        return total

    return 16 * arctan_of_inverse(5) - 4 * arctan_of_inverse(239)


def erf_points() -> np.ndarray:
    """Both sides of every branch of the approximation, tiny, saturated, and all between."""
    branches = np.array([0.46875, 0.5, 0.84375, 0.85, 1.0, 1.25, 1.375, 2.0, 4.0, 5.9, 6.0, 6.5])
    edges = np.concatenate([np.nextafter(branches, 0), branches, np.nextafter(branches, 9)])
    tiny = 2.0 ** -np.arange(1, 60, 4)
    return np.concatenate([edges, tiny, np.linspace(0, 6.5, 500), 7 * unit((200,), 1, "erf") % 6.5])


def test_erf_is_within_one_ulp_of_exact() -> None:
    points = erf_points()
    points = np.concatenate([points, -points])
    found = erf(points)
    for x, y in zip(points.tolist(), found.tolist(), strict=True):
        exact = exact_erf(x)
        ulp = Decimal(float(np.spacing(abs(float(exact)))))
        assert abs(Decimal(y) - exact) <= ulp, f"erf({x!r}): expected {float(exact)!r}, got {y!r}"


def test_erf_agrees_with_scipy() -> None:
    """scipy itself is up to 2.65 ulp off the exact value (at |x| = 0.95): within 3 + 1."""
    x = np.concatenate([np.linspace(-8, 8, 400001), unit((100000,), 2, "erf")])
    expected = scipy_erf(x)
    off = np.abs(erf(x) - expected) / np.spacing(np.abs(expected))
    i = int(off.argmax())
    assert off[i] <= 3 + 1, (
        f"erf({x[i]!r}): {off[i]} ulp; expected {expected[i]!r}, got {erf(x)[i]!r}"
    )


def test_erf_in_float32_is_float64_rounded_once() -> None:
    x = np.linspace(-5, 5, 20001).astype(np.float32)
    np.testing.assert_array_equal(erf(x), erf(x.astype(np.float64)).astype(np.float32))


def test_erf_is_odd_and_keeps_special_values() -> None:
    x = erf_points()
    np.testing.assert_array_equal(erf(-x), -erf(x))
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan])
    found = erf(special)
    np.testing.assert_array_equal(found, [0.0, -0.0, 1.0, -1.0, np.nan])
    np.testing.assert_array_equal(np.signbit(found[:2]), [False, True])


# -- activations ----------------------------------------------------------------------------------


@dtypes
def test_gelu_is_x_times_the_normal_distribution(dtype: type) -> None:
    x = np.concatenate([np.linspace(-9, 9, 40001), 3 * unit((10000,), 3, "gelu")]).astype(dtype)
    wide = x.astype(np.float64)
    exact = wide * erfc(-wide / math.sqrt(2)) / 2
    # sqrt(1/2) and its product, erf, 1 + erf and the product: 5 roundings of at most |x| each
    bound = 5 * eps(dtype) * (np.abs(wide) + np.abs(exact))
    assert_within(ops.gelu(x), exact, bound, x)


def test_gelu_is_not_its_tanh_approximation() -> None:
    x = np.linspace(-4, 4, 801).astype(np.float32)
    apart = np.abs(ops.gelu(x) - ops.gelu_tanh(x))
    # the largest distance of the two functions is 4.7e-4, at |x| = 2.7
    assert 4e-4 < apart.max() < 5e-4


@dtypes
def test_silu_and_sigmoid_have_small_relative_error_everywhere(dtype: type) -> None:
    x = np.linspace(-80, 80, 40001).astype(dtype)
    # exp, the sum, the quotient, the product
    for got, exact in (
        (ops.sigmoid(x), expit(x.astype(np.float64))),
        (ops.silu(x), x.astype(np.float64) * expit(x.astype(np.float64))),
    ):
        assert_within(got, exact, (CALL + 3) * eps(dtype) * np.abs(exact), x)


@dtypes
def test_silu_does_not_overflow(dtype: type) -> None:
    big = np.array([-1e30, -1e4, 1e4, 1e30], dtype)
    np.testing.assert_array_equal(ops.silu(big), np.maximum(big, 0))


@dtypes
def test_tanh_gelu_follows_its_formula(dtype: type) -> None:
    x = np.linspace(-6, 6, 20001).astype(dtype)
    wide = x.astype(np.float64)
    inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    exact = wide * expit(2 * inner)
    # tanh amplifies the 6 roundings of its argument by |inner| (1 - tanh^2) <= 0.45 < 1
    bound = (CALL + 6 + 3) * eps(dtype) * (np.abs(wide) + np.abs(exact))
    assert_within(ops.gelu_tanh(x), exact, bound, x)


@pytest.mark.parametrize("name", sorted(ops.ACTIVATIONS))
def test_activation_in_blocks_equals_the_whole(name: str) -> None:
    x = unit((3, ops.ELEMENTWISE_BLOCK + 5), 4, name).astype(np.float32)
    found = ops.activate(x, name)
    parts = [ops.activate(np.ascontiguousarray(x[:, i : i + 7]), name) for i in (0, 10000, 32766)]
    for part, i in zip(parts, (0, 10000, 32766), strict=True):
        np.testing.assert_array_max_ulp(found[:, i : i + 7], part, CALL)


def test_glu_activates_the_first_half() -> None:
    u = unit((5, 12), 5, "glu")
    np.testing.assert_array_equal(ops.glu(u, "gelu"), ops.gelu(u[:, :6]) * u[:, 6:])


def assert_within(got: np.ndarray, exact: np.ndarray, bound: np.ndarray, x: np.ndarray) -> None:
    assert got.dtype == x.dtype
    off = np.abs(got.astype(np.float64) - exact)
    i = int((off - bound).argmax())
    assert off[i] <= bound[i], f"at {x[i]!r}: off by {off[i]:.3g}, bound {bound[i]:.3g}; {got[i]!r}"


# -- LayerNorm ------------------------------------------------------------------------------------


def exact_layer_norm(row: np.ndarray, weight: np.ndarray, eps_: float) -> tuple[np.ndarray, float]:
    """In rational numbers but for the last square root; and sigma."""
    x = [Fraction(float(v)) for v in row]
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x) + Fraction(eps_)
    sigma = math.sqrt(variance)
    return np.array([float(v - mean) for v in x]) / sigma * weight.astype(np.float64), sigma


@dtypes
@pytest.mark.parametrize("mean", [0.0, 1e3, 1e4, 1e5, 1e6])
@pytest.mark.parametrize("outlier", [0.0, OUTLIER])
def test_layer_norm_of_rows_with_a_large_mean(dtype: type, mean: float, outlier: float) -> None:
    hidden, norm_eps = 96, 1e-5
    x = unit((8, hidden), 6, "norm") + mean
    x[:, 17] += outlier
    x = x.astype(dtype)
    weight = (1 + 0.4 * unit((hidden,), 7, "norm")).astype(dtype)
    found = ops.layer_norm(x, weight, None, norm_eps)
    assert found.dtype == dtype
    # numpy's sums of up to 128 terms run in 8 accumulators: n / 8 + 3 roundings each
    terms = hidden / 8 + 3
    for row, got in zip(x, found, strict=True):
        exact, sigma = exact_layer_norm(row, weight, norm_eps)
        magnitude = np.abs(row.astype(np.float64))
        shift = (terms * magnitude.mean() + magnitude) * np.abs(weight) / sigma  # of x - mean
        bound = eps(dtype) * (shift + (terms + 6) * np.abs(exact))
        # the mean's error, squared, also enlarges the variance
        bound += np.abs(exact) * (eps(dtype) * terms * magnitude.mean() / sigma) ** 2
        assert_within(got, exact, bound, row)


@dtypes
def test_one_pass_variance_would_fail_here(dtype: type) -> None:
    """The rows above can tell: E[x^2] - E[x]^2 is beyond its bound by far."""
    x = (unit((8, 96), 6, "norm") + 1 / math.sqrt(eps(dtype)) / 4).astype(dtype)
    one_pass = (x * x).mean(axis=-1) - x.mean(axis=-1) ** 2
    two_pass = ((x - x.mean(axis=-1, keepdims=True)) ** 2).mean(axis=-1)
    assert np.abs(one_pass / two_pass - 1).max() > np.sqrt(eps(dtype))
    found = ops.layer_norm(x, np.ones(96, dtype), None, eps(dtype))
    assert np.abs(found.std(axis=-1) - 1).max() < np.sqrt(eps(dtype))


def test_layer_norm_adds_eps_to_the_variance_and_then_the_bias() -> None:
    row, weight, bias = np.array([1.0, -1.0, 1.0, -1.0]), np.full(4, 3.0), np.arange(4.0)
    found = ops.layer_norm(row, weight, bias, 3.0)
    np.testing.assert_array_equal(found, row / 2 * 3 + bias)


# -- softmax --------------------------------------------------------------------------------------


@dtypes
@given(st.integers(1, 200), st.floats(0.1, 300), st.integers(0, 2**16))
def test_softmax_over_visible_entries(dtype: type, n: int, scale: float, seed: int) -> None:
    scores = (scale * unit((4, n), seed, "softmax")).astype(dtype)
    mask = unit((4, n), seed, "mask") > 0
    mask[0], mask[1] = True, False
    found = ops.softmax(scores, mask)
    assert found.dtype == dtype and np.isfinite(found).all()
    assert (found[~mask] == 0).all()
    for s, seen, p in zip(scores.astype(np.float64), mask, found, strict=True):
        if not seen.any():
            continue
        e = np.exp(s[seen] - s[seen].max())
        exact = e / math.fsum(e)
        # the difference to the largest score (which exp turns into a relative error), the call, n
        # roundings of the sum, the quotient; and the same once more for the sum's own terms
        roundings = 2 * (np.abs(s[seen]).max() + CALL + 1) + n
        tiny = float(np.finfo(dtype).tiny)  # below it numbers have fewer digits
        assert_within(p[seen], exact, eps(dtype) * roundings * exact + tiny, scores[0])


@dtypes
def test_softmax_never_sees_what_the_mask_hides(dtype: type) -> None:
    scores = unit((3, 8), 8, "softmax").astype(dtype)
    mask = np.arange(8) < 5
    poisoned = np.where(mask, scores, dtype(np.nan))
    np.testing.assert_array_equal(ops.softmax(poisoned, mask), ops.softmax(scores, mask))
    hidden = np.where(mask, scores, dtype(-np.inf))
    everything = np.ones(8, bool)
    np.testing.assert_array_equal(ops.softmax(hidden, everything), ops.softmax(scores, mask))
