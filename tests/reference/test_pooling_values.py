"""Pooling against sums written out by hand, and what must hold for every mode."""

from __future__ import annotations

import numpy as np
import pytest

from refimpl.reference.pooling import POOLINGS, pool

MODES = sorted(POOLINGS)
MASK = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 0, 1, 0], [0, 1, 0, 0, 0]])


@pytest.fixture
def hidden() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((4, 5, 6))


def by_hand(rows: np.ndarray, mask: np.ndarray, how: str) -> np.ndarray:
    """rows [seq, hidden] of one sequence, in float64, one token after the other."""
    real = [j for j in range(len(mask)) if mask[j]]
    if how == "cls":
        return rows[0]
    if how == "first_token":
        return rows[real[0]]
    if how == "lasttoken":
        return rows[real[-1]]
    if how == "max":
        return np.array([max(rows[j, d] for j in real) for d in range(rows.shape[1])])
    weights = {j: float(j - real[0] + 1) if how == "weightedmean" else 1.0 for j in real}
    total = sum(weights[j] * rows[j] for j in real)
    count = sum(weights.values())
    return total / (np.sqrt(count) if how == "mean_sqrt_len_tokens" else count)


@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pooling_equals_the_sum_written_out(hidden: np.ndarray, how: str, dtype: type) -> None:
    hidden = hidden.astype(dtype)
    got = pool(hidden, MASK, how)
    assert got.dtype == dtype
    for b in range(len(MASK)):
        exact = by_hand(hidden[b].astype(np.float64), MASK[b], how)
        # a sum of n terms, a square root and a division: at most n + 2 roundings of
        # quantities no larger than n * max |h| * max weight / divisor <= n * max |h|
        seq = hidden.shape[1]
        bound = (seq + 2) * np.finfo(dtype).eps * seq * np.abs(hidden[b]).max()
        assert np.abs(got[b] - exact).max() <= bound


@pytest.mark.parametrize("how", MODES)
def test_pooling_ignores_masked_tokens_even_nan(hidden: np.ndarray, how: str) -> None:
    if how == "cls":
        mask = MASK.copy()
        mask[:, 0] = 1  # cls is column 0 by definition
    else:
        mask = MASK
    poisoned = np.where(mask[:, :, None] == 0, np.nan, hidden)
    np.testing.assert_array_equal(pool(poisoned, mask, how), pool(hidden, mask, how))


@pytest.mark.parametrize("how", MODES)
def test_pooling_of_an_empty_row_is_zero(hidden: np.ndarray, how: str) -> None:
    mask = MASK.copy()
    mask[1] = 0
    hidden[1] = np.nan
    got = pool(hidden, mask, how)
    assert np.array_equal(got[1], np.zeros(6))
    assert np.array_equal(got[[0, 2, 3]], pool(hidden, MASK, how)[[0, 2, 3]])


@pytest.mark.parametrize("how", MODES)
def test_pooling_without_mask_sees_every_token(hidden: np.ndarray, how: str) -> None:
    everything = np.ones((4, 5), dtype=np.int64)
    np.testing.assert_array_equal(pool(hidden, None, how), pool(hidden, everything, how))


def test_pooling_leaves_out_the_prompt_and_keeps_positions(hidden: np.ndarray) -> None:
    mask = np.array([[0, 1, 1, 1, 1]])
    rows = hidden[:1]
    assert np.array_equal(pool(rows, mask, "first_token", prompt_length=2), rows[:, 3])
    weighted = (3 * rows[:, 3] + 4 * rows[:, 4]) / 7
    got = pool(rows, mask, "weightedmean", prompt_length=2)
    assert np.abs(got - weighted).max() <= 4 * np.finfo(np.float64).eps * np.abs(rows).max()
    assert np.array_equal(pool(rows, mask, "mean", prompt_length=4), np.zeros((1, 6)))


def test_pooling_names_what_is_wrong(hidden: np.ndarray) -> None:
    with pytest.raises(ValueError, match="median.*known: cls"):
        pool(hidden, MASK, "median")
    with pytest.raises(ValueError, match=r"attention_mask has shape \(4, 4\), not \(4, 5\)"):
        pool(hidden, MASK[:, :4], "mean")
    with pytest.raises(ValueError, match="prompt_length is -1"):
        pool(hidden, MASK, "mean", prompt_length=-1)
    with pytest.raises(ValueError, match="hidden has shape"):
        pool(hidden[0], MASK, "mean")
