"""The columns of the registries of activations and poolings are what others really call them."""

from importlib import import_module

import numpy as np
import pytest

from refimpl.reference.ops import ACTIVATIONS, activate
from refimpl.reference.pooling import POOLINGS, named, pool
from refimpl.reference.sentence import activation_of

torch = pytest.importorskip("torch")
activations = pytest.importorskip("transformers.activations")
pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.oracle

X = np.random.default_rng(0).normal(0, 3, 4000)


def made(path: str):
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)()


def close(ours: np.ndarray, theirs) -> None:
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_that_of_the_name(name):
    close(activate(X, name), activations.ACT2FN[name](torch.from_numpy(X)))


@pytest.mark.parametrize("name", [n for n, row in ACTIVATIONS.items() if row.torch])
def test_activation_is_that_of_the_class_under_both_its_paths(name):
    path = ACTIVATIONS[name].torch
    short = f"torch.nn.{path.rpartition('.')[2]}"
    assert type(made(short)) is type(made(path)) and activation_of(path) == name
    assert activation_of(short) == name
    close(activate(X, name), made(path)(torch.from_numpy(X)))


def test_poolings_are_those_of_sentence_transformers():
    from sentence_transformers.sentence_transformer.modules import Pooling

    assert set(named("sentence")) == set(Pooling.POOLING_MODES)
    hidden = np.random.default_rng(1).normal(size=(3, 7, 4))
    mask = np.array([[1] * 7, [1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 0]])
    features = dict(
        token_embeddings=torch.from_numpy(hidden), attention_mask=torch.from_numpy(mask)
    )
    for mode, name in named("sentence").items():
        if mode == "weightedmean":  # theirs counts from the column, ours from the first real token
            features["attention_mask"] = torch.from_numpy(np.sort(mask)[:, ::-1].copy())
        theirs = Pooling(4, pooling_mode=mode)(dict(features))["sentence_embedding"]
        ours = pool(hidden, features["attention_mask"].numpy(), name)
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=1e-12)


def test_poolings_are_those_of_the_classifier():
    from transformers import ModernBertConfig

    for name in named("classifier"):
        assert ModernBertConfig(classifier_pooling=name).classifier_pooling == name
    with pytest.raises(Exception, match="classifier_pooling"):
        ModernBertConfig(classifier_pooling="first_token")


def test_every_pooling_has_a_name_elsewhere():
    assert all(row.classifier or row.sentence or row.head for row in POOLINGS.values())
