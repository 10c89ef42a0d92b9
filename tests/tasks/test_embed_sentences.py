"""SentenceEncoder: vectors are the model's, order and batches do not matter, prompts, refusals."""

import copy
import json
import pickle
import warnings

import numpy as np
import pytest
from support.text_folders import model_folder, sentence_folder

import refimpl
from refimpl.errors import ModelFormatError, TruncationWarning
from refimpl.models.model import BUNDLED
from refimpl.reference.pooling import pool
from refimpl.tasks.batches import TOKENS, fits, in_passes
from refimpl.tasks.similarity import SIMILARITIES

pytest.importorskip("tokenizers")

MODELS = "sentence_transformers.models."
MEAN = (MODELS + "Pooling", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
DENSE = (MODELS + "Dense", {"in_features": 32, "out_features": 12})
TEXTS = ["a", "a much longer text than the others, of many tokens", "", "two words", "naïve 😀"]
PROMPTS = {"query": "search: ", "document": None}
EPS = float(np.finfo(np.float32).eps)


def folder_with(tmp_path_factory, *modules, **options):
    return sentence_folder(tmp_path_factory.mktemp("encoder"), list(modules), **options)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    settings = {"prompts": PROMPTS, "similarity_fn_name": "dot"}
    return refimpl.SentenceEncoder(folder_with(tmp_path_factory, MEAN, DENSE, settings=settings))


def near(a, b):
    """Batches change summation orders: a few dozen float32 roundings of values of this size."""
    return a.shape == b.shape and np.abs(a - b).max(initial=0) <= 64 * EPS * np.abs(b).max(
        initial=1
    )


def test_vectors_are_those_of_the_loaded_model(encoder):
    model = refimpl.load(encoder.model.folder)
    for text in TEXTS:
        ids = encoder.tokenizer.encode(text).ids
        assert np.array_equal(encoder.encode(text), model([ids])["embeddings"][0])


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_order_and_batch_size_do_not_matter(encoder, batch_size):
    one_by_one = np.stack([encoder.encode(text) for text in TEXTS])
    assert near(encoder.encode(TEXTS, batch_size=batch_size), one_by_one)
    assert near(encoder.encode(TEXTS[::-1], batch_size=batch_size), one_by_one[::-1])


def test_batches_are_longest_first_and_rows_come_back_in_order(encoder):
    encodings = encoder.tokenizer.encode_batch(["a a", "a", "a a a a", "a a a"])
    seen = []

    def run(batch):
        seen.append([len(e) for e in batch])
        return np.array([[len(e)] for e in batch])

    found = np.zeros((4, 1), int)
    for places, rows in in_passes(encodings, run, 3):
        found[places] = rows
    assert found[:, 0].tolist() == [4, 3, 6, 5]
    assert seen == [[6, 5, 4], [3]]


def test_passes_are_cut_by_tokens(encoder):
    assert fits([]) == 0
    assert fits([5000, 1]) == 1 == fits([TOKENS, 1]) == fits([TOKENS + 1])
    assert fits([TOKENS - 1, 1, 1]) == 2
    assert fits([1] * 99) == 99 and fits([1] * 99, 32) == 32 and fits([4] * 99, tokens=9) == 2
    texts = ["a " * n for n in (3, 700, 2, 5000, 400, 650, 1)]
    encodings = encoder.tokenizer.encode_batch(texts, truncate="never")
    passes = [places.tolist() for places, _ in in_passes(encodings, list)]
    assert passes == [[3], [1], [5], [4, 0, 2, 6]]


def test_budget_changes_no_bit(encoder, monkeypatch):
    """On backend native, whose promise it is; with numpy to rounding."""
    rng = np.random.default_rng(0)
    texts = [" ".join(["word"] * int(n)) for n in rng.integers(1, 300, 24)]
    whole = encoder.encode(texts)
    for tokens in (1, 64, 999, 10**6):
        monkeypatch.setattr("refimpl.tasks.batches.fits.__defaults__", (None, tokens))
        found = encoder.encode(texts)
        assert near(found, whole)
        assert encoder.model.backend != "native" or np.array_equal(found, whole)


def test_shapes_of_results(encoder):
    assert encoder.dimension == 12
    assert encoder.encode("a").shape == (12,)
    assert encoder.encode(["a"]).shape == (1, 12)
    assert encoder.encode(iter(TEXTS)).shape == (5, 12)
    assert encoder.encode([]).shape == (0, 12)
    assert encoder.encode([], truncate_dim=5).shape == (0, 5)
    assert encoder.encode([]).dtype == encoder.encode("a").dtype == np.float32


def test_normalised_vectors_have_length_one_after_the_cut(encoder):
    whole = encoder.encode(TEXTS)
    cut = encoder.encode(TEXTS, truncate_dim=5, normalize_embeddings=True)
    expected = whole[:, :5] / np.linalg.norm(whole[:, :5], axis=1, keepdims=True)
    assert near(cut, expected)


def test_prompts_go_before_the_text(encoder):
    with_text = encoder.encode("search: a")
    assert np.array_equal(encoder.encode("a", prompt="search: "), with_text)
    assert np.array_equal(encoder.encode("a", prompt_name="query"), with_text)
    assert np.array_equal(encoder.encode("a", prompt="search: ", prompt_name="document"), with_text)
    assert np.array_equal(encoder.encode_query("a"), with_text)
    assert np.array_equal(encoder.encode_document("a"), encoder.encode("a"))
    assert not np.array_equal(encoder.encode("a"), with_text)
    own = refimpl.SentenceEncoder(encoder.model, default_prompt_name="query")
    assert np.array_equal(own.encode("a"), with_text)
    assert np.array_equal(own.encode("a", prompt=""), encoder.encode("a"))


@pytest.mark.parametrize("mode", ["mean", "weightedmean"])
def test_prompt_tokens_are_left_out_of_the_pooling_when_the_folder_says_so(tmp_path_factory, mode):
    config = {"embedding_dimension": 32, "pooling_mode": mode, "include_prompt": False}
    folder = folder_with(tmp_path_factory, (MODELS + "Pooling", config))
    encoder = refimpl.SentenceEncoder(folder)
    ids = encoder.tokenizer.encode("do this: a text").ids
    hidden = encoder.model.encoder([ids])["last_hidden_state"]
    skipped = len(encoder.tokenizer.encode("do this: ")) - 1  # [CLS] and the prompt, not [SEP]
    if mode == "mean":
        expected = hidden[0, skipped:].mean(axis=0)
    else:
        weights = np.arange(1, len(ids) + 1, dtype=np.float32)[skipped:]
        expected = (hidden[0, skipped:] * weights[:, None]).sum(axis=0) / weights.sum()
    assert near(encoder.encode("a text", prompt="do this: "), expected)


@pytest.mark.parametrize("kind", [None, "masked_lm"])
def test_folder_without_modules_gets_mean_pooling_and_a_warning(tmp_path, kind):
    folder = model_folder(tmp_path, kind)
    with pytest.warns(UserWarning, match=r"no modules.json \(.*\): mean pooling is used") as told:
        encoder = refimpl.SentenceEncoder(folder)
    assert [w.filename for w in told] == [__file__]  # the line that asked for it
    inputs = encoder.tokenizer.pad(encoder.tokenizer.encode_batch(TEXTS))
    hidden = refimpl.ModernBERT.from_pretrained(folder)(inputs)["last_hidden_state"]
    assert near(encoder.encode(TEXTS), pool(hidden, inputs["attention_mask"], "mean"))


@pytest.mark.parametrize("model", [BUNDLED, refimpl.load(BUNDLED)], ids=["folder", "it"])
def test_bundled_model_gets_mean_pooling_without_a_warning(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder = refimpl.SentenceEncoder(model)
    inputs = encoder.tokenizer.pad(encoder.tokenizer.encode_batch(TEXTS))
    hidden = encoder.model.encoder(inputs)["last_hidden_state"]
    assert near(encoder.encode(TEXTS), pool(hidden, inputs["attention_mask"], "mean"))


def test_warning_says_where_the_modules_are_missing(tmp_path_factory):
    alone = folder_with(tmp_path_factory)
    with pytest.warns(UserWarning, match="modules.json of .* lists the Transformer alone .*mean"):
        refimpl.SentenceEncoder(alone)
    bare = refimpl.ModernBERT.from_pretrained(folder_with(tmp_path_factory, MEAN, DENSE))
    with pytest.warns(UserWarning, match="loaded without the modules in modules.json of .*mean"):
        refimpl.SentenceEncoder(bare)


def test_cut_texts_are_told_and_counted(encoder):
    with pytest.warns(TruncationWarning, match="1 of 2 texts cut to max_length 5: 3 tokens lost"):
        vectors, lost = encoder.encode(["a", "a b c d e f"], max_length=5, return_lost=True)
    assert lost.tolist() == [0, 3]
    assert near(vectors[1], encoder.encode("a b c"))
    with pytest.raises(ValueError, match=r"texts\[1\] has 8 tokens"):
        encoder.encode(["a", "a b c d e f"], max_length=5, truncate="error")


def test_folder_settings_are_followed(tmp_path_factory):
    folder = folder_with(
        tmp_path_factory, MEAN, settings={"truncate_dim": 9, "default_prompt_name": "document",
                                          "prompts": {"document": "doc: "}},
        transformer={"max_seq_length": 6, "do_lower_case": True},
    )  # fmt: skip
    encoder = refimpl.SentenceEncoder(folder)
    assert (encoder.dimension, encoder.max_seq_length) == (9, 6)
    with pytest.warns(TruncationWarning, match="max_length 6"):
        long = encoder.encode("A B c d e f g", prompt="")
    assert np.array_equal(long, encoder.encode("a b c d", prompt="", truncate_dim=9))
    assert np.array_equal(encoder.encode("a"), encoder.encode("doc: a", prompt=""))


@pytest.mark.parametrize(
    ("file", "content", "key"),
    [
        ("config_sentence_transformers.json", {"prompts": {"query": 3}}, "prompts"),
        ("config_sentence_transformers.json", {"prompts": ["a"]}, "prompts"),
        ("config_sentence_transformers.json", {"default_prompt_name": "x"}, "default_prompt_name"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "x"}, "similarity_fn_name"),
        ("config_sentence_transformers.json", {"truncate_dim": 0}, "truncate_dim"),
        ("config_sentence_transformers.json", {"truncate_dim": True}, "truncate_dim"),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "max_seq_length"),
        ("sentence_bert_config.json", {"do_lower_case": 1}, "do_lower_case"),
    ],
)
def test_wrong_settings_are_a_format_error(tmp_path, file, content, key):
    folder = sentence_folder(tmp_path, [MEAN])
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(ModelFormatError) as caught:
        refimpl.SentenceEncoder(folder)
    assert (caught.value.file, caught.value.key) == (str(folder / file), key)


@pytest.mark.parametrize(
    ("texts", "options", "error", "said"),
    [
        (["a", 3], {}, TypeError, r"texts\[1\] must be a str, not int"),
        (["a", ("b", "c")], {}, TypeError, r"texts\[1\] must be a str, not tuple"),
        (3, {}, TypeError, "texts must be a str or a list"),
        (["a"], {"prompt_name": "x"}, ValueError, "prompt_name 'x' is unknown"),
        (["a"], {"batch_size": 0}, ValueError, "batch_size must be an int of at least 1"),
        (["a"], {"truncate_dim": 0}, ValueError, "truncate_dim must be at least 1"),
        (["a"], {"truncate_dim": 1.5}, TypeError, "truncate_dim must be an int, not float"),
    ],
)
def test_bad_input_is_refused(encoder, texts, options, error, said):
    with pytest.raises(error, match=said):
        encoder.encode(texts, **options)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"truncate_dim": 0}, ValueError, "truncate_dim must be at least 1, not 0"),
        ({"truncate_dim": -5}, ValueError, "truncate_dim must be at least 1, not -5"),
        ({"truncate_dim": 1.5}, TypeError, "truncate_dim must be an int, not float"),
        ({"default_prompt_name": "x"}, ValueError, "prompt_name 'x' is unknown; known: "),
    ],
)
def test_bad_defaults_are_refused_at_once(encoder, options, error, said):
    with pytest.raises(error, match=said):
        refimpl.SentenceEncoder(encoder.model, **options)


@pytest.mark.parametrize("of", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_encoder_can_be_copied_and_pickled(encoder, of):
    assert np.array_equal(of(encoder).encode(TEXTS), encoder.encode(TEXTS))


# -- similarity -----------------------------------------------------------------------------------


def test_similarities_on_worked_vectors():
    a, b = np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[4.0, 3.0]])
    found = {name: f(a, b)[:, 0].tolist() for name, f in SIMILARITIES.items()}
    assert found["dot"] == [24, 4]
    assert found["manhattan"] == [-2, -6]
    eps = 8 * np.finfo(np.float64).eps
    assert np.abs(np.array(found["cosine"]) - [24 / 25, 4 / 5]).max() <= eps
    assert np.abs(np.array(found["euclidean"]) - [-(2**0.5), -(18**0.5)]).max() <= 8 * eps


def test_similarity_is_the_folders_and_takes_single_vectors(encoder):
    one, two = encoder.encode(["a", "b"])
    assert near(encoder.similarity(one, two), np.array([[one @ two]]))
    assert encoder.similarity(np.stack([one, two]), one).shape == (2, 1)
    with pytest.raises(ValueError, match="a is 12 wide and b 5"):
        encoder.similarity(one, two[:5])


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarity_of_no_texts_is_empty(name):
    some = np.ones((2, 3), np.float32)
    assert SIMILARITIES[name](some[:0], some).shape == (0, 2)
    assert SIMILARITIES[name](some, some[:0]).shape == (2, 0)
    assert SIMILARITIES[name](some, some).dtype == np.float32


def test_model_that_scores_pairs_is_refused(tmp_path):
    scores = {"in_features": 32, "out_features": 1, "module_output_name": "scores"}
    folder = sentence_folder(tmp_path, [MEAN, (MODELS + "Dense", scores)])
    with pytest.raises(ValueError, match="scores pairs and gives no embeddings; see Reranker"):
        refimpl.SentenceEncoder(folder)


def test_no_warning_for_a_sentence_folder(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refimpl.SentenceEncoder(sentence_folder(tmp_path, [MEAN])).encode(TEXTS)


def test_queries_and_documents_have_the_lengths_that_the_folder_says(tmp_path_factory):
    lengths = {"max_seq_length": 64, "query_length": 8, "document_length": 12}
    encoder = refimpl.SentenceEncoder(folder_with(tmp_path_factory, MEAN, transformer=lengths))
    text = " ".join(f"word{i}" for i in range(40))
    for function, limit in (
        (encoder.encode_query, 8), (encoder.encode_document, 12), (encoder.encode, 64),
    ):  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, cut = function(text), encoder.encode(text, max_length=limit)
        assert np.array_equal(found, cut), limit
    longer = encoder.encode_query(text, max_length=20, truncate="silent")
    assert np.array_equal(longer, encoder.encode(text, max_length=20, truncate="silent"))


def test_prompt_that_fills_the_limit_leaves_something_to_pool(tmp_path_factory):
    own = {"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": False}
    folder = folder_with(
        tmp_path_factory, (MODELS + "Pooling", own), transformer={"max_seq_length": 8}
    )
    encoder = refimpl.SentenceEncoder(folder)
    prompt = "a very long instruction that fills all of the room that there is: "
    found = encoder.encode("x", prompt=prompt, truncate="silent")
    ids = encoder.tokenizer.encode(prompt + "x").ids
    hidden = encoder.model.encoder([ids[:7] + ids[-1:]])["last_hidden_state"]
    np.testing.assert_allclose(found, hidden[0, -1], atol=1e-5)  # [SEP], as its package has it


def test_settings_without_modules_are_named_and_not_read(tmp_path):
    folder = model_folder(tmp_path, None)
    with pytest.warns(UserWarning, match="mean pooling"):
        plain = refimpl.SentenceEncoder(folder).encode("a b c d")
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"q": "query: "}, "default_prompt_name": "q", "truncate_dim": 8})
    )
    said = "no modules.json, without which config_sentence_transformers.json are not read"
    with pytest.warns(UserWarning, match=said):
        found = refimpl.SentenceEncoder(folder).encode("a b c d")
    assert np.array_equal(found, plain)
