"""The page of `modernbert explain`: every number is its tap, to the digits that are shown; sizes,
texts that try to break out, policy; and refusals before anything is written."""

import base64
import hashlib
import json
import re
import unicodedata
from html.parser import HTMLParser

import numpy as np
import pytest
from support.explain_taps import Taps, expected_names
from support.text_folders import NER_LABELS, add_tokenizer, model_folder, sentence_folder

import refimpl
from refimpl.models.model import BUNDLED
from refimpl.teach.page.explained import explained
from refimpl.teach.page.numbers import Kept, packed, unpacked
from refimpl.teach.page.pages import fitted_page, page, read_page
from refimpl.teach.page.spelling import visible

pytest.importorskip("tokenizers")

TEXT = "for i in [MASK](10):\n    print(i)"
LONG = "import numpy as np for i in range of the cat that sat on a mat and " * 3
BIASES = dict(norm_bias=True, attention_bias=True, mlp_bias=True, type_vocab_size=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("explained")

    def made(name, kind, **config):
        (root / name).mkdir()
        return model_folder(root / name, kind, **config)

    return {
        "bundled": BUNDLED,
        "mask": made("mask", "masked_lm", decoder_bias=True, hidden_activation="silu"),
        "biases": made("biases", "masked_lm", **BIASES),
        "classify": made("classify", "sequence_classification", id2label={0: "no", 1: "yes"}),
        "ner": made("ner", "token_classification", id2label=NER_LABELS),
        "no head": made("bare", None),
        "answer": made("answer", "question_answering"),
        "sentence": sentence(root / "sentence"),
        "configured": configured(root / "configured"),
        "two layers": made("two", "masked_lm", num_hidden_layers=2, seed=3),
    }  # fmt: skip


def sentence(folder):
    folder.mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    return sentence_folder(folder, [("sentence_transformers.models.Pooling", pooling)])


def configured(folder):
    """A head by task type, whose kind has the name of one of Hugging Face's."""
    task = refimpl.NLPTaskConfig("mood", "sentiment_analysis", num_classes=3)
    refimpl.create_modern_bert_with_head("tiny", task).save_pretrained(folder)
    return add_tokenizer(folder)


def compare(text: str, side: int, folder) -> None:
    """Every array of one of a page's texts with its tap: no other name, no other number."""
    about, arrays = read_page(text)
    about, kept = about["sides"][side], arrays[side]
    taps = Taps(folder, about)
    wanted = expected_names(about, taps.config, set(taps.steps), set(taps.model.params))
    assert set(kept) == wanted
    for name, found in kept.items():
        expected = np.asarray(taps(name), np.float64)
        assert found.integers.shape == expected.shape, name
        off = np.abs(found.numbers - expected) * 10.0**found.decimals
        assert off.max() <= 0.5 + 1e-6, f"{name}: {off.max()} units of its last digit"


@pytest.mark.parametrize(
    ("folder", "text", "budget"),
    [
        ("bundled", TEXT, 8e6),
        ("mask", LONG, 8e6),
        ("biases", TEXT, 8e6),
        ("classify", LONG, 8e6),
        ("ner", TEXT, 8e6),
        ("no head", TEXT, 8e6),
        ("answer", TEXT, 8e6),
        ("sentence", TEXT, 8e6),
        ("configured", TEXT, 8e6),
        ("mask", LONG * 6, 0.4e6),
    ],
)
def test_every_number_is_its_tap(folders, folder, text, budget):
    found = explained(text, folders[folder], budget=budget)
    compare(page(found), 0, folders[folder])
    about, _ = read_page(page(found))
    assert about["sides"][0]["whole"] == (budget > 1e6)
    assert (len(found.chosen.rows) < len(found.ids)) == (budget < 1e6)


@pytest.mark.parametrize(("folder", "said"), [
    ("no head", "The model has no head: its way ends with final_norm."),
    ("answer", "The model has a question_answering head (ModernBertForQuestionAnswering), which"),
    ("sentence", "The model has"),
    ("configured", "a configurable sequence_classification head (sentiment_analysis), which this"),
])  # fmt: skip
def test_head_that_is_not_shown_is_named(folders, folder, said):
    answers = explained("a fine day", folders[folder]).answers
    assert answers.kind is None and said in answers.why and answers.why.endswith("final_norm.")


def test_two_texts_and_two_models_stand_side_by_side(folders):
    one = explained(TEXT, folders["mask"])
    other = explained("another text", folders["two layers"])
    text = page(one, other)
    compare(text, 0, folders["mask"])
    compare(text, 1, folders["two layers"])
    with pytest.raises(ValueError, match="one text, or two, not 3"):
        page(one, other, one)


def test_answer_at_the_end_is_that_of_fill_mask():
    found = explained("for i in [MASK](10):")
    about, (arrays,) = read_page(page(found))
    side = about["sides"][0]
    row = side["rows"].index(side["masks"][0])
    first = arrays["answers.ids"].integers[-1, row]
    fill = refimpl.pipeline("fill-mask", dtype="float64", backend="numpy")
    best = fill("for i in [MASK](10):", top_k=5)
    assert first.tolist() == [b["token"] for b in best]
    probs = arrays["answers.probs"].numbers[-1, row]
    assert np.abs(probs - [b["score"] for b in best]).max() <= 0.5e-4
    assert side["answers"]["names"][str(first[0])] == "\u2423range"


# -- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [
    np.array([0.0, -0.0]), np.array([1e-9, -3e-9]), np.array([[3.14159, -2.71828], [1e5, -1e-5]]),
    np.array([123456789.0]), np.zeros((0, 3)), np.arange(-70000, 70000.0),
])  # fmt: skip
def test_numbers_come_back_as_they_were_rounded(x):
    kept = Kept.of("x", x)
    back = unpacked(packed([kept, kept]), [kept.entry, ["y", *kept.entry[1:]]])
    for name in ("x", "y"):
        assert np.array_equal(back[name].integers, kept.integers)
    assert np.abs(kept.numbers - x).max(initial=0) <= 0.5 * 10.0**-kept.decimals * (1 + 1e-9)


def test_array_has_four_digits_at_its_root_mean_square():
    for scale in (3e-5, 0.02, 0.5, 7.0, 99.0, 1234.0):
        kept = Kept.of("x", np.array([scale, -scale]))
        assert 1000 <= kept.integers[0] < 10000 or kept.decimals == 9


def test_what_is_not_finite_or_too_large_is_refused_by_name():
    for x, said in ([np.nan], "x is nan at"), ([1.0, np.inf], "x is inf at"), ([1e15], "too large"):
        with pytest.raises(ValueError, match=said):
            Kept.of("x", np.array(x))


def test_a_block_that_is_cut_is_refused():
    kept = Kept.of("x", np.arange(5.0))
    with pytest.raises(ValueError, match="ends within x"):
        unpacked(packed([kept]), [["x", [900], 0, 2]])
    with pytest.raises(ValueError, match="bytes follow"):
        unpacked(packed([kept]), [["x", [2], 0, 1]])


# -- sizes ----------------------------------------------------------------------------------------


def test_32_tokens_of_the_bundled_model_take_less_than_2_mb():
    text = "for i in [MASK](10):\n    print(i, end='')\n" * 4
    found = explained(text, max_length=32, truncate="silent")
    assert len(found.ids) == len(found.chosen.rows) == 32 and found.chosen.whole
    assert len(page(found).encode()) < 2e6


def test_long_text_keeps_the_tokens_that_are_asked_for():
    text = "the cat sat on a mat " * 90
    found = explained(text, tokens=[500, 3], budget=3e6)
    assert len(found.ids) > 512 and found.centre == 500
    assert {500, 3, 499, 501} <= set(found.chosen.rows) and len(found.chosen.rows) < 100
    text = page(found)
    assert len(text.encode()) <= 3e6
    of_maps = {k.decimals for n, k in read_page(text)[1][0].items() if n.endswith(".overview")}
    assert of_maps == {5}, "small shares have the digits that they need"


def test_deep_model_fits_by_leaving_rows_out(tmp_path):
    folder = model_folder(tmp_path, "masked_lm", num_hidden_layers=22)
    asked = []

    def run_in(budget):
        asked.append(budget)
        return [explained("the cat sat on " * 32, folder, budget=budget)]

    found, text = fitted_page(run_in, 1.0e6)
    assert len(text.encode()) <= 1.0e6 and len(found[0].ids) >= 128
    with pytest.raises(ValueError, match="over 0.1: ask for fewer tokens"):
        fitted_page(run_in, 0.1e6)


@pytest.mark.heavy
def test_base_sized_model_at_128_tokens_takes_less_than_8_mb(tmp_path):
    sizes = dict(hidden_size=768, intermediate_size=1152, num_hidden_layers=22,
                 num_attention_heads=12, local_attention=128, local_rope_theta=1e4)  # fmt: skip
    folder = model_folder(tmp_path, "masked_lm", **sizes)
    text = ("the cat sat on " * 32 + "[MASK]").strip()
    found, html = fitted_page(lambda budget: [explained(text, folder, budget=budget)], 8e6)
    assert len(found[0].ids) >= 128 and found[0].chosen.whole
    assert len(html.encode()) <= 8e6
    compare(html, 0, folder)


# -- what a text may not do -----------------------------------------------------------------------

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!-- <script> --> ]]> {{facts}} {{script}}",
    "\" onload='x' `${1}` \\u003c &lt; &amp;",
    "a\x00b\x07c\x1b[31m d\x7f",
    "\u202ereversed\u202c \u2066isolated\u2069 \u200b\ufeff \u2028 \u2029",
    "\U0001f600 e\u0301 \u05d0\u05d1\u05d2 \U000e0041",
]


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text within each script and style."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.inside = [], [], False

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.texts.append("")
        self.inside = True

    def handle_data(self, data):
        if self.inside:
            self.texts[-1] += data

    def handle_endtag(self, tag):
        self.inside = False


def parsed(text: str) -> Elements:
    found = Elements()
    found.feed(text)
    found.close()
    return found


@pytest.fixture(scope="module")
def plain():
    return page(explained("plain"))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text, plain):
    out = page(explained(text))
    assert [t for t, _ in parsed(out).tags] == [t for t, _ in parsed(plain).tags]
    about, _ = read_page(out)
    assert about["sides"][0]["text"] == text
    unseen = {c for c in out if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert unseen <= {"\n"}


def test_token_says_what_cannot_be_seen():
    found = explained("a\u202eb\x00 \n")
    assert "\\u0000" in found.tokens and "\u21b5" in "".join(found.tokens)
    assert visible("a\u202eb c\U000e0041") == "a\\u202eb\u2423c\\U000e0041"
    assert not any(unicodedata.category(c)[0] == "C" for t in found.tokens for c in t)


def test_lone_surrogates_and_what_is_no_text_are_refused():
    with pytest.raises(ValueError, match="lone surrogate at character 1"):
        explained("a\ud800")
    for wrong in (b"text", None, 3):
        with pytest.raises(TypeError, match="must be a str"):
            explained(wrong)


@pytest.mark.parametrize("tokens", [[99], [-1]])
def test_token_that_is_not_there_is_refused(tokens):
    with pytest.raises(
        ValueError, match=rf"{tokens[0]} is no token of the text, whose 4 are 0 to 3"
    ):
        explained("one two", tokens=tokens)


def test_model_in_another_dtype_is_refused():
    with pytest.raises(ValueError, match="computes in float32"):
        explained("x", refimpl.load(BUNDLED))


def test_weights_that_overflow_name_the_step(tmp_path):
    folder = model_folder(tmp_path, "masked_lm")
    model = refimpl.load(folder, backend="numpy", dtype="float64")
    params = {name: np.array(x) for name, x in model.params.items()}
    params["layers.1.mlp.Wi.weight"][0, 0] = np.nan
    broken = refimpl.ModernBERTForTask(model.config, params, model.head, backend="numpy",
                                       source=model.source)  # fmt: skip
    with pytest.raises(ValueError, match=r"layers\.1\.wi is nan at \[0, 0\]"):
        page(explained("one two", broken))


# -- the page loads nothing -----------------------------------------------------------------------


def test_policy_forbids_every_request_and_names_the_page_itself(plain):
    found = parsed(plain)
    metas = [a for t, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"]
    policy = dict(part.strip().split(" ", 1) for part in metas[0]["content"].split(";"))
    own = {tag: "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
           for (tag, attrs), text in zip(found.tags, found.texts, strict=True)
           if tag in ("style", "script") and "type" not in attrs}  # fmt: skip
    assert policy == {
        "default-src": "'none'", "style-src": own["style"], "script-src": own["script"],
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert [tag for tag, _ in found.tags].index("meta") < 4  # the policy holds from the start


def test_page_has_no_address_and_no_inline_handler(plain):
    assert set(re.findall(r"https?://[^\s\"')]+", plain)) == {"http://www.w3.org/2000/svg"}
    for tag, attrs in parsed(plain).tags:
        assert not {a for a in attrs if a.startswith("on") or a in ("src", "style")}, tag
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
    code = re.sub(r"(?s)/\*.*?\*/|//[^\n]*", "", plain[plain.rindex("<script>") :])
    for word in ("fetch(", "XMLHttpRequest", "WebSocket", "innerHTML", "outerHTML", "eval(",
                 "document.write", "import(", "insertAdjacent", "new Function"):  # fmt: skip
        assert word not in code


def test_facts_are_ascii_json(plain):
    facts = re.search(r'(?s)id="facts">(.*?)</script>', plain)[1]
    assert facts.isascii() and "<" not in facts and json.loads(facts)["sides"][0]["layers"] == 4


def test_read_page_refuses_what_is_no_page():
    with pytest.raises(ValueError, match="no page of `modernbert explain`"):
        read_page("<!doctype html>")
