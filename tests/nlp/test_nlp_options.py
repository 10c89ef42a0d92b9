"""Head options: each wrong one is refused by name, whoever it comes from."""

import pytest

from refimpl.nlp import NLPTaskConfig, create_multi_task_nlp_head, create_nlp_head
from refimpl.nlp.multi_task import head_from_dict

CLASSES = NLPTaskConfig("c", "text_classification", num_classes=3)
TOKENS = NLPTaskConfig("n", "token_classification", num_classes=3)
SIMILAR = NLPTaskConfig("s", "text_similarity")


@pytest.mark.parametrize(
    ("task", "options", "error", "message"),
    [
        (CLASSES, dict(pooling="cls"), TypeError, "option 'pooling'; known: pooling_type, use_in"),
        (CLASSES, dict(pooling_type="median"), ValueError, "pooling_type is 'median'; known: cls"),
        (CLASSES, dict(activation_type="swoosh"), ValueError, "activation_type is 'swoosh'"),
        (CLASSES, dict(intermediate_size=0), ValueError, "intermediate_size is 0"),
        (CLASSES, dict(intermediate_size=2.5), ValueError, "intermediate_size is 2.5"),
        (CLASSES, dict(use_intermediate=1), ValueError, "use_intermediate is 1"),
        (CLASSES, dict(norm_bias="no"), ValueError, "norm_bias is 'no'"),
        (CLASSES, dict(norm_eps=0), ValueError, "norm_eps is 0"),
        (CLASSES, dict(norm_eps="x"), ValueError, "norm_eps is 'x'"),
        (CLASSES, dict(use_intermediate=False, intermediate_size=4), ValueError, "width 4 has no"),
        (CLASSES, dict(similarity_function="dot"), ValueError, "text_classification does not use"),
        (TOKENS, dict(pooling_type="mean"), ValueError, "token_classification does not use it"),
        (SIMILAR, dict(similarity_function="euclid"), ValueError, "'euclid'; known: cosine, dot"),
        (
            NLPTaskConfig("c", "text_classification", num_classes=3, hidden_size=4),
            dict(intermediate_size=5),
            ValueError,
            "intermediate_size is 5, but the task says hidden_size 4",
        ),
        (
            NLPTaskConfig("c", "text_classification", num_classes=3, use_attention_pooling=True),
            dict(pooling_type="mean"),
            ValueError,
            "pooling_type is 'mean', but the task says use_attention_pooling",
        ),
        (
            NLPTaskConfig("m", "masked_language_modeling"),
            dict(),
            ValueError,
            "vocabulary_size is missing",
        ),
    ],
    ids=str,
)
def test_nlp_head_option_is_refused_by_name(task, options, error, message):
    with pytest.raises(error, match=message):
        create_nlp_head(task, 8, **options)


@pytest.mark.parametrize("width", [0, -1, 2.0, True, "8"])
def test_nlp_head_width_must_be_a_positive_integer(width):
    with pytest.raises(ValueError, match="input_dim is"):
        create_nlp_head(CLASSES, width)


def test_nlp_head_needs_a_task_config():
    with pytest.raises(TypeError, match="task_config is 'text'; it must be an NLPTaskConfig"):
        create_nlp_head("text", 8)


@pytest.mark.parametrize(
    ("tasks", "options", "error", "message"),
    [
        ([], {}, ValueError, "one or more"),
        ([CLASSES, CLASSES], {}, ValueError, "all different"),
        ({"x": CLASSES}, {}, ValueError, r"keys \['x'\], but its tasks' names \['c'\]"),
        ([CLASSES, "t"], {}, TypeError, "task_config is 't'"),
        ([CLASSES, TOKENS], dict(similarity_function="dot"), ValueError, "none of the tasks"),
        ([CLASSES], dict(colour=1), TypeError, "unknown head option 'colour'"),
        (
            [CLASSES, NLPTaskConfig("m", "multiple_choice")],
            {},
            ValueError,
            "task 'm' is multiple_choice",
        ),
        ([CLASSES, NLPTaskConfig("r", "ranking")], {}, ValueError, "'ranking' has no head"),
    ],
    ids=str,
)
def test_nlp_multi_task_head_refuses_by_name(tasks, options, error, message):
    with pytest.raises(error, match=message):
        create_multi_task_nlp_head(tasks, 8, **options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (3, "refimpl_head holds 3; it needs task"),
        ({"task": {}}, "it needs task, options and input_dim"),
        ({"task": {"name": "t"}, "options": {}, "input_dim": 8}, "lacks \\['task_type'\\]"),
        ({"task": CLASSES.to_dict(), "options": {"x": 1}, "input_dim": 8}, "head option 'x'"),
        ({"task": CLASSES.to_dict(), "options": 3, "input_dim": 8}, "refimpl_head: "),
        ({"task": CLASSES.to_dict(), "options": {}, "input_dim": 0}, "input_dim is 0"),
        ({"tasks": []}, "one or more"),
        ({"tasks": [1]}, "refimpl_head holds 1"),
    ],
    ids=str,
)
def test_nlp_head_description_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        head_from_dict(values)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(hidden_states=[[1.0] * 8]), r"hidden_states has shape \[1, 8\].*\[batch, seq, 8\]"),
        (dict(hidden_states=[[[1.0] * 7]]), r"hidden_states has shape \[1, 1, 7\]"),
        (
            dict(hidden_states=[[[1.0] * 8]], attention_mask=[[1, 1]]),
            r"attention_mask has shape \[1, 2\]; it must be \[1, 1\]",
        ),
        (
            dict(hidden_states=[[[1.0] * 8]], hidden_states_2=[[[1.0] * 8]]),
            "hidden_states_2 is given; a sequence_classification head takes one text",
        ),
    ],
    ids=str,
)
def test_nlp_head_call_refuses_by_name(given, message):
    with pytest.raises(ValueError, match=message):
        create_nlp_head(CLASSES, 8)(**given)
