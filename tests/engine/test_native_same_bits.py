"""A sequence has the same bits on the engine whatever shares its batch, however it is laid out, and
at any number of threads: drawn batches against each sequence alone on one thread.

`benchmarks/same_bits.py` draws as many as one likes; here are a few hundred per tier and dtype.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import Case, integers
from support.heavy import heavy_but_first
from support.native import engine_of, extension, tiers_and_dtypes
from support.strategies import lengths, models

from refimpl.backends.engine import Engine

extension()
CHOICES = tiers_and_dtypes()
OF_THE_BEST = sum(tier == CHOICES[0][0] for tier, _ in CHOICES)
every_dtype = pytest.mark.parametrize(("tier", "dtype"), heavy_but_first(CHOICES, OF_THE_BEST))


def alone(engine: Engine, ids: np.ndarray) -> np.ndarray:
    return engine.packed(ids, np.array([0, len(ids)]))


def packed(engine: Engine, sequences: list[np.ndarray]) -> list[np.ndarray]:
    cu_seqlens = np.cumsum([0, *map(len, sequences)])
    out = engine.packed(np.concatenate(sequences), cu_seqlens)
    return np.split(out, cu_seqlens[1:-1])


def padded(engine: Engine, sequences: list[np.ndarray], extra: int) -> list[np.ndarray]:
    seq = max(map(len, sequences)) + extra
    ids = np.stack([np.pad(s, (0, seq - len(s)), constant_values=3) for s in sequences])
    mask = np.arange(seq) < np.array([[len(s)] for s in sequences])
    out = engine.padded(ids, None, mask, None, None)
    return [row[: len(s)] for row, s in zip(out, sequences, strict=True)]


def sequences_of(case: Case, counts: list[int]) -> list[np.ndarray]:
    return [integers((n,), case.vocab, case.seed, f"sequence {i}") for i, n in enumerate(counts)]


@every_dtype
@settings(max_examples=300)
@given(st.data())
def test_same_bits_in_any_company_layout_and_number_of_threads(
    tier: str, dtype: str, data: st.DataObject
):
    case = data.draw(models())
    counts = data.draw(st.lists(lengths(case.half_window), min_size=1, max_size=6))
    sequences = sequences_of(case, counts)
    order = data.draw(st.permutations(range(len(sequences))))
    engine = engine_of(case, tier, dtype=dtype)
    expected = [alone(engine, s) for s in sequences]
    engine.num_threads = data.draw(st.integers(1, 8))
    mixed = [sequences[i] for i in order]
    if data.draw(st.booleans()):
        got = packed(engine, mixed)
    else:
        got = padded(engine, mixed, data.draw(st.integers(0, 70)))
    for i, y in zip(order, got, strict=True):
        np.testing.assert_array_equal(y.view(np.uint32), expected[i].view(np.uint32))


@every_dtype
def test_same_bits_where_products_are_split_over_rows_and_over_columns(tier: str, dtype: str):
    """Long enough for several chunks of rows; narrow enough for a panel that is not full."""
    case = Case("bits", "v5", "fs", 72, 3, 50, 61, 20, 1e4, 1e3)
    sequences = sequences_of(case, [1, 700, 167, 168, 169, 3])
    engine = engine_of(case, tier, dtype=dtype)
    expected = [alone(engine, s) for s in sequences]
    for engine.num_threads in range(1, 9):
        for y, e in zip(packed(engine, sequences), expected, strict=True):
            np.testing.assert_array_equal(y, e)


@every_dtype
def test_same_bits_where_blocks_of_queries_are_taken_in_parts(tier: str, dtype: str):
    """Few sequences and many threads; windows over one block of keys, and over several."""
    for window in (5, 64, 300):
        case = Case("parts", "v5", "fs", 72, 3, 50, 61, window, 1e4, 1e3)
        sequences = sequences_of(case, [1, 128, 700])
        engine = engine_of(case, tier, dtype=dtype)
        expected = [alone(engine, s) for s in sequences]
        for engine.num_threads in (2, 5, 12, 16, 24, 33, 48, 64, 200):
            for s, e in zip(sequences, expected, strict=True):
                np.testing.assert_array_equal(alone(engine, s), e)
