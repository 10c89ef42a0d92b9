"""A user of the Keras system: old calls work, or are answered with what to write."""

import copy
import pickle

import numpy as np
import pytest

import refimpl
from refimpl import HubError, ModernBERT, NLPTaskConfig
from refimpl.nlp.keras_names import COUNTERPARTS, GONE, OF_A_HEAD, WITH_A_HEAD

IDS = np.array([[1, 5, 2], [1, 6, 2]])
TASK = NLPTaskConfig("mood", "text_classification", num_classes=3)
SMALL = dict(num_layers=2, hidden_size=16, num_heads=2, intermediate_size=8, vocab_size=50)


@pytest.fixture(scope="module")
def model():
    return ModernBERT.from_variant("tiny", **SMALL)


@pytest.mark.parametrize("kind", ["encoder", "with a head"])
@pytest.mark.parametrize("name", COUNTERPARTS)
def test_name_of_keras_is_answered_with_ours(name, kind, model):
    here = COUNTERPARTS[name]
    if kind == "with a head":
        model, here = refimpl.create_modern_bert_with_head("tiny", TASK), WITH_A_HEAD[name]
    assert not hasattr(model, name)
    with pytest.raises(AttributeError) as raised:
        getattr(model, name)
    assert str(raised.value).endswith(f"{name!r}, which Keras has; here it is {here}")


@pytest.mark.parametrize("name", OF_A_HEAD)
def test_name_of_keras_is_answered_by_a_head(name):
    head = refimpl.create_nlp_head(TASK, 16)
    with pytest.raises(AttributeError, match="which Keras has; here it is "):
        getattr(head, name)


@pytest.mark.parametrize("kind", ["encoder", "with a head"])
def test_counterparts_are_there(kind, model, tmp_path, monkeypatch):
    """Every answer that is an expression can be written as it stands."""
    import json

    counterparts = COUNTERPARTS
    if kind == "with a head":
        model, counterparts = refimpl.create_modern_bert_with_head("tiny", TASK), WITH_A_HEAD
    monkeypatch.chdir(tmp_path)
    head, folder = refimpl.create_nlp_head(TASK, 16), "m"
    names = dict(model=model, inputs=IDS, refimpl=refimpl, folder=folder, json=json, head=head,
                 params=model.params, type=type)  # fmt: skip
    for here in (*counterparts.values(), *OF_A_HEAD.values()):
        if not here.startswith(("not ", "modernbert ", "save_pretrained(folder) of")):
            model.save_pretrained(folder)
            eval(here.split(", a ")[0].split(" for the")[0], names.copy())


def test_other_names_are_no_attributes(model):
    with pytest.raises(AttributeError, match="'ModernBERT' object has no attribute 'nothing'$"):
        _ = model.nothing
    assert copy.copy(model)(IDS).keys() == model(IDS).keys()
    assert pickle.loads(pickle.dumps(model))(IDS).keys() == model(IDS).keys()


def test_constructor_with_old_names_says_what_to_write():
    for kind in (ModernBERT, refimpl.ModernBERTForTask):
        with pytest.raises(TypeError) as raised:
            kind(vocab_size=50, num_layers=2, hidden_act="gelu")
        call = "ModernBERT.from_variant(\"base\", vocab_size=50, num_layers=2, hidden_act='gelu')"
        assert str(raised.value).endswith(call)
    named = ModernBERT.from_variant("base", num_layers=2, vocab_size=50, hidden_act="gelu")
    assert named.config.num_hidden_layers == 2
    with pytest.raises(TypeError, match="ModernBertConfig.from_dict"):
        ModernBERT.from_config({})


def test_config_of_keras_is_refused_by_name_and_read_by_from_variant():
    from refimpl.reference.config import KERAS_NAMES, ModernBertConfig

    values = dict(num_layers=4, hidden_act="silu", local_attention_window_size=32, use_bias=True)
    with pytest.raises(ValueError) as raised:
        ModernBertConfig.from_dict(values)
    for name in values:
        assert f"{name} (here {' and '.join(KERAS_NAMES[name])})" in str(raised.value)
    made = ModernBertConfig.from_variant("base", **values)
    assert (made.num_hidden_layers, made.window(1), made.mlp_bias) == (4, 16, True)
    for name in set(KERAS_NAMES) - {"layer_norm_eps"}:
        with pytest.raises(ValueError, match=rf"{name} \(here "):
            ModernBertConfig.from_dict({name: 1})
    beside = ModernBertConfig.from_dict({**made.to_dict(), **values, "num_layers": 9})
    assert beside.num_hidden_layers == 4 and beside.unknown
    v5 = {"layer_types": ["full_attention"], "num_hidden_layers": 1, "sliding_window": 16}
    old = {"global_attention_interval": 1, "local_attention_window_size": 32}
    assert ModernBertConfig.from_dict({**v5, **old}).num_hidden_layers == 1
    with pytest.raises(TypeError, match=r'from_variant\("base", \*\*values\) one of Keras'):
        ModernBERT.from_config(values)


def test_training_false_is_taken_and_true_is_refused(model):
    head = refimpl.create_nlp_head(TASK, 16)
    out = model(IDS, training=False)
    assert np.array_equal(out["last_hidden_state"], model(IDS)["last_hidden_state"])
    assert head(out, training=False).keys() == head(out).keys()
    with_head = refimpl.create_modern_bert_with_head("tiny", TASK)
    assert with_head(IDS, training=False).keys() == with_head(IDS).keys()
    for call, x in ((model, IDS), (with_head, IDS), (head, out)):
        for training in (True, 1, "yes"):
            with pytest.raises(ValueError, match=f"training is {training!r}; a call computes"):
                call(x, training=training)


def test_head_takes_what_a_model_returns(model):
    head = refimpl.create_nlp_head(TASK, 16)
    mask = np.array([[1, 1, 1], [1, 1, 0]])
    out = model(IDS, mask, output_hidden_states=True, output_attentions=True)
    expected = head(out["last_hidden_state"], mask)
    assert np.array_equal(head(out)["logits"], expected["logits"])
    plain = {"hidden_states": out["last_hidden_state"], "attention_mask": mask}
    assert np.array_equal(head(plain)["logits"], expected["logits"])
    same = refimpl.create_nlp_head(NLPTaskConfig("same", "text_similarity"), 16)
    pair = out | {"last_hidden_state_2": out["last_hidden_state"], "attention_mask_2": mask}
    assert np.allclose(same(pair)["similarity_score"], 1)


@pytest.mark.parametrize("given", [{}, {"logits": [1]}, {"attention_mask": [[1]]}])
def test_head_refuses_a_dict_without_hidden_states(given):
    with pytest.raises(ValueError, match="it needs hidden_states or last_hidden_state"):
        refimpl.create_nlp_head(TASK, 16)(given)
    with pytest.raises(ValueError, match="belong into it"):
        refimpl.create_nlp_head(TASK, 16)(given, [[1]])


def test_keywords_of_keras_that_are_gone_say_why(model):
    with_head = refimpl.create_modern_bert_with_head("tiny", TASK)
    calls = {
        "load": refimpl.load,
        "compile": with_head.compile,
        "fit": with_head.fit,
        "evaluate": with_head.evaluate,
        "summary": model.summary,
    }
    args = {"load": ["x"], "fit": [IDS, [0, 1]], "evaluate": [IDS, [0, 1]]}
    for call, function in calls.items():
        for name, why in GONE.items():
            with pytest.raises(TypeError) as raised:
                function(*args.get(call, []), **{name: None})
            assert str(raised.value) == f"{call} has no {name!r}, which Keras has: {why}"
        if call != "compile":  # whose others are fields of Settings
            with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
                function(*args.get(call, []), nothing=1)
    # each is one of none of our own
    assert not {"batch_size", "epochs", "verbose", "seed", "metrics", "loss"} & set(GONE)


def test_fit_without_a_head_says_so_first(model):
    with pytest.raises(ValueError, match="model has no head"):
        model.fit(IDS, [0, 1])


@pytest.mark.parametrize("folder", [None, 3, b"x"])
def test_tokenizer_of_no_folder_says_what_it_takes(folder):
    with pytest.raises(TypeError, match=rf"folder is {folder!r}; it must be a model folder"):
        refimpl.Tokenizer.from_folder(folder)


def test_files_of_keras_are_answered(model, tmp_path):
    with pytest.raises(AttributeError, match=r"load_model.*refimpl\.load\(folder\)"):
        _ = refimpl.load_model
    file = tmp_path / "x.keras"
    for name in (str(file), file, "x.keras", "x.h5"):
        with pytest.raises(HubError, match="is not there.* of another model: MIGRATION.md"):
            refimpl.load(name)
    file.write_bytes(b"")
    with pytest.raises(HubError, match="is a file; .* of another model: MIGRATION.md"):
        refimpl.load(file)
    file.unlink()
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(HubError, match="is a file; a model is a folder with a config.json$"):
        refimpl.load(tmp_path / "model.safetensors")
    for made in (model, refimpl.create_modern_bert_with_head("tiny", TASK)):
        with pytest.raises(ValueError, match="not as a file of Keras"):
            made.save_pretrained(file)
    assert not file.exists()
