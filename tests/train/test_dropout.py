"""Random numbers by counter, and dropout: published answers, rates, masks that keep to a place."""

from __future__ import annotations

import numpy as np
import pytest
from support.adjoint import TOLERANCE, complex_forward, directions, normal
from support.cases import Case

import refimpl
from refimpl.nlp import NLPTaskConfig
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.reference.heads import HEADS
from refimpl.reference.params import encoder_shapes, initialise
from refimpl.reference.taps import record
from refimpl.train import Draws, gradients
from refimpl.train.counter import purpose, words
from refimpl.train.dropout import Dropout, rates

# Philox4x32-10's published answers: counter, key, four words.
ANSWERS = (
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0_A4093822,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


@pytest.mark.parametrize(("counter", "key", "answer"), ANSWERS)
def test_philox_gives_the_published_words(counter, key, answer):
    got = words(key, counter)
    assert got.dtype == np.uint32 and tuple(int(w) for w in got) == answer


def test_purpose_is_fnv_1a():
    assert purpose(0, "") == fnv("0 ") and purpose(7, "dropout glu") == fnv("7 dropout glu")
    assert fnv("a") == 0xAF63DC4C8601EC8C  # the published hash of "a"


def fnv(text: str) -> int:
    h = 0xCBF29CE484222325
    for c in text.encode():
        h = ((h ^ c) * 0x100000001B3) % 2**64
    return h


def dropout_over(batch: int, seq: int, rate: float = 0.3, step: int = 0, first: int = 0) -> Dropout:
    sequence, position = np.indices((batch, seq))
    return Dropout({"glu": rate, "probs": rate}, 5, step, first, 2, sequence, position)


def test_rates_and_scale():
    x = np.ones((8, 32, 64))
    y = dropout_over(8, 32)("layers.3.glu", x)
    kept = y != 0
    n, rate = x.size, 0.3
    assert abs(kept.mean() - (1 - rate)) <= 5 * np.sqrt(rate * (1 - rate) / n)  # 5 sigma
    assert set(np.unique(y)) == {0.0, 1 / (1 - rate)}
    assert dropout_over(8, 32)("layers.3.wi", x) is x  # no rate, no change
    assert dropout_over(8, 32, 0.0)("layers.3.glu", x) is x


def test_masks_of_layers_steps_and_seeds_are_independent():
    x = np.ones((4, 16, 64))
    one, two = dropout_over(4, 16), dropout_over(4, 16, step=1)
    masks = [one("layers.0.glu", x), one("layers.1.glu", x), two("layers.0.glu", x)]
    masks.append(dropout_over(4, 16, first=4)("layers.0.glu", x))
    centred = [m.ravel() - m.mean() for m in masks]
    for i, a in enumerate(centred):
        for b in centred[:i]:
            assert abs(a @ b) / np.sqrt((a @ a) * (b @ b)) <= 5 / np.sqrt(x[..., 0].size * 64)


def test_a_mask_keeps_to_its_place():
    x, drop = np.ones((4, 16, 12)), dropout_over(4, 16)
    whole = drop("layers.0.glu", x)
    np.testing.assert_array_equal(whole[:, :9], dropout_over(4, 9)("layers.0.glu", x[:, :9]))
    tail = dropout_over(2, 16, first=2)
    np.testing.assert_array_equal(whole[2:], tail("layers.0.glu", x[2:]))
    rows = np.array([3, 17, 40])
    some = drop.at(rows // 16, rows % 16)("layers.0.glu", x.reshape(-1, 12)[rows])
    np.testing.assert_array_equal(whole.reshape(-1, 12)[rows], some)


@pytest.mark.parametrize("block", [(0, 16, 0, 16), (3, 9, 1, 14), (5, 6, 7, 8)])
def test_factors_of_attention_weights_do_not_depend_on_the_block(block):
    keep = dropout_over(2, 16).keep(1, np.dtype(np.float64))
    start, stop, first, last = block
    whole = keep(1, 0, 16, 0, 16)
    np.testing.assert_array_equal(keep(1, *block), whole[:, start:stop, first:last])
    assert not np.array_equal(whole[0], whole[1])  # heads differ


def test_float32_masks_are_those_of_float64():
    x = np.ones((2, 16, 12))
    a, b = (dropout_over(2, 16)("layers.0.glu", x.astype(t)) for t in (np.float32, np.float64))
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a != 0, b != 0)


ALL = dict(attention_dropout=0.1, embedding_dropout=0.2, mlp_dropout=0.3, classifier_dropout=0.4)


def test_rates_are_those_of_the_config_and_the_head():
    config = ModernBertConfig.from_variant("tiny", **ALL)
    encoder = {"embedding": 0.2, "probs": 0.1, "attn_out": 0.1, "glu": 0.3}
    assert rates(config, None) == rates(config, HEADS["masked_lm"]) == encoder
    assert rates(config, HEADS["multiple_choice"]) == encoder | {"head.norm": 0.4}
    assert rates(ModernBertConfig(), HEADS["token_classification"]) == {}
    model = refimpl.create_modern_bert_with_head(
        "tiny", NLPTaskConfig("a", "text_regression", dropout_rate=0.25)
    )
    both = {"head.norm": 0.25, "head.intermediate.act": 0.25}
    assert rates(model.config, model.head) == both


CASE = Case("dropout", "v5", "fsf", 24, 3, 20, 31, 6, 160000.0, 10.0, labels=4)


@pytest.mark.parametrize("only", [*ALL, "all"])
@pytest.mark.parametrize("kind", ["token_classification", "sequence_classification"])
def test_the_gradient_is_that_of_the_pass_with_its_masks(kind, only):
    """Complex steps through the forward pass with its dropped steps and attention weights."""
    dropped = ALL if only == "all" else {only: 0.4}
    config = ModernBertConfig.from_dict({**CASE.config(), **dropped, "classifier_pooling": "cls"})
    head, params = HEADS[kind], CASE.params(kind)
    model = refimpl.ModernBERTForTask(config, params, head, backend="numpy")
    ids = np.arange(40).reshape(2, 20) % 31
    mask = np.ones((2, 20), np.int64)
    tokens = kind == "token_classification"
    labels = (ids % 4) if tokens else np.array([1, 3])
    task = "tokens" if tokens else "classify"
    loss, grads = gradients(
        model, {"input_ids": ids, "attention_mask": mask}, labels, task=task, draws=Draws(1, 2)
    )

    sequence, position = np.indices((2, 20))
    drop = Dropout(rates(config, head), 1, 2, 0, 3, sequence, position)
    v = directions(params, 1)
    moved = {name: x + 1j * 2.0**-100 * v[name] for name, x in params.items()}
    with complex_forward():
        hidden = encode(moved, config, ids, tap=drop, ops=drop.ops())
        own = drop if tokens else drop.at(np.arange(2), np.zeros(2, np.int64))
        logits = head.forward(moved, config, hidden, mask, tap=own)["logits"]
    x = logits.reshape(-1, 4)
    log_p = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    want = -log_p[np.arange(len(x)), labels.ravel()].mean()
    assert abs(loss - want.real) <= 1e-12
    got = sum((grads[n] * v[n]).sum() for n in v)
    scale = sum(np.linalg.norm(grads[n]) * np.linalg.norm(v[n]) for n in v)
    assert abs(got - want.imag * 2.0**100) <= TOLERANCE * scale
    plain, _ = gradients(model, ids, labels, task=task)
    assert abs(plain - loss) > 1e-3  # something was dropped


def test_dropped_attention_without_a_rate_is_that_of_the_reference():
    from refimpl.reference import ops
    from refimpl.train.dropout import attention, attention_packed

    q, k, v = (normal(n, 2, 40, 3, 4) for n in range(3))
    seen = normal(4, 2, 40) > 0
    for window in (None, 5):
        want = ops.attention(q, k, v, seen, window)
        np.testing.assert_allclose(attention(q, k, v, seen, window, None), want, atol=1e-14)
        cu = np.array([0, 3, 40])
        want = ops.attention_packed(q[0], k[0], v[0], cu, window)
        got = attention_packed(q[0], k[0], v[0], cu, window, None)
        np.testing.assert_allclose(got, want, atol=1e-14)


def test_where_transformers_drops_the_steps_are_dropped():
    """Every rate belongs to a step that the forward pass has, or to the weights."""
    config = ModernBertConfig.from_variant("tiny", num_layers=1, **ALL)
    steps = {}
    encode(
        initialise(encoder_shapes(config), config), config, np.array([[1, 2]]), tap=record(steps)
    )
    names = {name.removeprefix("layers.0.") for name in steps}
    assert set(rates(config, None)) - {"probs"} <= names
