"""Models with configurable heads behind the text tasks: which task takes which, and max_length."""

import warnings

import numpy as np
import pytest

from refimpl import (
    NLPTaskConfig,
    Reranker,
    SentenceEncoder,
    TruncationWarning,
    create_modern_bert_with_head,
    pipeline,
)
from refimpl.models.model import BUNDLED
from refimpl.models.task_model import ModernBERTForTask
from refimpl.text.tokenizer import Tokenizer

TEXT = "The quick brown fox jumps over the lazy dog near the river."
SIZES = dict(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=24)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_folder(BUNDLED)


def model(**task):
    """With embeddings and outputs so large that two classes are never a rounding apart."""
    made = create_modern_bert_with_head(
        "tiny", NLPTaskConfig(name="t", **task), bert_config_overrides=SIZES, seed=1
    )
    name, rng = "nlp_head.output.weight", np.random.default_rng(0)
    large = rng.standard_normal(made.params[name].shape).astype(np.float32)
    return ModernBERTForTask(made.config, {**made.params, name: large}, made.head)


def outputs(made, tokenizer, text, max_length):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        encoded = tokenizer.encode_batch([text], max_length=max_length, truncate="warn")
    return made(tokenizer.pad(encoded))


def test_nlp_text_is_cut_at_max_length_of_the_task_and_told(tokenizer):
    made = model(task_type="sentiment_analysis", num_classes=3, max_length=8)
    run = pipeline("text-classification", model=made, tokenizer=tokenizer)
    with pytest.warns(TruncationWarning, match="cut to max_length 8"):
        found = run(TEXT, top_k=None)
    p = outputs(made, tokenizer, TEXT, 8)["probabilities"][0]
    assert [f["label"] for f in found] == [f"LABEL_{i}" for i in np.argsort(-p)]
    assert all(f["truncated"] > 0 for f in found)
    whole = run(TEXT, top_k=None, max_length=64)
    assert not any("truncated" in f for f in whole)
    assert whole[0]["score"] != found[0]["score"]


def test_nlp_regression_gives_its_value(tokenizer):
    made = model(task_type="readability_scoring")
    run = pipeline("text-classification", model=made, tokenizer=tokenizer)
    value = outputs(made, tokenizer, TEXT, 64)["values"][0]
    assert run(TEXT) == [{"label": "LABEL_0", "score": float(value)}]
    rerank = Reranker(made, tokenizer=tokenizer)
    assert rerank.predict([(TEXT, "dog")]).shape == (1,)
    assert rerank.max_seq_length == 512


def test_nlp_similarity_embeds_text(tokenizer):
    made = model(task_type="text_similarity", hidden_size=5, max_length=8)
    encoder = SentenceEncoder(made, tokenizer=tokenizer)
    assert (encoder.dimension, encoder.max_seq_length) == (5, 8)
    with pytest.warns(TruncationWarning):
        got = encoder.encode([TEXT])
    np.testing.assert_array_equal(got, outputs(made, tokenizer, TEXT, 8)["embeddings"])


@pytest.mark.parametrize(
    ("task", "given", "config"),
    [
        ("token-classification", TEXT, dict(task_type="named_entity_recognition", num_classes=3)),
        ("fill-mask", "The [MASK] fox.", dict(task_type="masked_language_modeling")),
        (
            "question-answering",
            {"question": "Who jumps?", "context": TEXT},
            dict(task_type="question_answering", max_length=32),
        ),
    ],
)
def test_nlp_head_serves_the_pipeline_of_its_kind(task, given, config, tokenizer):
    run = pipeline(task, model=model(**config), tokenizer=tokenizer)
    assert run(given)


def test_nlp_head_of_another_kind_is_refused_by_name(tokenizer):
    with pytest.raises(ValueError, match="needs a model with a sequence_classification head"):
        pipeline(
            "text-classification", model=model(task_type="text_similarity"), tokenizer=tokenizer
        )
