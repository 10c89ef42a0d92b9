"""Token classification: from scored tokens to words and entities, on worked examples."""

import numpy as np
import pytest
from support.text_folders import NER_LABELS, model_folder

import refimpl
from refimpl.models.model import BUNDLED
from refimpl.tasks import entities
from refimpl.text.tokenizer import Tokenizer

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def tiny():
    return Tokenizer.from_folder(BUNDLED)


@pytest.fixture(scope="module")
def tag(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ner")
    return refimpl.pipeline(
        "ner", model_folder(folder, "token_classification", id2label=NER_LABELS)
    )


def entity(label, score=0.5, start=0, end=1, word="x"):
    return {"entity": label, "score": score, "word": word, "start": start, "end": end}


def tags(found):
    return [(e["entity_group"], e["start"], e["end"]) for e in found]


def chain(*labels):
    return [entity(label, start=i, end=i + 1) for i, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["B-A", "I-A", "B-A"], [("A", 0, 2), ("A", 2, 3)]),  # B- starts anew
        (["I-A", "I-A", "I-B"], [("A", 0, 2), ("B", 2, 3)]),  # a new tag starts anew
        (["A", "A", "B"], [("A", 0, 2), ("B", 2, 3)]),  # a bare label continues
        (["B-A", "A"], [("A", 0, 2)]),
        (["O", "O", "B-A"], [("O", 0, 2), ("A", 2, 3)]),
        (["A-B", "C-B"], [("B", 0, 1), ("B", 1, 2)]),  # tags differ, names do not
        ([], []),
    ],
)
def test_groups(tiny, labels, expected):
    assert tags(entities.groups(chain(*labels), tiny)) == expected


def test_group_score_is_the_mean_and_words_are_joined(tiny):
    two = [entity("B-A", 0.25, 0, 2, "hel"), entity("I-A", 0.75, 2, 4, "lo")]
    (group,) = entities.groups(two, tiny)
    assert group == {"entity_group": "A", "score": 0.5, "word": "hello", "start": 0, "end": 4}


SCORES = np.array([[0.6, 0.4, 0.0], [0.0, 0.1, 0.9], [0.1, 0.8, 0.1]])
IDS = {0: "X", 1: "Y", 2: "Z"}


@pytest.mark.parametrize(
    ("strategy", "label", "score"),
    [("first", "X", 0.6), ("max", "Z", 0.9), ("average", "Y", (0.4 + 0.1 + 0.8) / 3)],
)
def test_word_label_of_each_strategy(tiny, strategy, label, score):
    word = [dict(word="x", scores=s, start=i, end=i + 1) for i, s in enumerate(SCORES)]
    found = entities.word_entity(word, entities.WORD_CHOICES[strategy], tiny, IDS)
    assert (found["entity"], found["start"], found["end"], found["word"]) == (label, 0, 3, "xxx")
    assert abs(found["score"] - score) <= 4 * np.finfo(np.float64).eps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada,born in\nLondon", ["Ada,born", "in", "London"]),
        ("Ada \tx", ["Ada", "", "x"]),  # a space alone is a word, as transformers has it
        ("Ada\u3000born\r\n\r\nin\u00a0 x\u2028y", ["Ada", "born", "in", "x", "y"]),
        ("\n\t", []),
    ],
)
def test_words_start_behind_white_space_and_punctuation_glues(tiny, text, expected):
    encoded = tiny.encode(text)
    pieces = entities.token_pieces(tiny, text, encoded, np.zeros((len(encoded), 2)))
    found = [text[word[0]["start"] : word[-1]["end"]] for word in entities.words(pieces)]
    assert [word.strip() for word in found] == expected
    assert [p["index"] for p in pieces] == list(range(1, len(encoded) - 1))


def test_unknown_token_is_a_word_spelled_as_in_the_text(tiny):
    encoded = tiny.encode("ab[UNK]")
    pieces = entities.token_pieces(tiny, "ab[UNK]", encoded, np.zeros((len(encoded), 2)))
    assert pieces[-1]["word"] == "[UNK]" and not pieces[-1]["is_subword"]
    assert pieces[-1]["start"] == 2


@pytest.mark.parametrize(
    ("spans", "kept"),
    [
        ([(0, 3, 0.5), (2, 9, 0.1)], [(2, 9, 0.1)]),  # the longer
        ([(0, 4, 0.5), (2, 6, 0.6)], [(2, 6, 0.6)]),  # then the surer
        ([(0, 4, 0.5), (2, 6, 0.4)], [(0, 4, 0.5)]),
        ([(0, 4, 0.5), (4, 6, 0.6)], [(0, 4, 0.5), (4, 6, 0.6)]),  # touching is no overlap
        ([(4, 6, 0.6), (0, 3, 0.5)], [(0, 3, 0.5), (4, 6, 0.6)]),  # by start
        ([], []),
    ],
)
def test_overlaps(spans, kept):
    given = [entity("A", score, start, end) for start, end, score in spans]
    found = entities.without_overlaps(given)
    assert [(e["start"], e["end"], e["score"]) for e in found] == kept


# -- the pipeline ---------------------------------------------------------------------------------

TEXT = "Ada Lovelace wrote notes in London, they say."


def test_none_gives_every_token_that_is_not_ignored(tag):
    encoded = tag.tokenizer.encode(TEXT)
    found = tag(TEXT, ignore_labels=[])
    assert [e["index"] for e in found] == list(range(1, len(encoded) - 1))
    assert [e["word"] for e in found] == encoded.tokens[1:-1]
    assert [(e["start"], e["end"]) for e in found] == encoded.offsets[1:-1]
    assert list(found[0]) == ["entity", "score", "index", "word", "start", "end"]
    assert [e for e in found if e["entity"] != "O"] == tag(TEXT)


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
def test_groups_tile_the_text(tag, strategy):
    found = tag(TEXT, aggregation_strategy=strategy, ignore_labels=[])
    assert "".join(TEXT[e["start"] : e["end"]] for e in found) == TEXT
    assert [e["word"] for e in found] == [TEXT[e["start"] : e["end"]] for e in found]
    kept = [e for e in found if e["entity_group"] not in ("O", "LOC")]
    assert tag(TEXT, aggregation_strategy=strategy, ignore_labels=["O", "LOC"]) == kept


def test_stride_reaches_the_end_of_a_long_text(tag):
    text = " ".join(f"word{i} here" for i in range(30))
    found = tag(text, aggregation_strategy="simple", stride=4, max_length=16, ignore_labels=[])
    starts = [e["start"] for e in found]
    assert starts == sorted(starts)
    assert max(e["end"] for e in found) == len(text)
    with pytest.warns(refimpl.TruncationWarning):
        cut = tag(text, aggregation_strategy="simple", max_length=16, ignore_labels=[])
    assert max(e["end"] for e in cut) < len(text)


def test_lost_tokens_are_given_even_without_entities(tag):
    labels = ["O", "PER", "LOC"]
    results, lost = tag(
        ["a b c d e", "a"], aggregation_strategy="simple", ignore_labels=labels,
        max_length=5, truncate="silent", return_lost=True,
    )  # fmt: skip
    assert (results, lost) == ([[], []], [2, 0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"aggregation_strategy": "last"}, "must be one of none, simple, first, average, max"),
        ({"stride": 2}, 'needs an aggregation_strategy other than "none"'),
        ({"stride": 9, "aggregation_strategy": "max", "max_length": 11}, "stride 9 must be from 0"),
    ],
)
def test_bad_options_are_refused(tag, options, said):
    with pytest.raises(ValueError, match=said):
        tag(TEXT, **options)


def test_one_str_is_no_list_of_labels(tag):
    with pytest.raises(TypeError, match="ignore_labels must be a list of labels, not 'LOC'"):
        tag(TEXT, ignore_labels="LOC")  # "O" is a part of it


def test_no_input_is_refused(tag):
    with pytest.raises(ValueError, match="inputs is empty"):
        tag([])
    assert tag([""]) == [[]]
