"""A query's documents against one another: losses, their gradients, and runs that learn by them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.heavy import heavy_but_first
from support.native import extension
from test_finetune_tasks import finetune_of, lines

import refimpl
from refimpl.tasks.task import open_tokenizer
from refimpl.train import gradients
from refimpl.train.native import NativeStep
from refimpl.train.pairs import Query, query_rows
from refimpl.train.ranking import margin_mse, multiple_negatives
from refimpl.train.reranking import NEGATIVES, Reranking
from refimpl.train.settings import Settings
from refimpl.train.start import with_head
from refimpl.train.task_loss import MULTI

ROWS = [
    {"query": f"number {i}", "positive": f"digit {i}", "negatives": [f"cat {i}", "dog"]}
    for i in range(6)
]
SCORED = [{**row, "score": [3.0, 1.5 + i]} for i, row in enumerate(ROWS)]


def model_for(seed: int = 3, dtype: str = "float64", **more) -> refimpl.ModernBERTForTask:
    base = refimpl.ModernBERT.from_variant(
        "tiny", num_layers=2, hidden_size=16, num_heads=2, intermediate_size=20, vocab_size=8192,
        seed=seed, dtype=dtype, backend="numpy", **more,
    )  # fmt: skip
    return with_head(base, "sequence_classification", ["LABEL_0"], MULTI, seed)


def work_of(tmp_path: Path, loss: str = "ranking") -> Reranking:
    data = lines(tmp_path / "a.jsonl", ROWS if loss == "ranking" else SCORED)
    return Reranking(query_rows(data), open_tokenizer(), 64, loss)


# -- the losses -----------------------------------------------------------------------------------

numbers = st.lists(st.floats(-6, 6), min_size=2, max_size=6).map(np.array)


@given(numbers, st.integers(0, 99))
def test_gradients_are_those_of_differences(x, seed):
    margins, h = np.random.default_rng(seed).normal(size=len(x) - 1), 1e-5
    for loss in (multiple_negatives, lambda x: margin_mse(x, margins)):
        found = loss(x).gradients[0]
        for i in range(len(x)):
            up, down = x.copy(), x.copy()
            up[i], down[i] = x[i] + h, x[i] - h
            slope = (loss(up).total - loss(down).total) / (2 * h)
            assert found[i] == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_the_losses_say_what_their_formulas_say():
    x = np.array([0.3, -1.0, 2.0])
    s = 10 / (1 + np.exp(-x))
    want = -np.log(np.exp(s[0]) / np.exp(s).sum())
    assert multiple_negatives(x).total == pytest.approx(want) and multiple_negatives(x).count == 1
    loss = margin_mse(x, np.array([1.0, -2.0]))
    assert loss.total == pytest.approx((1.3 - 1) ** 2 + (-1.7 + 2) ** 2) and loss.count == 2


# -- a step ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["ranking", "margin"])
def test_a_step_has_the_slope_of_its_loss(tmp_path, loss):
    """Along a direction of all parameters, by central differences in float64."""
    model, work, how = model_for(), work_of(tmp_path, loss), Settings(batch_size=3)
    names = list(model.params)
    made = work.step(model, 1, how, names)
    rng, h = np.random.default_rng(0), 1e-6
    along = {n: rng.normal(size=x.shape) for n, x in model.params.items()}
    at = []
    for sign in (h, -h):
        moved = {n: x + sign * along[n] for n, x in model.params.items()}
        there = refimpl.ModernBERTForTask(model.config, moved, model.head, backend="numpy")
        at.append(work.step(there, 1, how, names).loss)
    slope = sum((made.gradients[n] * along[n]).sum() for n in names)
    assert slope == pytest.approx((at[0] - at[1]) / (2 * h), rel=1e-5)


def test_negatives_of_others_are_drawn_by_seed_and_step_and_are_not_ones_own(tmp_path):
    work, how = work_of(tmp_path), Settings(batch_size=4, seed=5)
    groups = work.groups(2, how)
    assert work.groups(2, how) == groups and work.groups(3, how) != groups
    assert work.groups(2, Settings(batch_size=2, accumulate=2, seed=5)) == groups
    for group in groups:
        documents = [document for _, document in group]
        assert len({query for query, _ in group}) == 1 and len(group) == 3 + NEGATIVES
        assert len(set(documents)) == len(documents)
    # One query alone has its own negatives and no others.
    assert [len(g) for g in work.groups(2, Settings(batch_size=1))] == [3]
    assert {len(g) for g in work_of(tmp_path, "margin").groups(0, how)} == {3}


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_engine_has_the_gradients_of_numpy(tmp_path, dropout):
    extension()
    work, how = work_of(tmp_path), Settings(batch_size=3)
    model = model_for(dtype="float32", classifier_dropout=dropout)
    names = list(model.params)
    want = work.step(model, 0, how, names)
    most = max(np.abs(x).max() for x in want.gradients.values())
    kept: dict[str, np.ndarray] = {}
    for sink in (None, lambda grads: kept.update({n: x.copy() for n, x in grads.items()})):
        engine = NativeStep(model, names, num_threads=2, sink=sink)
        got = work.step(model, 0, how, names, engine)
        assert got.loss == pytest.approx(want.loss, rel=1e-5) and got.tokens == want.tokens
        for name, x in want.gradients.items():
            mine = (kept if sink else got.gradients)[name]
            np.testing.assert_allclose(mine, x, atol=2e-5 * most, err_msg=name)


def test_dropout_is_the_same_on_the_way_back(tmp_path):
    """Slope along the classifier, whose input is dropped out."""
    work, how = work_of(tmp_path), Settings(batch_size=3)
    model, h, name = model_for(classifier_dropout=0.3), 1e-6, "classifier.weight"
    made = work.step(model, 0, how, [name])
    at = []
    for sign in (h, -h):
        moved = {**model.params, name: model.params[name] + sign}
        there = refimpl.ModernBERTForTask(model.config, moved, model.head, backend="numpy")
        at.append(work.step(there, 0, how, [name]).loss)
    assert made.gradients[name].sum() == pytest.approx((at[0] - at[1]) / (2 * h), rel=1e-4)


@settings(max_examples=10)
@given(st.integers(0, 99))
def test_given_slopes_go_through_the_classifier(seed):
    """`gradients` with task "scores": the sum of label x logit."""
    model, rng = model_for(seed), np.random.default_rng(seed)
    ids, d = rng.integers(0, 90, (3, 7)), rng.normal(size=(3, 1))
    loss, grads = gradients(model, ids, d, task="scores", normaliser=1.0)
    logits = np.asarray(model(ids)["logits"])
    assert loss == pytest.approx((logits * d).sum())
    assert grads["classifier.bias"][0] == pytest.approx(d.sum())


# -- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", heavy_but_first(["ranking", "margin"]))
def test_a_reranker_learns_to_put_what_fits_first(tmp_path, loss):
    data = lines(tmp_path / "a.jsonl", ROWS if loss == "ranking" else SCORED)
    figures = finetune_of(
        "rerank", [data], tmp_path / "out", evaluation=[data], loss=loss,
        settings=Settings(epochs=10, batch_size=3, learning_rate=2e-3),
    )  # fmt: skip
    assert figures["eval_ndcg_10"] >= 0.9
    saved = refimpl.load(tmp_path / "out")
    assert saved.head.kind == "sequence_classification" and saved.config.num_labels == 1
    logged = [json.loads(x) for x in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    losses = [x["eval_loss"] for x in logged if "eval_loss" in x]
    assert losses[-1] < losses[0]


BAD = {
    "a loss that is none": (ROWS, "cosine", "loss is 'cosine'; known: pairs, ranking, margin"),
    "no margins": (ROWS, "margin", "row 1: it has no margins; loss is 'margin'"),
    "margins": (SCORED, "ranking", "row 1: it has margins; loss is 'ranking'"),
    "a margin too few": ([{**SCORED[0], "score": 1}], "margin", "1 scores for 2 negatives"),
    "no number": ([{**SCORED[0], "score": [1, "x"]}], "margin", "score is 'x', which is no number"),
    "no positive": ([{"query": "q", "negative": "n"}], "ranking", "'positive' is missing"),
    "an empty one": ([{**ROWS[0], "negatives": ["a", " "]}], "ranking", "it must be a text or a"),
}


@pytest.mark.parametrize("what", BAD)
def test_rows_that_a_loss_cannot_use_are_told(tmp_path, what):
    rows, loss, message = BAD[what]
    data = lines(tmp_path / "bad.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        finetune_of("rerank", [data], tmp_path / "out", loss=loss)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", ["classify", "mask", "tokens"])
def test_a_loss_is_of_the_tasks_that_have_several(tmp_path, task):
    with pytest.raises(ValueError, match="loss is 'ranking'; it is of task embed and rerank, not"):
        finetune_of(task, [lines(tmp_path / "a.jsonl", ROWS)], tmp_path / "out", loss="ranking")


def test_a_query_is_read_as_it_stands(tmp_path):
    alone = {"query": "q", "positive": "p"}
    scored = {**SCORED[0], "score": [5.0, 2.0, 3.5]}
    data = lines(tmp_path / "a.jsonl", [SCORED[0], alone, scored])
    assert query_rows(data) == [
        Query(f"{data}, row 1", "number 0", ["digit 0", "cat 0", "dog"], [3.0, 1.5]),
        Query(f"{data}, row 2", "q", ["p"], None),
        Query(f"{data}, row 3", "number 0", ["digit 0", "cat 0", "dog"], [3.0, 1.5]),
    ]
