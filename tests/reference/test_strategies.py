"""The strategies are tested too: bounded, and they reach their edges."""

from __future__ import annotations

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from support.cases import Batch, Case
from support.strategies import ACTIVATIONS, MAX_LAYERS, MAX_SEQ, WINDOWS, batches, lengths, models

from refimpl.reference.config import ModernBertConfig

search = settings(max_examples=2000)


@given(models(), st.data())
def test_draws_are_bounded_and_valid(case: Case, data: st.DataObject) -> None:
    ModernBertConfig.from_dict(case.config())  # raises where a value is not supported
    assert case.hidden <= 48 and case.layers <= MAX_LAYERS
    batch = data.draw(batches(case.half_window))
    assert 1 <= batch.seq <= MAX_SEQ and 1 <= len(batch.rows) <= 4
    assert any(row.padding == "none" and row.length == batch.seq for row in batch.rows)
    mask = case.inputs(batch).mask
    for row, visible in zip(batch.rows, mask.sum(axis=1), strict=True):
        assert visible == row.length


@pytest.mark.parametrize("padding", ["none", "right", "left", "inside", "empty"])
def test_batches_reach_every_padding(padding: str) -> None:
    def has(batch: Batch) -> bool:
        return len(batch.rows) > 1 and any(row.padding == padding for row in batch.rows)

    find(batches(6), has, settings=search)


@pytest.mark.parametrize("length", [1, 2, 16, 17, 64, 65, 66, 129, 130, MAX_SEQ])
def test_lengths_reach_their_edges(length: int) -> None:
    find(lengths(64), lambda n: n == length, settings=search)


def test_models_reach_every_setting() -> None:
    drawn: list[Case] = []

    @settings(max_examples=300, database=None)
    @given(models())
    def draw(case: Case) -> None:
        drawn.append(case)

    draw()
    assert {case.window for case in drawn} == set(WINDOWS)
    assert {letter for case in drawn for letter in case.bias} == set("namcd")
    assert {case.activation for case in drawn} == set(ACTIVATIONS)
    assert {case.layers for case in drawn} == set(range(1, MAX_LAYERS + 1))
    assert {case.pattern[0] for case in drawn} == {"f", "s"} == {case.pattern[-1] for case in drawn}
    assert {case.theta_full < case.theta_sliding for case in drawn} == {True, False}
    assert {case.tied for case in drawn} == {True, False}
