"""The config: both spellings of config.json, per-layer facts, round trips, Keras names."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.reference.config import (
    FULL,
    SLIDING,
    VARIANTS,
    ModernBertConfig,
    canonical_names,
)
from refimpl.reference.ops import ACTIVATIONS
from refimpl.reference.params import count, encoder_shapes

SMALL = dict(hidden_size=12, num_attention_heads=3, num_hidden_layers=7, intermediate_size=5)


def config(**values):
    return ModernBertConfig.from_dict({**SMALL, **values})


def rope(full, sliding):
    return {
        FULL: {"rope_type": "default", "rope_theta": full},
        SLIDING: {"rope_type": "default", "rope_theta": sliding},
    }


# -- the schedule -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "full"), [("base", range(0, 22, 3)), ("large", range(0, 28, 3))]
)
def test_config_default_schedule_is_every_third_layer(variant, full):
    c = ModernBertConfig.from_variant(variant)
    layers = range(c.num_hidden_layers)
    assert [i for i in layers if c.is_global(i)] == list(full)
    assert {c.window(i) for i in full} == {None}
    assert {c.rope_theta(i) for i in full} == {160000.0}
    others = sorted(set(layers) - set(full))
    assert {(c.window(i), c.rope_theta(i)) for i in others} == {(64, 10000.0)}


@pytest.mark.parametrize(("total", "half"), [(128, 64), (7, 3), (5, 2), (1, 0), (0, 0)])
def test_config_window_is_half_of_local_attention_floored(total, half):
    assert config(local_attention=total).window(1) == half


def test_config_reads_the_two_spellings_alike():
    v4 = config(
        global_attn_every_n_layers=4,
        global_rope_theta=5e4,
        local_rope_theta=77,
        local_attention=6,
        norm_eps=1e-6,
    )
    v5 = config(
        layer_types=[FULL, SLIDING, SLIDING, SLIDING, FULL, SLIDING, SLIDING],
        rope_parameters=rope(5e4, 77.0),
        sliding_window=3,
        norm_eps=1e-6,
    )
    assert v4 == v5
    assert v4.layer_types == (FULL, SLIDING, SLIDING, SLIDING, FULL, SLIDING, SLIDING)


def test_config_new_spelling_beats_the_old():
    c = config(
        layer_types=[SLIDING] * 6 + [FULL],
        global_attn_every_n_layers=2,
        rope_parameters=rope(1.0, 2.0),
        global_rope_theta=3.0,
        local_rope_theta=4.0,
    )
    assert [i for i in range(7) if c.is_global(i)] == [6]
    assert (c.global_rope_theta, c.local_rope_theta) == (1.0, 2.0)


def test_config_null_local_theta_means_the_global_one():
    assert config(local_rope_theta=None, global_rope_theta=7).local_rope_theta == 7.0
    assert config(local_rope_theta=None).local_rope_theta == 160000.0


def test_config_of_original_null_fields_takes_the_defaults():
    c = config(classifier_pooling=None, architectures=None, layer_types=None)
    assert (c.classifier_pooling, c.architectures) == ("cls", ())
    assert [i for i in range(7) if c.is_global(i)] == [0, 3, 6]


@pytest.mark.parametrize(
    "given",
    [
        dict(id2label={"0": "no", "1": "yes", "2": "both"}),
        dict(label2id={"no": 0, "yes": 1, "both": 2}),
        dict(id2label={"2": "both", "1": "yes", "0": "no"}, num_labels=3),
    ],
    ids=str,
)
def test_config_labels_are_read_in_order(given):
    c = config(**given)
    assert list(c.id2label.items()) == [(0, "no"), (1, "yes"), (2, "both")]
    assert c.label2id == {"no": 0, "yes": 1, "both": 2} and c.num_labels == 3


def test_config_num_labels_alone_gives_default_names():
    assert config(num_labels=3).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


def test_config_layer_norm_eps_is_ignored_aloud():
    with pytest.warns(UserWarning, match="layer_norm_eps 0.001 is ignored.*norm_eps 1e-05 is used"):
        assert config(layer_norm_eps=1e-3).norm_eps == 1e-5


# -- variants ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "encoder", "masked_lm"),
    [("base", 149_014_272, 149_655_232), ("large", 394_781_696, 395_881_664)],
)
def test_config_variant_has_the_published_number_of_parameters(variant, encoder, masked_lm):
    from refimpl.reference.heads import HEADS

    c = ModernBertConfig.from_variant(variant)
    assert count(encoder_shapes(c)) == encoder
    assert count(encoder_shapes(c) | HEADS["masked_lm"].shapes(c)) == masked_lm


def test_config_tiny_is_what_the_keras_table_says():
    c = ModernBertConfig.from_variant("tiny")
    assert (c.hidden_size, c.num_hidden_layers, c.num_attention_heads) == (256, 4, 4)
    assert (c.intermediate_size, c.local_attention, c.vocab_size) == (384, 64, 8192)
    assert [i for i in range(4) if c.is_global(i)] == [0, 3]


def test_config_unknown_variant_lists_those_known():
    with pytest.raises(ValueError, match="variant 'huge' is unknown; known: tiny, base, large"):
        ModernBertConfig.from_variant("huge")
    assert list(VARIANTS) == ["tiny", "base", "large"]


@pytest.mark.parametrize(
    ("name", "value", "fields"),
    [
        ("vocab_size", 99, {"vocab_size": 99}),
        ("hidden_size", 64, {"hidden_size": 64}),
        ("num_layers", 5, {"num_hidden_layers": 5}),
        ("num_heads", 8, {"num_attention_heads": 8}),
        ("intermediate_size", 11, {"intermediate_size": 11}),
        ("hidden_act", "silu", {"hidden_activation": "silu"}),
        ("hidden_dropout_prob", 0.2, {"embedding_dropout": 0.2, "mlp_dropout": 0.2}),
        ("attention_probs_dropout_prob", 0.3, {"attention_dropout": 0.3}),
        ("type_vocab_size", 2, {"type_vocab_size": 2}),
        ("initializer_range", 0.01, {"initializer_range": 0.01}),
        ("layer_norm_eps", 1e-3, {"norm_eps": 1e-3}),
        ("use_bias", True, {"attention_bias": True, "mlp_bias": True}),
        ("global_attention_interval", 2, {"layer_types": (FULL, SLIDING) * 2}),
        ("local_attention_window_size", 32, {"local_attention": 32}),
        ("max_position_embeddings", 77, {"max_position_embeddings": 77}),
        ("global_rope_theta", 8e4, {"global_rope_theta": 8e4}),
    ],
)
def test_config_takes_the_keras_name(name, value, fields):
    c, plain = ModernBertConfig.from_variant("tiny", **{name: value}), VARIANTS["tiny"]
    assert {key: getattr(c, key) for key in fields} == fields
    default = ModernBertConfig.from_variant("tiny")
    for key in set(plain) - set(fields):
        assert getattr(c, key) == getattr(default, key), key
    assert default.replace(**{name: value}) == c


def test_config_unknown_or_double_override_is_a_type_error():
    with pytest.raises(TypeError, match="unknown config override 'depth'; known: architectures"):
        ModernBertConfig.from_variant("tiny", depth=3)
    with pytest.raises(TypeError, match="'num_layers' sets 'num_hidden_layers', which is already"):
        ModernBertConfig.from_variant("tiny", num_hidden_layers=3, num_layers=3)
    with pytest.raises(TypeError, match="layer_types and global_attn_every_n_layers"):
        canonical_names(dict(layer_types=(FULL,), global_attention_interval=3))


# -- replace ----------------------------------------------------------------------------------


def test_config_replace_of_a_theta_is_not_beaten_by_what_to_dict_wrote():
    read = ModernBertConfig.from_dict(config().to_dict())
    new = read.replace(global_rope_theta=5.0, local_rope_theta=6.0)
    assert (new.rope_theta(0), new.rope_theta(1)) == (5.0, 6.0)
    again = ModernBertConfig.from_dict(new.to_dict())
    assert (again.rope_theta(0), again.rope_theta(1)) == (5.0, 6.0)


@pytest.mark.parametrize(
    ("changes", "full"),
    [
        (dict(num_layers=4), [0, 3]),
        (dict(num_layers=10), [0, 3, 6, 9]),
        (dict(num_layers=5, global_attention_interval=2), [0, 2, 4]),
        (dict(global_attn_every_n_layers=4), [0, 4]),
        (dict(layer_types=[SLIDING] * 6 + [FULL]), [6]),
        (dict(num_hidden_layers=2, layer_types=[SLIDING, FULL]), [1]),
    ],
    ids=str,
)
def test_config_replace_of_the_depth_gives_the_schedule_anew(changes, full):
    c = ModernBertConfig.from_dict(config().to_dict()).replace(**changes)
    assert [i for i in range(c.num_hidden_layers) if c.is_global(i)] == full


def test_config_replace_keeps_the_interval_of_the_schedule():
    c = config(global_attn_every_n_layers=2).replace(num_layers=6)
    assert [i for i in range(6) if c.is_global(i)] == [0, 2, 4]
    # two layers fit every interval from 2 on: the default, 3, is taken
    c = config(num_hidden_layers=2).replace(num_layers=6)
    assert [i for i in range(6) if c.is_global(i)] == [0, 3]


def test_config_replace_of_the_depth_of_an_irregular_schedule_asks_for_layer_types():
    c = config(layer_types=[SLIDING, FULL, FULL, SLIDING, FULL, SLIDING, SLIDING])
    assert c.replace(norm_eps=1.0).layer_types == c.layer_types
    with pytest.raises(ValueError, match="num_hidden_layers is 3, but layer_types follows no"):
        c.replace(num_layers=3)


def test_config_replace_of_labels():
    c = config(id2label={0: "no", 1: "yes"}, extra_key=1)
    assert c.replace(num_labels=3).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert c.replace(label2id={"a": 0}).id2label == {0: "a"}
    assert c.replace(vocab_size=9).id2label == c.id2label
    assert c.replace(vocab_size=9).extra == {"extra_key": 1}
    with pytest.raises(ValueError, match="num_labels is 3 but id2label holds 1"):
        c.replace(num_labels=3, id2label={0: "x"})


# -- round trips ------------------------------------------------------------------------------


@st.composite
def configs(draw):
    heads, half = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    layers = draw(st.integers(1, 8))
    positive = st.floats(1e-9, 1e9)
    probability = st.floats(0, 1, exclude_max=True)
    flags = ["norm_bias", "attention_bias", "mlp_bias", "decoder_bias", "classifier_bias"]
    flags += ["tie_word_embeddings", "sparse_prediction"]
    token = st.none() | st.integers(0, 100)
    return ModernBertConfig(
        vocab_size=draw(st.integers(1, 1000)),
        hidden_size=2 * half * heads,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=draw(st.integers(1, 100)),
        hidden_activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
        classifier_activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
        max_position_embeddings=draw(st.integers(1, 10**6)),
        type_vocab_size=draw(st.integers(0, 3)),
        layer_types=tuple(
            draw(st.lists(st.sampled_from([FULL, SLIDING]), min_size=layers, max_size=layers))
        ),
        local_attention=draw(st.integers(0, 300)),
        classifier_pooling=draw(st.sampled_from(["cls", "mean"])),
        sparse_pred_ignore_index=draw(st.integers(-200, 0)),
        id2label=dict(enumerate(draw(st.lists(st.text(max_size=4), min_size=1, unique=True)))),
        problem_type=draw(st.sampled_from([None, "regression", "multi_label_classification"])),
        architectures=tuple(draw(st.lists(st.sampled_from(["ModernBertForMaskedLM"]), max_size=1))),
        extra=draw(st.dictionaries(st.sampled_from(["note", "reference"]), st.integers())),
        **{name: draw(st.booleans()) for name in flags},
        **{
            name: draw(positive)
            for name in (
                "global_rope_theta",
                "local_rope_theta",
                "norm_eps",
                "initializer_range",
                "initializer_cutoff_factor",
            )
        },
        **{
            name: draw(probability)
            for name in (
                "classifier_dropout",
                "attention_dropout",
                "embedding_dropout",
                "mlp_dropout",
            )
        },
        **{f"{name}_token_id": draw(token) for name in ("pad", "bos", "eos", "cls", "sep")},
    )


@given(configs())
def test_config_survives_json(c):
    assert ModernBertConfig.from_dict(json.loads(json.dumps(c.to_dict()))) == c


@given(configs())
def test_config_replace_of_nothing_is_the_same_config(c):
    assert c.replace() == c


def test_config_keeps_unknown_keys_and_writes_both_spellings():
    c = config(position_embedding_type="absolute", global_attn_every_n_layers=2)
    out = c.to_dict()
    assert out["position_embedding_type"] == "absolute"
    assert out["global_attn_every_n_layers"] == 2
    assert out["layer_types"] == [FULL, SLIDING] * 3 + [FULL]
    assert out["rope_parameters"] == rope(160000.0, 10000.0)
    assert (out["global_rope_theta"], out["local_rope_theta"]) == (160000.0, 10000.0)
    assert out["model_type"] == "modernbert" and "type_vocab_size" not in out


def test_ids_may_be_lists():
    c = config(eos_token_id=[2, 5])
    assert c.eos_token_id == (2, 5) and c.to_dict()["eos_token_id"] == [2, 5]
    assert ModernBertConfig.from_dict(c.to_dict()) == c


def test_theta_that_is_beaten_is_told_with_both_values():
    said = "global_rope_theta 3.0 is not used: rope_parameters of full_attention.* say 1.0"
    with pytest.warns(UserWarning, match=said):
        config(global_rope_theta=3.0, rope_parameters={"full_attention": {"rope_theta": 1.0}})


def test_unknown_keys_are_known_to_be_unknown():
    c = config(my_key=1, use_cache=True, is_decoder=False, sentence_transformers={})
    assert c.unknown == ["my_key", "sentence_transformers"]
