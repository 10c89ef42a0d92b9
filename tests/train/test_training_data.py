"""Labelled texts from files, the order of batches, and metrics: values, and refusals by row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.tasks.task import open_tokenizer
from refimpl.train import metrics
from refimpl.train.examples import (
    MULTI,
    REGRESSION,
    SINGLE,
    encoded,
    labelled,
    problem_of,
)
from refimpl.train.order import batch_at, chunks, shuffled, steps_per_epoch


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_jsonl_and_csv_say_the_same(tmp_path):
    rows = [{"text": 'a "fine", day', "label": "good"}, {"text": "über\nzwei", "label": "bad"}]
    jsonl = written(tmp_path, "a.jsonl", "\n" + lines(*rows))
    table = written(
        tmp_path, "a.csv", '\ufefftext,label\n"a ""fine"", day",good\n"über\nzwei",bad\n'
    )
    tabs = written(tmp_path, "a.tsv", 'label\ttext\ngood\t"a ""fine"", day"\nbad\t"über\nzwei"\n')
    want = [(r["text"], None, r["label"]) for r in rows]
    for path in (jsonl, table, tabs):
        assert [(r.text, r.pair, r.label) for r in labelled(path)] == want
    assert [r.where for r in labelled(jsonl)] == [f"{jsonl}, row 2", f"{jsonl}, row 3"]
    assert [r.where for r in labelled(table)] == [f"{table}, row 1", f"{table}, row 2"]


BAD_FILES = {
    "empty": ("a.jsonl", "", "a.jsonl holds no rows"),
    "only a header": ("a.csv", "text,label\n", "a.csv holds no rows"),
    "no JSON": ("a.jsonl", lines({"text": "a", "label": "b"}) + "{\n", "row 2: cannot be read"),
    "no object": ("a.jsonl", "[1]\n", "row 1: expected an object, got list"),
    "no label": ("a.jsonl", lines({"text": "a"}), "row 1: 'label' is missing; the row has"),
    "no column": ("a.csv", "text,tag\nx,y\n", "has the columns .*'tag'.; it needs 'label'"),
    "short row": ("a.csv", "text,label\nx,y\nx\n", "row 2: cannot be read: it has not the 2"),
    "long row": ("a.csv", "text,label\nx,y,z\n", "row 1: cannot be read: it has not the 2 fields"),
    "text a number": ("a.jsonl", lines({"text": 3, "label": "b"}), "row 1: text is int, not text"),
    "pair a number": (
        "a.jsonl",
        lines({"text": "a", "text_pair": 3, "label": "b"}),
        "row 1: text_pair is int, not text",
    ),
    "label null": ("a.jsonl", lines({"text": "a", "label": None}), "row 1: label is None; it must"),
    "label empty": ("a.csv", "text,label\nx,\n", "row 1: label is ''; it must be"),
    "label NaN": ("a.jsonl", '{"text": "a", "label": NaN}\n', "row 1: label is nan; it must be"),
    "not UTF-8": ("a.csv", b"text,label\n\xff,b\n", "is not UTF-8 at byte 11"),
    "open quote": ("a.csv", 'text,label\n"x,y\n', "row 1: cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_with_its_row(name, tmp_path):
    file, content, message = BAD_FILES[name]
    with pytest.raises(ValueError, match=message):
        labelled(written(tmp_path, file, content))


def rows_of(tmp_path, *labels):
    return labelled(
        written(tmp_path, "a.jsonl", lines(*({"text": "t", "label": x} for x in labels)))
    )


def test_labels_say_what_is_asked(tmp_path):
    assert problem_of(rows_of(tmp_path, "b", "a", "b")) == (SINGLE, ["a", "b"])
    assert problem_of(rows_of(tmp_path, 1, 0)) == (SINGLE, ["0", "1"])
    assert problem_of(rows_of(tmp_path, True, False)) == (SINGLE, ["false", "true"])
    assert problem_of(rows_of(tmp_path, ["b", "a"], [])) == (MULTI, ["a", "b"])
    assert problem_of(rows_of(tmp_path, 0.5, 2.0)) == (REGRESSION, ["value"])
    assert problem_of(rows_of(tmp_path, "1", "2.5"), REGRESSION) == (REGRESSION, ["value"])


@pytest.mark.parametrize(
    ("labels", "problem", "message"),
    [
        (["a", "a"], None, "every label is 'a'; a classifier needs two"),
        ([[], []], None, "no row has a label"),
        (
            ["a", ["b"]],
            None,
            r"row 2: label is \['b'\], but .*row 1 has 'a'; labels must be of one",
        ),
        (["a", "b"], MULTI, "row 1: label is 'a'; a multi_label_classification cannot use it"),
    ],
)
def test_labels_that_ask_for_nothing_are_refused(tmp_path, labels, problem, message):
    with pytest.raises(ValueError, match=message):
        problem_of(rows_of(tmp_path, *labels), problem)


def test_labels_become_arrays(tmp_path):
    tokenizer = open_tokenizer()

    def labels(problem, names, *given):
        found = encoded(rows_of(tmp_path, *given), problem, names, tokenizer, 16)
        return np.concatenate([unit.labels for unit in found.units]).tolist()

    assert labels(SINGLE, ["a", "b"], "b", "a") == [1, 0]
    assert labels(MULTI, ["a", "b"], ["b"], ["a", "b"], []) == [[0, 1], [1, 1], [0, 0]]
    assert labels(REGRESSION, ["value"], 0.5, "2") == [[0.5], [2.0]]
    with pytest.raises(ValueError, match="row 1: label is 'c'; known: a, b"):
        labels(SINGLE, ["a", "b"], "c")
    with pytest.raises(ValueError, match="row 2: label is 'x', which is no number"):
        labels(REGRESSION, ["value"], 0.5, "x")


def test_cut_texts_are_counted_and_pairs_are_joined(tmp_path):
    rows = labelled(written(tmp_path, "a.jsonl", lines(
        {"text": "one two three four five six seven", "label": "a"},
        {"text": "one", "text_pair": "two", "label": "b"},
    )))  # fmt: skip
    tokenizer = open_tokenizer()
    found = encoded(rows, SINGLE, ["a", "b"], tokenizer, 6)
    assert found.truncated == 1 and found.units[0].tokens == 6
    assert found.units[1].sequences[0].tolist() == tokenizer.encode("one", "two").ids


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 99))
def test_every_epoch_has_every_example_once(n, batch_size, seed):
    steps = steps_per_epoch(n, batch_size)
    for epoch in range(2):
        batches = [batch_at(epoch * steps + i, n, batch_size, seed) for i in range(steps)]
        assert sorted(np.concatenate(batches)) == list(range(n))
        assert all(len(b) == batch_size for b in batches[:-1]) and len(batches[-1]) > 0


def test_orders_differ_by_epoch_and_seed():
    orders = [tuple(shuffled(20, seed, epoch)) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9
    epochs = [tuple(batch_at(2 * epoch, 20, 10, seed=1)) for epoch in range(3)]
    assert len(set(epochs)) == 3


@given(st.lists(st.integers(1, 40), min_size=1), st.integers(1, 60))
def test_chunks_cover_all_and_keep_to_the_limit(lengths, most):
    found = chunks(np.array(lengths), most)
    assert [i for c in found for i in range(c.start, c.stop)] == list(range(len(lengths)))
    for c in found:
        assert c.stop - c.start == 1 or sum(lengths[c]) <= most


def test_metrics_by_hand():
    predicted, labels = np.array([0, 0, 1, 1, 2, 0]), np.array([0, 1, 1, 1, 0, 0])
    got = metrics.classes(predicted, labels)
    # class 0: 2 right of 3 guessed and 3 there; class 1: 2 of 2 and 3; class 2: 0 of 1 and 0
    assert got["accuracy"] == pytest.approx(4 / 6)
    assert got["macro_f1"] == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    a = np.eye(3)[predicted] - np.eye(3)[predicted].mean(axis=0)
    b = np.eye(3)[labels] - np.eye(3)[labels].mean(axis=0)
    assert got["mcc"] == pytest.approx((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
    assert metrics.classes(np.zeros(3, int), np.zeros(3, int)) == {
        "accuracy": 1.0, "macro_f1": 1.0, "mcc": 0.0,
    }  # fmt: skip
    two = metrics.several(np.array([[1.0, 0], [1, 1]]), np.array([[1.0, 0], [0, 1]]))
    assert two == {
        "accuracy": 0.5, "micro_f1": pytest.approx(4 / 5), "macro_f1": pytest.approx(5 / 6)
    }  # fmt: skip
    x, y = np.array([[1.0], [2.0], [4.0]]), np.array([[1.5], [2.0], [3.0]])
    got = metrics.values(x, y)
    assert got["mse"] == pytest.approx(1.25 / 3) and got["mae"] == pytest.approx(0.5)
    assert got["pearson"] == pytest.approx(np.corrcoef(x[:, 0], y[:, 0])[0, 1])
