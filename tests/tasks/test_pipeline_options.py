"""`pipeline`: names, defaults given at construction, models of every form, refusals."""

import json

import numpy as np
import pytest
from support.text_folders import NER_LABELS, add_tokenizer, model_folder

import refimpl
from refimpl.errors import HubError, ModelFormatError
from refimpl.tasks import ALIASES, TASKS

pytest.importorskip("tokenizers")


def test_names_and_aliases():
    assert set(TASKS) == {
        "fill-mask", "text-classification", "token-classification", "question-answering",
        "feature-extraction",
    }  # fmt: skip
    assert set(ALIASES.values()) <= set(TASKS)
    with pytest.raises(ValueError, match="task 'sing' is unknown; known: fill-mask"):
        refimpl.pipeline("sing")


def test_options_given_at_construction_are_defaults(tmp_path):
    folder = model_folder(tmp_path, "token_classification", id2label=NER_LABELS)
    tag = refimpl.pipeline("ner", folder, aggregation_strategy="max", ignore_labels=[])
    plain = refimpl.pipeline("ner", folder)
    assert tag("a b") == plain("a b", aggregation_strategy="max", ignore_labels=[])
    assert tag("a b", aggregation_strategy="none") == plain("a b", ignore_labels=[])


def test_unknown_option_is_refused_at_construction_and_call():
    with pytest.raises(TypeError, match="topk"):
        refimpl.pipeline("fill-mask", topk=3)
    with pytest.raises(TypeError, match="topk"):
        refimpl.pipeline("fill-mask")("[MASK]", topk=3)


def test_model_may_be_a_folder_a_str_or_a_loaded_model(tmp_path):
    folder = model_folder(tmp_path, "masked_lm")
    expected = refimpl.pipeline("fill-mask", folder)("a [MASK]")
    assert refimpl.pipeline("fill-mask", str(folder))("a [MASK]") == expected
    assert refimpl.pipeline("fill-mask", refimpl.load(folder))("a [MASK]") == expected


def test_model_without_a_folder_needs_a_tokenizer(tmp_path):
    loaded = refimpl.load(model_folder(tmp_path, "masked_lm"))
    bare = refimpl.ModernBERTForTask(loaded.config, loaded.params, loaded.head)
    with pytest.raises(ValueError, match="not loaded from a folder; pass tokenizer="):
        refimpl.pipeline("fill-mask", bare)
    tokenizer = refimpl.Tokenizer.from_folder(add_tokenizer(tmp_path))
    found = refimpl.pipeline("fill-mask", bare, tokenizer=tokenizer)("a [MASK]")
    assert found == refimpl.pipeline("fill-mask", loaded)("a [MASK]")


def test_folder_without_tokenizer_says_what_to_do(tmp_path):
    folder = model_folder(tmp_path, "masked_lm")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFormatError, match="copy the tokenizer.json"):
        refimpl.pipeline("fill-mask", folder)


def test_model_that_is_not_there_is_a_hub_error(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(HubError):
        refimpl.pipeline("fill-mask", "nobody/nothing")


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"feature-extraction", "text-classification"}))
def test_wrong_head_names_both(tmp_path, task):
    folder = model_folder(tmp_path, "sequence_classification")
    with pytest.raises(
        ValueError, match=f"{task} needs a model with a {TASKS[task].head} head"
    ) as e:
        refimpl.pipeline(task, folder)
    assert "has a sequence_classification head" in str(e.value)


def test_dtype_reaches_the_model():
    text = "for i in [MASK](10):"
    wide = refimpl.pipeline("fill-mask", dtype="float64")
    assert wide.model.dtype == np.float64
    assert wide(text)[0]["score"] != refimpl.pipeline("fill-mask")(text)[0]["score"]


@pytest.mark.parametrize("kind", [None, "masked_lm", "question_answering"])
def test_features_are_the_encoders_whatever_the_head(tmp_path, kind):
    folder = model_folder(tmp_path, kind)
    extract = refimpl.pipeline("feature-extraction", folder)
    texts = ["a b", "", "a longer text"]
    encoder = refimpl.ModernBERT.from_pretrained(folder)
    for text, found in zip(texts, extract(texts, return_tensors=True), strict=True):
        ids = extract.tokenizer.encode(text).ids
        assert np.array_equal(found, encoder([ids])["last_hidden_state"])
    assert extract("a b") == extract("a b", return_tensors=True).tolist()
    padded = extract(texts, return_tensors=True, batch_size=3)
    assert [x.shape for x in padded] == [x.shape for x in extract(texts, return_tensors=True)]


def test_batch_size_must_be_positive():
    with pytest.raises(ValueError, match="batch_size must be an int of at least 1, or None, not 0"):
        refimpl.pipeline("fill-mask")("[MASK]", batch_size=0)


def test_a_model_with_token_types_gets_those_of_the_tokenizer(tmp_path):
    labels = {0: "score"}
    folder = model_folder(tmp_path, "sequence_classification", type_vocab_size=2, id2label=labels)
    content = json.loads((folder / "tokenizer.json").read_text())
    for part in content["post_processor"]["pair"][3:]:  # the second text and its [SEP]
        next(iter(part.values()))["type_id"] = 1
    (folder / "tokenizer.json").write_text(json.dumps(content))
    model, tokenizer = refimpl.load(folder), refimpl.Tokenizer.from_folder(folder)
    inputs = tokenizer.pad([tokenizer.encode("a", "b")], token_type_ids=True)
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 1, 1]]
    logit = float(model(inputs)["logits"][0, 0])
    without = {name: x for name, x in inputs.items() if name != "token_type_ids"}
    assert logit != float(model(without)["logits"][0, 0])
    classify = refimpl.pipeline("text-classification", folder, function_to_apply="none")
    assert classify({"text": "a", "text_pair": "b"})["score"] == logit
    reranker = refimpl.Reranker(folder, activation_fn=lambda x: x)
    assert float(reranker.predict(("a", "b"))) == logit
