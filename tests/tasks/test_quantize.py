"""`modernbert quantize`: what passes the gate is written with a certificate that holds, what does
not is refused and names what costs most; bad input changes nothing."""

from __future__ import annotations

import glob
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from support.folders import change_json

import refimpl
from refimpl.cli import main
from refimpl.errors import ModelFormatError, UncertifiedWarning
from refimpl.files.certificate import (
    CERTIFICATE,
    digest_of_texts,
    digest_of_weights,
    read_certificate,
)
from refimpl.files.folder import ModelFolder
from refimpl.models import certified
from refimpl.models.model import bundled
from refimpl.nlp import NLPTaskConfig, NLPTaskType
from refimpl.reference.int8 import matrix_names
from refimpl.tasks import agreement
from refimpl.tasks.quantize import (
    GATE,
    BelowGateError,
    _Measured,
    below,
    fewest,
    quantize,
    to_float32,
)

ROOT = Path(__file__).resolve().parents[2]


def paragraphs(most: int) -> list[str]:
    """Prose and code of this checkout, which the bundled model was not trained on."""
    files = [
        *sorted(glob.glob(str(ROOT / "*.md"))),
        *sorted(glob.glob(str(ROOT / "refimpl/t*/*.py"))),
    ]
    found = []
    for file in files:
        parts = re.split(r"\n\n+", Path(file).read_text(encoding="utf-8"))
        found += [" ".join(p.split()) for p in parts if len(p) > 150]
    np.random.default_rng(1).shuffle(found)
    return found[:most]


TEXTS = paragraphs(240)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("quantised") / "tiny"
    quantize(bundled(), out, TEXTS, mixed=True)
    return out


def with_outliers(folder: Path, size: float = 2e4) -> refimpl.ModernBERTForTask:
    """The bundled model with two channels of the residual stream at `size` and more, of each sign,
    from the second layer on, for all tokens."""
    model = refimpl.load(bundled(), backend="numpy")
    params = {n: np.array(x) for n, x in model.params.items()}
    for channel, sign in ((3, 1.0), (77, -1.0)):
        row = params["layers.1.mlp.Wo.weight"][channel]
        params["layers.1.mlp.Wo.weight"][channel] = sign * np.abs(row) * np.float32(size)
    model = type(model)(model.config, params, model.head, backend="numpy", source=model.source)
    model.save_pretrained(folder)
    return model


def test_the_bundled_model_passes_on_texts_it_has_not_seen(quantised):
    found = read_certificate(ModelFolder(quantised), 4)
    assert found is not None and found.balanced
    # Of all in int8 0.984 of the tokens' best words are those of float32, and the cosine's first
    # percentile is 0.992: about half of its sixteen matrices make the difference, 7 to 9 in eight
    # draws of these texts, which change as this checkout does. (One that was trained with a lower
    # rate, whose weights were smaller by a fifth, needed none of them.)
    assert len(found.kept) <= 10
    assert found.figures["cosine_p1"] >= 0.999 and found.figures["argmax"] >= 0.995
    assert found.gate == {n: GATE[n] for n in ("cosine_p1", "argmax")}
    measured = [t for i, t in enumerate(TEXTS) if i % 3]
    assert found.texts.digest == digest_of_texts(measured) and found.texts.count == len(measured)
    assert found.calibration.digest == digest_of_texts(TEXTS[::3])
    assert found.texts.tokens > 10_000


@pytest.mark.heavy
def test_what_it_certifies_is_what_one_measures_anew(quantised):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        int8 = refimpl.load(quantised, dtype="int8")
    truth = refimpl.load(bundled())
    tokenizer = refimpl.Tokenizer.from_folder(bundled())
    rows = tokenizer.encode_batch(
        [t for i, t in enumerate(TEXTS) if i % 3], max_length=256, truncate="silent"
    )
    assert int8.certificate is not None
    figures = agreement.agreement(truth, int8, tokenizer, rows)
    assert figures == pytest.approx(int8.certificate.figures, abs=1e-12)


def test_the_folder_is_the_same_model_in_float32_to_the_bit(quantised):
    ids = np.random.default_rng(0).integers(0, 8000, (3, 40))
    here = refimpl.info()["backends"][refimpl.info()["backend"]]
    for dtype in {"float32", "bfloat16"} & set(here):
        a, b = (refimpl.load(f, dtype=dtype)(ids)["logits"] for f in (bundled(), quantised))
        np.testing.assert_array_equal(a, b)
    stored = [refimpl.load(f).params.stored for f in (bundled(), quantised)]
    assert {x.dtype for x in stored[0].values()} == {x.dtype for x in stored[1].values()}


def test_info_shows_the_certificate(quantised, capsys):
    assert main(["info", "--model", str(quantised), "--format", "jsonl"]) == 0
    told = json.loads(capsys.readouterr().out)["model"]["int8"]
    assert told["of_these_weights"] is True and told["cosine_p1"] >= 0.999
    assert main(["info", "--model", str(bundled()), "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["int8"] is None


# -- the gate -------------------------------------------------------------------------------------


def head_of(seed: int, folder: Path) -> None:
    """A head of three classes at random on the bundled encoder, its logits near each other."""
    task = NLPTaskConfig("mood", NLPTaskType.SENTIMENT_ANALYSIS, num_classes=3)
    model = refimpl.create_modern_bert_with_head(
        "tiny", task_config=task, pretrained=str(bundled()), seed=seed
    )
    model.save_pretrained(folder)


@pytest.mark.heavy
def test_no_folder_below_the_gate_is_written_over_twenty_heads(tmp_path):
    outcomes = []
    truth_tokens = refimpl.Tokenizer.from_folder(bundled())
    for seed in range(20):
        source, out = tmp_path / f"head{seed}", tmp_path / f"out{seed}"
        head_of(seed, source)
        texts = TEXTS[6 * seed : 6 * seed + 60]
        try:
            quantize(source, out, texts, max_length=48, mixed=seed % 2 == 1)
        except BelowGateError as error:
            outcomes.append("refused")
            assert not out.exists() and below(error.figures) and error.costs_most in str(error)
            assert error.costs_most in matrix_names(4)
            continue
        outcomes.append("saved")
        rows = truth_tokens.encode_batch(
            [t for i, t in enumerate(texts) if i % 3], max_length=48, truncate="silent"
        )
        models = refimpl.load(source), refimpl.load(out, dtype="int8")
        figures = agreement.agreement(*models, truth_tokens, rows)
        assert below(figures) == [] and set(figures) >= {"cosine_p1", "argmax"}
    assert len(outcomes) == 20 and {"saved", "refused"} == set(outcomes)


@pytest.mark.heavy
def test_below_the_gate_the_costliest_is_named_and_mixed_keeps_it(tmp_path, monkeypatch):
    texts = TEXTS[:45]
    strict = {**GATE, "cosine_p1": 0.9994, "argmax": 0.0}
    monkeypatch.setattr("refimpl.tasks.quantize.GATE", strict)
    with pytest.raises(BelowGateError, match=r"cosine_p1 is 0\.99\d+, at least 0.9994") as caught:
        quantize(bundled(), tmp_path / "no", texts, max_length=48)
    assert not (tmp_path / "no").exists()
    lines: list[str] = []
    found = quantize(
        bundled(), tmp_path / "yes", texts, mixed=True, max_length=48, tell=lines.append
    )
    assert caught.value.costs_most in found.kept
    assert found.figures["cosine_p1"] >= 0.9994
    assert lines[-1].endswith(" kept") and "asking each matrix what it costs" in lines
    model = refimpl.load(tmp_path / "yes", dtype="int8")
    assert model.certificate == found
    # What is kept is so: other numbers than without.
    ids = np.arange(30)[None]
    without = refimpl.ModernBERTForTask(
        model.config, model.params, model.head, dtype="int8", kept={}
    )
    assert not np.array_equal(model(ids)["logits"], without(ids)["logits"])


@pytest.mark.heavy
def test_planted_outliers_are_refused_and_pass_with_what_they_need_kept(tmp_path):
    """The residual at 4e4: what errs in the layers before decides what stands beside it."""
    folder = tmp_path / "outliers"
    with_outliers(folder)
    texts = TEXTS[:90]
    with pytest.raises(BelowGateError, match=r"layers\.[01]\.\S+ costs most"):
        quantize(folder, tmp_path / "no", texts, max_length=64)
    assert not (tmp_path / "no").exists()
    found = quantize(folder, tmp_path / "out", texts, max_length=64, mixed=True)
    assert found.figures["cosine_p1"] >= 0.999 and found.figures["argmax"] >= 0.995
    assert 0 < len(found.kept) < 16


def test_as_few_are_kept_as_the_gate_needs():
    steps = [(f"m{i}", "bfloat16") for i in range(13)]
    for need in range(1, 14):
        tried = []

        def measured(kept, need=need, tried=tried):
            tried.append(len(kept))
            return _Measured(kept, {"cosine_p1": 1.0 if len(kept) >= need else 0.5}, {})

        assert fewest(steps, measured(dict(steps)), measured).kept == dict(steps[:need])
        assert len(tried) <= 5


def test_bytes_are_spent_where_they_gain_most():
    """1 byte a weight in int8, 2 in bfloat16, 4 in float32; losses at each."""
    in_int8 = {"a": 9.0, "b": 8.0, "c": 1.0, "d": 6.0}
    in_bfloat16 = {"a": 1.0, "b": 7.9, "c": 0.0, "d": 2.0}
    assert to_float32(in_int8, in_bfloat16) == [
        ("a", "bfloat16"),  # 8 a byte
        ("d", "bfloat16"),  # 4
        ("b", "float32"),  # 8 / 3; by way of bfloat16 0.1, then 3.95
        ("c", "bfloat16"),  # 1
        ("d", "float32"),  # 2 / 2
        ("a", "float32"),  # 1 / 2
        ("c", "float32"),
    ]
    assert dict(to_float32(in_int8, in_bfloat16)) == dict.fromkeys("abcd", "float32")


# -- loading --------------------------------------------------------------------------------------


def test_loading_without_a_certificate_warns_once(quantised, tmp_path):
    certified._tell_once.cache_clear()
    with pytest.warns(UncertifiedWarning, match="not measured; `modernbert quantize`"):
        refimpl.load(bundled(), dtype="int8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refimpl.load(bundled(), dtype="int8")
        refimpl.load(bundled(), dtype="bfloat16")


def test_a_certificate_of_other_weights_is_told(quantised, tmp_path):
    model = refimpl.load(quantised)
    params = {n: np.array(x) for n, x in model.params.items()}
    params["layers.2.mlp.Wi.weight"][0] += 1
    changed = type(model)(model.config, params, model.head, source=model.source)
    changed.save_pretrained(tmp_path)
    (tmp_path / CERTIFICATE).write_bytes((quantised / CERTIFICATE).read_bytes())
    certified._tell_once.cache_clear()
    with pytest.warns(UncertifiedWarning, match="its int8.json was measured on other weights"):
        found = refimpl.load(tmp_path, dtype="int8")
    assert found.certificate is None
    assert digest_of_weights(params, 4) != digest_of_weights(model.params, 4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kept": ["layers.0.mlp.Wo"]}, "kept: must map matrices to bfloat16 or float32"),
        ({"kept": {"layers.4.mlp.Wo": "float32"}}, "kept: 'layers.4.mlp.Wo' is no matrix of this"),
        ({"kept": {"layers.0.mlp.Wo": 3}}, "kept: 'layers.0.mlp.Wo' is kept in 3, not in bfloat16"),
        ({"format": 2}, "format: is 2; it must be 1"),
        ({"figures": {"cosine_p1": "high"}}, "figures: .*cosine_p1 must be a number"),
        ({"texts": {"count": 3}}, "texts: .*it must have count, tokens and digest"),
        ({"balanced": 1}, "balanced: is 1; it must be true or false"),
        ({"more": 1}, "more: unknown key"),
    ],
)
def test_a_wrong_certificate_is_refused_by_key(quantised, tmp_path, change, words):
    refimpl.load(quantised).save_pretrained(tmp_path)
    (tmp_path / CERTIFICATE).write_bytes((quantised / CERTIFICATE).read_bytes())
    change_json(tmp_path / CERTIFICATE, **change)
    with pytest.raises(ModelFormatError, match=words):
        refimpl.load(tmp_path, dtype="int8")
    refimpl.load(tmp_path)  # float32 does not ask


def test_numpy_computes_int8_too(quantised):
    ids = np.random.default_rng(0).integers(0, 8000, (2, 30))
    truth = refimpl.load(quantised, backend="numpy")(ids)["logits"]
    twin, engine = (
        refimpl.load(quantised, backend=b, dtype="int8")(ids)["logits"] for b in ("numpy", "auto")
    )
    assert twin.dtype == np.float32
    lost = np.linalg.norm(twin - truth)
    assert 0 < lost < 0.1 * np.linalg.norm(truth)
    assert np.linalg.norm(engine - twin) < lost / 3


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a text"] * 29 + ["  ", ""], "29 texts that are not blank; at least 30 are needed"),
        ([], "0 texts"),
        ("a text", "texts is a str; it must be a list of texts"),
        (["a"] * 40 + [b"b"], r"texts\[40\] is a bytes; it must be a str"),
    ],
)
def test_bad_texts_are_refused_before_anything(tmp_path, texts, words):
    with pytest.raises(ValueError, match=words):
        quantize(bundled(), tmp_path / "out", texts)
    assert not (tmp_path / "out").exists()


def test_a_folder_is_not_written_over_itself(tmp_path):
    refimpl.load(bundled()).save_pretrained(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="the folder itself; name another one"):
        quantize(tmp_path, tmp_path, TEXTS[:40])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["absent", "--texts", "texts.txt"], "absent", 1),
        ([str(bundled()), "--texts", "absent.txt"], "absent.txt", 1),
        ([str(bundled()), "--texts", "bytes.txt"], "bytes.txt: byte 2 is no UTF-8", 1),
        ([str(bundled()), "--texts", "few.txt"], "3 texts that are not blank", 1),
        ([str(bundled()), "--texts", "texts.txt", "--max-length", "2"], "max_length is 2", 1),
    ],
)
def test_the_command_says_what_is_wrong_in_a_line(
    tmp_path, monkeypatch, capsys, arguments, words, code
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:40]))
    (tmp_path / "few.txt").write_text("a\n\nb\nc\n")
    (tmp_path / "bytes.txt").write_bytes(b"ab\xff\n" * 40)
    assert main(["quantize", *arguments, "--out", "out"]) == code
    told = capsys.readouterr()
    assert words in told.err.splitlines()[-1] and told.err.startswith("modernbert quantize: ")
    assert not told.out and not (tmp_path / "out").exists()


@pytest.mark.heavy
def test_the_command_writes_and_tells(tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:60]))
    out = tmp_path / "out"
    arguments = ["quantize", str(bundled()), "--out", str(out), "--mixed", "--max-length", "64"]
    assert main([*arguments, "--texts", str(tmp_path / "texts.txt")]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"{out}: cosine_p1 0.999") and "balancing with" in told.err
    assert (out / CERTIFICATE).exists() and refimpl.load(out, dtype="int8").certificate


# -- figures --------------------------------------------------------------------------------------


def test_ndcg_is_one_for_the_same_ranking_and_less_for_another():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(50)
    assert agreement.ndcg(scores, 3 * scores + 1) == 1.0
    swapped = scores.copy()
    first, second = np.argsort(-scores)[:2]
    swapped[[first, second]] = swapped[[second, first]]
    gain = np.arange(10, 0, -1) / np.log2(np.arange(10) + 2)
    expected = 1 - (10 - 9) * (1 - 1 / np.log2(3)) / gain.sum()
    assert agreement.ndcg(scores, swapped) == pytest.approx(expected)
    assert agreement.ndcg(scores, -scores) == 0.0


def test_cosine_of_what_is_not_finite_is_no_agreement():
    a = np.array([[1.0, 2.0], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
    np.testing.assert_allclose(agreement.cosine(a, np.ones((4, 2))), [3 / np.sqrt(10), 0, 0, 0])
    assert below({"cosine_p1": float("nan"), "cosine_p50": 0.1}) == ["cosine_p1"]
