"""`SentenceEncoder.search`: exact, in blocks, with sentence-transformers' result keys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.text_folders import sentence_folder

from refimpl import SentenceEncoder
from refimpl.tasks import search
from refimpl.tasks.similarity import SIMILARITIES


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    pytest.importorskip("tokenizers")
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    modules = [("sentence_transformers.models.Pooling", pooling)]
    settings = {"prompts": {"query": "query: "}}
    return SentenceEncoder(
        sentence_folder(tmp_path_factory.mktemp("model"), modules, settings=settings)
    )


def brute(queries, vectors, k, name):
    """Rows by score, then by number: one whole sort."""
    scores = SIMILARITIES[name](queries, vectors)
    return [np.lexsort((np.arange(len(vectors)), -row))[:k] for row in scores]


@given(st.data())
@pytest.mark.parametrize("name", SIMILARITIES)
def test_blocks_change_nothing(name, data):
    rows, n, k = (data.draw(st.integers(low, high)) for low, high in ((0, 40), (1, 5), (1, 12)))
    # Small integers: their sums are exact, so that equal scores are equal bits in any block.
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    vectors, queries = (rng.integers(-2, 3, (size, 4)).astype(np.float32) for size in (rows, n))
    if name == "cosine":
        vectors, queries = (np.where(x == 0, 0, np.sign(x)) for x in (vectors, queries))
        vectors[:, 0], queries[:, 0] = 1, 1
        vectors, queries = (np.abs(x) for x in (vectors, queries))
    patch = pytest.MonkeyPatch()
    with patch.context() as p:
        p.setattr(search, "MAX_SCORES", data.draw(st.integers(1, 40)))
        p.setattr(search, "QUERIES", data.draw(st.integers(1, 3)))
        found = search.nearest(queries, vectors, k, name)
    whole = search.nearest(queries, vectors, k, name)
    for (scores, at), (all_scores, _), expected in zip(
        found, whole, brute(queries, vectors, k, name), strict=True
    ):
        assert at.tolist() == expected.tolist()
        assert np.allclose(scores, all_scores, rtol=1e-6, atol=0)


def test_memory_does_not_grow_with_the_vectors(monkeypatch):
    seen = []
    monkeypatch.setitem(SIMILARITIES, "dot", lambda a, b: seen.append(b.size) or a @ b.T)
    monkeypatch.setattr(search, "MAX_VALUES", 64)
    search.nearest(np.ones((2, 4), np.float32), np.ones((100, 4), np.float32), 3, "dot")
    assert sum(seen) == 400 and max(seen) <= 64


def test_rows_that_are_not_finite_are_never_found():
    vectors = np.array([[1, 0], [np.nan, 1], [np.inf, 0], [0, 1]], np.float32)
    ((_, rows),) = search.nearest(np.array([[1, 0]], np.float32), vectors, 9)
    assert rows.tolist() == [0, 3]


def test_search_gives_semantic_searchs_keys(encoder):
    vectors = encoder.encode(["query: one", "two", "three words here"])
    one = encoder.search("one", vectors, 2)
    assert one[0]["corpus_id"] == 0 and one[0]["score"] > 0.9999  # the prompt "query" went before
    assert [set(r) for r in one] == [{"corpus_id", "score"}] * 2
    assert encoder.search(["one"], vectors, 2) == [one]
    assert encoder.search(["two"], vectors, 1, prompt="")[0][0]["corpus_id"] == 1
    queries = encoder.encode_query(["one", "two"])
    assert encoder.search(queries, vectors, 2) == encoder.search(["one", "two"], vectors, 2)
    assert encoder.search(queries[0], vectors, 2) == one
    assert encoder.search("one", vectors[:0]) == []
    assert encoder.search("one", vectors.astype(np.float16), 1)[0]["corpus_id"] == 0


def test_scores_are_those_of_similarity(encoder):
    vectors = encoder.encode(["a", "b", "c d"])
    query = encoder.encode_query("q")
    scores = encoder.similarity(query, vectors)[0]
    found = encoder.search("q", vectors)
    assert len(found) == 3
    for one in found:
        assert abs(one["score"] - scores[one["corpus_id"]]) < 1e-6


@pytest.mark.parametrize(
    ("vectors", "k", "said"),
    [
        (np.zeros((3, 7), np.float32), 1, "7 wide and queries 32"),
        (np.zeros(32, np.float32), 1, "must be floats"),
        (np.zeros((3, 32), int), 1, "must be floats"),
        (np.zeros((3, 32), np.float32), 0, "top_k must be an int of at least 1"),
    ],
)
def test_search_refuses(encoder, vectors, k, said):
    with pytest.raises(ValueError, match=said):
        encoder.search("a", vectors, k)
