"""Our tasks beside transformers' pipelines and sentence-transformers, live, on the same folders.

Labels, tokens, words, offsets and order are equal; scores differ by at most `bound`: both sides are
float32, whose rounding errors grow with the square root of the width and with the depth, on values
of the size of the raw outputs. The folders have unit-gain random weights (text_folders.py), so that
a wrong rule moves scores by several percent; the bundled model serves fill-mask.
"""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.0")
sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.0")
pytest.importorskip("tokenizers")

from support.text_folders import NER_LABELS, model_folder, sentence_folder  # noqa: E402

import refimpl  # noqa: E402
from refimpl.models.model import BUNDLED  # noqa: E402

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning"),
]

EPS = float(np.finfo(np.float32).eps)
# Roundings on the way through a layer (two norms, two pairs of products, attention, two sums), and
# through embedding, final norm, head and score.
PER_LAYER, AROUND = 8, 8

TEXTS = [
    "Ada Lovelace wrote notes on the Analytical Engine in London.",
    "for i in range(10):\n    print(i)",
    "",
    "Zürich, naïve café — 東京 and 😀!",
    "a " * 70 + "long text that goes far beyond the window",
]


def bound(config: Any, size: float) -> float:
    """How far two float32 evaluations may stand apart in a value of this size."""
    width = max(config.hidden_size, config.intermediate_size)
    roundings = PER_LAYER * config.num_hidden_layers + AROUND
    return 2 * EPS * math.sqrt(width) * roundings * max(size, 1.0)


def same(ours: Any, theirs: Any, tolerance: float, path: str = "result") -> None:
    """Equal structure and values, floats within the tolerance."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs), path
        for key in theirs:
            same(ours[key], theirs[key], tolerance, f"{path}.{key}")
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), path
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            same(one, other, tolerance, f"{path}[{i}]")
    elif isinstance(theirs, (float, np.floating)):
        assert abs(ours - theirs) <= tolerance, f"{path}: {ours} {theirs} bound {tolerance}"
    else:
        assert ours == theirs, f"{path}: {ours!r} {theirs!r}"


def pipelines(task: str, folder: Path, **options: Any) -> tuple[Any, Any]:
    """Ours and theirs over one folder."""
    mine = refimpl.pipeline(task, folder)
    theirs = transformers.pipeline(
        task, model=str(folder), device="cpu", dtype=torch.float32, **options
    )
    return mine, theirs


# -- fill-mask ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fill():
    return pipelines("fill-mask", BUNDLED)


MASKED = [
    "for i in [MASK](10):",
    "The [MASK] of a list is its [MASK].",
    "[MASK]",
    "Return the [MASK] of the string, or None.",
]


@pytest.mark.parametrize("options", [{}, {"top_k": 1}, {"top_k": 20}])
@pytest.mark.parametrize("text", MASKED)
def test_fill_mask(fill, text, options):
    ours, theirs = fill
    limit = bound(ours.model.config, logit_size(ours, text))
    same(ours(text, **options), theirs(text, **options), limit)


def logit_size(ours: Any, text: Any) -> float:
    """Largest raw output for a text or a pair."""
    encoded = ours.tokenizer.encode_batch([text])
    return float(np.abs(ours.model(ours.tokenizer.pad(encoded))["logits"]).max())


@pytest.mark.parametrize(
    "targets", [["Ġrange", "Ġsorted"], "Ġrange", ["dog", "range", "zebra crossing"], ["Ġrange"] * 3]
)
def test_fill_mask_targets(fill, targets):
    ours, theirs = fill
    text = MASKED[0]
    limit = bound(ours.model.config, logit_size(ours, text))
    same(ours(text, targets=targets), theirs(text, targets=targets), limit)


def test_fill_mask_lists(fill):
    ours, theirs = fill
    limit = bound(ours.model.config, max(logit_size(ours, text) for text in MASKED))
    same(ours(MASKED), theirs(MASKED), limit)
    same(ours(MASKED[:1]), theirs(MASKED[:1]), limit)  # a list of one is not a list
    same(ours(MASKED, batch_size=3), theirs(MASKED), limit)


# -- text-classification --------------------------------------------------------------------------

PAIRS = [{"text": "a premise", "text_pair": "an hypothesis, longer"}, {"text": "alone"}]
CLASSIFIERS = {
    "three": dict(id2label={0: "bad", 1: "so so", 2: "good"}),
    "two-cls": dict(id2label={0: "no", 1: "yes"}, classifier_pooling="cls"),
    "multi": dict(id2label={0: "a", 1: "b", 2: "c"}, problem_type="multi_label_classification"),
    "one": dict(id2label={0: "score"}),
    "regression": dict(id2label={0: "score"}, problem_type="regression"),
    "regression-two": dict(id2label={0: "x", 1: "y"}, problem_type="regression"),
}


@pytest.fixture(scope="module", params=CLASSIFIERS)
def classify(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model_folder(folder, "sequence_classification", seed=1, **CLASSIFIERS[request.param])
    return pipelines("text-classification", folder)


@pytest.mark.parametrize(
    "options",
    [{}, {"top_k": 1}, {"top_k": 2}, {"top_k": None}, {"top_k": 99}, {"function_to_apply": "none"},
     {"function_to_apply": "sigmoid"}, {"function_to_apply": "softmax", "top_k": None}],
    ids=str,
)  # fmt: skip
def test_classification(classify, options):
    ours, theirs = classify
    limit = bound(ours.model.config, max(logit_size(ours, text) for text in TEXTS))
    for inputs in (TEXTS, TEXTS[0], TEXTS[2], TEXTS[:1], PAIRS, PAIRS[0]):
        same(ours(inputs, **options), theirs(inputs, **options), limit)
    same(ours(TEXTS, batch_size=3, **options), theirs(TEXTS, **options), limit)


# -- token-classification -------------------------------------------------------------------------

# One space at a time: at other white space the words part here, and not there (tasks/entities.py).
SPACED = [" ".join(text.split()) for text in TEXTS]
STRATEGIES = ["none", "simple", "first", "average", "max"]


@pytest.fixture(scope="module", params=[0, 1])
def tag(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ner")
    labels = NER_LABELS if request.param == 0 else {0: "O", 1: "NOUN", 2: "B-X", 3: "ADJ-ECTIVE"}
    model_folder(folder, "token_classification", seed=request.param, id2label=labels)
    return pipelines("token-classification", folder)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("ignored", [None, [], ["B-PER", "LOC", "O", "NOUN"]], ids=str)
def test_token_classification(tag, strategy, ignored):
    ours, theirs = tag
    options: dict[str, Any] = {"aggregation_strategy": strategy}
    if ignored is not None:
        options["ignore_labels"] = ignored
    limit = bound(ours.model.config, max(logit_size(ours, text) for text in TEXTS))
    texts = TEXTS if strategy in ("none", "simple") else SPACED
    same(ours(texts, **options), theirs(texts, **options), limit)
    same(ours(texts[0], **options), theirs(texts[0], **options), limit)
    same(ours(texts, batch_size=4, **options), theirs(texts, **options), limit)


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize(("length", "stride"), [(12, 3), (9, 0), (20, 15)])
def test_token_classification_stride(tag, strategy, length, stride):
    ours, theirs = tag
    limit = bound(ours.model.config, max(logit_size(ours, text) for text in TEXTS))
    theirs.tokenizer.model_max_length = length
    texts = TEXTS if strategy == "simple" else SPACED
    try:
        expected = [theirs(text, aggregation_strategy=strategy, stride=stride) for text in texts]
    finally:
        theirs.tokenizer.model_max_length = 8192
    options = dict(aggregation_strategy=strategy, stride=stride, max_length=length)
    same(ours(texts, **options), expected, limit)


def test_token_classification_truncates(tag):
    ours, theirs = tag
    limit = bound(ours.model.config, logit_size(ours, TEXTS[0]))
    theirs.tokenizer.model_max_length = 8
    try:
        expected = theirs(TEXTS[0])
    finally:
        theirs.tokenizer.model_max_length = 8192
    with pytest.warns(refimpl.TruncationWarning):
        found = ours(TEXTS[0], max_length=8)
    assert len({entity.pop("truncated") for entity in found}) == 1
    same(found, expected, limit)


# -- feature-extraction ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, "masked_lm"])
def test_feature_extraction(tmp_path, kind):
    ours, theirs = pipelines("feature-extraction", model_folder(tmp_path, kind, seed=3))
    expected = theirs(TEXTS)
    limit = bound(ours.model.config, max(np.abs(x).max() for x in expected))
    same(ours(TEXTS), expected, limit)
    same(ours(TEXTS, batch_size=4), expected, limit)
    same(ours(TEXTS[0]), theirs(TEXTS[0]), limit)


# -- sentence-transformers ------------------------------------------------------------------------

OLD, NEW = "sentence_transformers.models.", "sentence_transformers.sentence_transformer.modules."
WIDTH = 32
PROMPTS = {"query": "search_query: ", "document": "search_document: ", "other": "Represent: "}


def pooling(mode: str, **more: Any) -> tuple[str, dict[str, Any]]:
    flag = {"cls": "cls_token", "lasttoken": "lasttoken"}.get(mode, f"{mode}_tokens")
    flag = "mean_sqrt_len_tokens" if mode == "mean_sqrt_len_tokens" else flag
    config = {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": False}
    return OLD + "Pooling", config | {f"pooling_mode_{flag}": True} | more


def dense(out: int, **more: Any) -> tuple[str, dict[str, Any]]:
    return OLD + "Dense", {"in_features": WIDTH, "out_features": out, "bias": True} | more


IDENTITY = "torch.nn.modules.linear.Identity"
FOLDERS: dict[str, dict[str, Any]] = {
    mode: dict(modules=[pooling(mode)])
    for mode in ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
}
FOLDERS |= {
    "two": dict(modules=[(NEW + "Pooling", {
        "embedding_dimension": WIDTH, "pooling_mode": ["max", "mean"], "include_prompt": True})]),
    "normalize": dict(modules=[pooling("mean"), (OLD + "Normalize", {})]),
    "dense-tanh": dict(modules=[pooling("mean"), dense(20)]),
    "dense-identity": dict(
        modules=[pooling("cls"), dense(20, bias=False, activation_function=IDENTITY),
                 (OLD + "Normalize", {})]),
    "layer-norm": dict(modules=[pooling("mean"), (OLD + "LayerNorm", {"dimension": WIDTH})]),
    "no-prompt": dict(modules=[pooling("mean", include_prompt=False)],
                      settings={"prompts": PROMPTS, "default_prompt_name": "other"}),
    "no-prompt-weighted": dict(modules=[pooling("weightedmean", include_prompt=False)],
                               settings={"prompts": PROMPTS}),
    "no-prompt-cls": dict(modules=[pooling("cls", include_prompt=False)],
                          settings={"prompts": PROMPTS}),
    "settings": dict(modules=[pooling("mean")],
                     settings={"prompts": PROMPTS, "truncate_dim": 12, "similarity_fn_name": "dot"},
                     transformer={"max_seq_length": 10, "do_lower_case": True}),
}  # fmt: skip


@pytest.fixture(scope="module", params=FOLDERS)
def encoders(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    sentence_folder(folder, seed=5, **FOLDERS[request.param])
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    return refimpl.SentenceEncoder(folder), theirs


def close(ours: np.ndarray, theirs: Any, config: Any) -> None:
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    limit = bound(config, float(np.abs(theirs).max(initial=0)))
    assert np.abs(ours - theirs).max(initial=0) <= limit


@pytest.mark.parametrize("name", ["cosine", "dot"])
def test_search_finds_what_semantic_search_finds(encoders, name):
    ours, _ = encoders
    rng = np.random.default_rng(3)
    vectors, queries = (
        rng.standard_normal((n, ours.dimension)).astype(np.float32) for n in (300, 7)
    )
    score = {
        "cosine": sentence_transformers.util.cos_sim,
        "dot": sentence_transformers.util.dot_score,
    }
    expected = sentence_transformers.util.semantic_search(
        queries, vectors, corpus_chunk_size=64, top_k=9, score_function=score[name]
    )
    was, ours.similarity_fn_name = ours.similarity_fn_name, name
    found = ours.search(queries, vectors, 9)
    ours.similarity_fn_name = was
    # Two orders of a sum of `dimension` products, each with as many roundings, and two norms.
    limit = 4 * ours.dimension * EPS * (1 if name == "cosine" else 4 * ours.dimension)
    for one, theirs in zip(found, expected, strict=True):
        assert [x["corpus_id"] for x in one] == [x["corpus_id"] for x in theirs]
        for x, y in zip(one, theirs, strict=True):
            assert x.keys() == y.keys() and abs(x["score"] - y["score"]) <= limit


@pytest.mark.parametrize(
    "options",
    [{}, {"normalize_embeddings": True}, {"truncate_dim": 7},
     {"truncate_dim": 7, "normalize_embeddings": True}, {"batch_size": 2},
     {"prompt_name": "query"}, {"prompt": "do this: "},
     {"prompt": "do this: ", "prompt_name": "document"}],
    ids=str,
)  # fmt: skip
def test_encode(encoders, options):
    ours, theirs = encoders
    quiet = {"truncate": "silent"}
    for texts in (TEXTS, TEXTS[0], TEXTS[2:3]):
        close(ours.encode(texts, **options, **quiet), theirs.encode(texts, **options),
              ours.model.config)  # fmt: skip


def test_encode_query_and_document(encoders):
    ours, theirs = encoders
    config = ours.model.config
    close(ours.encode_query(TEXTS, truncate="silent"), theirs.encode_query(TEXTS), config)
    close(ours.encode_document(TEXTS, truncate="silent"), theirs.encode_document(TEXTS), config)


def test_facts_of_the_folder(encoders):
    ours, theirs = encoders
    assert ours.dimension == theirs.get_embedding_dimension()
    assert ours.max_seq_length == theirs.max_seq_length
    assert dict(ours.prompts) == theirs.prompts
    assert ours.similarity_fn_name == theirs.similarity_fn_name
    with pytest.raises(ValueError, match="prompt_name 'nobody'"):
        ours.encode(TEXTS, prompt_name="nobody")
    with pytest.raises(ValueError, match="nobody"):
        theirs.encode(TEXTS, prompt_name="nobody")


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarity(encoders, name):
    ours, theirs = encoders
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, 8)).astype(np.float32) for n in (3, 4))
    theirs_before, ours_before = theirs.similarity_fn_name, ours.similarity_fn_name
    theirs.similarity_fn_name = ours.similarity_fn_name = name
    try:
        found, expected = ours.similarity(a, b), theirs.similarity(a, b).numpy()
    finally:
        theirs.similarity_fn_name, ours.similarity_fn_name = theirs_before, ours_before
    assert found.shape == expected.shape == (3, 4)
    # A sum of 8 products, or the root of one: 8 roundings of values of this size; torch's distance
    # goes through |a|^2 + |b|^2 - 2 a.b for larger inputs only.
    size = float(np.abs(expected).max() + np.square(a).sum(axis=1).max())
    assert np.abs(found - expected).max() <= 2 * 8 * EPS * size


def test_plain_folder_gets_mean_pooling_as_theirs_does(tmp_path):
    model_folder(tmp_path, None, seed=6)
    with pytest.warns(UserWarning, match="mean pooling is used"):
        ours = refimpl.SentenceEncoder(tmp_path)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    close(ours.encode(TEXTS), theirs.encode(TEXTS), ours.model.config)


def test_folder_that_theirs_saves(tmp_path):
    (tmp_path / "old").mkdir()
    sentence_folder(tmp_path / "old", [pooling("mean"), dense(20)], seed=7)
    theirs = sentence_transformers.SentenceTransformer(
        str(tmp_path / "old"), device="cpu", prompts=PROMPTS, default_prompt_name="query"
    )
    theirs.save(str(tmp_path / "new"))
    ours = refimpl.SentenceEncoder(tmp_path / "new")
    close(ours.encode(TEXTS), theirs.encode(TEXTS), ours.model.config)


# -- rerankers ------------------------------------------------------------------------------------

PAIRS_TO_SCORE = [("what is it", text) for text in TEXTS] + [("", ""), ("q " * 90, "d " * 90)]


@pytest.fixture(scope="module", params=["one", "three", "identity"])
def rerankers(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    labels = {"three": {0: "a", 1: "b", 2: "c"}}.get(request.param, {0: "score"})
    model_folder(folder, "sequence_classification", seed=8, id2label=labels)
    if request.param == "identity":
        config = json.loads((folder / "config.json").read_text())
        config["sentence_transformers"] = {"activation_fn": IDENTITY}
        (folder / "config.json").write_text(json.dumps(config))
    theirs = sentence_transformers.CrossEncoder(str(folder), device="cpu")
    return refimpl.Reranker(folder), theirs


@pytest.mark.parametrize("options", [{}, {"batch_size": 3}, {"apply_softmax": True}], ids=str)
def test_predict(rerankers, options):
    ours, theirs = rerankers
    found, expected = (
        ours.predict(PAIRS_TO_SCORE, **options),
        theirs.predict(PAIRS_TO_SCORE, **options),
    )
    close(found, expected, ours.model.config)
    close(
        np.asarray(ours.predict(PAIRS_TO_SCORE[0], **options)),
        theirs.predict(PAIRS_TO_SCORE[0], **options),
        ours.model.config,
    )


def test_rank(rerankers):
    ours, theirs = rerankers
    documents = TEXTS[:4]
    if ours.num_labels != 1:
        for reranker in (ours, theirs):
            with pytest.raises(ValueError, match="label"):
                reranker.rank("q", documents)
        return
    limit = bound(ours.model.config, 1.0)
    for options in ({}, {"top_k": 2}, {"return_documents": True}):
        same(ours.rank("q", documents, **options), theirs.rank("q", documents, **options), limit)


def test_modular_reranker(tmp_path):
    modules = [
        pooling("mean"),
        dense(WIDTH, activation_function="torch.nn.modules.activation.GELU"),
        (OLD + "LayerNorm", {"dimension": WIDTH}),
        dense(1, activation_function=IDENTITY, module_output_name="scores"),
    ]
    settings = {
        "model_type": "CrossEncoder",
        "activation_fn": "torch.nn.modules.activation.Sigmoid",
    }
    sentence_folder(tmp_path, modules, seed=9, settings=settings)
    theirs = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    ours = refimpl.Reranker(tmp_path)
    close(ours.predict(PAIRS_TO_SCORE), theirs.predict(PAIRS_TO_SCORE), ours.model.config)


def test_folder_that_their_reranker_saves(tmp_path):
    (tmp_path / "old").mkdir()
    model_folder(tmp_path / "old", "sequence_classification", seed=8, id2label={0: "score"})
    theirs = sentence_transformers.CrossEncoder(str(tmp_path / "old"), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save(str(tmp_path / "new"))
    ours = refimpl.Reranker(tmp_path / "new")
    close(ours.predict(PAIRS_TO_SCORE), theirs.predict(PAIRS_TO_SCORE), ours.model.config)
