"""`finetune` for every task: rows in, a folder out that the other verbs read; bad rows told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.text_folders import model_folder, sentence_folder

import refimpl
from refimpl.cli import main
from refimpl.files.safetensors import open_safetensors
from refimpl.tasks.task import open_tokenizer
from refimpl.train import finetune as finetune_of
from refimpl.train import gradients, metrics, questions, tagged
from refimpl.train.choices import choice_rows
from refimpl.train.choices import encoded as encoded_choices
from refimpl.train.finetune import TASKS, defaults, opened
from refimpl.train.pairs import relevance_rows, together_rows
from refimpl.train.settings import Settings
from refimpl.train.start import with_head

ROWS = {
    "classify": [{"text": f"{w} day {i}", "label": w} for i in range(6) for w in ("good", "bad")],
    "tokens": [
        {"tokens": ["Anna", "lives", "in", "Berlin"], "tags": ["B-PER", "O", "O", "B-LOC"]},
        {
            "text": "Bob sees New York",
            "entities": [
                {"start": 9, "end": 17, "label": "LOC"},
                {"start": 0, "end": 3, "label": "PER"},
            ],
        },
    ]
    * 3,
    "answer": [
        {
            "question": "who sat?",
            "context": "the cat sat on the mat " * 20,
            "answers": {"text": ["cat"], "answer_start": [4]},
        },
        {"question": "what?", "context": "nothing", "answers": {"text": [], "answer_start": []}},
        {"question": "where?", "context": "it is here", "answer": "here", "answer_start": 6},
    ],
    "choice": [
        {"text": "she opened", "choices": ["the door", "the sky", "a cat"], "label": 0},
        {"text": "he ate", "choices": ["a stone", "bread", "iron"], "label": "bread"},
    ]
    * 2,
    "embed": [
        {"anchor": f"number {i}", "positive": f"digit {i}", "negative": f"word {i}"}
        for i in range(6)
    ],
    "rerank": [
        {"query": f"number {i}", "positive": f"digit {i}", "negatives": [f"cat {i}", "dog"]}
        for i in range(4)
    ],
    "mask": [{"text": "import numpy as np " * 3 + str(i)} for i in range(6)],
}  # fmt: skip
VERBS = {
    "classify": ["classify", "a day"],
    "tokens": ["ner", "Anna is here"],
    "answer": ["answer", "--context", "the cat sat", "who?"],
    "embed": ["embed", "a text"],
    "rerank": ["rerank", "number 1", "digit 1"],
    "mask": ["fill-mask", "a [MASK] here"],
}


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return model_folder(tmp_path_factory.mktemp("base"), "masked_lm")


def short(task: str, **changes) -> Settings:
    return replace(defaults(task), epochs=2, batch_size=4, learning_rate=1e-3, **changes)


def run(task: str, folder: Path, base: Path, settings: Settings | None = None, **options):
    folder.mkdir(parents=True, exist_ok=True)
    data = lines(folder / "rows.jsonl", ROWS[task])
    settings = settings or short(task)
    return finetune_of(
        task, [data], folder / "out", model=base, evaluation=[data], settings=settings, **options
    )


def bits(folder: Path) -> dict[str, bytes]:
    """Of every tensor of the model and of the run's state, without its counters."""
    return {
        f"{file}/{name}": tensor.array().tobytes()
        for file in ("model.safetensors", "training.safetensors")
        for name, tensor in open_safetensors(folder / file).items()
    }


@pytest.mark.parametrize("task", TASKS)
def test_every_task_leaves_a_folder_that_loads_with_what_was_learned(task, tmp_path, base, capsys):
    figures = run(task, tmp_path, base)
    out = tmp_path / "out"
    model, start = refimpl.load(out, backend="numpy"), refimpl.load(base, backend="numpy")
    moved = model.params["layers.0.mlp.Wi.weight"] != start.params["layers.0.mlp.Wi.weight"]
    assert moved.mean() > 0.5
    assert np.isfinite(figures["eval_loss"]) and figures["best"] <= figures["eval_loss"]
    assert (out / "run.svg").read_text().startswith("<svg")
    if task in VERBS:
        call = [*VERBS[task], "--model", str(out), "--backend", "numpy"]
        assert main(call) == 0, capsys.readouterr().err
        assert capsys.readouterr().out.strip()


LEARNED = {"classify": ("accuracy", 1.0), "tokens": ("f1", 0.9), "choice": ("accuracy", 1.0),
           "rerank": ("ndcg_10", 0.9), "embed": ("recall_1", 1.0)}  # fmt: skip


@pytest.mark.parametrize("task", LEARNED)
def test_it_learns_its_rows_by_heart(task, tmp_path, base):
    settings = replace(short(task), epochs=30, learning_rate=3e-3)
    figures = run(task, tmp_path, base, settings)
    name, least = LEARNED[task]
    assert figures[f"eval_{name}"] >= least, figures


@pytest.mark.parametrize("task", TASKS)
def test_no_bit_depends_on_how_a_step_is_split_into_batches(task, tmp_path, base):
    """accumulate batches of batch_size are the texts of a step: no mean of means, no other sum."""
    found = []
    for batch_size, accumulate in ((4, 1), (2, 2), (1, 4)):
        where = tmp_path / f"{batch_size}"
        run(task, where, base, replace(short(task), batch_size=batch_size, accumulate=accumulate))
        found.append(bits(where / "out"))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("task", ["tokens", "answer"])
def test_a_step_is_the_gradient_of_its_whole_batch(task, tmp_path, base):
    """Texts with more labels weigh more: the sum over all, divided once."""
    data = lines(tmp_path / "rows.jsonl", ROWS[task])
    model = refimpl.load(base, backend="numpy", dtype="float64")
    tokenizer = open_tokenizer()
    run = TASKS[task].prepare(model, tokenizer, [data], (), 64, 0)
    settings = replace(defaults(task), batch_size=len(run.train.examples), epochs=1)
    found = run.train.step(run.model, 0, settings, list(run.model.params))
    units = run.train.examples.units
    ids = [x for unit in units for x in unit.sequences]
    packed = {
        "input_ids": np.concatenate(ids), "cu_seqlens": np.cumsum([0, *map(len, ids)])
    }  # fmt: skip
    labels = np.concatenate([unit.labels for unit in units])
    loss, grads = gradients(run.model, packed, labels, task=task)
    assert found.loss == pytest.approx(loss, rel=1e-12)
    largest = max(np.abs(g).max() for g in grads.values())
    for name, g in grads.items():
        np.testing.assert_allclose(found.gradients[name], g, atol=1e-11 * largest)


@pytest.mark.parametrize("task", ["rerank", "embed", "tokens"])
def test_what_was_finetuned_can_be_finetuned_on(task, tmp_path, base):
    """The head goes on from what it has learned: nothing of it is drawn anew."""
    run(task, tmp_path / "a", base)
    first = tmp_path / "a" / "out"
    still = replace(short(task), epochs=1, learning_rate=1e-12, weight_decay=0.0)
    run(task, tmp_path / "b", first, still)
    once, again = (refimpl.load(tmp_path / x / "out", backend="numpy") for x in "ab")
    for name, x in once.params.items():
        np.testing.assert_allclose(again.params[name], x, atol=1e-8)


def test_a_modular_reranker_has_no_embeddings_to_train(tmp_path):
    scores = {"in_features": 32, "out_features": 1, "module_output_name": "scores"}
    own = "sentence_transformers.models."
    folder = sentence_folder(tmp_path / "m", [
        (own + "Pooling", {"word_embedding_dimension": 32}), (own + "Dense", scores)
    ])  # fmt: skip
    data = lines(tmp_path / "a.jsonl", ROWS["embed"])
    with pytest.raises(ValueError, match="model is a reranker, whose modules give scores"):
        finetune_of("embed", [data], tmp_path / "out", model=folder)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("task", ["embed", "mask", "tokens"])
def test_a_run_that_broke_off_goes_on_with_the_same_bits(task, tmp_path, base):
    settings = short(task, save_every=1)
    run(task, tmp_path / "whole", base, settings)

    def tell(line: str) -> None:
        if line.startswith("step 2/"):
            raise Stopped

    with pytest.raises(Stopped):
        run(task, tmp_path / "broken", base, settings, tell=tell)
    run(task, tmp_path / "broken", base, settings, resume=True)
    assert bits(tmp_path / "broken" / "out") == bits(tmp_path / "whole" / "out")


# -- rows -----------------------------------------------------------------------------------------

GOOD = {"question": "q", "context": "some context"}
BAD = {
    "tokens of two lengths": ("tokens", {"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens and 1 t"),
    "tags no list": ("tokens", {"tokens": ["a"], "tags": "O"}, "tags is 'O'; it must be a list"),
    "neither": ("tokens", {"words": ["a"]}, "it needs tokens and tags, or text and entities"),
    "an empty token": ("tokens", {"tokens": [" "], "tags": ["O"]}, "neither may be empty"),
    "a span outside": (
        "tokens",
        {"text": "ab", "entities": [{"start": 0, "end": 5, "label": "X"}]},
        "start < end within 2 characters",
    ),
    "spans that overlap": (
        "tokens",
        {
            "text": "abcd",
            "entities": [
                {"start": 0, "end": 3, "label": "X"},
                {"start": 2, "end": 4, "label": "Y"},
            ],
        },
        "'X' and 'Y' overlap at character 2",
    ),
    "only O": ("tokens", {"tokens": ["a"], "tags": ["O"]}, "no row has an entity"),
    "no context": ("answer", {"question": "q"}, "'context' is missing"),
    "an empty question": ("answer", {"question": " ", "context": "c", "answer": ""}, "question is"),
    "no answer key": ("answer", GOOD, "it needs answers, or answer and answer_start"),
    "another place": (
        "answer",
        {**GOOD, "answer": "context", "answer_start": 2},
        "'context' does not stand in the context at character 2: there is 'me cont'",
    ),
    "nowhere": ("answer", {**GOOD, "answer": "xyz"}, "'xyz' does not stand in the context"),
    "a start that is none": (
        "answer",
        {**GOOD, "answer": "some", "answer_start": "x"},
        "answer_start is .'x'.; it must be a number",
    ),
    "one choice": ("choice", {"text": "t", "choices": ["a"], "label": 0}, "it has 1 choices"),
    "a label outside": (
        "choice",
        {"text": "t", "choices": ["a", "b"], "label": 2},
        "label is 2; it must be in 0 .. 1",
    ),
    "a label that is none": (
        "choice",
        {"text": "t", "choices": ["a", "b"], "label": "c"},
        "label is 'c'; it must be a number, or the text of a choice",
    ),
    "one column": ("embed", {"anchor": "a"}, "it needs anchor, positive and perhaps negatives"),
    "a score and three": (
        "embed",
        {"a": "x", "b": "y", "c": "z", "score": 1},
        "it needs anchor, positive",
    ),
    "an empty text": ("embed", {"anchor": "a", "positive": ""}, "positive is empty"),
    "a score no number": ("embed", {"a": "x", "b": "y", "score": "much"}, "score is 'much', which"),
    "no document": ("rerank", {"query": "q", "label": 1}, "it needs document and label, or"),
    "no label": ("rerank", {"query": "q", "document": "d"}, "'label' is missing"),
    "a label of 2": ("rerank", {"query": "q", "document": "d", "label": 2}, "label is 2; it must"),
    "only ones": ("rerank", {"query": "q", "document": "d", "label": 1}, "every label is 1; a rer"),
    "no text": ("mask", {"txt": "a"}, "row 1: 'text' is missing"),
    "only specials": ("mask", {"text": ""}, "data holds no text"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_its_own_error_before_anything_is_written(name, tmp_path):
    task, row, message = BAD[name]
    data = lines(tmp_path / "bad.jsonl", [row])
    with pytest.raises(ValueError, match=message) as raised:
        finetune_of(task, [data], tmp_path / "out")
    assert "data holds no text" in message or "bad.jsonl" in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_rows_that_do_not_fit_one_another_are_told(tmp_path):
    data = lines(tmp_path / "a.jsonl", [
        {"text": "t", "choices": ["a", "b"], "label": 0},
        {"text": "t", "choices": ["a", "b", "c"], "label": 0},
    ])  # fmt: skip
    with pytest.raises(ValueError, match=r"row 2: it has 3 choices, .*row 1 has 2"):
        encoded_choices(choice_rows(data), open_tokenizer(), 32)
    data = lines(tmp_path / "b.jsonl", [{"a": "x", "b": "y"}, {"a": "x", "c": "y"}])
    with pytest.raises(ValueError, match="row 2: it has .'a', 'c'., the first row .'a', 'b'."):
        together_rows(data)


def test_an_unknown_tag_of_the_evaluation_is_told(tmp_path, base):
    data = lines(tmp_path / "a.jsonl", ROWS["tokens"])
    other = lines(tmp_path / "b.jsonl", [{"tokens": ["x"], "tags": ["B-ORG"]}])
    with pytest.raises(ValueError, match=r"b.jsonl, row 1: tag is 'B-ORG'; known: O, B-LOC"):
        finetune_of("tokens", [data], tmp_path / "out", model=base, evaluation=[other])


def test_an_unknown_label_of_the_evaluation_is_told(tmp_path, base):
    data = lines(tmp_path / "a.jsonl", ROWS["classify"])
    other = lines(tmp_path / "b.jsonl", [{"text": "x", "label": "nobody's"}])
    with pytest.raises(ValueError, match=r"b.jsonl, row 1: label is \"nobody's\"; known: "):
        finetune_of("classify", [data], tmp_path / "out", model=base, evaluation=[other])
    assert not (tmp_path / "out").exists()


EMBEDDING_LOSSES = {
    "ranking": {"anchor": "number {}", "positive": "digit {}"},
    "cosent": {"a": "number {}", "b": "digit {}", "score": 0.5},
    "cosine": {"a": "number {}", "b": "digit {}", "score": 0.5},
    "triplet": {"a": "number {}", "b": "digit {}", "c": "word {}"},
    "margin": {"a": "number {}", "b": "digit {}", "c": "word {}", "score": 0.5},
}


@pytest.mark.parametrize("widths", [(), (32, 8)])
@pytest.mark.parametrize("loss", EMBEDDING_LOSSES)
def test_embeddings_learn_by_each_loss(loss, widths, tmp_path, base):
    rows = [
        {k: v.format(i) if isinstance(v, str) else v + i / 10 for k, v in row.items()}
        for i in range(5)
        for row in [EMBEDDING_LOSSES[loss]]
    ]
    data = lines(tmp_path / "a.jsonl", rows)
    how = Settings(epochs=6, batch_size=5, learning_rate=1e-3)
    figures = finetune_of("embed", [data], tmp_path / "out", model=base, evaluation=[data],
                          loss=loss, widths=widths, settings=how)  # fmt: skip
    logged = [json.loads(x) for x in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    losses = [x["eval_loss"] for x in logged if "eval_loss" in x]
    assert figures["best"] == min(losses) < losses[0]


@pytest.mark.parametrize(
    ("row", "loss", "widths", "message"),
    [
        ("triplet", "cosent", (), "it has 3 texts and no score; loss cosent needs two texts and s"),
        (
            "cosent",
            "triplet",
            (),
            "it has 2 texts and a score; loss triplet needs anchor, positive",
        ),
        ("cosent", "margin", (), "loss margin needs query, positive, negative and score"),
        ("ranking", "bce", (), "loss is 'bce'; known: ranking, cosent, cosine, triplet, margin"),
        ("ranking", None, (0,), "widths holds 0; it must be in 1 .. "),
    ],
)
def test_losses_that_do_not_fit_the_rows_are_refused(row, loss, widths, message, tmp_path, base):
    texts = {k: v.format(1) if isinstance(v, str) else v for k, v in EMBEDDING_LOSSES[row].items()}
    data = lines(tmp_path / "a.jsonl", [texts])
    with pytest.raises(ValueError, match=message):
        finetune_of("embed", [data], tmp_path / "out", model=base, loss=loss, widths=widths)
    with pytest.raises(ValueError, match=r"widths is \(8,\); it is of task embed, not rerank"):
        finetune_of("rerank", [data], tmp_path / "out", widths=(8,))


def test_options_that_a_task_does_not_have_are_refused(tmp_path):
    with pytest.raises(ValueError, match="task is 'sing'; known: classify, tokens"):
        finetune_of("sing", ["x"], tmp_path)
    with pytest.raises(ValueError, match="problem is 'regression'; it is of task classify"):
        finetune_of("tokens", ["x"], tmp_path, problem="regression")


def test_weights_that_are_nan_are_told(tmp_path, base):
    import shutil

    from support.folders import change_tensors

    folder = shutil.copytree(base, tmp_path / "nan")
    change_tensors(folder / "model.safetensors", lambda t: t[next(iter(t))].fill(np.nan))
    data = lines(tmp_path / "a.jsonl", ROWS["classify"])
    with pytest.raises(ValueError, match="holds nan"):
        finetune_of("classify", [data], tmp_path / "out", model=folder)


# -- labels of tokens and answers -----------------------------------------------------------------


def test_every_token_of_a_word_has_its_label(tmp_path):
    tokenizer = open_tokenizer()
    rows = tagged.tagged_rows(lines(tmp_path / "a.jsonl", ROWS["tokens"][:2]))
    names = tagged.tags_of(rows)
    assert names == ["O", "B-LOC", "B-PER", "I-LOC", "I-PER"]
    found = tagged.encoded(rows, names, tokenizer, 64)
    for row, unit, words in zip(
        rows, found.units, (["Anna", "Berlin"], ["Bob", "New", "York"]), strict=True
    ):
        e = tokenizer.encode(row.text)
        assert unit.sequences[0].tolist() == e.ids
        assert unit.labels[0] == unit.labels[-1] == -100
        for word in words:
            at = row.text.index(word)
            inside = [
                i for i, (a, b) in enumerate(e.offsets)
                if not e.special[i] and a < at + len(word) and b > at and row.text[a:b].strip()
            ]  # fmt: skip
            tags = [names[unit.labels[i]] for i in inside]
            first = "I" if word == "York" else "B"
            assert tags[0].startswith(first) and all(t.startswith("I") for t in tags[1:]), word
    assert [names[i] for i in found.units[0].labels if i >= 0].count("O") >= 2


def test_tags_without_b_and_i_are_kept(tmp_path):
    rows = tagged.tagged_rows(
        lines(tmp_path / "a.jsonl", [{"tokens": ["extraordinarily"], "tags": ["ADV"]}])
    )
    names = tagged.tags_of(rows)
    labels = tagged.encoded(rows, names, open_tokenizer(), 64).units[0].labels
    assert {names[i] for i in labels if i >= 0} == {"ADV"}


def test_an_answer_stands_in_one_piece_and_the_others_have_none(tmp_path):
    tokenizer = open_tokenizer()
    context = "nothing of the kind " * 40 + "the answer is a black cat, they say " + "so " * 60
    row = {"question": "who?", "context": context, "answer": "black cat"}
    rows = questions.question_rows(lines(tmp_path / "a.jsonl", [row]))
    found = questions.encoded(rows, tokenizer, 64)
    places = [tuple(unit.labels[0]) for unit in found.units]
    held = [
        (unit, place) for unit, place in zip(found.units, places, strict=True) if place != (0, 0)
    ]
    assert len(found.units) > 4 and 1 <= len(held) <= 2
    for unit, (start, end) in held:
        ids = unit.sequences[0][start : end + 1]
        assert tokenizer.decode(ids.tolist()).strip() == "black cat"


def test_right_answers_score_in_full(tmp_path):
    rows = questions.question_rows(lines(tmp_path / "a.jsonl", ROWS["answer"]))
    found = questions.encoded(rows, open_tokenizer(), 64)
    outputs = []
    for unit in found.units:
        start, end = (np.full((1, unit.tokens), -9.0) for _ in range(2))
        start[0, unit.labels[0, 0]] = end[0, unit.labels[0, 1]] = 9.0
        outputs.append({"start_logits": start, "end_logits": end})
    assert found.figures(outputs) == {"exact_match": 1.0, "f1": 1.0}
    wrong = [{n: np.roll(x, 1) for n, x in out.items()} for out in outputs]
    assert found.figures(wrong)["exact_match"] < 1.0


def test_relevance_by_columns_and_by_positives_is_the_same(tmp_path):
    one = lines(tmp_path / "a.jsonl", [{"query": "q", "positive": "p", "negative_1": ["m", "n"]}])
    other = lines(tmp_path / "b.jsonl", [
        {"query": "q", "document": d, "label": y} for d, y in (("p", 1), ("m", 0), ("n", "0"))
    ])  # fmt: skip
    found = [[(r.query, r.document, r.label) for r in relevance_rows(p)] for p in (one, other)]
    assert found[0] == found[1]


# -- figures --------------------------------------------------------------------------------------


def test_entities_by_hand():
    tags = ["B-A", "I-A", "B-A", "O", "I-B", "I-A", "C", "C"]
    assert metrics.entities(tags) == {
        ("A", 0, 1), ("A", 2, 2), ("B", 4, 4), ("A", 5, 5), ("C", 6, 7)
    }  # fmt: skip


def test_ranks_by_hand():
    got = metrics.ranked(np.array([3.0, 2, 1, 1, 2]), np.array([0.0, 1, 0, 1, 0]), list("aaabb"))
    assert got["mrr_10"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert got["ndcg_10"] == pytest.approx(1 / np.log2(3))
    scores = np.array([[0.1, 0.9], [0.5, 0.5]])
    assert metrics.retrieved(scores, np.array([1, 0])) == {
        "recall_1": 0.5, "recall_10": 1.0, "mrr_10": 0.75
    }  # fmt: skip
    assert metrics.words_shared("the black cat", "a cat") == pytest.approx(2 / 3)
    assert metrics.spans(["", "x"], [[""], ["y", "X."]]) == {"exact_match": 1.0, "f1": 1.0}


# -- class weights --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_a_step_with_class_weights_is_the_weighted_gradient_of_its_batch(tmp_path, base, backend):
    rows = [{"text": f"{w} day {i}", "label": w} for i, w in enumerate("good bad bad bad".split())]
    data = lines(tmp_path / "rows.jsonl", rows)
    at = {"bad": 0, "good": 1}
    how = short("classify", steps=1, warmup=0.0)
    run_to = tmp_path / "out"
    for given, want in (({"good": 3.0}, [1.0, 3.0]), ("balanced", [4 / 6, 2.0])):
        out = run_to / str(want)
        finetune_of("classify", [data], out, model=base, settings=how, class_weights=given,
                    backend=backend)  # fmt: skip
        before = with_head(
            opened(base), "sequence_classification", sorted(at),
            "single_label_classification", how.seed,
        )  # fmt: skip
        tokenizer = open_tokenizer(base)
        ids = [np.array(tokenizer.encode(row["text"]).ids) for row in rows]
        packed = {
            "input_ids": np.concatenate(ids),
            "cu_seqlens": np.cumsum([0, *(len(x) for x in ids)]),
        }
        labels = np.array([at[row["label"]] for row in rows])
        loss, _ = gradients(before, packed, labels, task="classify", class_weights=want)
        first = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
        assert first["loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("classify", {"goood": 2.0}, "class_weights names 'goood'; the labels are"),
        ("classify", "even", 'it must be "balanced" or map labels'),
        ("classify", {"good": -1.0}, r"class_weights\[1\] is -1.0; it must be finite"),
        ("answer", "balanced", "they are of classify with one label a text, and of tokens"),
        ("rerank", "balanced", "they are of classify with one label a text, and of tokens"),
    ],
)
def test_class_weights_that_do_not_fit_are_refused(task, given, message, tmp_path, base):
    data = lines(tmp_path / "rows.jsonl", ROWS[task])
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=message):
        finetune_of(task, [data], out, model=base, class_weights=given)
    assert not out.exists()


@pytest.mark.parametrize("given", ["good", "good=x"])
def test_a_class_weight_of_the_command_is_a_label_and_a_number(given, tmp_path, capsys):
    data = lines(tmp_path / "rows.jsonl", ROWS["classify"])
    call = ["finetune", "classify", str(data), "--out", str(tmp_path / "out")]
    assert main([*call, "--class-weight", given]) != 0
    assert "it must be LABEL=NUMBER, or balanced" in capsys.readouterr().err
