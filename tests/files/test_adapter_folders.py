"""A PEFT adapter's folder as a model: the matrices beneath with its own in them, and its head."""

import json
import os
import shutil

import numpy as np
import pytest
from support.folders import change_json, change_tensors, make_folder, small_config, small_params

import refimpl
from refimpl.backends.backend import why_not_native
from refimpl.backends.pack import make_pack
from refimpl.files.adapter import read_adapter, write_adapter
from refimpl.models.model import bundled
from refimpl.reference.heads import HEADS
from refimpl.reference.lora import Adapter, merged
from refimpl.reference.params import encoder_shapes
from refimpl.reference.sentence import Dense, Normalize, Pooling, SentenceHead
from refimpl.reference.sentence import Settings as SentenceSettings
from refimpl.train import lora

IDS = np.array([[1, 7, 9, 4, 2], [1, 5, 2, 3, 3]])
MASK = (IDS != 3).astype(np.int64)
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OF_SENTENCES = ("modules.json", "1_Pooling", "2_Normalize", "config_sentence_transformers.json",
                "sentence_bert_config.json")  # fmt: skip
VECTORS = SentenceHead((Pooling(8), Normalize()), SentenceSettings(max_seq_length=16))


def some_adapter(params, rank: int = 2, seed: int = 0) -> Adapter:
    adapter = lora.drawn(params, rank, seed=seed)
    rng = np.random.default_rng(seed)
    for _, b in adapter.pairs.values():
        b[...] = rng.standard_normal(b.shape)
    return adapter


def adapted(tmp_path, kind: str = "sequence_classification", base_head=None, labels: int = 3):
    """A base's folder, an adapter's beside it, and the model that both make."""
    make_folder(tmp_path / "base", base_head or HEADS["masked_lm"], norm_eps=1e-4)
    names = {i: f"label {i}" for i in range(labels)}
    config = small_config(norm_eps=1e-4, id2label=names)
    head = (
        VECTORS if kind == "sentence_embedding" else HEADS[kind] if isinstance(kind, str) else kind
    )
    beneath = refimpl.load(tmp_path / "base", backend="numpy").params
    params = small_params(config, head, seed=9)
    params |= {n: beneath[n] for n in encoder_shapes(config)}
    if kind == "masked_lm":
        params |= dict(beneath)
    adapter = some_adapter(params)
    folder = tmp_path / "adapter"
    write_adapter(folder, adapter, params, config, head, "../base")
    model = refimpl.ModernBERTForTask(config, merged(params, adapter), head, backend="numpy")
    return folder, model


def write_config(folder, model, **changes):
    content = {**model.config.to_dict(), "architectures": [model.head.architecture], **changes}
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("backend", ["numpy", *["native"] * (why_not_native() is None)])
@pytest.mark.parametrize(
    "kind", ["sequence_classification", "token_classification", "question_answering", "masked_lm"]
)
def test_it_is_the_model_beneath_with_the_adapter_in_it(tmp_path, kind, backend):
    folder, want = adapted(tmp_path, kind, labels=2 if kind == "question_answering" else 3)
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    found = refimpl.load(folder, backend=backend)
    assert isinstance(found, refimpl.ModernBERTForTask) and found.head.kind == kind
    assert found.config.id2label == want.config.id2label
    for name, x in want.params.items():
        np.testing.assert_array_equal(found.params[name], x, err_msg=name)
    for name, x in want(inputs).items():
        got = found(inputs)[name]
        if name == "attention_mask":
            continue
        # The engine adds float32 in another order: some 1e-7 of values near 1, three layers deep.
        atol = 0 if backend == "numpy" else 1e-5
        axes = 1 if kind == "sequence_classification" else 2
        mask = MASK.astype(bool) if axes == 2 else slice(None)
        np.testing.assert_allclose(got[mask], x[mask], rtol=0, atol=atol)


@pytest.mark.parametrize("kind", ["sequence_classification", "token_classification"])
def test_without_a_config_its_task_and_its_classifier_say_what_the_head_is(tmp_path, kind):
    folder, want = adapted(tmp_path, kind)
    (folder / "config.json").unlink()
    found = refimpl.load(folder, backend="numpy")
    assert found.head.kind == kind
    assert found.config.id2label == {i: f"LABEL_{i}" for i in range(3)}
    np.testing.assert_array_equal(found(IDS)["logits"], want(IDS)["logits"])


def test_an_adapter_of_a_masked_lm_has_its_head(tmp_path):
    folder, want = adapted(tmp_path, "masked_lm")
    (folder / "config.json").unlink()
    found = refimpl.load(folder, backend="numpy")
    assert found.head.kind == "masked_lm"
    np.testing.assert_array_equal(found(IDS)["logits"], want(IDS)["logits"])


def test_an_adapter_of_a_model_of_vectors_has_its_modules(tmp_path):
    folder, want = adapted(tmp_path, "sentence_embedding", VECTORS)
    for name in OF_SENTENCES:
        (shutil.rmtree if (folder / name).is_dir() else os.remove)(folder / name)
    found = refimpl.load(folder, backend="numpy")
    assert found.sentence_head == VECTORS
    np.testing.assert_array_equal(found(IDS)["embeddings"], want(IDS)["embeddings"])


def test_modules_of_its_own_stand_behind_a_base_without_any(tmp_path):
    folder, want = adapted(tmp_path, "sentence_embedding")
    found = refimpl.load(folder, backend="numpy")
    np.testing.assert_array_equal(found(IDS)["embeddings"], want(IDS)["embeddings"])
    os.remove(folder / "modules.json")
    assert refimpl.load(folder, backend="numpy").sentence_head is None


def test_modules_with_weights_lie_beside_it(tmp_path):
    dense = Dense(8, 5, True, "tanh")
    head = SentenceHead((Pooling(8), dense), SentenceSettings())
    folder, want = adapted(tmp_path, head)
    assert (folder / "2_Dense" / "model.safetensors").is_file()
    found = refimpl.load(folder, backend="numpy")
    np.testing.assert_array_equal(found(IDS)["embeddings"], want(IDS)["embeddings"])


def test_the_encoder_alone_has_the_adapter_in_it(tmp_path):
    folder, want = adapted(tmp_path)
    found = refimpl.ModernBERT.from_pretrained(folder, backend="numpy")
    hidden = want.encoder(IDS)["last_hidden_state"]
    np.testing.assert_array_equal(found(IDS)["last_hidden_state"], hidden)


def test_in_float64_the_sum_is_made_in_float64(tmp_path):
    folder, _ = adapted(tmp_path)
    beneath = refimpl.load(tmp_path / "base", backend="numpy", dtype="float64").params
    found = refimpl.load(folder, backend="numpy", dtype="float64").params
    adapter, _ = read_adapter(folder, found)
    name = "layers.1.attn.Wo.weight"
    want = beneath[name] + adapter.delta("layers.1.attn.Wo")
    assert found[name].dtype == np.float64
    np.testing.assert_array_equal(found[name], want)


def test_what_was_loaded_is_saved_whole(tmp_path):
    folder, want = adapted(tmp_path)
    refimpl.load(folder, backend="numpy").save_pretrained(tmp_path / "out")
    found = refimpl.load(tmp_path / "out", backend="numpy")
    assert found.source.base is None
    np.testing.assert_array_equal(found(IDS)["logits"], want(IDS)["logits"])


def of_bundled(tmp_path):
    """An adapter of the bundled model, with a classifier."""
    base = refimpl.load(bundled(), backend="numpy")
    from refimpl.train.start import with_head

    model = with_head(base, "sequence_classification", ["a", "b"])
    adapter = some_adapter(model.encoder.params)
    where = str(bundled())
    write_adapter(tmp_path, adapter, model.params, model.config, model.head, where)
    return tmp_path


def test_the_tokenizer_is_that_of_the_model_beneath_unless_it_has_its_own(tmp_path):
    folder = of_bundled(tmp_path)
    classify = refimpl.pipeline("text-classification", folder)
    assert {x["label"] for x in classify("a text", top_k=None)} == {"a", "b"}
    assert refimpl.Tokenizer.from_folder(folder).max_length == 8192
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled() / name, folder)
    change_json(folder / "tokenizer_config.json", model_max_length=77)
    assert refimpl.Tokenizer.from_folder(folder).max_length == 77
    classify.model.save_pretrained(tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_its_vectors_are_of_another_space(tmp_path):
    folder = of_bundled(tmp_path)
    spaces = [
        refimpl.SentenceEncoder(refimpl.ModernBERT.from_pretrained(f, backend="numpy")).space()
        for f in (bundled(), folder)
    ]
    assert spaces[0].differences(spaces[1]) == ["weights"]


def test_a_pack_is_of_a_whole_model(tmp_path):
    folder, _ = adapted(tmp_path)
    with pytest.raises(ValueError, match="holds an adapter; a pack is of a whole model"):
        make_pack(folder, "float32")
    found = refimpl.load(folder, backend="numpy")
    found.save_pretrained(tmp_path / "out")
    if why_not_native() is None:
        assert make_pack(tmp_path / "out", "float32").is_file()


# -- refusals -------------------------------------------------------------------------------------


def refused(folder, match, kind=refimpl.ModelFormatError):
    with pytest.raises(kind, match=match):
        refimpl.load(folder, backend="numpy")


def test_an_encoder_unlike_the_one_beneath_is_refused(tmp_path):
    folder, want = adapted(tmp_path)
    write_config(folder, want, local_attention=6)
    refused(folder, "config.json.*local_attention.*is 6; the model that it adapts, .*base, has 128")


def test_a_base_that_is_not_there_is_named(tmp_path):
    folder, _ = adapted(tmp_path)
    change_json(folder / CONFIG, base_model_name_or_path="org/absent")
    refused(folder, "'org/absent' is not in the local cache|org/absent", refimpl.HubError)
    change_json(folder / CONFIG, base_model_name_or_path=...)
    refused(folder, "base_model_name_or_path.*missing")


def test_a_base_of_the_hub_is_taken_from_its_cache(tmp_path, monkeypatch):
    folder, want = adapted(tmp_path)
    snapshot = tmp_path / "hub" / "models--org--base" / "snapshots" / ("a" * 40)
    shutil.copytree(tmp_path / "base", snapshot)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    change_json(folder / CONFIG, base_model_name_or_path="org/base", revision="a" * 40)
    found = refimpl.load(folder, backend="numpy")
    np.testing.assert_array_equal(found(IDS)["logits"], want(IDS)["logits"])


def test_an_adapter_of_an_adapter_is_refused(tmp_path):
    folder, _ = adapted(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    change_json(other / CONFIG, base_model_name_or_path="../adapter")
    refused(other, "that is an adapter itself")
    change_json(other / CONFIG, base_model_name_or_path=".")
    refused(other, "that is the adapter's own folder")


def test_weights_of_a_whole_model_beside_it_are_what_counts_and_that_is_told(tmp_path):
    folder, want = adapted(tmp_path)
    want.save_pretrained(folder)
    with pytest.warns(UserWarning, match="adapter_config.json is not read"):
        found = refimpl.load(folder, backend="numpy")
    np.testing.assert_array_equal(found(IDS)["logits"], want(IDS)["logits"])


def test_an_unknown_task_is_refused(tmp_path):
    folder, _ = adapted(tmp_path)
    change_json(folder / CONFIG, task_type="CAUSAL_LM")
    refused(folder, "task_type.*CAUSAL_LM.*supported: SEQ_CLS")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.update({"base_model.model.head.dense.bias": np.zeros(8, np.float32)}),
         "head.dense.bias.*belongs to no part"),
        (lambda t: t.pop("base_model.model.head.dense.weight"), "head.dense.weight|norm"),
        (lambda t: t["base_model.model.classifier.weight"].fill(np.nan), "nan at .0, 0."),
        (lambda t: t["base_model.model.model.layers.0.attn.Wo.lora_A.weight"].fill(np.inf),
         "lora_A.*not finite"),
        (lambda t: t.pop("base_model.model.model.layers.0.attn.Wo.lora_A.weight"), "has shapes"),
        (lambda t: [t[n].fill(1e38) for n in t if "layers.2.attn.Wo.lora" in n],
         "Wo.lora_B.*with it the matrix is not finite"),
        (lambda t: t.update({"classifier.weight": t["base_model.model.classifier.weight"]}),
         "in another spelling"),
        (lambda t: t.update({"layers.0.mlp_norm.lora_A.weight": np.ones((2, 8), np.float32)}),
         "mlp_norm.lora_A.*no tensor of this model"),
    ],
)  # fmt: skip
def test_broken_tensors_are_refused(tmp_path, change, match):
    folder, want = adapted(tmp_path, base_head=HEADS["token_classification"])
    for name in [n for n in want.params if n.startswith("head.")]:  # not beneath either
        change_tensors(tmp_path / "base" / "model.safetensors", lambda t, n=name: t.pop(n))
    write_config(folder, want)
    change_tensors(folder / WEIGHTS, change)
    refused(folder, match)


def test_a_base_that_is_replaced_while_it_is_read_is_read_anew(tmp_path, monkeypatch):
    from refimpl.files import checkpoint

    folder, _ = adapted(tmp_path)
    write, times = checkpoint.config_under, []

    def meanwhile(source, config):
        if not times:
            times.append(1)
            base = refimpl.load(tmp_path / "base", backend="numpy")
            changed = {n: x * np.float32(2) for n, x in base.params.items()}
            type(base)(base.config, changed, base.head).save_pretrained(tmp_path / "base")
        return write(source, config)

    monkeypatch.setattr(checkpoint, "config_under", meanwhile)
    found = refimpl.load(folder, backend="numpy")
    assert times
    monkeypatch.undo()
    again = refimpl.load(folder, backend="numpy")
    for name, x in again.params.items():
        np.testing.assert_array_equal(found.params[name], x)
