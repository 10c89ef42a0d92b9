"""Heads on the device engine, run on this processor, against float64 and in other company."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support import parity
from support.budget import FACTOR, family_figures, relative_l2
from support.cases import CASES, mixed
from support.cuda import usable

from refimpl.backends.engine import Engine
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.heads import HEADS
from refimpl.reference.sentence import (
    Dense,
    LayerNorm,
    Normalize,
    Pooling,
    SentenceHead,
    normalize,
)

# A minute to build, and a kernel is slow here.
pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("its_library")]
if not usable():
    pytest.skip("no sources of the engine, or no C++ compiler, here", allow_module_level=True)

MIXED = mixed(90, (64, "left"), (20, "right"), (90, "none"), (70, "inside"), (0, "empty"))
CASE = CASES[0]
CONFIG = ModernBertConfig.from_dict(CASE.config())
H = CASE.hidden
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
CHAIN = (Dense(2 * H, 37, True, "tanh"), LayerNorm(37), Dense(37, 50, False, "linear"), Normalize())
INPUTS = CASE.inputs(MIXED)
ROWS: dict[str, Any] = dict(input_ids=INPUTS.input_ids, attention_mask=INPUTS.mask)
ROWS |= dict.fromkeys(("inputs_embeds", "token_type_ids", "position_ids"))
LIVE = INPUTS.mask.any(axis=1)


@pytest.mark.parametrize("prompt_length", [0, 5])
@pytest.mark.parametrize("mode", MODES)
def test_poolings_are_float64s_rounded_once(mode: str, prompt_length: int):
    head = SentenceHead((Pooling(H, (mode,), include_prompt=False),))
    engine = Engine(CONFIG, CASE.params(dtype=np.float32), head=head, backend="cuda")
    got = engine.embed(ROWS, prompt_length=prompt_length)
    hidden = engine.padded(**ROWS).astype(np.float64)
    exact = head.forward({}, CONFIG, hidden, INPUTS.mask, prompt_length=prompt_length)
    assert (np.abs(got - exact["embeddings"]) <= np.spacing(np.abs(got))).all()
    assert not got[~LIVE].any() and got[LIVE].any(axis=1).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_modules_stay_within_the_budget_of_float64(dtype: str):
    """Of the engine's own hidden states: twice the worst of ten orders of float32 sums."""
    rng = np.random.default_rng(5)
    head = SentenceHead((Pooling(H, ("mean", "max"), False), *CHAIN))
    drawn = {n: rng.normal(size=s).astype(np.float32) for n, s in head.shapes(CONFIG).items()}
    params = CASE.params(dtype=np.float32) | drawn
    engine = Engine(CONFIG, params, dtype=dtype, head=head, backend="cuda")
    hidden = engine.padded(**ROWS)

    def vectors(of: dict[str, np.ndarray], tokens: np.ndarray, prompt: int) -> np.ndarray:
        given = of, CONFIG, tokens, INPUTS.mask
        return head.forward(*given, prompt_length=prompt)["embeddings"]

    for prompt in (0, 5):
        wide = {n: x.astype(np.float64) for n, x in drawn.items()}
        truth = vectors(wide, hidden.astype(np.float64), prompt)
        shorter = normalize(truth[:, :20])
        worst = np.zeros(2)
        for _ in range(10):
            columns, between = rng.permutation(H), rng.permutation(37)
            other = {n: x[between] if len(x) == 37 else x[:, between] for n, x in drawn.items()}
            first = other["2_Dense.linear.weight"]
            other["2_Dense.linear.weight"] = first[:, np.concatenate([columns, H + columns])]
            legitimate = vectors(other, hidden[:, :, columns], prompt)
            both = (legitimate, truth), (normalize(legitimate[:, :20]), shorter)
            worst = np.maximum(worst, [relative_l2(a, b).max() for a, b in both])
        got = engine.embed(ROWS, prompt_length=prompt)
        assert relative_l2(got, truth).max() <= FACTOR * worst[0]
        got = engine.embed(ROWS, prompt_length=prompt, width=20, normalize=True)
        assert relative_l2(got, shorter).max() <= FACTOR * worst[1]


def test_a_row_alone_has_the_bits_that_it_has_among_others():
    head = SentenceHead((Pooling(H, MODES), Dense(len(MODES) * H, 70), LayerNorm(70), Normalize()))
    rng = np.random.default_rng(5)
    params = CASE.params(dtype=np.float32) | {
        n: rng.normal(size=s).astype(np.float32) for n, s in head.shapes(CONFIG).items()
    }
    engine = Engine(CONFIG, params, head=head, backend="cuda")
    together = engine.embed(ROWS)
    for i in range(len(together)):
        one = {n: None if x is None else x[i : i + 1] for n, x in ROWS.items()}
        np.testing.assert_array_equal(engine.embed(one)[0], together[i])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_logits_of_a_classifier_stay_within_the_budget(pooling: str, record_property):
    """All of them as one vector, against the float32 family's (budget.py)."""
    case, name = replace(CASE, pooling=pooling), "sequence_classification"
    params = case.params(name, np.float32)
    config = ModernBertConfig.from_dict(case.config())
    got = Engine(config, params, head=HEADS[name], backend="cuda").logits(ROWS)
    truth = parity.run(case, INPUTS, kinds=(name,))[name]
    observed = relative_l2(got[LIVE].reshape(-1), truth[LIVE].reshape(-1))
    budget = FACTOR * family_figures(case, MIXED, "float32")[name]["max"]
    record_property("observed / budget", f"{observed / budget:.2f}")
    assert observed <= budget
