"""Text classification: the function, the order, the shapes of results, pairs."""

import numpy as np
import pytest
from support.text_folders import model_folder

import refimpl
from refimpl.models.scores import FUNCTIONS, softmax
from refimpl.reference.ops import sigmoid
from refimpl.tasks.classify import default_function, ranked

pytest.importorskip("tokenizers")

LABELS = {0: "bad", 1: "so so", 2: "good"}


@pytest.fixture(scope="module")
def classify(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    return refimpl.pipeline(
        "text-classification", model_folder(folder, "sequence_classification", id2label=LABELS)
    )


def test_functions_on_worked_numbers():
    logits = np.log(np.array([1.0, 2.0, 5.0]))
    eps = np.finfo(np.float64).eps
    assert np.abs(softmax(logits) - [1 / 8, 2 / 8, 5 / 8]).max() <= 4 * eps
    assert np.abs(sigmoid(logits) - [1 / 2, 2 / 3, 5 / 6]).max() <= 4 * eps
    assert FUNCTIONS["none"](logits) is logits


def test_functions_do_not_overflow():
    huge = np.array([-1e30, 0.0, 1e30])
    assert sigmoid(huge).tolist() == [0, 0.5, 1]
    assert softmax(huge).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("problem", "labels", "name"),
    [(None, 1, "sigmoid"), (None, 3, "softmax"), ("regression", 1, "none"),
     ("regression", 2, "none"), ("multi_label_classification", 3, "sigmoid"),
     ("single_label_classification", 2, "softmax")],
)  # fmt: skip
def test_default_function_follows_the_config(problem, labels, name):
    names = {i: str(i) for i in range(labels)}
    config = refimpl.ModernBertConfig(id2label=names, problem_type=problem)
    assert default_function(config) == name


def test_ranked_is_best_first_and_keeps_label_order_for_ties():
    found = ranked(np.array([0.2, 0.5, 0.2]), LABELS)
    assert found == [
        {"label": "so so", "score": 0.5},
        {"label": "bad", "score": 0.2},
        {"label": "good", "score": 0.2},
    ]


def test_shapes_of_results_follow_the_input(classify):
    best = classify("a text")
    assert [list(r) for r in best] == [["label", "score"]]
    assert classify(["a text"]) == best
    assert classify({"text": "a text"}) == best[0]
    assert classify("a text", top_k=1) == best
    assert classify(["a text"], top_k=1) == [best]
    assert {r["label"] for r in classify("a text", top_k=None)} == set(LABELS.values())
    assert len(classify("a text", top_k=2)) == 2


def test_scores_are_those_of_the_model(classify):
    encoded = classify.tokenizer.encode("a text")
    logits = classify.model(classify.tokenizer.pad([encoded]))["logits"][0]
    found = {r["label"]: r["score"] for r in classify("a text", top_k=None)}
    expected = softmax(logits.astype(np.float64))
    assert found == pytest.approx({LABELS[i]: p for i, p in enumerate(expected)}, rel=1e-6)


def test_a_pair_is_read_as_a_pair(classify):
    pair = classify({"text": "a", "text_pair": "b"}, function_to_apply="none", top_k=None)
    ids = [classify.tokenizer.encode("a", "b").ids]
    logits = classify.model(ids)["logits"][0]
    assert sorted(r["score"] for r in pair) == sorted(float(x) for x in logits)


@pytest.mark.parametrize(
    ("inputs", "error", "said"),
    [
        ([["a", "b"]], TypeError, r"inputs\[0\] is a list; a pair is"),
        ([{"text_pair": "b"}], ValueError, r'"text" is needed'),
        ([{"text": "a", "pair": "b"}], ValueError, r"inputs\[0\] has the keys"),
        ([{"text": 3}], TypeError, r"texts\[0\] must be a str"),
        (["a", 3], TypeError, r"texts\[1\] must be a str"),
        (3, TypeError, "inputs must be a str or a list"),
    ],
)
def test_bad_inputs_are_refused(classify, inputs, error, said):
    with pytest.raises(error, match=said):
        classify(inputs)


def test_unknown_function_is_refused(classify):
    with pytest.raises(ValueError, match="must be one of none, sigmoid, softmax, not 'tanh'"):
        classify("a", function_to_apply="tanh")


def test_long_text_is_left_whole_unless_a_limit_is_given(classify):
    text = "a b c d e f"
    assert "truncated" not in classify(text)[0]
    found = classify(text, max_length=5, truncate="silent")
    assert found[0].pop("truncated") == 3
    assert found == classify("a b c")
