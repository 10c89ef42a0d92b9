"""Ranking: the right mistake first, whatever of the dump is there; values and pairs are found."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from support.heavy import heavy_but_first

from refimpl.verify.findings import Suspect
from refimpl.verify.judge import gates
from refimpl.verify.judge.evidence import Change, Evidence, combined
from refimpl.verify.judge.fit import golden
from refimpl.verify.judge.rank import rank, rank_cases
from refimpl.verify.judge.search import Search
from refimpl.verify.judge.segments import segments_of
from refimpl.verify.truth.cases import case
from refimpl.verify.truth.compare import Comparison, compare
from refimpl.verify.truth.passes import Pass, trace
from refimpl.verify.truth.rounding import noisy
from refimpl.verify.zoo import ZOO
from refimpl.verify.zoo.mistake import with_config, with_window


def gave(name: str, change: Change, only: str | None = None, dtype: str = "float32") -> Evidence:
    """What a port with the change gives for a case."""
    p = case(name).model()
    port = p.astype(np.float32) if dtype == "float32" else noisy(p, dtype, 99)
    dump = {k: x.astype(np.float64) for k, x in trace(change(port)).items() if only in (None, k)}
    return Evidence(p, dump, compare(p, dump, dtype).culprit, dtype)


def right(p: Pass) -> Pass:
    return p


@cache
def suspects_of(mistake: str, only: str | None) -> list[Suspect]:
    return rank_cases([gave("positions-left", ZOO[mistake].apply, only)])


def test_rank_of_a_right_port_is_empty() -> None:
    one = gave("window-66", right)
    assert one.culprit is None
    assert rank(one.p, one.port, one.culprit, one.dtype) == []


@pytest.mark.parametrize("mistake", ["C1", "W3b", "R1a", "A1a", "N3", "F1"])
@pytest.mark.parametrize("only", [None, "final_norm"])
def test_rank_names_the_mistake_first(mistake: str, only: str | None) -> None:
    best = suspects_of(mistake, only)[0]
    assert best.id == mistake
    # What is left is float32 rounding: its square is lost in 1 - 1.
    assert 1.0 - best.explained < np.finfo(np.float32).eps


def test_rank_states_the_class() -> None:
    best = rank_cases([gave("eight-tokens", ZOO["W1"].apply)])[0]
    assert (best.id, set(best.tied_with)) == ("W1", {"W2", "W6b"})


def test_rank_prefers_who_breaks_nothing_that_is_right() -> None:
    """C3 gives layer 0 what C2a gives it, and other layers something wrong."""
    ranked = rank_cases([gave("pad-id-is-a-word", ZOO["C2a"].apply)])
    assert ranked[0].id == "C2a"
    assert "C3" not in [s.id for s in ranked[:1]]


def test_rank_uses_a_case_that_is_right_as_evidence() -> None:
    """F2 and F3 need a GELU; a silu case that the port has right speaks for nobody else."""
    given = [gave("pad-id-is-a-word", ZOO["F3"].apply), gave("eight-tokens", ZOO["F3"].apply)]
    assert [one.culprit is None for one in given] == [False, True]
    assert rank_cases(given)[0].id == "F3"


@pytest.mark.parametrize(
    ("id", "value", "change"),
    heavy_but_first(
        [
            ("C4b", 17.0, lambda p: with_config(p, local_rope_theta=17.0)),
            ("W4a", 4, lambda p: with_window(p, lambda w: None if w is None else 4)),
            ("C7a", 0.0125, lambda p: with_config(p, norm_eps=0.0125)),
        ]
    ),
)
def test_rank_fits_a_value_that_the_zoo_does_not_have(
    id: str, value: float, change: Change
) -> None:
    best = rank_cases([gave("positions-left", change)])[0]
    assert best.id == id
    assert f"{value:g}" in best.title


def test_rank_finds_two_mistakes() -> None:
    both = combined([ZOO["F1"].apply, ZOO["R8b"].apply])
    ranked = rank_cases([gave("eight-tokens", both)])
    assert {s.id for s in ranked[:2]} == {"F1", "R8b"}
    assert [s.together_with for s in ranked] == [(s.id,) for s in ranked[1::-1]]
    assert all(s.together is not None and s.together > 0.999 for s in ranked)


def test_rank_sees_through_bfloat16() -> None:
    assert rank_cases([gave("positions-left", ZOO["C1"].apply, dtype="bfloat16")])[0].id == "C1"


def test_rank_of_nan() -> None:
    """A fully masked row's NaN is explained by NaN in the same places."""
    best = rank_cases([gave("cls-padding", ZOO["W9"].apply)])[0]
    assert best.id == "W9"


def test_rank_reads_no_padding() -> None:
    one = gave("cls-padding", ZOO["F1"].apply)
    hidden = ~one.real
    poisoned = {
        k: np.where(hidden.reshape(*hidden.shape, *[1] * (x.ndim - 2)), np.nan, x)
        if x.shape[:2] == hidden.shape
        else x
        for k, x in one.port.items()
    }
    ranked = rank_cases([Evidence(one.p, poisoned, one.culprit, one.dtype)])
    assert ranked[0].id == "F1"


def test_evidence_floor_is_above_the_family() -> None:
    """A legitimate float32 evaluation costs the reference nothing."""
    p = case("eight-tokens").model()
    dump = trace(noisy(p, "float32", 12345))
    one = Evidence(p, dump, None, "float32")
    # K covers the spread between members; a stray step may pass it by a little, none by twice.
    assert max(one.own[k] / one.floor[k] for k in one.own) < 2.0


def test_golden_finds_the_dip() -> None:
    assert golden(lambda x: (x - 0.3) ** 2, 0.0, 1.0) == pytest.approx(0.3, abs=1e-4)


@pytest.mark.parametrize(("made", "other"), [("H4a", "H4b"), ("H4b", "H4a")])
def test_probabilities_of_a_classifier_are_told_from_those_of_every_head(
    made: str, other: str
) -> None:
    evidence = [gave(name, ZOO[made].apply) for name in ("one-token", "cls-padding")]
    told = rank_cases(evidence)
    assert [s.id for s in told] == [made] and other not in told[0].tied_with
    alone = rank_cases(evidence[1:])[0]  # no other head: the two give the same numbers
    assert {alone.id, *alone.tied_with} == {"H4a", "H4b"}


def wider_scores(p: Pass) -> Pass:
    """A mistake that the zoo does not have."""
    attention = p.ops.attention
    return p.with_ops(attention=lambda q, k, v, mask, w: attention(1.013 * q, k, v, mask, w))


def denied(change: Change) -> set[str]:
    """The roundings that a port with the change cannot have, before any mistake is found."""
    search = Search([gave(name, change) for name in ("two-tokens", "eight-tokens")], [])
    search.panel = [segment for one in search.evidence for segment in segments_of(one)]
    return {c.id for c in search.roundings if search.denied(c)}


def test_a_rounding_is_denied_where_the_port_is_right_and_no_other() -> None:
    roundings = {"X1a", "X1b", "X1c", "N8"}
    assert roundings <= denied(wider_scores)
    for id in roundings:
        assert id not in denied(ZOO[id].apply)


def test_a_deviation_that_leaves_the_first_wrong_step_is_not_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def counted(p: Pass, *others: Any) -> Comparison:
        asked.append(p)
        return compare(p, *others)

    monkeypatch.setattr(gates, "compare", counted)
    for change, some in ((wider_scores, False), (ZOO["F2"].apply, True)):
        one = gave("plain-short", change)
        found = compare(one.p, one.port, "float32")
        asked.clear()
        deviation = gates.deviation_of(one.p, one.port, "float32", found)
        assert bool(asked) == some == (deviation is not None)


def test_suspect_is_told_with_citations() -> None:
    best = suspects_of("C1", None)[0]
    assert best.citations == ZOO["C1"].citations
    assert replace(best, explained=0.0).title == ZOO["C1"].title
