"""Honest ports: other evaluations of the same formulas are right, and a mistake in them is not.

All of it, over 20 sets of weights, is part of `modernbert verify --self-test`.
"""

import numpy as np
import pytest

from refimpl.verify.judge import selftest
from refimpl.verify.truth.cases import case
from refimpl.verify.truth.compare import compare
from refimpl.verify.truth.passes import trace
from refimpl.verify.zoo import ZOO
from refimpl.verify.zoo.honest import HONEST

NAMES = ("two-tokens", "eight-tokens", "padding-mixed", "packed", "hard-rows", "spans")


@pytest.mark.parametrize("id", list(HONEST))
@pytest.mark.parametrize("name", NAMES)
def test_an_honest_port_raises_no_alarm(name, id):
    assert [selftest.honest_alarm((name, seed, id)) for seed in (0, 1)] == [None, None]


@pytest.mark.parametrize("id", list(HONEST))
def test_a_variant_with_a_mistake_is_caught_by_far(id):
    variant, p = HONEST[id], case("eight-tokens").model()
    found = compare(p, variant.dump(ZOO["W3a"].apply(p)), variant.dtype)
    # One that replaces the attention replaces the mistake in it.
    assert (found.ratio >= selftest.CAUGHT) == (id != "flash")


def test_variants_are_what_they_say():
    p = case("cls-padding").model()
    plain = {k: x.astype(np.float64) for k, x in trace(p.astype(np.float32)).items()}
    for id, variant in HONEST.items():
        dump = variant.dump(case("eight-tokens" if id == "unpadded" else "cls-padding").model())
        assert set(dump) <= set(plain) | {"logits"}
        if id in ("wider", "fused", "blocked", "reversed", "flash", "wide-norms", "low-weights"):
            assert set(dump) == set(plain), id
            assert any(not np.array_equal(dump[k], plain[k]) for k in plain), id
    assert "layers.1.attn_norm" not in HONEST["folded"].dump(p)
    padded = case("pad-id-is-a-word")
    dump = HONEST["unpadded"].dump(padded.model())
    assert np.isnan(dump["final_norm"][~padded.real]).all()
    assert np.isfinite(dump["final_norm"][padded.real]).all() and "logits" not in dump
