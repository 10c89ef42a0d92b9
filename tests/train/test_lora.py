"""Adapters: their gradients, PEFT's folder, merging; freezing; learning rates by layer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.folders import change_json
from test_trainer import examples, small_model, trained

import refimpl
from refimpl.train import Adapter, lora, merged, read_adapter, unmerged, write_adapter
from refimpl.train.loss_gradients import gradients
from refimpl.train.settings import Settings
from refimpl.train.trainable import Trainable, depth
from refimpl.train.trainer import Trainer

LORA = Settings(epochs=2, batch_size=6, learning_rate=1e-2, lora_rank=2)


def drawn(model, rank: int = 2, seed: int = 0) -> Adapter:
    adapter = lora.drawn(model.params, rank, seed=seed)
    rng = np.random.default_rng(seed)
    for _, b in adapter.pairs.values():
        b[...] = 0.1 * rng.standard_normal(b.shape)
    return adapter


def test_a_new_adapter_changes_nothing():
    model = small_model(dtype="float64")
    adapter = lora.drawn(model.params, 3)
    assert {n.split(".", 2)[2] for n in adapter.pairs} == {"attn.Wqkv", "attn.Wo"}
    for name, x in merged(model.params, adapter).items():
        np.testing.assert_array_equal(x, model.params[name])
    a, _ = adapter.pairs["layers.0.attn.Wo"]
    assert np.abs(a).max() <= 1 / np.sqrt(16) and np.abs(a).max() > 0.2
    assert adapter.scale == 2.0


def test_unmerging_is_the_way_back():
    model = small_model(dtype="float64")
    adapter = drawn(model)
    there = merged(model.params, adapter)
    assert not np.allclose(
        there["layers.0.attn.Wo.weight"], model.params["layers.0.attn.Wo.weight"]
    )
    for name, x in unmerged(there, adapter).items():
        np.testing.assert_allclose(x, model.params[name], atol=1e-15)


def test_gradients_of_adapters_are_the_differences_of_the_loss():
    rates = dict(attention_dropout=0.0, mlp_dropout=0.0, classifier_dropout=0.0)
    model = small_model(dtype="float64", **rates)
    adapter, unit = drawn(model), examples().examples.units[0]
    (ids,), labels = unit.sequences, unit.labels

    def of(params):
        own = refimpl.ModernBERTForTask(model.config, params, model.head, backend="numpy")
        return gradients(own, ids[None], labels, task="classify")

    found = lora.gradients(adapter, of(merged(model.params, adapter))[1])
    rng, h = np.random.default_rng(3), 1e-4
    for name, x in adapter.tensors().items():
        v, before = rng.standard_normal(x.shape), x.copy()
        values = []
        for step in (h, -h, h / 2, -h / 2):
            x[...] = before + step * v
            values.append(of(merged(model.params, adapter))[0])
        x[...] = before
        slope = (8 * (values[2] - values[3]) - (values[0] - values[1])) / (6 * h)
        assert slope == pytest.approx((found[name] * v).sum(), rel=1e-6, abs=1e-10)


def test_a_run_with_adapters_trains_them_and_the_head_alone(tmp_path):
    trainer, _ = trained(tmp_path, LORA)
    start = small_model()
    for name, x in trainer.params.items():
        changed = not np.array_equal(x, start.params[name])
        in_head = name.startswith(("classifier", "head"))
        assert changed == (in_head or "attn.W" in name), name
    adapter, whole = read_adapter(tmp_path / "adapter", start.params)
    assert set(whole) == {n for n in start.params if n.startswith(("classifier", "head"))}
    again = merged({**start.params, **whole}, adapter)
    saved = refimpl.load(tmp_path, backend="numpy").params
    for name, x in again.items():
        np.testing.assert_allclose(x, saved[name], atol=1e-6)


def test_a_run_with_adapters_goes_on_with_the_same_bits(tmp_path):
    from test_trainer import bits

    settings = Settings(**{**vars(LORA), "epochs": 3})
    trained(tmp_path / "whole", settings)

    class Stopped(Exception):
        pass

    def tell(line):
        if line.startswith("step 5/"):
            raise Stopped

    with pytest.raises(Stopped):
        trained(tmp_path / "broken", settings, tell=tell)
    trained(tmp_path / "broken", settings, resume=True)
    assert bits(tmp_path / "broken") == bits(tmp_path / "whole")


def written(tmp_path):
    model = small_model()
    write_adapter(tmp_path, drawn(model), model.params, model.config, model.head, "base")
    return model, tmp_path / "adapter_config.json"


def test_what_is_written_is_read(tmp_path):
    model, file = written(tmp_path)
    found, _ = read_adapter(tmp_path, model.params)
    want = drawn(model)
    assert found.scale == want.scale and set(found.pairs) == set(want.pairs)
    for name, pair in want.pairs.items():
        for x, y in zip(found.pairs[name], pair, strict=True):
            np.testing.assert_array_equal(x, y)
    content = json.loads(file.read_text())
    assert content["target_modules"] == ["attn.Wo", "attn.Wqkv"]
    assert content["modules_to_save"] == ["classifier", "head"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(peft_type="IA3"), "is 'IA3'; supported: LORA"),
        (dict(use_dora=True), "is True; which is not supported"),
        (dict(rank_pattern={"Wo": 4}), "which is not supported"),
        (dict(init_lora_weights="pissa"), "is 'pissa'; which is not supported"),
        (dict(scale_of_tomorrow=2), "unknown key"),
        (dict(r=3), "for a matrix .* and r 3"),
        (dict(r=None), "is None; it must be an integer"),
        (dict(r=0), "it must be at least 1"),
        (dict(lora_alpha="8"), "is '8'; it must be a number"),
    ],
)
def test_what_would_change_the_numbers_is_refused(tmp_path, change, message):
    model, file = written(tmp_path)
    change_json(file, **change)
    with pytest.raises(refimpl.ModelFormatError, match=message):
        read_adapter(tmp_path, model.params)


def test_a_stabilised_rank_scales_by_its_root(tmp_path):
    model, file = written(tmp_path)
    change_json(file, use_rslora=True)
    assert read_adapter(tmp_path, model.params)[0].scale == pytest.approx(4 / np.sqrt(2))


def test_an_adapter_of_another_model_is_refused(tmp_path):
    model, _ = written(tmp_path)
    other = {n: x for n, x in model.params.items() if not n.startswith("layers.1.")}
    with pytest.raises(refimpl.ModelFormatError, match="is no tensor of this model"):
        read_adapter(tmp_path, other)


def test_a_rank_and_targets_are_checked():
    model = small_model()
    with pytest.raises(ValueError, match="rank is 0"):
        lora.drawn(model.params, 0)
    with pytest.raises(ValueError, match="targets is .'query'.; no matrix"):
        lora.drawn(model.params, 2, targets=["query"])


# -- freezing and rates ---------------------------------------------------------------------------


def test_frozen_parameters_stay(tmp_path):
    frozen = ("embeddings.", "layers.0.")
    settings = Settings(epochs=1, batch_size=6, learning_rate=1e-2, freeze=frozen)
    trainer, _ = trained(tmp_path, settings)
    start = small_model()
    for name, x in trainer.params.items():
        assert np.array_equal(x, start.params[name]) == name.startswith(frozen), name


def test_what_freezes_nothing_or_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="freeze is 'encoder'; no parameter begins so: .*layers"):
        trained(tmp_path, Settings(freeze=("encoder",)))
    everything = ("embeddings", "layers", "final_norm", "head", "classifier")
    with pytest.raises(ValueError, match="that leaves nothing to train"):
        trained(tmp_path, Settings(freeze=everything))


def test_learning_rates_fall_from_layer_to_layer(tmp_path):
    names = ("classifier.weight", "final_norm.weight", "layers.1.mlp.Wi.weight",
             "layers.0.mlp.Wi.weight", "embeddings.norm.weight")  # fmt: skip
    assert [depth(name, 2) for name in names] == [0, 0, 1, 2, 3]
    model = small_model()
    settings = Settings(
        layer_decay=0.5, batch_size=6, epochs=1, warmup=0.0, weight_decay=0.0, learning_rate=8e-5
    )
    parts = Trainable(model, dict(model.params), settings)
    assert parts.rates["layers.0.attn.Wo.weight"] == 0.25
    one = Trainer(model, examples(), None, settings, None)
    one._step()
    for name, share in (("classifier.weight", 1.0), ("layers.0.attn.Wo.weight", 0.25)):
        moved = np.abs(one.params[name] - model.params[name]).max()
        assert moved == pytest.approx(8e-5 * share, rel=0.02)


def test_label_smoothing_is_in_the_loss(tmp_path):
    losses = []
    for e in (0.0, 0.5):
        settings = Settings(epochs=1, batch_size=18, label_smoothing=e)
        losses.append(Trainer(small_model(), examples(), None, settings, None).run()["loss"])
    assert losses[0] != losses[1]


def test_the_command_writes_an_adapter(tmp_path, capsys):
    from refimpl.cli import main

    data = tmp_path / "a.jsonl"
    data.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    out = tmp_path / "out"
    call = ["finetune", "classify", str(data), "--out", str(out), "--epochs", "1", "--lora", "2"]
    assert main(call) == 0, capsys.readouterr().err
    assert (out / "adapter" / "adapter_model.safetensors").exists()
    assert main(["classify", "--model", str(out), "a text"]) == 0
