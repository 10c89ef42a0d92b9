"""Fill-mask: scores are the softmax, targets select, masks stand alone, cuts are flagged."""

from types import SimpleNamespace

import numpy as np
import pytest

import refimpl
from refimpl.errors import TruncationWarning
from refimpl.models.model import BUNDLED
from refimpl.tasks.fill_mask import candidates, target_ids
from refimpl.text.tokenizer import Tokenizer

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def fill():
    return refimpl.pipeline("fill-mask")


@pytest.fixture(scope="module")
def tiny():
    return Tokenizer.from_folder(BUNDLED)


def worked_logits(tiny, text, **scores):
    """Logits of a text's masks with log(score) at the tokens named, and -30 elsewhere."""
    encoded = tiny.encode(text)
    logits = np.full((text.count("[MASK]"), len(tiny.vocab)), -30.0)
    for token, score in scores.items():
        logits[:, tiny.vocab[token]] = np.log(score)
    return encoded, logits


def test_worked_example(tiny):
    encoded, logits = worked_logits(tiny, "x[MASK]", a=5.0, b=3.0, c=2.0)
    found = candidates(tiny, encoded, logits, 2)
    rest = (len(tiny.vocab) - 3) * np.exp(-30.0)
    assert [f["token_str"] for f in found] == ["a", "b"]
    assert [f["sequence"] for f in found] == ["xa", "xb"]
    assert [f["token"] for f in found] == [tiny.vocab["a"], tiny.vocab["b"]]
    # One division and a sum of as many terms as the vocabulary has, each rounded.
    limit = len(tiny.vocab) * np.finfo(np.float64).eps
    for f, score in zip(found, (5.0, 3.0), strict=True):
        assert abs(f["score"] - score / (10 + rest)) <= limit
    assert list(found[0]) == ["score", "token", "token_str", "sequence"]


def test_targets_select_without_renormalising(tiny):
    encoded, logits = worked_logits(tiny, "x[MASK]", a=5.0, b=3.0, c=2.0)
    chosen = np.array([tiny.vocab["c"], tiny.vocab["b"]])
    whole = {f["token"]: f["score"] for f in candidates(tiny, encoded, logits, 3)}
    found = candidates(tiny, encoded, logits, 5, chosen)
    assert [f["token"] for f in found] == [tiny.vocab["b"], tiny.vocab["c"]]
    assert [f["score"] for f in found] == [whole[f["token"]] for f in found]


def test_masks_alone_pass_the_decoder_and_score_as_in_all_logits(fill, tiny, monkeypatch):
    text, rows = "def [MASK](x): return [MASK] + 1", []

    def counted(params, config, hidden):
        rows.append(hidden.shape[:-1])
        return head.forward(params, config, hidden)

    head = fill.model.head
    monkeypatch.setattr(
        fill.model, "head", SimpleNamespace(kind=head.kind, shapes=head.shapes, forward=counted)
    )
    found = fill([text, "a longer text with its one mask at the end of it: [MASK]"], batch_size=2)
    assert sorted(rows) == [(1, 1), (1, 2)]
    monkeypatch.undo()
    ids = tiny.encode(text).ids
    logits = fill.model([ids])["logits"][0][np.array(ids) == tiny.mask_token_id]
    for scored, row in zip(found[0], logits.astype(np.float64), strict=True):
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        for candidate in scored:
            assert candidate["score"] == pytest.approx(p[candidate["token"]], rel=1e-4)
        assert [c["token"] for c in scored] == np.argsort(-p, kind="stable")[:5].tolist()


def test_several_masks_give_a_list_each_with_the_others_kept(tiny):
    encoded, logits = worked_logits(tiny, "[MASK] x[MASK]", a=5.0)
    logits[1, tiny.vocab["b"]] = 10.0
    first, second = candidates(tiny, encoded, logits, 1)
    assert (first[0]["token_str"], second[0]["token_str"]) == ("a", "b")
    assert first[0]["sequence"].count("[MASK]") == second[0]["sequence"].count("[MASK]") == 1


def test_target_that_is_no_token_is_replaced_with_a_warning(tiny):
    with pytest.warns(UserWarning, match="'zebra crossing' is not one token"):
        ids = target_ids(tiny, ["zebra crossing", "a"])
    first = tiny.encode("zebra crossing", add_special_tokens=False).ids[0]
    assert ids.tolist() == sorted([tiny.vocab["a"], first])


def test_targets_without_a_token_are_refused(tiny):
    with (
        pytest.warns(UserWarning, match="it is left out"),
        pytest.raises(ValueError, match="targets"),
    ):
        target_ids(tiny, [""])


def test_bundled_model_knows_python(fill):
    assert fill("for i in [MASK](10):")[0]["token_str"] == " range"


def test_shapes_of_results_follow_the_input(fill):
    one, two = "a [MASK]", "[MASK] [MASK]"
    assert isinstance(fill(one)[0], dict) and len(fill(one)) == 5
    assert [len(mask) for mask in fill(two, top_k=3)] == [3, 3]
    assert fill([one]) == fill(one)
    both = fill([one, two])
    assert [r["token"] for r in both[0]] == [r["token"] for r in fill(one)]
    assert fill([]) == []


def test_text_without_a_mask_is_refused_before_the_model_runs(fill):
    with pytest.raises(ValueError, match=r"texts\[1\] holds no \[MASK\]"):
        fill(["a [MASK]", "b"])


def test_cut_text_is_told_and_flagged(fill):
    with pytest.warns(TruncationWarning, match="1 of 1 texts"):
        found = fill("[MASK] a b c d e", max_length=4)
    lost = len(fill.tokenizer.encode("[MASK] a b c d e")) - 4
    assert {f["truncated"] for f in found} == {lost}
    assert "truncated" not in fill("[MASK] a")[0]


def test_mask_that_was_cut_off_is_said_so(fill):
    with pytest.raises(ValueError, match=r"no \[MASK\] within the 4 tokens kept"):
        fill("a b c d [MASK]", max_length=4, truncate="silent")


@pytest.mark.parametrize("top_k", [0, -1, 2.0, True])
def test_bad_top_k_is_refused(fill, top_k):
    with pytest.raises(ValueError, match="top_k must be an int of at least 1"):
        fill("a [MASK]", top_k=top_k)
