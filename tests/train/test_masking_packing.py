"""Masks of the masked-LM and packing: shares, places, best fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.train.masking import mask_tokens
from refimpl.train.packing import best_fit

VOCAB, MASK = 1000, 4


def masked(batch: int, seq: int, first: int = 0, step: int = 3, rate: float = 0.3, seed: int = 1):
    rows = np.arange(first, first + batch)[:, None] * 37 + np.arange(seq) * 11
    ids, (sequence, position) = rows % VOCAB, np.indices((batch, seq))
    seen, labels = mask_tokens(
        ids, sequence + first, position, mask_id=MASK, vocab_size=VOCAB, seed=seed, step=step,
        rate=rate,
    )  # fmt: skip
    return ids, seen, labels


def within(count: int, n: int, share: float) -> bool:
    """5 standard deviations."""
    return abs(count - n * share) <= 5 * np.sqrt(n * share * (1 - share))


def test_shares_and_labels():
    ids, seen, labels = masked(64, 512)
    wanted = labels != -100
    n, drawn = ids.size, int(wanted.sum())
    assert within(drawn, n, 0.3)
    np.testing.assert_array_equal(labels[wanted], ids[wanted])
    np.testing.assert_array_equal(seen[~wanted], ids[~wanted])
    by_mask = (seen == MASK) & wanted & (ids != MASK)
    kept = (seen == ids) & wanted
    assert within(int(by_mask.sum()), drawn, 0.8) and within(int(kept.sum()), drawn, 0.1)
    random = seen[wanted & ~by_mask & ~kept]
    assert within(len(random), drawn, 0.1)
    assert random.min() < 20 and random.max() > VOCAB - 20
    assert abs(random.mean() - VOCAB / 2) <= 5 * VOCAB / np.sqrt(12 * len(random))


def test_a_token_keeps_its_fate_however_the_batch_is_split():
    _, seen, labels = masked(6, 40)
    for start, stop, seq in ((0, 2, 40), (2, 6, 40), (3, 4, 17)):
        _, part, own = masked(stop - start, seq, first=start)
        np.testing.assert_array_equal(part, seen[start:stop, :seq])
        np.testing.assert_array_equal(own, labels[start:stop, :seq])


def test_steps_seeds_and_sequences_differ():
    _, _, labels = masked(2, 200)
    others = [masked(2, 200, step=4)[2], masked(2, 200, seed=2)[2], masked(2, 200, first=2)[2]]
    wanted = labels != -100
    for other in others:
        assert within(int((wanted & (other != -100)).sum()), wanted.size, 0.09)
    assert not np.array_equal(wanted[0], wanted[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(rate=1.0), "rate is 1.0; it must be in"),
        (dict(step=-1), "step is -1"),
        (dict(seed=2**32), "seed is 4294967296"),
        (dict(vocab_size=4), "ids holds 1 .. 4; vocab_size is 4"),
        (dict(mask_id=9), "mask_id holds 9 .. 9; vocab_size is 5"),
    ],
)
def test_refusals(change, message):
    call = dict(mask_id=1, vocab_size=5, seed=0, step=0) | change
    with pytest.raises(ValueError, match=message):
        mask_tokens(np.array([1, 4]), np.zeros(2, int), np.arange(2), **call)


def plainly(lengths, capacity):
    """Best fit by looking at every row."""
    rows, room = [], []
    for i, n in enumerate(lengths):
        fitting = [r for r in range(len(rows)) if room[r] >= n]
        if not fitting:
            rows.append([])
            room.append(capacity)
            fitting = [len(rows) - 1]
        row = min(fitting, key=lambda r: (room[r], r))
        rows[row].append(i)
        room[row] -= n
    return rows


@given(st.lists(st.integers(1, 20), max_size=60))
def test_best_fit_is_that_of_looking_at_every_row(lengths):
    rows = best_fit(lengths, 20)
    assert rows == plainly(lengths, 20)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 20 for row in rows)


@pytest.mark.parametrize("lengths", [[3, 0], [3, 21]])
def test_a_length_that_fits_no_row_is_refused(lengths):
    with pytest.raises(ValueError, match=r"lengths\[1\] is \d+; it must be in 1 .. capacity 20"):
        best_fit(lengths, 20)
