"""Looking at steps and changing them: taps that return, other equations, words for objects."""

import inspect
import warnings

import numpy as np
import pytest

import refimpl
from refimpl import ModernBERT, NLPTaskConfig
from refimpl.models.model import BUNDLED
from refimpl.reference import ops
from refimpl.reference.replacing import NAMES, replaced

IDS = np.array([[1, 17, 42, 9, 30, 2], [1, 5, 6, 2, 3, 3]])
MASK = np.array([[1] * 6, [1, 1, 1, 1, 0, 0]])


@pytest.fixture(scope="module")
def model():
    return ModernBERT.from_variant("tiny", pretrained=True, dtype="float64")


def last(model, **options):
    return model(IDS, MASK, **options)["last_hidden_state"]


# -- taps -----------------------------------------------------------------------------------------


def test_tap_that_returns_stands_in_the_steps_place(model):
    truth, steps = last(model), {}

    def tap(name, x):
        x = x * 2 if name == "layers.2.mlp_out" else x
        steps[name] = x
        return x

    changed = last(model, tap=tap)
    assert np.array_equal(
        steps["layers.2.residual_2"], steps["layers.2.residual_1"] + steps["layers.2.mlp_out"]
    )
    assert np.abs(changed - truth).max() > 0.01


def test_maps_are_those_of_the_changed_step(model):
    def tap(name, x):
        return np.zeros_like(x) if name == "layers.1.q_rot" else x

    maps = model(IDS, tap=tap, output_attentions=True)["attentions"]
    assert np.allclose(maps[1], 1 / 6, rtol=1e-15)  # no query: every token alike


@pytest.mark.parametrize(
    ("returned", "said"),
    [(None, "NoneType"), (np.zeros(3), r"an array \[3\]"), (3.0, "float"), ([[1]], "list")],
)
def test_tap_that_returns_no_such_array_is_told_by_step(model, returned, said):
    with pytest.raises(ValueError, match=f"tap returned {said} for 'layers.0.glu'; it must return"):
        model(IDS, tap=lambda name, x: returned if name == "layers.0.glu" else x)


def test_tap_keeps_the_steps_dtype():
    model = ModernBERT.from_variant("tiny", pretrained=True)
    steps = {}
    keep = refimpl.record(steps)
    out = model(IDS, tap=lambda name, x: keep(name, x).astype(np.float64))
    assert {x.dtype.name for x in steps.values()} == {"float32"}
    assert out["last_hidden_state"].dtype == np.float32


# -- equations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_equation_can_be_replaced_wherever_it_is_called(name):
    """Each is called through the replacement by something that uses it, or by the encoder."""
    seen = []
    own = getattr(ops, name)

    def spy(*args, **kwargs):
        seen.append(name)
        return own(*args, **kwargs)

    sizes = dict(num_layers=2, hidden_size=16, num_heads=2, intermediate_size=8)
    for activation in ("gelu", "gelu_new", "silu", "quick_gelu"):
        small = ModernBERT.from_variant("tiny", dtype="float64", hidden_act=activation, **sizes)
        want = small(IDS)["last_hidden_state"]
        before = len(seen)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            got = small(IDS, ops={name: spy})["last_hidden_state"]
        said = [str(w.message) for w in told if f"ops has {name}, which" in str(w.message)]
        assert len(said) == (len(seen) == before)
        assert np.array_equal(got, want)
    if name in ("attention_packed", "packed_positions"):  # of encode_packed
        seen.append(name)
    assert seen
    assert getattr(ops, name) is own


def test_changed_window_rule_reaches_attention_and_the_maps(model):
    def causal(queries, keys, window):
        return ops.visible(queries, keys, window) & (keys <= queries[:, None])

    out = model(IDS, MASK, ops={"visible": causal}, output_attentions=True)
    for probs in out["attentions"]:
        assert (np.triu(probs, 1) == 0).all() and (probs[..., 0, 0] > 0.99).all()
    other = IDS.copy()
    other[:, 3:] = 7
    again = model(other, MASK, ops={"visible": causal})["last_hidden_state"]
    assert np.array_equal(out["last_hidden_state"][:, :3], again[:, :3])
    assert not np.array_equal(last(model)[:, :3], again[:, :3])


@pytest.mark.parametrize("seq", [86, 400])
def test_window_rule_that_sees_more_is_that_of_a_wider_window(model, seq):
    ids = np.random.default_rng(seq).integers(4, 8192, (2, seq))
    mask = np.ones_like(ids)
    mask[1, seq - 20 :] = 0
    wide = refimpl.ModernBERT(model.config.replace(local_attention=10000), model.params)
    want = wide(ids, mask, output_attentions=True)
    steps = {}
    got = model(
        ids,
        mask,
        ops={"visible": lambda queries, keys, window: np.ones((len(queries), len(keys)), bool)},
        output_attentions=True,
        tap=refimpl.record(steps),
    )
    real = mask == 1
    for name in ("last_hidden_state", "attentions"):
        for one, other in zip(got[name], want[name], strict=True):
            assert np.allclose(one, other, rtol=0, atol=1e-11)
    for i, probs in enumerate(got["attentions"]):
        joined = (probs @ steps[f"layers.{i}.v"].swapaxes(1, 2)).swapaxes(1, 2)
        tapped = steps[f"layers.{i}.attention"].reshape(joined.shape)
        assert np.allclose(joined[real], tapped[real], rtol=0, atol=1e-12)


def test_query_blocks_of_ones_own_stand_beside_a_window_rule(model):
    def blocks(seq, heads, window):
        return [(i, i + 1, 0, seq) for i in range(seq)]

    rows = []

    def visible(queries, keys, window):
        rows.append(len(queries))
        return ops.visible(queries, keys, window)

    got = last(model, ops={"visible": visible, "query_blocks": blocks})
    assert np.allclose(got, last(model), rtol=0, atol=1e-12) and set(rows) == {1}


def test_equation_that_is_not_called_is_told(model):
    with pytest.warns(UserWarning, match=r"ops has gelu_tanh, silu, which .* is 'gelu'\)"):
        got = last(model, ops={"gelu_tanh": abs, "silu": abs, "linear": ops.linear})
    assert np.array_equal(got, last(model))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        last(model, ops={"erf": ops.erf, "linear": ops.linear})
        last(model, ops=ops)


def test_module_of_ones_own_takes_the_place_of_ops(model):
    assert np.array_equal(last(model, ops=ops), last(model))
    assert np.array_equal(last(model, ops={}), last(model))
    assert np.array_equal(
        last(model, ops=replaced({"gelu": lambda x: x})), last(model, ops={"gelu": lambda x: x})
    )
    assert np.abs(last(model, ops={"gelu": lambda x: x}) - last(model)).max() > 0.01


def test_engine_steps_aside_for_other_equations():
    model = refimpl.load(BUNDLED)
    out = model(IDS, MASK, ops={"glu": lambda u, act: np.zeros_like(u[..., : u.shape[-1] // 2])})
    assert np.abs(out["logits"] - model(IDS, MASK)["logits"]).max() > 0.1


def test_equations_reach_the_head_and_both_texts():
    task = NLPTaskConfig("same", "text_similarity")
    model = refimpl.create_modern_bert_with_head("tiny", task)
    pair = {"input_ids": IDS, "input_ids_2": IDS[:, ::-1]}
    calls = []

    def linear(x, weight, bias=None):
        calls.append(weight.shape)
        return ops.linear(x, weight, bias)

    found = model(pair, ops={"linear": linear})
    expected = refimpl.create_modern_bert_with_head("tiny", task, backend="numpy")(pair)
    assert np.array_equal(found["similarity_score"], expected["similarity_score"])
    assert len(calls) == 2 * (4 * 4 + 2)  # both texts: four maps a layer, two of the head


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"window": len}, "ops has no equation 'window'; those: .*visible"),
        ({"visible": 3}, "it must be a function"),
        (np, "ops lacks 'erf'; give a dict"),
    ],
)
def test_wrong_equations_are_refused(model, given, said):
    with pytest.raises(ValueError, match=said):
        model(IDS, ops=given)


# -- texts where ids belong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["a text", ["a", "b"], [["a"], ["b", "c"]], {"input_ids": "a"}, {"text": "a"}, (b"a",)]
)
def test_text_is_answered_with_where_texts_go(model, value):
    for call in (model, model.predict):
        with pytest.raises(
            ValueError, match=r"holds text, .*; a model takes token ids\. Texts go to"
        ):
            call(value)


def test_packed_text_is_answered_too(model):
    with pytest.raises(ValueError, match="Texts go to"):
        model.encode_packed("a text", [0, 1])


def test_encoding_is_answered_with_pad(model):
    tokenizers = pytest.importorskip("tokenizers")
    assert tokenizers
    tokenizer = refimpl.Tokenizer.from_folder(BUNDLED)
    encoded = tokenizer.encode("a")
    for value in (encoded, [encoded]):
        with pytest.raises(ValueError, match="tokenizer.pad"):
            model(value)
    assert model(tokenizer.pad([encoded]))["last_hidden_state"].shape == (1, 3, 256)


# -- words for objects ----------------------------------------------------------------------------


def test_repr_of_models_says_what_they_are(model):
    assert repr(model).startswith(
        "ModernBERT(4 layers, hidden 256, vocabulary 8,192, 4,327,680 parameters, float64 on numpy"
    )
    assert repr(str(BUNDLED)) in repr(model)
    assert "masked_lm head (ModernBertForMaskedLM)" in repr(refimpl.load(BUNDLED))
    task = NLPTaskConfig("topic", "text_classification", num_classes=3)
    assert "(text_classification)" in repr(refimpl.create_modern_bert_with_head("tiny", task))
    assert repr(refimpl.create_nlp_head(task, 16)) == (
        "HeadLayer(topic: text_classification, hidden 16, 355 parameters, float32)"
    )


@pytest.mark.filterwarnings("ignore:.*mean pooling is used")
def test_repr_of_tasks_and_encodings_says_what_they_are():
    pytest.importorskip("tokenizers")
    fill = refimpl.pipeline("fill-mask", top_k=3)
    assert repr(fill).startswith("FillMask(ModernBERTForTask(") and repr(fill).endswith("top_k=3)")
    assert repr(refimpl.SentenceEncoder()).startswith(
        "SentenceEncoder(256 values, Pooling(mean), 512 tokens at most, ModernBERTForTask("
    )
    assert repr(fill.tokenizer) == "Tokenizer(8,192 tokens, 8,192 at most in a text)"
    assert repr(fill.tokenizer.encode("a b")) == ("Encoded(4 tokens: '[CLS]', 'a', 'Ġb', '[SEP]')")
    cut = fill.tokenizer.encode("a " * 20, max_length=10, truncate="silent")
    assert repr(cut).endswith(f", .., {cut.lost} lost)") and repr(cut).count("'") == 16


def test_calls_that_are_documented_take_the_same_arguments():
    of_encoder, of_task = (
        list(inspect.signature(c.__call__).parameters)
        for c in (ModernBERT, refimpl.ModernBERTForTask)
    )
    assert of_encoder == of_task
