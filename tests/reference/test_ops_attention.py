"""Blockwise attention against attention written out (support/dense_attention.py)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import Row, mask_row, unit
from support.dense_attention import assert_within, naive

from refimpl.reference import ops

WINDOWS = (None, 0, 1, 2, 3, 8, 16, 17, 64)
LENGTHS = (1, 2, 3, 15, 16, 17, 18, 31, 33, 64, 65, 66, 129, 130, 131)


def draws(batch: int, seq: int, heads: int, dim: int, seed: int, dtype: type) -> list[np.ndarray]:
    shape = (batch, seq, heads, dim)
    return [unit(shape, seed, name).astype(dtype) for name in "qkv"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("seq", LENGTHS)
def test_attention_equals_dense_masked_attention(dtype: type, window: int | None, seq: int) -> None:
    q, k, v = draws(2, seq, 2, 8, seq, dtype)
    key_mask = np.stack([np.ones(seq), unit((seq,), seq, "mask") > -0.5]).astype(bool)
    found = ops.attention(q, k, v, key_mask, window)
    assert found.dtype == dtype and found.shape == (2, seq, 16)
    assert_within(found, *naive(q, k, v, key_mask, window))


@given(
    st.sampled_from(WINDOWS),
    st.integers(3, 90),
    st.sampled_from(["right", "left", "inside", "empty"]),
    st.data(),
)
def test_attention_under_any_padding(
    window: int | None, seq: int, padding: str, data: st.DataObject
) -> None:
    visible = 0 if padding == "empty" else data.draw(st.integers(2, seq))
    key_mask = mask_row(Row(visible, padding), seq, 1, "mask")[None] != 0
    q, k, v = draws(1, seq, 3, 4, seq, np.float64)
    exact, bound = naive(q, k, v, key_mask, window)
    found = ops.attention(q, k, v, key_mask, window)
    assert_within(found, exact, bound)
    assert (found[exact == 0] == 0).all()
    # neither keys nor values under the mask are read
    poison = np.where(key_mask[..., None, None], 0.0, np.nan)
    np.testing.assert_array_equal(ops.attention(q, k + poison, v + poison, key_mask, window), found)


@pytest.mark.parametrize("scores", [1, 7, 64, 1000, 10**9])
@pytest.mark.parametrize("window", [None, 3, 40])
def test_attention_does_not_depend_on_its_blocks(
    monkeypatch: pytest.MonkeyPatch, scores: int, window: int | None
) -> None:
    q, k, v = draws(2, 75, 2, 8, 5, np.float64)
    key_mask = unit((2, 75), 5, "mask") > -1
    exact, bound = naive(q, k, v, key_mask, window)
    monkeypatch.setattr(ops, "MAX_BLOCK_SCORES", scores)
    assert_within(ops.attention(q, k, v, key_mask, window), exact, bound)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("window", [0, 1, 8, 64])
def test_what_a_key_outside_the_window_holds_reaches_no_row(window: int, bad: float) -> None:
    q, k, v = draws(1, 131, 2, 8, 1, np.float64)
    everything = np.ones((1, 131), bool)
    clean = ops.attention(q, k, v, everything, window).reshape(131, 2, 8)
    v[0, 70, 1, 5] = bad
    got = ops.attention(q, k, v, everything, window).reshape(131, 2, 8)
    near = np.abs(np.arange(131) - 70) <= window
    np.testing.assert_allclose(got[~near], clean[~near], rtol=1e-14, atol=1e-14)
    assert not np.isfinite(got[near, 1, 5]).any()
    np.testing.assert_allclose(got[near, 0], clean[near, 0], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("window", WINDOWS)
@given(seq=st.integers(1, 3000), heads=st.integers(1, 16), scores=st.integers(1, 2**14))
def test_query_blocks_cover_every_query_once_and_every_visible_key(
    window: int | None, seq: int, heads: int, scores: int
) -> None:
    usual, ops.MAX_BLOCK_SCORES = ops.MAX_BLOCK_SCORES, scores
    try:
        blocks = ops.query_blocks(seq, heads, window)
    finally:
        ops.MAX_BLOCK_SCORES = usual
    assert [start for start, *_ in blocks] == [0, *(stop for _, stop, *_ in blocks[:-1])]
    assert blocks[-1][1] == seq
    for start, stop, first, last in blocks:
        reach = seq if window is None else window
        assert start < stop and 0 <= first <= max(start - reach, 0)
        assert min(stop + reach, seq) <= last <= seq
        if window is None:
            assert stop - start == 1 or (stop - start) * heads * seq <= scores
        else:  # work stays proportional to seq * window
            assert last - first <= 3 * max(16, window)


def test_windowed_work_is_proportional_to_seq_times_window() -> None:
    def scores(seq: int) -> int:
        return sum((b - a) * (d - c) for a, b, c, d in ops.query_blocks(seq, 12, 64))

    for seq in (512, 8192):
        assert scores(seq) <= 3 * 64 * seq


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.sampled_from(WINDOWS))
def test_packed_attention_is_each_sequence_alone(parts: list[int], window: int | None) -> None:
    total = sum(parts)
    q, k, v = (x[0] for x in draws(1, total, 2, 8, total, np.float64))
    ends = np.cumsum([0, *parts])
    found = ops.attention_packed(q, k, v, ends, window)
    for a, b in zip(ends[:-1], ends[1:], strict=True):
        alone = [x[None, a:b] for x in (q, k, v)]
        exact, bound = naive(*alone, np.ones((1, b - a), bool), window)
        assert_within(found[None, a:b], exact, bound)


def test_visible_is_inclusive_on_both_sides() -> None:
    found = ops.visible(np.arange(200), np.arange(200), 64)
    assert found[100].sum() == 129 and found[100, [36, 164]].all()
    assert not found[100, [35, 165]].any()
    assert ops.visible(np.arange(3), np.arange(5), None).all()


def test_split_qkv_takes_thirds_first_and_then_heads() -> None:
    q, k, v = ops.split_qkv(np.arange(12.0)[None], 2)
    np.testing.assert_array_equal(q, [[[0, 1], [2, 3]]])
    np.testing.assert_array_equal(k, [[[4, 5], [6, 7]]])
    np.testing.assert_array_equal(v, [[[8, 9], [10, 11]]])
