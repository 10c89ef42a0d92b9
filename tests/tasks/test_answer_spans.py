"""Question answering: spans against brute force, worked pieces, offsets, impossible answers."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.text_folders import model_folder

import refimpl
from refimpl.models.model import BUNDLED
from refimpl.tasks.answer import best_answers, best_spans, masked_softmax, questions
from refimpl.text.tokenizer import Tokenizer

pytest.importorskip("tokenizers")

EPS = np.finfo(np.float64).eps
CONTEXT = "Ada lived in London. She wrote notes, in London, on engines."


@pytest.fixture(scope="module")
def tiny():
    return Tokenizer.from_folder(BUNDLED)


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qa")
    return refimpl.pipeline("question-answering", model_folder(folder, "question_answering"))


# -- spans ----------------------------------------------------------------------------------------


@given(
    seq=st.integers(1, 12),
    longest=st.integers(1, 15),
    top_k=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_best_spans_are_those_of_brute_force(seq, longest, top_k, seed):
    rng = np.random.default_rng(seed)
    p_start, p_end = rng.random(seq), rng.random(seq)
    p_start[0] = p_end[0] = 0
    every = [
        (p_start[s] * p_end[e], s, e)
        for s, e in itertools.product(range(seq), repeat=2)
        if s <= e < s + longest and p_start[s] * p_end[e] > 0
    ]
    expected = [(s, e, score) for score, s, e in sorted(every, reverse=True)[:top_k]]
    assert best_spans(p_start, p_end, top_k, longest) == expected


def test_masked_softmax_leaves_the_rest_at_zero():
    p = masked_softmax(np.log([1.0, 9.0, 3.0]), np.array([True, False, True]))
    assert p[1] == 0
    assert np.abs(p - [0.25, 0, 0.75]).max() <= 4 * EPS
    assert masked_softmax(np.ones(2), np.zeros(2, bool)).tolist() == [0, 0]


def logits_of(piece, **probabilities):
    """log p at token positions, -inf elsewhere."""
    out = np.full(len(piece), -np.inf)
    for name, p in probabilities.items():
        out[int(name[1:])] = np.log(p)
    return out


def near(a, b):
    return abs(a - b) <= 16 * EPS


def test_worked_example(tiny):
    pieces = tiny.chunks("who", "Ada met Bob", max_length=20, stride=0)
    (piece,) = pieces
    first = piece.sequence_ids.index(1)  # "A" "da" ... by the bundled vocabulary
    last = len(piece) - 2
    start = logits_of(piece, **{"t0": 0.5, f"t{first}": 0.3, f"t{last}": 0.2})
    end = logits_of(piece, **{"t0": 0.4, f"t{last}": 0.6})
    options = dict(top_k=3, handle_impossible_answer=True)
    found = best_answers("Ada met Bob", pieces, [(start, end)], **options)
    assert [(a["answer"], a["start"], a["end"]) for a in found] == [
        ("", 0, 0), ("Ada met Bob", 0, 11), (" Bob", 7, 11)]  # fmt: skip
    for answer, score in zip(found, (0.5 * 0.4, 0.3 * 0.6, 0.2 * 0.6), strict=True):
        assert near(answer["score"], score)
    assert list(found[0]) == ["score", "start", "end", "answer"]


def test_question_and_separator_take_no_weight(tiny):
    (piece,) = tiny.chunks("who", "Ada", max_length=20, stride=0)
    context = [i for i, s in enumerate(piece.sequence_ids) if s == 1]
    outside = [i for i in range(1, len(piece)) if i not in context]
    start = logits_of(piece, **{f"t{context[0]}": 1.0})
    loud = start.copy()
    loud[outside] = 50.0
    options: dict = {}
    quiet = best_answers("Ada", [piece], [(start, start)], **options)
    assert best_answers("Ada", [piece], [(loud, loud)], **options) == quiet


def test_equal_answers_are_added_up_whatever_their_case(tiny):
    text = "London or london"
    pieces = tiny.chunks("where", text, max_length=40, stride=0)
    (piece,) = pieces
    words = {}
    for i, (word, sequence) in enumerate(zip(piece.word_ids, piece.sequence_ids, strict=True)):
        if sequence == 1:
            words.setdefault(word, i)
    (first, *_, last) = words.values()
    both = logits_of(piece, **{f"t{first}": 0.5, f"t{last}": 0.5})
    options = dict(top_k=9, max_answer_len=1)
    found = best_answers(text, pieces, [(both, both)], **options)
    # " london" has the space before it, "London" has not: two answers until a space is added.
    assert {a["answer"] for a in found} == {"London", " london"}
    text = " " + text
    pieces = tiny.chunks("where", text, max_length=40, stride=0)
    (piece,) = pieces
    at = [i for i in range(len(piece)) if piece.sequence_ids[i] == 1]
    heads = [i for i in at if piece.word_ids[i] != piece.word_ids[i - 1] or i == at[0]]
    both = logits_of(piece, **{f"t{heads[0]}": 0.5, f"t{heads[-1]}": 0.5})
    (answer,) = best_answers(text, pieces, [(both, both)], **options)
    assert answer["answer"] == " London" and near(answer["score"], 0.25 + 0.25)


def test_words_are_completed_unless_told_not_to(tiny):
    text = "an extraordinarily long word"
    (piece,) = tiny.chunks("what", text, max_length=40, stride=0)
    words, sequences = piece.word_ids, piece.sequence_ids
    inside = next(i for i in range(1, len(piece)) if sequences[i] == 1 and words[i] == words[i - 1])
    both = logits_of(piece, **{f"t{inside}": 1.0})
    options: dict = {}
    whole = best_answers(text, [piece], [(both, both)], **options)[0]
    part = best_answers(text, [piece], [(both, both)], align_to_words=False, **options)[0]
    assert (part["start"], part["end"]) == piece.offsets[inside]
    assert whole["answer"] in (" extraordinarily", " long", " word")
    assert whole["start"] <= part["start"] and part["end"] <= whole["end"]
    assert len(whole["answer"]) > len(part["answer"])


def test_null_score_is_the_smallest_of_the_pieces(tiny):
    pieces = tiny.chunks("q", "a b c d e f", max_length=8, stride=0)
    assert len(pieces) == 2
    nulls = [(0.5, 0.5), (0.25, 0.5)]
    logits = []
    for piece, (s, e) in zip(pieces, nulls, strict=True):
        at = f"t{piece.sequence_ids.index(1)}"
        logits.append(
            (logits_of(piece, t0=s, **{at: 1 - s}), logits_of(piece, t0=e, **{at: 1 - e}))
        )
    options = dict(top_k=9, handle_impossible_answer=True)
    found = best_answers("a b c d e f", pieces, logits, **options)
    (null,) = [a for a in found if a["answer"] == ""]
    assert near(null["score"], 0.25 * 0.5)


# -- the pipeline, against brute force over the model's own logits --------------------------------


def brute_force(ask, question, context, *, max_seq_len, stride, longest, top_k):
    """Every span of every piece, scored and merged by the definition, in float64."""
    merged = {}
    for piece in ask.tokenizer.chunks(question, context, max_length=max_seq_len, stride=stride):
        out = ask.model([piece.ids])
        allowed = [i for i, s in enumerate(piece.sequence_ids) if s == 1]
        p = {}
        for name in ("start_logits", "end_logits"):
            x = out[name][0].astype(np.float64)
            e = {i: np.exp(x[i] - max(x[j] for j in [0, *allowed])) for i in [0, *allowed]}
            p[name] = {i: e[i] / sum(e.values()) for i in e}
        spans = sorted(
            ((p["start_logits"][s] * p["end_logits"][e], s, e)
             for s in allowed for e in allowed if s <= e < s + longest),
            reverse=True,
        )[: 2 * top_k + 10]  # fmt: skip
        for score, s, e in spans:

            def word(i):
                return [j for j in allowed if piece.word_ids[j] == piece.word_ids[i]]  # noqa: B023

            start, end = piece.offsets[word(s)[0]][0], piece.offsets[word(e)[-1]][1]
            key = context[start:end].lower()
            if key in merged:
                merged[key][0] += score
            else:
                merged[key] = [score, start, end, context[start:end]]
    return sorted(merged.values(), key=lambda a: -a[0])[:top_k]


@pytest.mark.parametrize("max_seq_len", [14, 20, 384])
@pytest.mark.parametrize("longest", [1, 4, 15])
def test_answers_are_those_of_brute_force(ask, max_seq_len, longest):
    question = "Where did she live?"
    stride = min(128, max_seq_len // 2) if max_seq_len == 384 else 2
    expected = brute_force(
        ask, question, CONTEXT, max_seq_len=max_seq_len, stride=stride, longest=longest, top_k=4
    )
    found = ask(question=question, context=CONTEXT, max_seq_len=max_seq_len, doc_stride=stride,
                max_answer_len=longest, top_k=4)  # fmt: skip
    # float32 softmax: each probability rounds a few times over a sum of up to seq terms.
    limit = 4 * max_seq_len * np.finfo(np.float32).eps
    assert [(a["start"], a["end"], a["answer"]) for a in found] == [tuple(e[1:]) for e in expected]
    for answer, (score, *_) in zip(found, expected, strict=True):
        assert abs(answer["score"] - score) <= limit
        assert answer["answer"] == CONTEXT[answer["start"] : answer["end"]]


def test_forms_of_asking_agree(ask):
    one = ask(question="who?", context=CONTEXT)
    assert isinstance(one, dict)
    asked = {"question": "who?", "context": CONTEXT}
    assert ask(asked) == ask([asked]) == one
    two = ask(question=["who?", "where?"], context=CONTEXT)
    assert two == ask([asked, asked | {"question": "where?"}])
    assert two[0] == one
    assert len(ask(asked, top_k=3)) == 3


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"question": "q"}, TypeError, "question and context are both needed"),
        ({"question": "", "context": "c"}, ValueError, r"question of inputs\[0\] is empty"),
        ({"question": "q", "context": ""}, ValueError, r"context of inputs\[0\] is empty"),
        ({"question": ["q"], "context": ["c", "d"]}, ValueError, "1 questions do not pair with 2"),
        ({"question": 3, "context": "c"}, TypeError, "int"),
        ({"inputs": [{"question": "q"}]}, ValueError, r"inputs\[0\] must be"),
        ({"inputs": {"question": "q", "context": 3}}, TypeError, r"context of inputs\[0\]"),
        ({"inputs": {"question": "q", "context": "c"}, "question": "q"}, TypeError, "not both"),
    ],
)
def test_bad_questions_are_refused(options, error, said):
    with pytest.raises(error, match=said):
        questions(options.get("inputs"), options.get("question"), options.get("context"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top_k": 0}, "top_k"),
        ({"max_answer_len": 0}, "max_answer_len must be at least 1"),
        ({"max_seq_len": 6}, "leaves no room for the second"),
        ({"max_seq_len": 12, "doc_stride": 9}, "stride 9 must be from 0"),
    ],
)
def test_bad_options_are_refused(ask, options, said):
    with pytest.raises(ValueError, match=said):
        ask(question="a b c d", context=CONTEXT, **options)


def test_no_answer_is_the_first_token_whatever_the_folder_calls_it(tmp_path):
    plain = refimpl.pipeline(
        "question-answering", model_folder(tmp_path / "a", "question_answering")
    )
    folder = model_folder(tmp_path / "b", "question_answering")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"cls_token": None, "sep_token": None, "bos_token": "[CLS]", "eos_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((folder / "config.json").read_text()) | {"cls_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config))
    asked = dict(question="who?", context="A man.", handle_impossible_answer=True, top_k=99)
    found = refimpl.pipeline("question-answering", folder)(**asked)
    assert found == plain(**asked) and [a["score"] > 0 for a in found if not a["answer"]] == [True]
