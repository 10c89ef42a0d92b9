"""Embedder: the encoder's bits in every kind of batch; errors stay in their rows."""

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from support.text_folders import some_texts

import refimpl
from refimpl.bulk import Embedder, embed_frame

pytestmark = pytest.mark.extras
pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")

BAD = [None, 5, float("nan"), "\ud800", b"bytes"]


@pytest.fixture(scope="module")
def embed(folder):
    return Embedder(folder, normalize=True, prompt="so: ")


@pytest.fixture(scope="module")
def expected(folder):
    encoder = refimpl.SentenceEncoder(folder)
    return lambda texts: encoder.encode(texts, normalize_embeddings=True, prompt="so: ")


def test_every_kind_of_batch_has_the_encoders_vectors(embed, expected):
    texts = some_texts(40)
    vectors = expected(texts)
    found = embed({"text": np.array(texts), "n": np.arange(40)})
    assert list(found) == ["text", "n", "embedding", "truncated", "error"]
    assert np.array_equal(found["embedding"], vectors) and found["embedding"].dtype == np.float32
    for batch in (pa.table({"text": texts}), pa.record_batch({"text": texts})):
        found = embed(batch)
        assert type(found) is type(batch)
        assert found.schema.field("embedding").type == pa.list_(pa.float32(), 32)
        assert np.array_equal(np.stack(found.column("embedding").to_pylist()), vectors)
        assert embed(batch.slice(3, 5)).column("embedding").to_pylist() == [
            row.tolist() for row in vectors[3:8]
        ]
    frame = pd.DataFrame({"text": texts}, index=range(100, 140))
    found = embed(frame)
    assert found.index.tolist() == list(range(100, 140)) and list(frame) == ["text"]
    assert np.array_equal(np.stack(found["embedding"].to_list()), vectors)
    assert found["error"].isna().all() and (found["truncated"] == 0).all()


def test_no_rows(embed):
    assert embed({"text": np.array([], str)})["embedding"].shape == (0, 32)
    assert embed(pa.table({"text": pa.array([], pa.string())})).num_rows == 0
    assert len(embed(pd.DataFrame({"text": []}))) == 0


def test_errors_stay_in_their_rows(embed, expected, monkeypatch):
    monkeypatch.setattr(Embedder, "window", 4)
    texts = some_texts(12)
    mixed = [*texts[:5], *BAD, *texts[5:]]
    found = embed({"text": np.array(mixed, object)})
    good = [i for i, error in enumerate(found["error"]) if error is None]
    assert good == [*range(5), *range(10, 17)]
    assert np.array_equal(found["embedding"][good], expected(texts))
    assert np.isnan(found["embedding"][5:10]).all()
    assert "must be a str, not NoneType" in found["error"][5]
    assert "lone surrogate" in found["error"][8]
    table = embed(pa.table({"text": ["a", None, "b"]}))
    assert table.column("embedding").is_null().to_pylist() == [False, True, False]
    with pytest.raises(TypeError, match="row 5: the text must be a str, not NoneType"):
        replace(embed, on_error="raise")({"text": np.array(mixed, object)})


def test_what_is_cut_is_counted_or_an_error(embed):
    texts = ["a b c d e f g h", "a"]
    found = replace(embed, max_length=6, space="")({"text": texts})
    assert found["truncated"][0] > 0 == found["truncated"][1]
    found = replace(embed, max_length=6, truncate="error", space="")({"text": texts})
    assert "over max_length 6" in found["error"][0] and found["error"][1] is None


def test_it_is_sent_without_weights_and_checks_what_it_loads(embed, other, folder):
    sent = pickle.dumps(embed)
    assert len(sent) < 1000
    again = pickle.loads(sent)
    assert again == embed and again.task() is embed.task()
    with pytest.raises(refimpl.SpaceError, match="this Embedder .* embedding space: weights"):
        replace(embed, folder=other).columns(["a"])
    assert Embedder(folder).task() is embed.task()  # one model for all options


def test_a_process_loads_the_model_once(embed):
    script = (
        "import pickle, sys, refimpl\nfrom refimpl.tasks import embed as module\n"
        "made = []\ninit = module.SentenceEncoder.__init__\n"
        "def spy(self, *a, **k): made.append(1); init(self, *a, **k)\n"
        "module.SentenceEncoder.__init__ = spy\n"
        "one, two = (pickle.loads(bytes.fromhex(sys.argv[1])) for _ in range(2))\n"
        "for _ in range(3): one({'text': ['a']}), two({'text': ['a']})\nprint(len(made))"
    )
    out = subprocess.run(
        [sys.executable, "-c", script, pickle.dumps(embed).hex()],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert out.strip() == "1"


def test_refusals(embed, folder):
    with pytest.raises(ValueError, match="no column 'text'; its columns: \\['body'\\]"):
        embed({"body": ["a"]})
    with pytest.raises(ValueError, match="a column 'error' already"):
        embed({"text": ["a"], "error": [1]})
    with pytest.raises(TypeError, match="batch is a list"):
        embed(["a"])
    with pytest.raises(ValueError, match="on_error must be one of column, raise, not 'x'"):
        Embedder(folder, on_error="x")
    with pytest.raises(ValueError, match="must differ"):
        Embedder(folder, out="text")
    with pytest.raises(ValueError, match="must differ"):
        Embedder(folder, column="error")
    with pytest.raises(ValueError, match="max_length 1 leaves no room for text"):
        Embedder(folder, max_length=1)


@pytest.mark.parametrize("scheduler", ["threads", "processes", "synchronous"])
def test_dask_frames_have_the_same_bits(embed, folder, expected, scheduler):
    dd = pytest.importorskip("dask.dataframe")
    texts = some_texts(40)
    frame = dd.from_pandas(pd.DataFrame({"text": texts, "n": range(40)}), npartitions=4)
    lazy = embed_frame(frame, folder, normalize=True, prompt="so: ")
    assert list(lazy.columns) == ["text", "n", "embedding", "truncated", "error"]
    found = lazy.compute(scheduler=scheduler, num_workers=2)
    assert np.array_equal(np.stack(found["embedding"].to_list()), expected(texts))
    assert found["n"].tolist() == list(range(40))
    assert found.dtypes.to_dict() == lazy._meta.dtypes.to_dict()
