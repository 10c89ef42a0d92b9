"""What the verbs write: numbers in their shortest form, files whole or not at all, vectors, ids."""

import argparse
import json
import os
import shutil
import stat
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command import same
from support.text_folders import sentence_folder

import refimpl
from refimpl.cli import main
from refimpl.cli.numbers import bytes_of, shortest, single
from refimpl.cli.records import Writer
from refimpl.files.vectors import id_array, read_vectors, write_vectors
from refimpl.models.model import BUNDLED, bundled

pytest.importorskip("tokenizers")

POOLING = ("sentence_transformers.models.Pooling", {"word_embedding_dimension": 32})

# -- numbers --------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_float32_has_its_bits_and_at_most_nine_digits(bits):
    x = np.array(bits, np.uint32).view(np.float32)
    x = x[np.isfinite(x)]
    found = json.loads(json.dumps(shortest(x)))
    assert np.array_equal(np.array(found, np.float32).view(np.uint32), x.view(np.uint32))
    for number, value in zip(found, x, strict=True):
        digits = repr(number).lower().partition("e")[0].replace(".", "").strip("-0")
        assert len(digits) <= 9
        assert repr(number) == repr(float(str(value)))


def test_only_what_a_float32_holds_is_shortened():
    third = 1 / 3
    value = {"a": [float(np.float32(0.1)), third, 2, "x", None], "b": (1e300, float("inf"))}
    assert single(value) == {"a": [0.1, third, 2, "x", None], "b": [1e300, float("inf")]}
    assert single(np.array([0.1, 0.2], np.float64)) == [0.1, 0.2]


def test_float64_is_written_in_full(run, folders):
    (record,), _ = run("embed", "--model", folders["embed"], "--dtype", "float64", "a")
    encoder = refimpl.SentenceEncoder(folders["embed"], dtype="float64")
    assert record["embedding"] == encoder.encode(["a"])[0].tolist()


@pytest.mark.parametrize(
    ("dtype", "text"), [("float64", "0.10000000149011612"), ("float32", "0.1")]
)
def test_float64_is_left_alone_even_where_a_float32_would_do(capsys, dtype, text):
    args = argparse.Namespace(out=sys.stdout, format="jsonl", file=None, dtype=dtype)
    Writer(args, (), lambda record: ()).write([{"score": 0.10000000149011612}])
    assert capsys.readouterr().out == f'{{"score": {text}}}\n'


def test_embeddings_take_half_the_bytes(run, folders):
    out, _ = run("embed", "--model", folders["embed"], "a", parse=False)
    record = json.loads(out)
    x = np.array(record["embedding"], np.float32)
    full = json.dumps(record | {"embedding": x.tolist()})
    assert len(out) < 0.65 * len(full)


def test_sizes_are_readable():
    assert [bytes_of(n) for n in (0, 999, 999_600, 1234567, 5e12)] == [
        "0 B", "999 B", "1 MB", "1.23 MB", "5e+03 GB",
    ]  # fmt: skip


# -- files ----------------------------------------------------------------------------------------


def test_output_is_what_stdout_would_be(run, tmp_path):
    out, _ = run("tokenize", "a", "b", parse=False)
    path = tmp_path / "a.jsonl"
    shown, err = run("tokenize", "a", "b", "--output", path, parse=False)
    assert (shown, path.read_text(encoding="utf-8")) == ("", out)
    assert err == f"modernbert tokenize: wrote {path}: 2 records, {bytes_of(len(out))}\n"
    table, _ = run("tokenize", "a", "--format", "table", parse=False)
    run("tokenize", "a", "--format", "table", "--output", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == table


def test_bad_lines_leave_a_file_and_say_so(run, tmp_path):
    path = tmp_path / "a.jsonl"
    lines = b'{"text": "a"}\n{bad\n'
    _, err = run("tokenize", "-", "--output", path, stdin=lines, code=3)
    assert len(path.read_text().splitlines()) == 1
    assert "1 record (1 bad line)" in err.splitlines()[-1]


def test_failure_leaves_the_old_file(run, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("old")
    run("fill-mask", "no gap", "--output", path, code=1)
    with pytest.raises(SystemExit):
        main(["tokenize", "--file", str(path), "text", "--output", str(path)])
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_file_may_be_replaced_by_what_is_read_from_it(run, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "id": 5}\n' * 40)
    run("tokenize", "--file", path, "--output", path)
    assert [json.loads(x)["id"] for x in path.read_text().splitlines()] == [5] * 40


def test_link_stays_a_link(run, tmp_path):
    path, link = tmp_path / "a.jsonl", tmp_path / "link.jsonl"
    path.write_text("old")
    link.symlink_to(path)
    run("tokenize", "a", "--output", link)
    assert link.is_symlink() and json.loads(path.read_text())["index"] == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_stays_a_pipe(run, tmp_path):
    """As a device would, which no test may put at risk."""
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _, err = run("tokenize", "a", "--output", pipe)
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert json.loads(os.read(reader, 2**16))["index"] == 0
        assert err.endswith(f"wrote {pipe}: 1 record\n")  # how much went through, nobody knows
    finally:
        os.close(reader)


def test_folder_that_is_not_there_is_one_line(run, tmp_path):
    _, err = run("tokenize", "a", "--output", tmp_path / "none" / "a.jsonl", code=1)
    assert "there is no folder" in err and err.count("\n") == 1
    _, err = run("tokenize", "a", "--format", "jsonl", "--output", tmp_path, code=1)
    assert "is a folder" in err and err.count("\n") == 1


# -- vectors with ids -----------------------------------------------------------------------------


def test_npz_holds_vectors_and_ids(run, folders, tmp_path):
    path = tmp_path / "v.npz"
    lines = tmp_path / "a.csv"
    lines.write_text('id,text\nx,a\ny,"b, c"\n')
    _, err = run("embed", "--model", folders["embed"], "--file", lines, "--output", path)
    found = read_vectors(path)
    assert found.ids.tolist() == ["x", "y"]
    expected = refimpl.SentenceEncoder(folders["embed"]).encode(["a", "b, c"])
    assert np.array_equal(found.vectors, expected) and found.vectors.dtype == np.float32
    assert found.about["model"] == str(folders["embed"])
    assert f"wrote {path}: 2 vectors of 32 float32 values with their ids" in err
    with np.load(path, allow_pickle=False) as plain:  # as anybody reads it
        assert sorted(plain) == ["about", "ids", "vectors"]


def test_npz_without_ids_has_the_numbers_of_the_rows(run, folders, tmp_path):
    path = tmp_path / "v.npz"
    lines = b'{"text": "a"}\n{bad\n{"text": "b"}\n'
    _, err = run("embed", "--model", folders["embed"], "-", "--output", path, stdin=lines, code=3)
    assert "with row numbers from 0 as ids" in err
    found = read_vectors(path)
    assert found.ids.tolist() == [0, 1, 2]
    assert np.isnan(found.vectors).all(axis=1).tolist() == [False, True, False]


def test_npz_tells_of_ids_that_stand_twice(run, folders, tmp_path):
    lines = b'{"text": "a", "id": 7}\n{"text": "b", "id": 7}\n{"text": "c"}\n'
    model = ("--model", folders["embed"], "-", "--output", tmp_path / "v.npz")
    _, err = run("embed", *model, stdin=lines)
    assert "1 id more than once, the first '7'" in err
    assert read_vectors(tmp_path / "v.npz").ids.tolist() == ["7", "7", ""]


def test_npy_says_that_ids_are_lost(run, folders, tmp_path):
    model = ("--model", folders["embed"], "-", "--output", tmp_path / "v.npy")
    _, err = run("embed", *model, stdin=b'{"text": "a", "id": 7}')
    assert "--format npz keeps their ids" in err
    assert np.load(tmp_path / "v.npy").shape == (1, 32)


@pytest.mark.parametrize(
    ("ids", "dtype", "expected"),
    [
        ([1, -2], "int64", [1, -2]),
        ([1, 2**63], "str", ["1", str(2**63)]),
        (["a", 1, 1.5, None, True], "str", ["a", "1", "1.5", "null", "true"]),
        (["\u00e9", "\n"], "str", ["\u00e9", "\n"]),
        ([], "int64", []),
    ],
)
def test_ids_are_integers_or_text(ids, dtype, expected, tmp_path):
    found = id_array(ids)
    assert found.tolist() == expected and found.dtype.type is np.dtype(dtype).type
    with open(tmp_path / "v.npz", "wb") as stream:
        write_vectors(stream, np.zeros((len(ids), 2), np.float32), found)
    assert read_vectors(tmp_path / "v.npz").ids.tolist() == expected


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"v": np.zeros((2, 2))}, "'vectors' is missing"),
        ({"vectors": np.zeros(2)}, "must be floats"),
        ({"vectors": np.zeros((2, 2), int)}, "must be floats"),
        ({"vectors": np.zeros((2, 2)), "ids": np.zeros(3, int)}, "there are 2 vectors"),
        ({"vectors": np.zeros((2, 2)), "about": np.array("{")}, "Expecting"),
        ({"vectors": np.zeros((2, 2)), "about": np.array("[]")}, "must be an object"),
        ({"vectors": np.array([[object()]])}, "pickle"),
    ],
)
def test_wrong_vectors_name_the_file(arrays, said, tmp_path):
    path = tmp_path / "v.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=said) as raised:
        read_vectors(path)
    assert str(raised.value).startswith(str(path))


def test_what_is_no_such_file_or_is_cut_names_the_file(tmp_path):
    path = tmp_path / "v.npz"
    np.savez(path, vectors=np.zeros((4, 4)))
    whole = path.read_bytes()
    for content in (b"", b"id,text\n", whole[:100], whole[:-20], b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no vectors") as raised:
            read_vectors(path)
        assert str(raised.value).startswith(str(path))


# -- search ---------------------------------------------------------------------------------------


@pytest.fixture
def index(run, folders, tmp_path):
    path = tmp_path / "v.npz"
    lines = b'{"text": "one", "id": "a"}\n{bad\n{"text": "two words", "id": "c"}\n{"text": "x"}\n'
    run("embed", "--model", folders["embed"], "-", "--output", path, stdin=lines, code=3)
    return path


def test_search_finds_by_the_model_that_made_the_index(run, folders, index):
    (record,), err = run("search", "--index", index, "two words")
    assert [(r["id"], r["corpus_id"]) for r in record["results"]][:1] == [("c", 2)]
    assert sorted(r["corpus_id"] for r in record["results"]) == [0, 2, 3]  # no NaN row
    assert err == ""
    encoder = refimpl.SentenceEncoder(folders["embed"])
    expected = encoder.search("two words", read_vectors(index).vectors, 2)
    (record,), _ = run("search", "--index", index, "two words", "--top-k", 2)
    assert [r["corpus_id"] for r in record["results"]] == [r["corpus_id"] for r in expected]
    out, _ = run("search", "--index", index, "x", "y", "--format", "table", parse=False)
    assert out.splitlines()[0].split() == ["query", "found", "score"]
    assert len(out.splitlines()) == 1 + 2 * 3


def test_search_reads_queries_with_ids(run, index):
    lines = b'{"query": "one", "id": 5}\n{"text": "no"}\n'
    records, err = run("search", "--index", index, "-", stdin=lines, code=3)
    assert [r["id"] for r in records] == [5] and json.loads(err)["index"] == 1


def test_search_of_shorter_vectors_takes_as_many_values(run, folders, tmp_path):
    path = tmp_path / "v.npz"
    run("embed", "--model", folders["embed"], "a", "b", "--truncate-dim", 5, "--output", path)
    (record,), _ = run("search", "--index", path, "b")
    vectors = read_vectors(path).vectors
    expected = refimpl.SentenceEncoder(folders["embed"]).search("b", vectors, truncate_dim=5)
    assert same([{k: r[k] for k in ("corpus_id", "score")} for r in record["results"]], expected)


def test_search_in_vectors_of_ones_own_needs_a_model(run, folders, tmp_path, capsys):
    path = tmp_path / "v.npy"
    np.save(path, refimpl.SentenceEncoder(folders["embed"]).encode(["a", "b"]))
    with pytest.raises(SystemExit):
        main(["search", "--index", str(path), "b"])
    err = " ".join(capsys.readouterr().err.split())
    assert (
        "does not say which model made it; say --model FOLDER, the one that did "
        f"(--model {bundled('embed')}" in err
    )
    (record,), _ = run("search", "--index", path, "--model", folders["embed"], "b")
    assert record["results"][0]["corpus_id"] == 1 and "id" not in record["results"][0]


def test_search_takes_the_prompt_and_length_of_queries(run, folders, index, monkeypatch):
    asked = []
    encode = refimpl.SentenceEncoder.encode

    def spy(self, texts, **options):
        asked.append({name: options.get(name) for name in ("prompt_name", "max_length")})
        return encode(self, texts, **options)

    monkeypatch.setattr(refimpl.SentenceEncoder, "encode", spy)
    run("search", "--index", index, "a")
    own = {"prompt_name": "query", "max_length": 40}
    assert asked.pop() == own
    run("search", "--index", index, "a", "--prompt-name", "document", "--max-length", 6)
    assert asked.pop() == {"prompt_name": "document", "max_length": 6}
    (record,), err = run("search", "--index", index, "a b c d e", "--max-length", 4)
    assert record["truncated"] > 1 and "1 text was cut" in err


def test_search_with_another_model_is_refused(run, folders, index, tmp_path, capsys):
    other = sentence_folder(tmp_path / "other", [POOLING], seed=1)
    for said in ((), ("--same-model",)):
        found, err = run("search", "--index", index, "--model", other, *said, "a", code=1)
        assert found == [] and "was made in another embedding space: weights (" in err
    # The same weights are no other model, whatever their folder is called.
    link = tmp_path / "link"
    link.symlink_to(folders["embed"])
    own, _ = run("search", "--index", index, "a")
    assert run("search", "--index", index, "--model", link, "a")[0] == own
    moved = shutil.copytree(folders["embed"], tmp_path / "moved")
    assert run("search", "--index", index, "--model", moved, "a")[0] == own
    # Vectors that do not say more than a name are believed by that.
    old = read_vectors(index)
    about = {name: x for name, x in old.about.items() if name != "space"}
    path = tmp_path / "old.npz"
    with open(path, "wb") as stream:
        write_vectors(stream, old.vectors, old.ids, about)
    with pytest.raises(SystemExit, match="2"):
        main(["search", "--index", str(path), "--model", str(moved), "a"])
    out, err = capsys.readouterr()
    assert out == "" and f"was made with {folders['embed']}; similarities across" in err
    assert run("search", "--index", path, "--model", moved, "--same-model", "a")[0] == own
    _, err = run("search", "--index", path, "--model", BUNDLED, "--same-model", "a", code=1)
    assert "of another model" in err  # which the width gives away


def test_bundled_model_has_two_names(run, tmp_path):
    _, err = run("embed", "a", "b", "--output", tmp_path / "v.npz")
    assert "pooling" not in err  # there is nothing that a user should do about it
    own, err = run("search", "--index", tmp_path / "v.npz", "a")
    assert err == ""
    assert run("search", "--index", tmp_path / "v.npz", "--model", bundled("embed"), "a")[0] == own


# -- progress -------------------------------------------------------------------------------------


def test_progress_counts_what_is_done_and_makes_room_for_bad_lines(run, monkeypatch, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n{bad\n' * 4)
    monkeypatch.setattr(sys.stderr.__class__, "isatty", lambda self: True)
    _, err = run("tokenize", "--file", path, "--output", tmp_path / "b.jsonl", code=3)
    assert "\rtokenize [........................] 0%  0" in err or "\rtokenize 0" in err
    assert "tokenize [########################] 100%  8" in err
    for told in (part for part in err.split("\n") if "error" in part):
        assert told.rpartition("\r")[2].startswith('{"index"')
