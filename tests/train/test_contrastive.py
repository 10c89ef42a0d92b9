"""Losses of embeddings: gradients by differences, and a step that is the whole batch's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.text_folders import sentence_folder

import refimpl
from refimpl.tasks.task import tokenizer_of
from refimpl.train import contrastive
from refimpl.train.embedding import embedding, embedding_gradients
from refimpl.train.embedding_work import Contrastive, without_duplicates
from refimpl.train.loss_gradients import Draws
from refimpl.train.pairs import Together
from refimpl.train.settings import Settings

OWN = "sentence_transformers.models."
MODULES = [
    (OWN + "Pooling", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}),
    (OWN + "Dense", {"in_features": 32, "out_features": 8}),
    (OWN + "Normalize", {}),
]
N, WIDTH = 5, 7
SCORES = np.array([0.1, 0.9, 0.4, 0.4, 0.7])
LOSSES = {
    "multiple negatives": (lambda a, b, c: contrastive.multiple_negatives(a, [b, c]), 3),
    "cosent": (lambda a, b: contrastive.cosent(a, b, SCORES), 2),
    "cosine similarity": (lambda a, b: contrastive.cosine_similarity(a, b, SCORES), 2),
    "triplet": (lambda a, b, c: contrastive.triplet(a, b, c, margin=0.3), 3),
    "margin mse": (lambda a, b, c: contrastive.margin_mse(a, b, c, SCORES), 3),
    "matryoshka": (
        lambda a, b: contrastive.matryoshka(
            lambda x, y: contrastive.multiple_negatives(x, [y]), [a, b], [7, 3]
        ),
        2,
    ),
}


def inputs(n: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((N, WIDTH)) for _ in range(n)]


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_the_differences_of_the_loss(name):
    loss, n = LOSSES[name]
    given = inputs(n)
    found = loss(*given)
    rng = np.random.default_rng(1)
    for i in range(n):
        v = rng.standard_normal((N, WIDTH))

        def at(h: float, i: int = i, v: np.ndarray = v) -> float:
            return loss(*(x + h * v if j == i else x for j, x in enumerate(given))).total

        h = 1e-3  # Richardson: the error is of the fourth order
        slope = (8 * (at(h / 2) - at(-h / 2)) - (at(h) - at(-h))) / (6 * h)
        assert slope == pytest.approx((found.gradients[i] * v).sum(), rel=1e-7, abs=1e-8)


def test_gradients_keep_the_dtype():
    for loss, n in LOSSES.values():
        found = loss(*(x.astype(np.float32) for x in inputs(n)))
        assert {g.dtype.name for g in found.gradients} == {"float32"}


def test_right_pairs_cost_little_and_wrong_ones_much():
    eye = np.eye(4)
    assert contrastive.multiple_negatives(eye, [eye]).total < 1e-6
    assert contrastive.multiple_negatives(eye, [np.roll(eye, 1, axis=0)]).total > 40
    assert contrastive.triplet(eye, eye, 9 * eye).total == 0
    with pytest.raises(ValueError, match=r"widths has 9; it must be in 1 .. 7"):
        contrastive.matryoshka(contrastive.triplet, inputs(3), [9])


# -- a step ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = sentence_folder(tmp_path_factory.mktemp("st"), MODULES)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.1}))
    return refimpl.load(folder, backend="numpy", dtype="float64")


def rows() -> list[Together]:
    return [Together(f"row {i}", [f"number {i}", f"digit {i} " * (i + 1)], None) for i in range(4)]


def test_a_step_is_the_gradient_of_its_loss(model):
    """By differences along a random direction of all parameters, dropout included."""
    work = Contrastive(rows(), tokenizer_of(model), 64)
    settings = Settings(epochs=1, batch_size=4)
    work.begin(model, settings)
    found = work.step(model, 0, settings, list(model.params))
    rng = np.random.default_rng(0)
    params = {name: np.array(x) for name, x in model.params.items()}
    v = {
        name: rng.standard_normal(x.shape) * (np.abs(x).max() or 1.0) for name, x in params.items()
    }

    def at(h: float) -> float:
        moved = {name: x + h * v[name] for name, x in params.items()}
        other = refimpl.ModernBERTForTask(model.config, moved, model.head, backend="numpy")
        return work.step(other, 0, settings, []).loss

    h = 1e-5
    slope = (8 * (at(h / 2) - at(-h / 2)) - (at(h) - at(-h))) / (6 * h)
    exact = sum((found.gradients[name] * x).sum() for name, x in v.items())
    assert slope == pytest.approx(exact, rel=1e-6)


def test_the_second_pass_has_the_dropout_of_the_first(model):
    ids, draws = np.array([1, 9, 8, 7, 2]), Draws(3, 5, 7)
    one = embedding(model, ids, draws)
    np.testing.assert_array_equal(embedding(model, ids, draws), one)
    assert not np.array_equal(embedding(model, ids, Draws(3, 6, 7)), one)
    grads = embedding_gradients(model, ids, np.ones_like(one), draws)
    assert set(grads) == set(model.params)


def test_other_heads_have_no_embedding(tmp_path):
    task = refimpl.NLPTaskConfig("mood", "text_classification", num_classes=2)
    other = refimpl.create_modern_bert_with_head("tiny", task)
    with pytest.raises(ValueError, match="embeddings need sentence modules"):
        embedding(other, np.array([1, 2]), None)


def test_no_text_stands_twice_in_a_batch():
    texts = [["a", "b"], ["a", "c"], ["d", "e"], ["f", "b"], ["g", "g"], ["d", "h"]]
    batches = without_duplicates(texts, 3, np.array([5, 0, 1, 2, 3, 4]))
    assert sorted(np.concatenate(batches)) == list(range(6))
    for batch in batches:
        used = [t for i in batch for t in set(texts[i])]
        assert len(used) == len(set(used)) and len(batch) <= 3
    assert batches[0].tolist() == [5, 0, 4] and batches[1].tolist() == [1, 2, 3]


def test_columns_that_differ_are_refused(model):
    mixed = [*rows(), Together("row 9", ["a", "b", "c"], None)]
    with pytest.raises(ValueError, match="row 9: its columns are not those of row 0"):
        Contrastive(mixed, tokenizer_of(model), 64)
