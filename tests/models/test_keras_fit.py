"""compile, fit and evaluate of a model: Keras' calls, over the trainer."""

from __future__ import annotations

import numpy as np
import pytest

import refimpl
from refimpl.train import AdamW

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 24)
IDS = np.stack([np.full(24, 1), 10 + LABELS, RNG.integers(20, 40, 24), np.full(24, 2)], axis=1)
MASK = np.ones_like(IDS)
MASK[::3, 3:] = 0
SMALL = dict(num_layers=2, hidden_size=16, num_heads=2, intermediate_size=12, vocab_size=50)


def model_of(*tasks: str, backend: str = "auto", **more):
    configs = [refimpl.NLPTaskConfig(f"task{i}", t, num_classes=3) for i, t in enumerate(tasks)]
    model = refimpl.create_modern_bert_with_head(
        "tiny", configs[0] if len(configs) == 1 else configs, bert_config_overrides=SMALL
    )
    return model


def test_it_learns_and_the_history_is_that_of_keras():
    model = model_of("text_classification")
    model.compile(optimizer="adamw", learning_rate=1e-2, metrics=["accuracy"])
    before = model.evaluate(IDS, LABELS)
    found = model.fit(IDS, LABELS, batch_size=8, epochs=12, validation_data=(IDS, LABELS))
    assert {n: len(v) for n, v in found.history.items()} == {
        "loss": 12, "val_loss": 12, "val_accuracy": 12
    }  # fmt: skip
    after = model.evaluate(IDS, LABELS)
    assert after["accuracy"] > 0.9 > before["accuracy"] and set(after) == {"loss", "accuracy"}
    assert after["loss"] == pytest.approx(found.history["val_loss"][-1], rel=1e-4)
    assert model.predict(IDS)["logits"].argmax(-1).tolist() == LABELS.tolist()


def test_a_folder_saved_after_fit_has_what_was_learned(tmp_path):
    model = model_of("text_classification")
    model.compile(learning_rate=1e-2)
    model.fit(IDS, LABELS, epochs=1)
    model.save_pretrained(tmp_path)
    np.testing.assert_allclose(
        refimpl.load(tmp_path)(IDS)["logits"], model(IDS)["logits"], atol=1e-5
    )


def test_padding_has_no_part_in_it():
    found = []
    for width in (4, 9):
        model = model_of("token_classification")
        ids, mask = (np.zeros((24, width), np.int64) for _ in range(2))
        ids[:, :4], mask[:, :4] = IDS, MASK
        labels = np.where(mask, 1, -100)
        model.compile(learning_rate=1e-3)
        model.fit({"input_ids": ids, "attention_mask": mask}, labels, epochs=1)
        found.append({n: x.tobytes() for n, x in model.params.items()})
    assert found[0] == found[1]


def test_moments_go_on_from_fit_to_fit_and_each_has_its_order():
    model, optimizer = model_of("text_classification"), AdamW(weight_decay=0.0)
    model.compile(optimizer=optimizer, learning_rate=1e-3)
    model.fit(IDS, LABELS, batch_size=8)
    model.fit(IDS, LABELS, batch_size=8)
    assert optimizer.steps == 6


def test_several_tasks_share_an_encoder():
    model = model_of("text_classification", "token_classification")
    labels = {"task0": LABELS, "task1": np.where(MASK, LABELS[:, None], -100)}
    model.compile(learning_rate=1e-2)
    x = {"input_ids": IDS, "attention_mask": MASK}
    found = model.fit(x, labels, batch_size=8, epochs=6, validation_data=(x, labels)).history
    assert found["val_loss"][-1] < found["val_loss"][0]
    assert {"loss", "task0_loss", "task1_loss"} == set(model.evaluate(x, labels))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.fit(IDS, LABELS), ValueError, "model is not compiled; model.compile"),
        (lambda m: m.compile(loss="mse"), ValueError, "loss is 'mse'; a head has its own"),
        (lambda m: m.compile("sgd"), ValueError, "optimizer is 'sgd'; known: adamw, stable_adamw"),
        (lambda m: m.compile("Adam"), ValueError, "; adamw is Adam where weight_decay is 0"),
        (lambda m: m.compile(3), TypeError, "optimizer is 3; it must be a name"),
        (lambda m: m.compile(metrics="accuracy"), TypeError, "must be a list of names"),
        (lambda m: m.compile(momentum=1), TypeError, "momentum"),
        (lambda m: m.evaluate(IDS), ValueError, "y is missing"),
        (lambda m: m.evaluate(IDS, LABELS[1:]), ValueError, "y has 23 rows, x has 24"),
        (lambda m: m.evaluate(IDS, LABELS + 5), ValueError, "labels.*must be in 0 .. 2"),
        (
            lambda m: m.evaluate({"input_ids": IDS, "attention_mask": MASK[:, ::-1]}, LABELS),
            ValueError,
            "padding stands on the right",
        ),
        (lambda m: m.evaluate(["a"], [0]), ValueError, "came from no folder with a tokenizer"),
    ],
)
def test_what_is_wrong_is_told(call, error, message):
    with pytest.raises(error, match=message):
        call(model_of("text_classification"))


def test_an_unknown_figure_and_a_bare_encoder_are_told():
    model = model_of("text_classification")
    model.compile(metrics=["auc"])
    with pytest.raises(ValueError, match="metrics has 'auc'; this task has loss, accuracy"):
        model.evaluate(IDS, LABELS)
    with pytest.raises(ValueError, match="model has no head, which has no loss here"):
        refimpl.ModernBERT.from_variant("tiny", **SMALL).compile()


def test_texts_go_through_the_folders_tokenizer():
    task = refimpl.NLPTaskConfig("mood", "text_classification", num_classes=2)
    model = refimpl.create_modern_bert_with_head("tiny", task, pretrained=True)
    model.compile(learning_rate=1e-3)
    model.fit(["a fine day", "an awful day, really"], [0, 1], epochs=1, verbose=False)
    assert model.evaluate(["a fine day"], [0])["loss"] > 0
