"""The losses beside torch's: values, gradients and normalisers, float64 and float32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.adjoint import normal

from refimpl.train.losses import binary_cross_entropy, cross_entropy, mean_squared_error

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle
F = torch.nn.functional

# Both sides round: a few units in the last place of sums of a few hundred terms.
TOLERANCE = {np.float64: 1e-13, np.float32: 2e-6}
dtypes = st.sampled_from([np.float64, np.float32])
seeds = st.integers(0, 2**16)


def agrees(loss, x: torch.Tensor, theirs: torch.Tensor, dtype: type) -> None:
    theirs.backward()
    want, got = theirs.item(), loss.total / loss.count
    assert abs(got - want) <= TOLERANCE[dtype] * max(abs(want), 1)
    assert loss.gradient.dtype == dtype
    mine, its = loss.gradient / loss.count, x.grad.numpy()
    np.testing.assert_allclose(mine, its, rtol=0, atol=TOLERANCE[dtype] * max(np.abs(its).max(), 1))


@given(st.integers(1, 30), st.integers(2, 40), seeds, dtypes, st.booleans(),
       st.sampled_from([0.0, 0.1, 0.9]), st.sampled_from([1.0, 30.0]))  # fmt: skip
def test_cross_entropy(n, classes, seed, dtype, weighted, smoothing, scale):
    rng = np.random.default_rng(seed)
    logits = (scale * normal(seed, n, classes)).astype(dtype)
    labels = np.where(rng.random(n) < 0.3, -100, rng.integers(0, classes, n))
    labels[0] = 0
    weights = rng.uniform(0.1, 3.0, classes).astype(dtype) if weighted else None
    x = torch.tensor(logits, requires_grad=True)
    theirs = F.cross_entropy(
        x,
        torch.from_numpy(labels),
        weight=None if weights is None else torch.from_numpy(weights),
        label_smoothing=smoothing,
    )
    ours = cross_entropy(logits, labels, class_weights=weights, label_smoothing=smoothing)
    agrees(ours, x, theirs, dtype)


@given(st.integers(1, 9), st.integers(1, 9), seeds, dtypes, st.sampled_from([1.0, 100.0]))
def test_binary_cross_entropy(n, classes, seed, dtype, scale):
    logits = (scale * normal(seed, n, classes)).astype(dtype)
    labels = np.random.default_rng(seed).uniform(size=(n, classes)).round().astype(dtype)
    x = torch.tensor(logits, requires_grad=True)
    theirs = F.binary_cross_entropy_with_logits(x, torch.from_numpy(labels))
    agrees(binary_cross_entropy(logits, labels), x, theirs, dtype)


@given(st.integers(1, 9), st.integers(1, 9), seeds, dtypes)
def test_mean_squared_error(n, width, seed, dtype):
    values, labels = normal(seed, n, width).astype(dtype), normal(seed + 1, n, width).astype(dtype)
    x = torch.tensor(values, requires_grad=True)
    theirs = F.mse_loss(x, torch.from_numpy(labels))
    agrees(mean_squared_error(values, labels), x, theirs, dtype)


def test_a_large_vocabulary_in_float32_keeps_its_digits():
    """Sums in float64: the error of the loss stays that of the logits' own rounding."""
    logits = (5 * normal(1, 64, 50368)).astype(np.float32)
    labels = np.arange(64) * 700
    got = cross_entropy(logits, labels)
    want = F.cross_entropy(torch.tensor(logits, dtype=torch.float64), torch.from_numpy(labels))
    assert abs(got.total / got.count - want.item()) <= 2e-7 * want.item()
