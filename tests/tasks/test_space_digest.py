"""The embedding-space digest: equal where vectors are, and else it says in what they differ."""

import json
import shutil

import numpy as np
import pytest
from support.text_folders import model_folder, sentence_folder

import refimpl
from refimpl.backends.backend import dtypes_of, native, present
from refimpl.cli.info import described
from refimpl.models.model import bundled
from refimpl.tasks.space import CLASSES, COMPARABLE, EXAMPLE, Space, check_space

pytest.importorskip("tokenizers")

POOLING = "sentence_transformers.models.Pooling"
MEAN = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
CLS = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
DENSE = ("sentence_transformers.models.Dense", {"in_features": 32, "out_features": 12})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sentence_folder(tmp_path_factory.mktemp("space"), [(POOLING, MEAN), DENSE])


@pytest.fixture(scope="module")
def own(folder):
    return refimpl.SentenceEncoder(folder).space()


def differing(own, encoder, **options):
    return own.differences(encoder.space(**options))


def test_same_folder_elsewhere_has_the_same_digest(folder, own, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert refimpl.SentenceEncoder(moved).space() == own
    assert Space.parse(str(own)) == own
    check_space(str(own), own, "it")


def test_each_thing_that_changes_vectors_is_named(folder, own, tmp_path):
    encoder = refimpl.SentenceEncoder(folder)
    assert differing(own, encoder, prompt="query: ") == ["texts"]
    assert differing(own, encoder, max_length=7) == ["texts"]
    assert differing(own, encoder, truncate_dim=5) == ["width"]
    assert differing(own, encoder, truncate_dim=12) == []  # which is all of it
    assert differing(own, encoder, normalize_embeddings=True) == ["normalized"]
    other = sentence_folder(tmp_path / "cls", [(POOLING, CLS), DENSE])
    assert differing(own, refimpl.SentenceEncoder(other)) == ["pooling"]
    other = sentence_folder(tmp_path / "weights", [(POOLING, MEAN), DENSE], seed=1)
    assert differing(own, refimpl.SentenceEncoder(other)) == ["weights"]
    other = sentence_folder(tmp_path / "window", [(POOLING, MEAN), DENSE], local_attention=6)
    assert differing(own, refimpl.SentenceEncoder(other)) == ["weights"]
    other = shutil.copytree(folder, tmp_path / "tokens")
    said = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps(said | {"truncation_side": "left"}))
    assert set(differing(own, refimpl.SentenceEncoder(other))) == {"tokenizer", "texts"}


def test_a_weight_of_the_modules_counts_and_one_of_another_head_does_not(folder, own, tmp_path):
    other = shutil.copytree(folder, tmp_path / "dense")
    path = other / "2_Dense" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert differing(own, refimpl.SentenceEncoder(other)) == ["weights"]
    a, b = (model_folder(tmp_path / str(kind), kind) for kind in (None, "masked_lm"))
    with pytest.warns(UserWarning, match="mean pooling"):
        spaces = [refimpl.SentenceEncoder(x).space() for x in (a, b)]
    assert spaces[0] == spaces[1]


def test_dtype_and_tier_are_told(folder, own, monkeypatch):
    assert own.dtype == "float32"
    wide = refimpl.SentenceEncoder(folder, dtype="float64").space()
    assert wide.tier == "numpy" and "dtype" in own.differences(wide)
    if "native" in present() and "bfloat16" in dtypes_of("native"):
        half = refimpl.SentenceEncoder(folder, dtype="bfloat16").space()
        assert {"dtype"} <= set(own.differences(half)) <= {"dtype", "tier"}
        monkeypatch.setenv("REFIMPL_ISA", "scalar")
        assert refimpl.SentenceEncoder(folder).space().tier == "scalar"


def test_tiers_of_one_class_have_the_same_bits(folder, monkeypatch):
    if "native" not in present():
        pytest.skip("tiers are of backend native")
    tiers = native().tiers()
    found = {}
    for tier in tiers:
        monkeypatch.setenv("REFIMPL_ISA", tier)
        for dtype in dtypes_of("native"):
            encoder = refimpl.SentenceEncoder(folder, dtype=dtype)
            vectors = encoder.encode(["a b c " * n for n in (1, 30, 200)])
            name = f"{dtype} {encoder.space().tier}"
            assert np.array_equal(found.setdefault(name, vectors), vectors), (name, tier)
    pairs = [(dtype, tier) for dtype, tier in CLASSES if tier in tiers]
    assert all(f"{dtype} {CLASSES[dtype, tier]}" in found for dtype, tier in pairs)


def test_a_stored_digest_that_does_not_match_is_an_error(own):
    made = str(own).replace(own.weights, "0" * 12)
    with pytest.raises(refimpl.SpaceError, match=r"index\.npz .*: weights \(000000000000 there"):
        check_space(made, own, "index.npz", COMPARABLE)
    other = Space.parse(str(own).removesuffix(own.tier) + "avx9")
    check_space(str(other), own, "index.npz", COMPARABLE)  # by rounding only
    with pytest.raises(refimpl.SpaceError, match="tier"):
        check_space(str(other), own, "parts")
    for bad in ("", "es1", "es2" + EXAMPLE[3:], EXAMPLE.replace("256n", "n256"), None):
        with pytest.raises(ValueError, match="no embedding-space digest"):
            check_space(bad, own, "it")


def test_info_tells_it(folder, own):
    assert described(str(folder))["embedding_space"] == str(own)
    assert described(str(bundled("embed")))["embedding_space"] == str(
        refimpl.SentenceEncoder().space()
    )


def test_a_tokenizer_file_that_changed_is_an_error(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "moved")
    encoder = refimpl.SentenceEncoder(moved)
    with open(moved / "tokenizer.json", "a") as stream:
        stream.write(" ")
    with pytest.raises(OSError, match="changed since it was read"):
        encoder.space()


@pytest.mark.parametrize("kind", ["sequence_classification", "token_classification"])
def test_no_bit_of_an_answer_depends_on_company(tmp_path, kind):
    if "native" not in present():
        pytest.skip("the promise of backend native")
    task = {"sequence_classification": "text-classification"}.get(kind, "token-classification")
    ask = refimpl.pipeline(task, model_folder(tmp_path, kind))
    rng = np.random.default_rng(0)
    texts = [" ".join(["word"] * int(n)) for n in rng.integers(1, 400, 20)]
    together = ask(texts, **({"top_k": None} if kind[0] == "s" else {}))
    for text, found in zip(texts, together, strict=True):
        assert ask(text, **({"top_k": None} if kind[0] == "s" else {})) == found
