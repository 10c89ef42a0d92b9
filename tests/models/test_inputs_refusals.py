"""What a model call refuses: each bad input by name, with its position, before any computation."""

import warnings

import numpy as np
import pytest

import refimpl.models.inputs
from refimpl import LongInputWarning, ModernBERT

IDS = np.array([[5, 6, 7], [8, 9, 10]])
TINY = dict(
    vocab_size=11, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=6,
    max_position_embeddings=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return ModernBERT.from_variant("tiny", dtype="float64", **TINY)


def with_ids(**more):
    return {"input_ids": IDS, **more}


BAD = [
    (with_ids(input_idz=IDS), "inputs has the unknown key 'input_idz'; known: input_ids, inputs_e"),
    (with_ids(labels=IDS), "unknown key 'labels'"),
    ({}, "inputs needs exactly one of input_ids and inputs_embeds"),
    (with_ids(inputs_embeds=np.zeros((2, 3, 8))), "exactly one of input_ids and inputs_embeds"),
    ({"attention_mask": IDS}, "exactly one of input_ids"),
    ([[1, 11], [0, 0]], r"input_ids\[0, 1\] is 11; it must be in 0 .. 10 \(vocab_size 11\)"),
    ([[1, 2], [3, -1]], r"input_ids\[1, 1\] is -1"),
    (np.array([[2**63]], np.uint64), "input_ids holds 9223372036854775808"),
    (IDS.astype(np.float32), "input_ids has dtype float32; it must hold integers"),
    (IDS > 5, "input_ids has dtype bool"),
    ([["a"]], "input_ids holds text, 'a'; a model takes token ids"),
    ([[1, 2], [3]], "input_ids is not rectangular"),
    (IDS[0], r"input_ids has shape \[3\]; it must be \[batch, seq\]"),
    (IDS[None], r"input_ids has shape \[1, 2, 3\]"),
    (7, r"input_ids has shape \[\]"),
    (IDS[:0], r"input_ids has shape \[0, 3\]; batch is 0"),
    (IDS[:, :0], r"input_ids has shape \[2, 0\]; seq is 0"),
    ({"inputs_embeds": np.zeros((2, 3))}, r"inputs_embeds has shape \[2, 3\].*seq, hidden\]"),
    ({"inputs_embeds": np.zeros((2, 3, 7))}, "inputs_embeds has 7 columns; hidden_size is 8"),
    ({"inputs_embeds": np.zeros((2, 3, 8), int)}, "inputs_embeds has dtype int64; it must be flo"),
    (with_ids(attention_mask=np.ones((2, 4))), r"attention_mask has shape \[2, 4\].*\[2, 3\]"),
    (with_ids(attention_mask=np.ones(3)), r"attention_mask has shape \[3\]"),
    (with_ids(attention_mask=[[1, 1, 1], [1, 2, 0]]), r"attention_mask\[1, 1\] is 2; it must be 0"),
    (with_ids(attention_mask=[[1, 1, 0.5]] * 2), r"attention_mask\[0, 2\] is 0.5"),
    (with_ids(attention_mask=[[1, 1, np.nan]] * 2), r"attention_mask\[0, 2\] is nan"),
    (with_ids(attention_mask=[[-1e9, 0, 0]] * 2), r"attention_mask\[0, 0\] is -1000000000.0"),
    (with_ids(attention_mask=[[1, 1, 1], [1]]), r"attention_mask is not rectangular.*\[2, 3\]"),
    (with_ids(attention_mask=np.ones((2, 3), complex)), "attention_mask has dtype complex128"),
    (with_ids(token_type_ids=[[0, 0, 0], [0]]), r"token_type_ids is not rectangular.*\[2, 3\]"),
    (with_ids(position_ids=[[0, 1, 2], [0]]), r"position_ids is not rectangular.*\[2, 3\]"),
    (with_ids(attention_mask=[["a", "b", "c"]] * 2), "attention_mask has dtype <U1"),
    (with_ids(token_type_ids=np.zeros((2, 2), int)), r"token_type_ids has shape \[2, 2\]"),
    (with_ids(token_type_ids=np.eye(2, 3)), "token_type_ids has dtype float64"),
    (
        with_ids(token_type_ids=[[0, 0, 0], [0, 1, 0]]),
        r"token_type_ids\[1, 1\] is 1; it must be in 0 .. 0",
    ),
    (with_ids(position_ids=np.zeros((2, 4), int)), r"position_ids has shape \[2, 4\]"),
    (with_ids(position_ids=np.zeros((3, 3), int)), r"position_ids has shape \[3, 3\]"),
    (with_ids(position_ids=[0.0, 1.0, 2.0]), "position_ids has dtype float64"),
    (with_ids(position_ids=[0, -1, 2]), r"position_ids\[0, 1\] is -1"),
]


@pytest.mark.parametrize(("given", "message"), BAD, ids=[m for _, m in BAD])
def test_inputs_bad_is_refused_by_name_before_any_step(model, given, message):
    def tap(name, x):
        pytest.fail(f"step {name} was computed")

    with pytest.raises(ValueError, match=message):
        model(given, tap=tap)
    with pytest.raises(ValueError, match=message):
        model.predict(given)


@pytest.mark.parametrize("name", ["attention_mask", "position_ids"])
def test_inputs_given_twice_are_refused(model, name):
    twice = np.ones_like(IDS)
    with pytest.raises(ValueError, match=f"{name} is given twice, in inputs and as an argument"):
        model(with_ids(**{name: twice}), **{name: twice})


@pytest.mark.parametrize(
    ("ids", "cu", "message"),
    [
        (IDS, [0, 3], r"input_ids has shape \[2, 3\]; it must be \[total\]"),
        ([1, 12], [0, 2], r"input_ids\[1\] is 12"),
        ([1.0, 2.0], [0, 2], "input_ids has dtype float64"),
        ([], [0], r"input_ids has shape \[0\]; total is 0"),
        ([1, 2], [0, 1], "cu_seqlens goes from 0 to 1; it must go from 0 to total = 2"),
        ([1, 2], [1, 2], "cu_seqlens goes from 1 to 2"),
        ([1, 2, 3], [0, 2, 2, 3], r"cu_seqlens goes from 2 to 2 at \[1\]"),
        ([1, 2, 3], [0, 2, 1, 3], r"cu_seqlens goes from 2 to 1 at \[1\]"),
        ([1, 2], [0.0, 2.0], "cu_seqlens has dtype float64"),
        ([1, 2], [[0, 2]], r"cu_seqlens has shape \[1, 2\]"),
    ],
    ids=str,
)
def test_inputs_packed_bad_is_refused_by_name(model, ids, cu, message):
    with pytest.raises(ValueError, match=message):
        model.encode_packed(ids, cu)


def test_inputs_longer_than_max_position_embeddings_warn_once(model, monkeypatch):
    monkeypatch.setattr(refimpl.models.inputs, "_warned_long", False)
    long = np.ones((1, 9), int)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model(np.ones((1, 8), int))
        assert seen == []
        out = model(long)
        model(long)
        model.encode_packed(long[0], [0, 9])
    assert [w.category for w in seen] == [LongInputWarning]
    assert "9 tokens is longer than max_position_embeddings 8" in str(seen[0].message)
    assert np.isfinite(out["last_hidden_state"]).all()


@pytest.mark.parametrize("mask", [np.ones((2, 3), bool), np.ones((2, 3)), np.ones((2, 3), np.int8)])
def test_inputs_mask_of_any_number_type_is_taken(model, mask):
    np.testing.assert_array_equal(
        model(with_ids(attention_mask=mask))["last_hidden_state"], model(IDS)["last_hidden_state"]
    )


def test_inputs_unsigned_ids_and_nested_lists_are_taken(model):
    want = model(IDS)["last_hidden_state"]
    for ids in (IDS.astype(np.uint8), IDS.tolist()):
        np.testing.assert_array_equal(model(ids)["last_hidden_state"], want)


@pytest.mark.parametrize("dtype", ["float64", "float32"])  # numpy's, and the engine's where it is
def test_inputs_zero_token_types_without_a_table_change_nothing(dtype):
    model = ModernBERT.from_variant("tiny", dtype=dtype, **TINY)
    types = with_ids(token_type_ids=np.zeros_like(IDS))
    want = model(IDS)["last_hidden_state"]
    np.testing.assert_array_equal(model(types)["last_hidden_state"], want)
