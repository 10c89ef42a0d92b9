"""Rotary positions against complex numbers: x_k + i x_(k + d/2) turns by position * freq_k."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import unit

from refimpl.reference import ops

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
DIMS, THETAS = (2, 16, 64, 128), (10.0, 10000.0, 160000.0)


def eps(dtype: type) -> float:
    return float(np.finfo(dtype).eps)


def frequencies(dim: int, theta: float) -> np.ndarray:
    """theta^(-2k / dim), correctly rounded: computed in 40 digits."""
    with localcontext() as context:
        context.prec = 40
        return np.array(
            [float(Decimal(theta) ** (Decimal(-2 * k) / Decimal(dim))) for k in range(dim // 2)]
        )


def angle_error(position: np.ndarray, freq: np.ndarray) -> np.ndarray:
    """Of position * freq in float64: frequency (2 ulp of power), product; and as much in `freq`."""
    return 4 * eps(np.float64) * np.abs(position)[..., None] * freq


@dtypes
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("theta", THETAS)
def test_rope_table_is_rounded_once_from_float64(dtype: type, dim: int, theta: float) -> None:
    position = np.array([0, 1, 2, 63, 64, 65, 127, 128, 511, 1000, 8191])
    cos, sin = ops.rope_table(position, dim, theta, dtype)
    freq = frequencies(dim, theta)
    angle = position[:, None] * freq
    bound = angle_error(position, freq) + 2 * eps(np.float64)
    for found, exact in ((cos, np.cos(angle)), (sin, np.sin(angle))):
        assert found.dtype == dtype and found.shape == (len(position), dim)
        np.testing.assert_array_equal(found[:, : dim // 2], found[:, dim // 2 :])
        off = np.abs(found[:, : dim // 2].astype(np.float64) - exact)
        assert (off <= bound + eps(dtype) / 2 * np.abs(exact)).all()


@dtypes
@given(st.sampled_from(DIMS), st.sampled_from(THETAS), st.integers(0, 8191), st.integers(0, 999))
def test_rope_is_multiplication_by_a_complex_number(
    dtype: type, dim: int, theta: float, position: int, seed: int
) -> None:
    positions, half = np.array([position, 3, 0]), dim // 2
    x = unit((2, 3, 5, dim), seed, "rope").astype(dtype)
    found = ops.rope(x, *ops.rope_table(positions, dim, theta, dtype))
    assert found.dtype == dtype and found.shape == x.shape

    freq = frequencies(dim, theta)
    turn = np.exp(1j * positions[:, None, None] * freq)
    wide = x.astype(np.float64)
    turned = (wide[..., :half] + 1j * wide[..., half:]) * turn
    exact = np.concatenate([turned.real, turned.imag], axis=-1)
    # table, product and sum round once each: 3/2 eps of |x1 cos| + |x2 sin|; the phase of both
    size = np.abs(wide[..., :half]) + np.abs(wide[..., half:])
    phase = angle_error(positions, freq)[:, None, :] + 4 * eps(np.float64)
    bound = np.concatenate([size, size], axis=-1) * (
        1.5 * eps(dtype) + np.concatenate([phase, phase], axis=-1)
    )
    off = np.abs(found.astype(np.float64) - exact)
    i = np.unravel_index(int((off - bound).argmax()), off.shape)
    assert off[i] <= bound[i], f"{i}: expected {exact[i]!r}, got {found[i]!r}, bound {bound[i]:.3g}"


@given(st.sampled_from(DIMS), st.sampled_from(THETAS), st.integers(0, 500), st.integers(0, 500))
def test_rope_scores_depend_on_the_distance_alone(
    dim: int, theta: float, distance: int, shift: int
) -> None:
    q, k = unit((1, 1, dim), 1, "q"), unit((1, 1, dim), 1, "k")

    def score(i: int, j: int) -> float:
        a = ops.rope(q, *ops.rope_table(np.array([i]), dim, theta, np.float64))
        b = ops.rope(k, *ops.rope_table(np.array([j]), dim, theta, np.float64))
        return float((a * b).sum())

    # each angle is off by 2 eps of itself; d terms of magnitude |q||k| are summed
    largest = distance + shift
    bound = eps(np.float64) * (4 * largest + dim + 6) * float(np.abs(q).sum() * np.abs(k).max()) * 2
    assert abs(score(distance, 0) - score(distance + shift, shift)) <= bound


def test_rope_at_position_zero_is_the_identity() -> None:
    x = unit((1, 1, 2, 16), 2, "rope")
    np.testing.assert_array_equal(
        ops.rope(x, *ops.rope_table(np.array([0]), 16, 10.0, np.float64)), x
    )


def test_rope_takes_positions_per_sequence() -> None:
    """[batch, seq] positions: each row turns by its own."""
    x, positions = unit((2, 4, 3, 8), 3, "rope"), np.array([[0, 1, 2, 3], [7, 0, 9, 1]])
    found = ops.rope(x, *ops.rope_table(positions, 8, 10.0, np.float64))
    for b in range(2):
        alone = ops.rope(x[b], *ops.rope_table(positions[b], 8, 10.0, np.float64))
        np.testing.assert_array_equal(found[b], alone)


def test_packed_positions_restart() -> None:
    found = ops.packed_positions(np.array([0, 3, 3, 4, 6]))
    np.testing.assert_array_equal(found, [0, 1, 2, 0, 0, 1])
