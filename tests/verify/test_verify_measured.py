"""What is measured at a wrong step when no mistake of the zoo fits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from refimpl.verify.judge.evidence import Evidence
from refimpl.verify.judge.measured import measured
from refimpl.verify.judge.rank import ranking
from refimpl.verify.truth.cases import case
from refimpl.verify.truth.compare import compare
from refimpl.verify.truth.passes import trace
from refimpl.verify.zoo.mistake import at, rewired

Array = np.ndarray
P = case("window-66").model()
REAL = np.ones((1, 66), bool)
X = np.random.default_rng(0).normal(size=(1, 66, 32))
WEIGHT = P.params["layers.0.mlp_norm.weight"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: 0.98425098 * x, "a variance over n - 1"),
        (lambda x: -x, "the opposite sign"),
        (lambda x: x * 32**0.5, "sqrt(hidden)"),
        (lambda x: 3.7 * x, "it is 3.7 times what it should be"),
        (lambda x: x + 0.25, "0.25 is added to every entry"),
        (lambda x: 2 * x + 1, "it is 2 times what it should be (doubled), plus 1"),
        (lambda x: x[..., ::-1], "the channels are permuted: in reverse"),
        (lambda x: np.roll(x, 16, -1), "the halves are swapped"),
        (lambda x: x[:, ::-1], "the tokens are permuted: in reverse"),
        (lambda x: x * WEIGHT, "factor of its own (it is layers.0.mlp_norm.weight)"),
        (lambda x: x + WEIGHT, "offset of its own (it is layers.0.mlp_norm.weight)"),
        (lambda x: x * np.where(np.arange(32) < 5, -1, 1), "5 of 32 channels have the opposite"),
        (lambda x: x * np.linspace(1, 2, 66)[:, None], "each token has a factor of its own"),
        (lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True), "divided by its length"),
        (lambda x: 0 * x, "all entries are zero"),
        (lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), "the softmax"),
    ],
)
def test_a_relation_is_told(change: Callable[[Array], Array], text: str) -> None:
    found = measured("layers.0.wi", X, change(X), REAL, P.params, P.config)
    assert found is not None and text in found[0]
    assert 0.99 <= found[1] <= 1.0


def test_noise_has_no_relation() -> None:
    other = X + np.random.default_rng(1).normal(size=X.shape)
    assert measured("layers.0.wi", X, other, REAL, P.params, P.config) is None


@pytest.mark.heavy
def test_ranking_measures_what_nobody_has_made_before() -> None:
    """Norms of the MLP times 1.7: no mistake of the zoo, and no suspect."""
    p = case("eight-tokens").model()
    wrong = rewired(p, at("layers.*.mlp_norm", lambda name, value, seen: 1.7 * value))
    dump = trace(wrong.astype(np.float32))
    dump = {k: x.astype(np.float64) for k, x in dump.items()}
    one = Evidence(p, dump, compare(p, dump, "float32").culprit, "float32", "eight-tokens")
    found = ranking([one])
    assert not found.suspects
    assert found.facts[0].tap == "layers.0.mlp_norm"
    assert "1.7 times what it should be" in found.facts[0].text
