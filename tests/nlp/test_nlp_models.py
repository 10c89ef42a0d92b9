"""Models of an encoder with a configurable head: outputs, pairs, predict, and saving."""

import itertools
import json

import numpy as np
import pytest

import refimpl
from refimpl import ModernBERT, NLPTaskConfig, create_modern_bert_with_head, create_nlp_head

SIZES = dict(
    vocab_size=23, hidden_size=12, num_layers=3, num_heads=2, intermediate_size=8,
    local_attention_window_size=4,
)  # fmt: skip
IDS = np.random.default_rng(0).integers(0, 23, (3, 7))
MASK = np.array([[1] * 7, [1] * 4 + [0] * 3, [0, 1, 1, 0, 1, 1, 1]])
OTHER = np.random.default_rng(1).integers(0, 23, (3, 5))
OTHER_MASK = np.array([[1] * 5, [1, 1, 0, 0, 0], [1] * 5])
TASKS = {
    "classes": dict(task_type="sentiment_analysis", num_classes=3, use_attention_pooling=True),
    "several": dict(task_type="emotion_detection", num_classes=4, multi_label=True),
    "value": dict(task_type="readability_scoring"),
    "names": dict(task_type="named_entity_recognition", num_classes=5, hidden_size=6),
    "answer": dict(task_type="question_answering"),
    "same": dict(task_type="text_similarity"),
    "words": dict(task_type="masked_language_modeling"),
    "choice": dict(task_type="multiple_choice"),
}


def task(name, **more):
    return NLPTaskConfig(name, **TASKS[name], **more)


def create(tasks, head=None, dtype="float64", **more):
    return create_modern_bert_with_head(
        bert_variant="tiny",
        task_config=tasks,
        bert_config_overrides={**SIZES, **more},
        head_config_overrides=head,
        seed=3,
        dtype=dtype,
    )


def inputs_for(name):
    given = {"input_ids": IDS, "attention_mask": MASK}
    return {n: x[None] for n, x in given.items()} if name == "choice" else given


def flat(outputs, at=""):
    """Name -> array of outputs that may be nested."""
    out = {}
    for key, x in outputs.items():
        out |= flat(x, f"{at}{key}.") if isinstance(x, dict) else {at + key: x}
    return out


def assert_same(got, want):
    got, want = flat(got), flat(want)
    assert set(got) == set(want)
    for key, x in want.items():
        np.testing.assert_array_equal(got[key], x, err_msg=key)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_nlp_model_is_the_head_over_the_encoder(name):
    model = create(task(name))
    given = inputs_for(name)
    rows = {n: x.reshape(-1, 7) for n, x in given.items()}
    hidden = ModernBERT.from_variant("tiny", dtype="float64", seed=3, **SIZES)(rows)
    hidden = hidden["last_hidden_state"].reshape(*given["input_ids"].shape, 12)
    more = {"vocabulary_size": 23} if name == "words" else {}
    head = create_nlp_head(task(name, **more), 12, dtype="float64")
    for key in head.params:
        head.params[key] = model.params[key]
    assert_same(model(given), head(hidden, given["attention_mask"]))


def test_nlp_model_head_draws_like_no_tensor_of_the_encoder():
    model = create(task("classes"))
    own = {n: x for n, x in model.params.items() if n.startswith("nlp_head.") and x.ndim == 2}
    for head, (name, x) in itertools.product(own.values(), model.encoder.params.items()):
        if x.ndim == 2:
            assert np.isin(head, x).mean() < 0.5, f"{name} and a head's tensor share their stream"


def test_nlp_model_norms_follow_the_encoder_config_unless_told():
    eps = create(task("classes"), layer_norm_eps=1e-3, norm_bias=True)
    assert (eps.head.options.norm_eps, eps.head.options.norm_bias) == (1e-3, True)
    assert "nlp_head.norm.bias" in eps.params
    told = create(task("classes"), {"norm_eps": 1e-6, "norm_bias": False}, norm_bias=True)
    assert (told.head.options.norm_eps, told.head.options.norm_bias) == (1e-6, False)


def test_nlp_model_second_text_of_none_is_left_out():
    model = create(task("same"))
    nothing = inputs_for("same") | {"input_ids_2": None, "attention_mask_2": None}
    assert_same(model(nothing), model(inputs_for("same")))


@pytest.mark.parametrize("how", ["cosine", "dot", "learned"])
def test_nlp_model_compares_two_texts_of_different_length(how):
    model = create(task("same"), {"similarity_function": how, "pooling_type": "mean"})
    pair = inputs_for("same") | {"input_ids_2": OTHER, "attention_mask_2": OTHER_MASK}
    got = model(pair)
    one = model(inputs_for("same"))["embeddings"]
    two = model({"input_ids": OTHER, "attention_mask": OTHER_MASK})["embeddings"]
    np.testing.assert_array_equal(got["embeddings_1"], one)
    np.testing.assert_array_equal(got["embeddings_2"], two)
    assert got["similarity_score"].shape == (3,)
    assert_same(model.predict(pair), got)
    with_states = model(pair, output_hidden_states=True)
    assert len(with_states["hidden_states"]) == 4
    assert with_states["hidden_states"][0].shape == (3, 7, 12)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (dict(input_ids_2=OTHER[:2]), "input_ids_2 has 2 rows, input_ids has 3"),
        (
            dict(inputs_embeds_2=np.zeros((1, 7, 12))),
            "inputs_embeds_2 has 1 rows, input_ids has 3",
        ),
        (dict(input_ids=7, input_ids_2=OTHER), r"input_ids has shape \[\]"),
        (dict(input_ids_2=OTHER + 23), r"second text \(keys in _2\): input_ids\[0, 0\] is"),
        (dict(attention_mask_2=MASK), "second text .keys in _2.: inputs needs exactly one of"),
        (dict(input_ids_2=OTHER, colour_2=1), "second text .*unknown key 'colour'"),
        (dict(colour=1), "unknown key 'colour'"),
    ],
    ids=str,
)
def test_nlp_model_pair_is_refused_by_name(more, message):
    model = create(task("same"))
    for run in (model, model.predict):
        with pytest.raises(ValueError, match=message):
            run(inputs_for("same") | more)


def test_nlp_model_without_pairs_does_not_know_a_second_text():
    with pytest.raises(ValueError, match="unknown key 'input_ids_2'"):
        create(task("classes"))(inputs_for("classes") | {"input_ids_2": OTHER})


def test_nlp_model_of_several_tasks_answers_each():
    names = ["classes", "names", "same", "words"]
    model = create([task(name) for name in names], {"activation_type": "relu"})
    got = model(inputs_for("classes"))
    assert list(got) == names
    assert got["words"]["logits"].shape == (3, 7, 23)
    assert got["names"]["predictions"].shape == (3, 7)
    assert_same(model.predict(inputs_for("classes"), batch_size=3), got)
    pair = inputs_for("same") | {"input_ids_2": OTHER}
    both = model(pair)
    assert set(both["same"]) == {"similarity_score", "embeddings_1", "embeddings_2"}
    assert_same(model.predict(pair), both)
    np.testing.assert_array_equal(both["classes"]["logits"], got["classes"]["logits"])


@pytest.mark.parametrize("name", ["hidden_states", "attentions"])
def test_nlp_model_of_several_tasks_has_none_named_like_an_output(name):
    with pytest.raises(ValueError, match=f"a task is named '{name}'"):
        create([task("classes"), NLPTaskConfig(name, "text_similarity")])
    model = create(NLPTaskConfig("t", "text_similarity"))
    assert name in model(IDS, **{f"output_{name}": True})


def test_nlp_model_predict_joins_batches_at_every_level():
    model = create([task("classes"), task("names")])
    got = model.predict(inputs_for("classes"), batch_size=2)
    for start, stop in ((0, 2), (2, 3)):
        part = model(IDS[start:stop], MASK[start:stop])
        assert_same({n: x[start:stop] for n, x in flat(got).items()}, part)


@pytest.mark.parametrize(
    ("name", "labels", "problem"),
    [
        ("classes", 3, "single_label_classification"),
        ("several", 4, "multi_label_classification"),
        ("value", 1, "regression"),
        ("names", 5, None),
    ],
)
def test_nlp_model_config_has_the_task_labels_and_problem_type(name, labels, problem):
    config = create(task(name)).config
    assert (config.num_labels, config.problem_type) == (labels, problem)
    named = {i: f"name {i}" for i in range(labels)}
    assert create(task(name), id2label=named).config.id2label == named


def test_nlp_model_summary_counts_the_head(capsys):
    model = create(task("classes"))
    model.summary()
    text = capsys.readouterr().out
    assert "nlp_head.output.weight" in text
    total = sum(x.size for x in model.params.values())
    assert text.splitlines()[-1].split() == ["total", f"{total:,}"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (dict(bert_variant="huge"), ValueError, "variant 'huge' is unknown"),
        (dict(task_config="x"), TypeError, "task_config is 'x'"),
        (dict(task_config=NLPTaskConfig("t", "ranking")), ValueError, "'ranking' has no head"),
        (dict(bert_config_overrides={"depth": 1}), TypeError, "config override 'depth'"),
        (dict(head_config_overrides={"depth": 1}), TypeError, "head option 'depth'"),
        (dict(weights_dataset="squad"), ValueError, "weights_dataset is 'squad'"),
        (dict(dtype="float16"), ValueError, "dtype 'float16'"),
        (dict(pretrained="no/such-model"), refimpl.HubError, "no/such-model"),
    ],
    ids=str,
)
def test_nlp_model_creation_refuses_by_name(given, error, message):
    call = dict(bert_variant="tiny", task_config=task("classes"), bert_config_overrides=SIZES)
    with pytest.raises(error, match=message):
        create_modern_bert_with_head(**(call | given))


# -- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "options"),
    [
        *((name, {}) for name in sorted(TASKS)),
        ("same", {"similarity_function": "learned", "pooling_type": "max"}),
        ("classes", {"norm_bias": True, "norm_eps": 1e-3, "activation_type": "silu"}),
        (("classes", "names", "same"), {"use_intermediate": True}),
    ],
    ids=str,
)
def test_nlp_model_survives_saving(tasks, options, tmp_path):
    several = isinstance(tasks, tuple)
    model = create([task(n) for n in tasks] if several else task(tasks), options, "float32")
    model.save_pretrained(tmp_path)
    again = refimpl.load(tmp_path)
    assert again.head == model.head and again.config == model.config
    assert type(again) is type(model)
    given = inputs_for("" if several else tasks)
    assert_same(again(given), model(given))
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["architectures"] == ["ModernBertModel"]


def test_nlp_model_starts_from_a_saved_encoder_and_leaves_its_head_behind(tmp_path):
    first = create(task("names"), dtype="float32")
    first.save_pretrained(tmp_path)
    model = create_modern_bert_with_head("tiny", task("classes"), pretrained=tmp_path, seed=9)
    for name, x in first.encoder.params.items():
        np.testing.assert_array_equal(model.params[name], x)
    assert {n for n in model.params if n.startswith("nlp_head.")} == set(model.head.shapes())
    assert model.config.num_labels == 3
    assert model(IDS)["logits"].shape == (3, 3)


def test_nlp_model_has_no_labels_of_the_head_that_its_encoder_had(tmp_path):
    first = create(task("names"), dtype="float32", id2label=dict(enumerate("ABCDE")))
    assert list(first.config.id2label.values()) == list("ABCDE")
    first.save_pretrained(tmp_path)

    def labels(**overrides):
        new = NLPTaskConfig("new", "topic_classification", num_classes=5)
        model = create_modern_bert_with_head(
            "tiny", new, pretrained=tmp_path, bert_config_overrides=overrides
        )
        return list(model.config.id2label.values())

    assert labels() == [f"LABEL_{i}" for i in range(5)]
    assert labels(id2label=dict(enumerate("VWXYZ"))) == list("VWXYZ")


def test_nlp_model_encoder_saves_without_the_head(tmp_path):
    model = create(task("names"), dtype="float32")
    model.encoder.save_pretrained(tmp_path)
    again = refimpl.load(tmp_path)
    assert type(again) is ModernBERT
    assert "refimpl_head" not in json.loads((tmp_path / "config.json").read_text())
    want = model.encoder(IDS)["last_hidden_state"]
    np.testing.assert_array_equal(again(IDS)["last_hidden_state"], want)


@pytest.mark.parametrize("broken", ["missing", "extra", "shape", "description"])
def test_nlp_model_folder_that_does_not_hold_its_head_is_refused(broken, tmp_path):
    from refimpl.files.safetensors import open_safetensors, write_safetensors

    create(task("classes"), dtype="float32").save_pretrained(tmp_path)
    tensors = {
        n: t.array().copy() for n, t in open_safetensors(tmp_path / "model.safetensors").items()
    }
    key = "nlp_head.output.weight"
    if broken == "missing":
        del tensors[key]
    elif broken == "extra":
        key = "nlp_head.surplus.weight"
        tensors[key] = np.ones(2, np.float32)
    elif broken == "shape":
        tensors[key] = np.ones((2, 12), np.float32)
    else:
        key = "refimpl_head"
        path = tmp_path / "config.json"
        path.write_text(path.read_text().replace('"sentiment_analysis"', '"ranking"'))
    write_safetensors(tmp_path / "model.safetensors", tensors)
    with pytest.raises(refimpl.ModelFormatError, match=key):
        refimpl.load(tmp_path)
