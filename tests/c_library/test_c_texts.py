"""Texts in, vectors, scores and labels out of libmodernbert.so: the bits of Python, its words when
it refuses. `pytest -m soak tests/c_library/test_c_texts.py -s` compares 10,000 texts of each."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.c_interface import BAD_FILE, INVALID, Failed, check, data_of, ffi, lib, struct
from support.folders import change_json
from support.text_folders import model_folder, sentence_folder

from refimpl import Reranker, SentenceEncoder, load
from refimpl.errors import ModelFormatError, TruncationWarning
from refimpl.files.folder import ModelFolder
from refimpl.models.model import BUNDLED
from refimpl.reference.heads import HEADS
from refimpl.tasks.classify import TextClassification
from refimpl.text.own import OwnCodec
from refimpl.text.tokenizer import Tokenizer

MODULES = "sentence_transformers.models."
POOLING = (MODULES + "Pooling", {"word_embedding_dimension": 32})
LEFT_OUT = (MODULES + "Pooling", {"word_embedding_dimension": 32, "include_prompt": False})
DENSE = (MODULES + "Dense", {"in_features": 32, "out_features": 20})
SCORES = (
    MODULES + "Dense",
    {"in_features": 32, "out_features": 1, "module_output_name": "scores",
     "activation_function": "torch.nn.modules.linear.Identity"},
)  # fmt: skip
PROMPTS = {"prompts": {"query": "for a query: ", "other": "x"}, "default_prompt_name": "other"}
ROOT = Path(__file__).resolve().parents[2]
LINES = [line for line in (ROOT / "MODEL.md").read_text("utf-8").splitlines() if line.strip()]
CUT, REFUSE, KEEP = 1, 2, 3


class Texts:
    """A model that was opened with texts."""

    def __init__(self, folder: Path, **options: Any) -> None:
        made = ffi.new("modernbert_model **")
        given = struct("options", **options) if options else ffi.NULL
        check(lib.modernbert_open_text(str(folder).encode(), given, made))
        self.handle = ffi.gc(made[0], lib.modernbert_close)
        self.facts = struct("facts")
        check(lib.modernbert_model_facts(self.handle, self.facts))

    def run(self, call: Any, columns: int, texts: list[Any], **options: Any) -> Any:
        """Results [texts, columns], and the tokens that were cut off each."""
        given, kept = ffi.new("modernbert_text[]", len(texts)), []
        for one, text in zip(given, texts, strict=True):
            parts = (text,) if isinstance(text, str) else text
            for field, size, part in zip(
                ("text", "pair"), ("bytes", "pair_bytes"), parts, strict=False
            ):
                kept.append(ffi.from_buffer(raw := part.encode()))
                setattr(one, field, kept[-1])
                setattr(one, size, len(raw))
        if "prompt" in options:
            options["prompt_bytes"] = len(options["prompt"].encode())
        how = struct("text_options", **options) if options else ffi.NULL
        out = np.full((len(texts), columns), np.nan, np.float32)
        lost = np.full(len(texts), -1, np.int64)
        check(call(self.handle, given, len(texts), how, ffi.NULL, data_of(out), out.size,
                   data_of(lost)))  # fmt: skip
        return out, lost

    def embed(self, texts: list[str], **options: Any) -> Any:
        width = options.get("width") or self.facts.width
        return self.run(lib.modernbert_embed_texts, width, texts, **options)

    def score(self, pairs: list[tuple[str, str]], **options: Any) -> Any:
        return self.run(lib.modernbert_score_pairs, self.facts.labels, pairs, **options)

    def classify(self, texts: list[Any], **options: Any) -> Any:
        return self.run(lib.modernbert_classify_texts, self.facts.labels, texts, **options)


def words(n: int, seed: int = 0) -> list[str]:
    """Texts from lines of MODEL.md and from all planes, short, empty and over 128 tokens."""
    rng, out = random.Random(seed), ["", " ", "[MASK] a[SEP]b", "\U0001f600 e\u0301"]
    while len(out) < n:
        text = " ".join(rng.choices(LINES, k=rng.choice([0, 1, 1, 2, 6])))
        start = rng.randrange(len(text) + 1)
        odd = "".join(chr(rng.randrange(0x20, 0xD800)) for _ in range(rng.randrange(6)))
        out.append(text[start : start + rng.randrange(200)] + odd)
    return out[:n]


def same(got: tuple[np.ndarray, np.ndarray], expected: tuple[Any, Any]) -> None:
    np.testing.assert_array_equal(got[0].reshape(expected[0].shape), expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


# -- against Python -------------------------------------------------------------------------------

EMBED: dict[str, dict[str, Any]] = {
    "plain": dict(modules=[POOLING]),
    "dense": dict(modules=[POOLING, DENSE, (MODULES + "Normalize", {})]),
    "prompts": dict(modules=[LEFT_OUT], settings=PROMPTS),
    "short": dict(
        modules=[POOLING], transformer={"max_seq_length": 9, "query_length": 7}, settings=PROMPTS
    ),
    "types": dict(modules=[POOLING], type_vocab_size=2),
}


@pytest.mark.parametrize("n", [60, pytest.param(10_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("what", EMBED)
@pytest.mark.filterwarnings("ignore::refimpl.errors.TruncationWarning")
def test_vectors_are_those_of_python(tmp_path: Path, what: str, n: int) -> None:
    folder, texts = sentence_folder(tmp_path / "model", **EMBED[what]), words(n)
    encoder, c = SentenceEncoder(folder, backend="native"), Texts(folder)
    whole = dict(return_lost=True)
    expected = encoder.encode(texts, **whole)
    same(c.embed(texts), expected)
    assert len(np.unique(expected[0], axis=0)) > n // 2
    assert (what == "short") == bool(expected[1].any())
    print(f"{what}: {n} texts, the bits of Python, {int((expected[1] > 0).sum())} cut")
    some = texts[:60]
    unit = dict(normalize_embeddings=True, truncate_dim=5)
    same(c.embed(some, normalize=1, width=5), encoder.encode(some, **unit, **whole))
    same(c.embed(some, role=1), encoder.encode_query(some, **whole))
    same(c.embed(some, role=2), encoder.encode_document(some, **whole))
    same(c.embed(some, prompt="p: "), encoder.encode(some, prompt="p: ", **whole))
    same(c.embed(some, prompt=""), encoder.encode(some, prompt="", **whole))
    same(c.embed(some, max_length=6), encoder.encode(some, max_length=6, **whole))
    never = encoder.encode(some, truncate="never", **whole)
    same(c.embed(some, truncation=KEEP), never)


RERANKERS: dict[str, dict[str, Any]] = {
    "one label": dict(id2label={0: "score"}),
    "mean, biases": dict(
        id2label={0: "score"}, classifier_pooling="mean", classifier_bias=True, norm_bias=True
    ),
    "three labels": dict(id2label={0: "a", 1: "b", 2: "c"}, classifier_activation="silu"),
    "types": dict(id2label={0: "score"}, type_vocab_size=2),
}


@pytest.mark.parametrize("n", [40, pytest.param(10_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("what", [*RERANKERS, "modular", "named activation"])
@pytest.mark.filterwarnings("ignore::refimpl.errors.TruncationWarning")
def test_scores_are_those_of_python(tmp_path: Path, what: str, n: int) -> None:
    folder, texts = tmp_path / "model", words(2 * n, 1)
    pairs = list(zip(texts[:n], texts[n:], strict=True))
    if what in RERANKERS:
        model_folder(folder, "sequence_classification", **RERANKERS[what])
    else:
        fn = {"activation_fn": "torch.nn.modules.activation.Tanh"}
        sentence_folder(
            folder, [POOLING, SCORES], settings={**PROMPTS, **(fn if what != "modular" else {})}
        )
    reranker, c = Reranker(folder, backend="native"), Texts(folder)
    whole = dict(return_lost=True)
    expected = reranker.predict(pairs, **whole)
    same(c.score(pairs), expected)
    assert len(np.unique(expected[0], axis=0)) > n // 2
    print(f"{what}: {n} pairs, the bits of Python")
    some = pairs[:40]
    same(c.score(some, max_length=11), reranker.predict(some, max_length=11, **whole))
    same(c.score(some, prompt="q "), reranker.predict(some, prompt="q ", **whole))
    raw = reranker.predict(some, activation_fn=lambda x: x, **whole)
    same(c.score(some, function="none"), raw)
    both = reranker.predict(some, activation_fn=lambda x: x, apply_softmax=True, **whole)
    if reranker.num_labels > 1:
        same(c.score(some, function="softmax"), both)


CLASSIFIERS: dict[str, dict[str, Any]] = {
    "softmax": dict(id2label={0: "bad", 1: "good", 2: "b\u00e4d"}),
    "several": dict(problem_type="multi_label_classification", classifier_pooling="mean"),
    "regression": dict(problem_type="regression", id2label={0: "x"}),
    "one": dict(id2label={0: "x"}),
}


@pytest.mark.parametrize("n", [40, pytest.param(10_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("what", CLASSIFIERS)
def test_labels_are_those_of_python(tmp_path: Path, what: str, n: int) -> None:
    folder = model_folder(tmp_path / "m", "sequence_classification", **CLASSIFIERS[what])
    c, texts = Texts(folder), words(n, 2)
    names = [ffi.string(lib.modernbert_model_label(c.handle, i)).decode()
             for i in range(c.facts.labels)]  # fmt: skip
    assert lib.modernbert_model_label(c.handle, c.facts.labels) == ffi.NULL
    task = TextClassification(folder, backend="native")
    assert names == list(task.model.config.id2label.values())

    def python(items: list[Any], **options: Any) -> np.ndarray:
        found = [{r["label"]: r["score"] for r in row}
                 for row in task(items, top_k=None, batch_size=32, **options)]  # fmt: skip
        return np.array([[row[name] for name in names] for row in found], np.float32)

    expected = python(texts)
    same(c.classify(texts), (expected, np.zeros(n)))
    print(f"{what}: {n} texts, the bits of Python")
    pairs = list(zip(texts[:20], texts[20:40], strict=True))
    asked = [{"text": a, "text_pair": b} for a, b in pairs]
    same(c.classify(pairs), (python(asked), np.zeros(20)))
    cut, lost = c.classify(texts[:40], max_length=8)
    np.testing.assert_array_equal(cut, python(texts[:40], max_length=8, truncate="silent"))
    assert lost.any()
    function = "sigmoid" if what == "softmax" else "softmax"
    np.testing.assert_array_equal(
        c.classify(texts[:40], function=function)[0],
        python(texts[:40], function_to_apply=function),
    )


def test_a_classifier_gives_the_mean_as_its_vector(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", "sequence_classification")
    with pytest.warns(UserWarning, match="mean pooling"):
        expected = SentenceEncoder(folder, backend="native").encode(words(9), return_lost=True)
    same(Texts(folder).embed(words(9)), expected)


def test_logits_of_ids_are_those_of_python(tmp_path: Path) -> None:
    """Padding on either side, hidden tokens and a row of padding alone, against numpy's head."""
    for pooling in ("cls", "mean"):
        folder = model_folder(
            tmp_path / pooling, "sequence_classification", classifier_pooling=pooling, norm_eps=0.1
        )
        ids = np.random.default_rng(1).integers(4, 900, (4, 9))
        mask = np.ones((4, 9), int)
        mask[1, 5:] = mask[2, :3] = mask[3] = 0
        inputs = {"input_ids": ids, "attention_mask": mask}
        got = load(folder, backend="native")(inputs)["logits"]
        expected = load(folder, backend="numpy")(inputs)["logits"]
        np.testing.assert_allclose(got, expected, rtol=0, atol=3e-6)
        alone = load(folder, backend="native")({"input_ids": ids[:1]})["logits"]
        np.testing.assert_array_equal(got[:1], alone)


def test_facts_and_prompts_are_told(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "m", **EMBED["short"])
    c, facts = Texts(folder), struct("text_facts")
    check(lib.modernbert_text_facts_of(c.handle, facts))
    assert (facts.longest, facts.query_length, facts.document_length) == (9, 7, 0)
    assert ffi.string(facts.default_prompt) == b"other"
    name, text = ffi.new("const char **"), ffi.new("const char **")
    found = {}
    for i in range(2):
        check(lib.modernbert_prompt(c.handle, i, name, text))
        found[ffi.string(name[0]).decode()] = ffi.string(text[0]).decode()
    assert found == PROMPTS["prompts"]
    check(lib.modernbert_prompt(c.handle, 2, name, text))
    assert name[0] == ffi.NULL == text[0]


# -- what the files beside tokenizer.json say -----------------------------------------------------

BESIDE: dict[str, dict[str, dict[str, Any]]] = {
    "decoder": {"tokenizer_config.json": {"added_tokens_decoder": {
        "900": {"content": "<new>", "special": True}, "7": {"content": "for", "lstrip": True},
        "x": {"content": "<b>", "normalized": False}}}},
    "named": {"tokenizer_config.json": {"added_tokens_decoder": {}, "x_token": "range",
                                        "extra_special_tokens": {"a": "in"}}},
    "older": {"special_tokens_map.json": {"mask_token": {"content": "in", "lstrip": True},
                                          "additional_special_tokens": ["print", "int"]},
              "added_tokens.json": {"print": 3, "return": 1}},
    "split": {"tokenizer_config.json": {"split_special_tokens": True}},
    "special by name": {"tokenizer_config.json": {
        "added_tokens_decoder": {"9000": {"content": "rint(", "special": False}},
        "x_token": "rint(", "split_special_tokens": True}},
    "left": {"tokenizer_config.json": {"truncation_side": "left", "model_max_length": 9}},
    "limit": {"tokenizer_config.json": {"model_max_length": 1e30}},
    "old limit": {"tokenizer_config.json": {"max_len": 11}},
}  # fmt: skip
SAID = ["for i in range(10): <new> print(<b>)", "[MASK][CLS] int", "return in  in", " " * 3]


def beside(folder: Path, files: dict[str, dict[str, Any]]) -> Path:
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("what", BESIDE)
@pytest.mark.filterwarnings("ignore")
def test_files_beside_the_tokenizer_count(tmp_path: Path, what: str) -> None:
    rows = 8292 if what in ("decoder", "older", "special by name") else None
    more = {} if rows is None else {"vocab_size": rows}
    folder = beside(sentence_folder(tmp_path / "m", [POOLING], **more), BESIDE[what])
    encoder, texts = SentenceEncoder(folder, backend="native"), [*SAID, *words(30)]
    assert isinstance(encoder.tokenizer.codec, OwnCodec)
    same(Texts(folder).embed(texts), encoder.encode(texts, return_lost=True))
    if what not in ("limit",):
        (folder / "tokenizer_config.json").write_text("{}")
        for name in ("special_tokens_map.json", "added_tokens.json"):
            (folder / name).unlink(missing_ok=True)
        plain = Texts(folder).embed(texts)[0]
        assert not np.array_equal(plain, encoder.encode(texts)), "these files changed nothing"


BROKEN: dict[str, dict[str, dict[str, Any]]] = {
    "side": {"tokenizer_config.json": {"truncation_side": "up"}},
    "side is 3": {"tokenizer_config.json": {"truncation_side": 3}},
    "split": {"tokenizer_config.json": {"split_special_tokens": "yes"}},
    "limit": {"tokenizer_config.json": {"model_max_length": 0}},
    "decoder": {"tokenizer_config.json": {"added_tokens_decoder": [1]}},
    "no content": {"tokenizer_config.json": {"added_tokens_decoder": {"3": {"x": "y\u00e9"}}}},
    "flags": {
        "tokenizer_config.json": {"added_tokens_decoder": {"3": {"content": "a", "lstrip": 1}}}
    },
    "named": {"tokenizer_config.json": {"mask_token": 7}},
    "extra": {"tokenizer_config.json": {"extra_special_tokens": "ab"}},
    "listed": {"added_tokens.json": {"a": "b"}},
    "rows": {
        "tokenizer_config.json": {"added_tokens_decoder": {"3": {"content": "<beyond\u00e9>"}}}
    },
    "prompts": {"config_sentence_transformers.json": {"prompts": {"a": 1}}},
    "default": {"config_sentence_transformers.json": {"default_prompt_name": "z"}},
    "length": {"sentence_bert_config.json": {"max_seq_length": 0}},
}  # fmt: skip


@pytest.mark.parametrize("alone", [False, True], ids=["pooling", "transformer alone"])
@pytest.mark.parametrize("what", BROKEN)
def test_wrong_files_are_refused_in_the_words_of_python(
    tmp_path: Path, what: str, alone: bool
) -> None:
    folder = beside(sentence_folder(tmp_path / "m", [] if alone else [POOLING]), BROKEN[what])
    (folder / "tokenizer_config.json").touch()
    if not (folder / "tokenizer_config.json").read_text():
        (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ModelFormatError) as python:
        SentenceEncoder(folder, backend="native")
    with pytest.raises(Failed) as c:
        Texts(folder)
    assert (c.value.status, str(c.value)) == (BAD_FILE, str(python.value))


def test_a_folder_without_tokenizer_is_refused_in_the_words_of_python(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "m", [POOLING])
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFormatError) as python:
        Tokenizer.from_folder(ModelFolder(folder))
    with pytest.raises(Failed) as c:
        Texts(folder)
    assert (c.value.status, str(c.value)) == (BAD_FILE, str(python.value))


def test_what_c_cannot_do_is_refused_by_name(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "a", [POOLING], transformer={"do_lower_case": True})
    with pytest.raises(Failed, match=r"sentence_bert_config.json: do_lower_case: is true; "):
        Texts(folder)
    content = json.loads((BUNDLED / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "NFKC"}
    other = sentence_folder(tmp_path / "b", [POOLING])
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(Failed, match=r"tokenizer.json: normalizer.*NFKC"):
        Texts(other)


def refused(call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(Failed) as failed:
        call(*args, **options)
    assert failed.value.status == INVALID
    return str(failed.value)


@pytest.mark.parametrize("kind", [None, *HEADS])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tasks_that_the_folder_is_not_for_are_refused_in_the_words_of_python(
    tmp_path: Path, kind: str | None
) -> None:
    folder = model_folder(tmp_path / "m", kind, id2label={0: "a", 1: "b"})
    c = Texts(folder)
    assert c.embed(["a"])[0].shape == (1, 32)
    if kind == "sequence_classification":
        return
    for task, call in ((Reranker, c.score), (TextClassification, c.classify)):
        with pytest.raises(ValueError) as python:
            task(folder)
        assert refused(call, [("a", "b")]) == str(python.value)


def test_scores_are_no_vectors(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "m", [POOLING, SCORES])
    assert refused(Texts(folder).embed, ["a"]).startswith(f"{folder} scores pairs and gives no")
    made = ffi.new("modernbert_model **")
    check(lib.modernbert_open(str(folder).encode(), ffi.NULL, made))
    call = lib.modernbert_embed_texts
    assert call(made[0], ffi.NULL, 0, *[ffi.NULL] * 3, 0, ffi.NULL) == INVALID
    assert (
        "modernbert_open_text opens it with them"
        in ffi.string(lib.modernbert_last_error()).decode()
    )
    lib.modernbert_close(made[0])


def test_an_activation_that_is_not_known_is_told_when_scores_are_asked_for(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", "sequence_classification", id2label={0: "score"})
    change_json(folder / "config.json", sbert_ce_default_activation_function="my.Own")
    c = Texts(folder)
    with pytest.raises(ModelFormatError) as python:
        Reranker(folder)
    said = refused(c.score, [("a", "b")])
    assert said.partition(";")[0] == str(python.value).partition(";")[0]
    assert c.score([("a", "b")], function="tanh")[0].shape == (1, 1)


def test_wrong_arguments_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    c = Texts(sentence_folder(tmp_path / "m", [POOLING, DENSE], settings=PROMPTS))
    said = {
        "role": (dict(role=3), "options->role is 3; it must be a modernbert_role"),
        "truncation": (dict(truncation=9), "options->truncation is 9"),
        "length": (dict(max_length=-1), "options->max_length is -1"),
        "room": (dict(max_length=2), "max_length 2 leaves no room for text: a text has 2 special"),
        "prompt": (dict(prompt_name="z"), "prompt_name 'z' is unknown; known: ['document', 'othe"),
        "function": (dict(function="tanh"), "options->function is for modernbert_score_pairs"),
        "refuse": (dict(truncation=REFUSE, max_length=5), "texts[0] has 13 tokens, over max_len"),
    }
    for options, message in said.values():
        assert refused(c.embed, ["a b c d e f g h i j"], **options).startswith(message)
    with pytest.raises(ValueError) as python:
        SentenceEncoder(tmp_path / "m").encode("a", prompt_name="z")
    assert refused(c.embed, ["a"], prompt_name="z") == str(python.value)
    assert "it must be in 1 .. 20" in refused(c.embed, ["a"], width=21)
    out = np.zeros((1, 20), np.float32)
    call, bad = lib.modernbert_embed_texts, ffi.new("char[]", b"ab\xff")
    wrong = ffi.new("modernbert_text[]", [{"text": bad, "bytes": 3}])
    null = ffi.NULL
    assert call(c.handle, wrong, 1, null, null, data_of(out), 20, null) == INVALID
    assert ffi.string(lib.modernbert_last_error()) == b"texts[0].text is not UTF-8 at byte 2"
    wrong[0].text = null
    assert call(c.handle, wrong, 1, null, null, data_of(out), 20, null) == INVALID
    assert call(c.handle, null, 1, null, null, data_of(out), 20, null) == INVALID
    assert call(c.handle, wrong, 1, null, null, data_of(out), 19, null) == INVALID
    assert call(c.handle, null, 0, null, null, null, 0, null) == 0
    assert not out.any()


def test_a_score_needs_a_pair(tmp_path: Path) -> None:
    c = Texts(model_folder(tmp_path / "m", "sequence_classification"))
    assert refused(c.score, ["alone"]) == "texts[0] has no pair; a score is one of two texts"
    assert "is for modernbert_embed_texts alone" in refused(c.classify, ["a"], role=1)
    assert "prompt is for" in refused(c.classify, ["a"], prompt="x")
    assert "options->function is 'x'; supported: none" in refused(c.classify, ["a"], function="x")


def test_truncation_is_told_in_python_too(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "m", **EMBED["short"])
    with pytest.warns(TruncationWarning):
        _, lost = SentenceEncoder(folder).encode(["word " * 30], return_lost=True)
    assert Texts(folder).embed(["word " * 30])[1].tolist() == lost.tolist()


def test_a_folder_moves_with_its_name(tmp_path: Path) -> None:
    """A model keeps what it read: nothing of its folder is looked at again but rows."""
    folder = sentence_folder(tmp_path / "m", [POOLING])
    c = Texts(folder)
    before = c.embed(words(5))[0]
    shutil.rmtree(folder)
    np.testing.assert_array_equal(c.embed(words(5))[0], before)
