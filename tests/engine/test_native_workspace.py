"""What a pass left in the workspace that the next one takes, is never seen; and it has a bound."""

import threading

import numpy as np
import pytest
from support.cases import CASES
from support.native import engine_of, tiers, tiers_and_dtypes
from support.process_memory import anonymous, in_linux

CASE = CASES[0]
MOST = 2**24 + 2**22  # bytes: what is kept of a workspace, and what the interpreter takes meanwhile
SIZES = (3, 300, 1, 40, 700, 16, 129)


def passed(engine, lengths, seed=0, positions=False):
    total = sum(lengths)
    ids = np.random.default_rng(seed).integers(0, CASE.vocab, total)
    turned = np.arange(total) % 11 if positions else None
    return engine._native.forward(ids, None, np.cumsum([0, *lengths]), None, turned)


def spoilt(engine, lengths):
    """A pass all of whose numbers are NaN."""
    rows = np.full((sum(lengths), CASE.hidden), np.nan, np.float32)
    found = engine._native.forward(None, rows, np.cumsum([0, *lengths]))
    assert np.isnan(found).all()


@pytest.mark.parametrize(("tier", "dtype"), tiers_and_dtypes())
def test_what_was_left_behind_is_not_seen(tier, dtype):
    used = engine_of(CASE, tier, dtype=dtype)
    spoilt(used, (500, 333))
    for i, length in enumerate(SIZES):
        for lengths in ((length,), (length, 5, length)):
            for positions in (False, True, False):
                found = passed(used, lengths, i, positions)
                fresh = passed(engine_of(CASE, tier, dtype=dtype), lengths, i, positions)
                np.testing.assert_array_equal(found, fresh)
                assert np.isfinite(found).all()
        spoilt(used, (length, 2))


def test_each_of_those_at_the_same_time_has_its_own():
    engine = engine_of(CASE, tiers()[0])
    truth = [passed(engine, (length,) * 3) for length in SIZES]
    wrong = []

    def again(i):
        for _ in range(30):
            if not np.array_equal(passed(engine, (SIZES[i],) * 3), truth[i]):
                wrong.append(i)

    threads = [threading.Thread(target=again, args=(i,)) for i in range(len(SIZES))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@in_linux
def test_the_workspace_of_a_long_pass_is_given_back():
    engine = engine_of(CASE, tiers()[0])
    many = (128,) * (2 * MOST // (128 * 12 * CASE.hidden))
    passed(engine, (16,))
    before = anonymous()
    passed(engine, (300,) * 3)
    assert engine._native.workspace_bytes(sum(many), len(many)) > 2 * MOST
    passed(engine, many)
    assert anonymous() - before < MOST
