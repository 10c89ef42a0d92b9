"""What a config refuses, by name: nothing that would change numbers is ignored."""

import pytest

from refimpl.reference.config import FULL, SLIDING, ModernBertConfig

THETA = {"rope_type": "default", "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(model_type="bert"), "model_type is 'bert'; this reads 'modernbert'"),
        (dict(hidden_activation="swoosh"), "hidden_activation is 'swoosh'; supported: gelu"),
        (dict(classifier_activation=None), "classifier_activation is None; supported: gelu"),
        (dict(rope_parameters={FULL: {"rope_type": "yarn"}}), "of full_attention hold.*'yarn'"),
        (
            dict(rope_parameters={SLIDING: {**THETA, "factor": 2}}),
            "sliding_attention hold rope_type 'default' and {'factor': 2}",
        ),
        (dict(rope_parameters=THETA), "rope_parameters is {'rope_type'"),
        (dict(rope_parameters=[1]), r"rope_parameters is \[1\]"),
        (dict(rope_scaling={"type": "linear", "factor": 2}), "'linear'"),
        (dict(layer_types=["full_attention", "recurrent"] * 11), "holds 'recurrent'"),
        (dict(layer_types=[FULL]), "layer_types has 1 entries for num_hidden_layers 22"),
        (dict(layer_types=5), "layer_types is 5; it must be a list"),
        (dict(layer_types=FULL), "layer_types is 'full_attention'; it must be a list"),
        (dict(architectures="ModernBertModel"), "architectures is 'ModernBertModel'; it must be a"),
        (dict(layer_types=[]), "layer_types is empty"),
        (dict(global_attn_every_n_layers=0), "global_attn_every_n_layers is 0"),
        (dict(global_attn_every_n_layers=2.5), "global_attn_every_n_layers is 2.5"),
        (dict(num_hidden_layers=0), "num_hidden_layers is 0"),
        (dict(num_hidden_layers="22"), "num_hidden_layers is '22'"),
        (dict(sliding_window=-1), "sliding_window is -1"),
        (dict(sliding_window=64, local_attention=64), "sliding_window is 64 .half. but local_att"),
        (dict(local_attention=-1), "local_attention is -1"),
        (dict(type_vocab_size=-1), "type_vocab_size is -1"),
        (dict(hidden_size=770), "hidden_size is 770 with num_attention_heads 12"),
        (dict(hidden_size=12 * 63), "even head size"),
        (dict(head_dim=32), "head_dim is 32; it must be hidden_size / num_attention_heads"),
        (dict(vocab_size=0), "vocab_size is 0"),
        (dict(vocab_size=True), "vocab_size is True; it must be an integer"),
        (dict(intermediate_size=1.5), "intermediate_size is 1.5; it must be an integer"),
        (dict(max_position_embeddings=None), "max_position_embeddings is None"),
        (dict(norm_eps=0), "norm_eps is 0.0; it must be positive"),
        (dict(norm_eps="1e-5"), "norm_eps is '1e-5'; it must be a number"),
        (dict(global_rope_theta=float("inf")), "global_rope_theta is inf"),
        (dict(local_rope_theta=-1), "local_rope_theta is -1.0"),
        (dict(initializer_range=float("nan")), "initializer_range is nan"),
        (dict(initializer_cutoff_factor=0), "initializer_cutoff_factor is 0.0"),
        (dict(norm_bias=1), "norm_bias is 1; it must be true or false"),
        (dict(attention_bias="no"), "attention_bias is 'no'"),
        (dict(mlp_bias=None), "mlp_bias is None"),
        (dict(mlp_dropout=1.0), r"mlp_dropout is 1.0; it must be in \[0, 1\)"),
        (dict(attention_dropout=-0.1), "attention_dropout is -0.1"),
        (dict(pad_token_id="0"), "pad_token_id is '0'; it must be an integer or null"),
        (dict(classifier_pooling="max"), "classifier_pooling is 'max'; supported: cls, mean"),
        (dict(problem_type="ranking"), "problem_type is 'ranking'; supported: regression"),
        (dict(id2label={"0": "a", "2": "b"}), r"id2label has the indices \[0, 2\]"),
        (dict(id2label={}), r"id2label has the indices \[\]"),
        (dict(id2label=["a", "b"]), r"id2label is \['a', 'b'\]; it maps integers"),
        (dict(id2label={"x": "a"}), "id2label is {'x': 'a'}"),
        (dict(label2id=["a"]), r"label2id is \['a'\]; it maps labels to integers"),
        (dict(num_labels=3, id2label={"0": "a"}), "num_labels is 3 but id2label holds 1"),
        (dict(num_labels=0), "num_labels is 0; it must be at least 1"),
    ],
    ids=str,
)
def test_config_refuses_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        ModernBertConfig.from_dict(wrong)


@pytest.mark.parametrize("name", ["num_labels", "id2label", "hidden_size", "hidden_activation"])
def test_config_replace_checks_too(name):
    with pytest.raises(ValueError, match=name):
        ModernBertConfig().replace(**{name: "x"})
