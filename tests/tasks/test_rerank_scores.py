"""Reranker: scores are the model's, both forms of folder, order of documents, refusals."""

import copy
import json
import pickle

import numpy as np
import pytest
from support.text_folders import model_folder, sentence_folder

import refimpl
from refimpl.errors import ModelFormatError, TruncationWarning
from refimpl.models.scores import softmax
from refimpl.reference.ops import sigmoid

pytest.importorskip("tokenizers")

MODELS = "sentence_transformers.models."
IDENTITY = "torch.nn.modules.linear.Identity"
TANH = "torch.nn.modules.activation.Tanh"
MODULAR = [
    (MODELS + "Pooling", {"word_embedding_dimension": 32, "pooling_mode_cls_token": True,
                          "pooling_mode_mean_tokens": False}),
    (MODELS + "Dense", {"in_features": 32, "out_features": 16}),
    (MODELS + "LayerNorm", {"dimension": 16}),
    (MODELS + "Dense", {"in_features": 16, "out_features": 1, "activation_function": IDENTITY,
                        "module_output_name": "scores"}),
]  # fmt: skip
PAIRS = [("q", "one"), ("q", "a longer document of several words"), ("", ""), ("other", "two")]
EPS = float(np.finfo(np.float32).eps)


@pytest.fixture(scope="module", params=["classifier", "modular"])
def reranker(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "classifier":
        model_folder(folder, "sequence_classification", id2label={0: "score"})
    else:
        sentence_folder(folder, MODULAR)
    return refimpl.Reranker(folder)


def raw(reranker, pair):
    out = reranker.model([reranker.tokenizer.encode(*pair).ids])
    return next(out[key] for key in ("logits", "embeddings") if key in out)[0]


def near(a, b):
    """Batches change summation orders: a few dozen float32 roundings."""
    return a.shape == b.shape and np.abs(a - b).max(initial=0) <= 64 * EPS * np.abs(b).max(
        initial=1
    )


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_scores_are_the_sigmoid_of_the_models_output(reranker, batch_size):
    expected = np.array([sigmoid(raw(reranker, pair))[0] for pair in PAIRS])
    found = reranker.predict(PAIRS, batch_size=batch_size)
    assert near(found, expected)
    assert found.dtype == np.float32
    assert np.ptp(found) > 0.01  # the pairs are told apart


def test_shapes_of_results(reranker):
    assert reranker.predict([]).shape == (0,)
    assert np.shape(reranker.predict(PAIRS[0])) == ()
    assert reranker.predict(PAIRS[:1]).shape == (1,)


def test_activation_can_be_given(reranker):
    expected = np.array([raw(reranker, pair)[0] for pair in PAIRS])
    assert near(reranker.predict(PAIRS, activation_fn=lambda x: x), expected)
    own = refimpl.Reranker(reranker.model, activation_fn=np.tanh, tokenizer=reranker.tokenizer)
    assert near(own.predict(PAIRS), np.tanh(expected))


def test_rank_orders_documents(reranker):
    documents = [document for _, document in PAIRS]
    scores = reranker.predict([("q", document) for document in documents])
    order = np.argsort(-scores, kind="stable")
    found = reranker.rank("q", documents, return_documents=True)
    assert found == [
        {"corpus_id": int(i), "score": float(scores[i]), "text": documents[i]} for i in order
    ]
    assert reranker.rank("q", documents, top_k=2) == [
        {"corpus_id": f["corpus_id"], "score": f["score"]} for f in found[:2]
    ]
    assert reranker.rank("q", []) == []


def test_cut_documents_are_told_and_flagged(reranker):
    documents = ["a b c d e f", "a"]
    with pytest.warns(TruncationWarning, match="1 of 2 texts"):
        found = reranker.rank("q", documents, max_length=6)
    assert {f["corpus_id"]: f.get("truncated") for f in found} == {0: 4, 1: None}
    _, lost = reranker.predict([("q", d) for d in documents], max_length=6, truncate="silent",
                               return_lost=True)  # fmt: skip
    assert lost.tolist() == [4, 0]


def test_several_labels_have_no_activation_and_no_rank(tmp_path):
    folder = model_folder(tmp_path, "sequence_classification", id2label={0: "a", 1: "b", 2: "c"})
    reranker = refimpl.Reranker(folder)
    logits = np.stack([raw(reranker, pair) for pair in PAIRS])
    assert near(reranker.predict(PAIRS), logits)
    assert near(reranker.predict(PAIRS, apply_softmax=True), softmax(logits))
    assert reranker.predict([]).shape == (0, 3)
    with pytest.raises(ValueError, match="one label; this one has 3"):
        reranker.rank("q", ["d"])


def add_settings(folder, **settings):
    """The files that sentence-transformers writes beside a classifier; without modules.json it
    reads none of them."""
    alone = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    (folder / "modules.json").write_text(json.dumps([alone]))
    content = {"model_type": "CrossEncoder", **settings}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(content))


def test_settings_without_modules_are_not_read(tmp_path):
    folder = model_folder(tmp_path, "sequence_classification", id2label={0: "score"})
    plain = refimpl.Reranker(folder).predict(PAIRS)
    add_settings(folder, activation_fn=IDENTITY)
    assert not near(refimpl.Reranker(folder).predict(PAIRS), plain)
    (folder / "modules.json").unlink()
    assert near(refimpl.Reranker(folder).predict(PAIRS), plain)


@pytest.mark.parametrize("spelling", ["nested", "old", "settings"])
def test_activation_that_a_folder_names_is_used(tmp_path, spelling):
    folder = model_folder(tmp_path, "sequence_classification", id2label={0: "score"})
    config = json.loads((folder / "config.json").read_text())
    if spelling == "nested":
        config["sentence_transformers"] = {"activation_fn": IDENTITY}
    elif spelling == "old":
        config["sbert_ce_default_activation_function"] = IDENTITY
    else:
        add_settings(folder, activation_fn=IDENTITY)
    (folder / "config.json").write_text(json.dumps(config))
    reranker = refimpl.Reranker(folder)
    assert near(reranker.predict(PAIRS), np.array([raw(reranker, pair)[0] for pair in PAIRS]))


@pytest.mark.parametrize("of", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("modules", [True, False])
def test_saved_model_keeps_the_activation_that_its_folder_names(tmp_path, of, modules):
    folder = model_folder(tmp_path, "sequence_classification", id2label={0: "score"})
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"activation_fn": TANH}))
    if modules:
        only = {"idx": 0, "name": "0", "path": "", "type": MODELS + "Transformer"}
        (folder / "modules.json").write_text(json.dumps([only]))
    reranker = refimpl.Reranker(folder)
    of(reranker.model).save_pretrained(tmp_path / "saved")
    saved = refimpl.Reranker(tmp_path / "saved")
    assert np.array_equal(saved.predict(PAIRS), reranker.predict(PAIRS))
    assert np.array_equal(of(reranker).predict(PAIRS), reranker.predict(PAIRS))


def test_unknown_activation_is_a_format_error(tmp_path):
    folder = model_folder(tmp_path, "sequence_classification", id2label={0: "score"})
    add_settings(folder, activation_fn="my.own.Function")
    with pytest.raises(ModelFormatError, match="'my.own.Function' is none of torch.nn.modules"):
        refimpl.Reranker(folder)
    assert refimpl.Reranker(folder, activation_fn=sigmoid).predict(PAIRS).shape == (4,)


def test_model_without_scores_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a sequence_classification head, .* masked_lm head"):
        refimpl.Reranker()
    with pytest.raises(ValueError, match="has a sentence_embedding head"):
        refimpl.Reranker(sentence_folder(tmp_path, MODULAR[:1]))


def test_documents_may_come_from_any_iterable_but_one_str(reranker):
    documents = ["one", "two"]
    expected = reranker.rank("q", documents, return_documents=True)
    assert reranker.rank("q", iter(documents), return_documents=True) == expected
    with pytest.raises(TypeError, match="documents must be a list of str, not a str"):
        reranker.rank("q", "one")


@pytest.mark.parametrize("pairs", [["a", "b", "c"], [("a",)], [("a", "b", "c")], ["ab"], [3]])
def test_what_is_no_pair_is_refused(reranker, pairs):
    with pytest.raises(TypeError, match=r"pairs\[0\] must be a pair of str"):
        reranker.predict(pairs)


@pytest.mark.parametrize("of", [list, tuple, np.array, lambda p: np.array(p, dtype=object)])
def test_pairs_may_be_lists_tuples_and_arrays(tmp_path, of):
    reranker = refimpl.Reranker(
        model_folder(tmp_path, "sequence_classification", id2label={0: "s"})
    )
    expected = reranker.predict(PAIRS)
    assert np.array_equal(reranker.predict(of([tuple(p) for p in PAIRS])), expected)
    assert np.array_equal(reranker.predict(of([list(p) for p in PAIRS])), expected)


def test_prompt_goes_before_the_first_text(tmp_path):
    folder = model_folder(tmp_path, "sequence_classification", id2label={0: "score"})
    plain = refimpl.Reranker(folder)
    find = [("find: " + q, d) for q, d in PAIRS]
    assert near(plain.predict(PAIRS, prompt="find: "), plain.predict(find))
    add_settings(folder, prompts={"find": "find: ", "none": ""}, default_prompt_name="find")
    reranker = refimpl.Reranker(folder)
    assert near(reranker.predict(PAIRS), plain.predict(find))
    assert near(reranker.predict(PAIRS, prompt_name="none"), plain.predict(PAIRS))
    assert near(reranker.predict(PAIRS, prompt=""), plain.predict(PAIRS))
    ranked = reranker.rank("q", ["one", "two"], prompt_name="none")
    assert ranked == plain.rank("q", ["one", "two"])
    own = refimpl.Reranker(folder, prompts={"x": "find: "}, default_prompt_name="x")
    assert near(own.predict(PAIRS), plain.predict(find))
    with pytest.raises(ValueError, match="prompt_name 'y' is unknown; known: .*find"):
        reranker.predict(PAIRS, prompt_name="y")
