"""Task names and task configs: what exists, what is refused by name, and the json round trip."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.nlp import NLPTaskConfig, NLPTaskType
from refimpl.nlp.options import HeadOptions
from refimpl.nlp.task_types import FAMILIES

SERVED = """
text_classification sentiment_analysis emotion_detection intent_classification topic_classification
spam_detection natural_language_inference text_regression readability_scoring quality_scoring
token_classification named_entity_recognition part_of_speech_tagging sequence_labeling
question_answering span_extraction text_similarity paraphrase_detection duplicate_detection
masked_language_modeling text_generation text_summarization text_completion multiple_choice
""".split()
NOT_SERVED = """
dependency_parsing semantic_role_labeling word_sense_disambiguation coreference_resolution
event_extraction relation_extraction machine_translation dialogue_generation ranking text_matching
key_phrase_extraction fact_extraction opinion_extraction
""".split()


def test_nlp_task_types_are_the_37():
    names = [str(task) for task in NLPTaskType.all_tasks()]
    assert len(names) == 37
    assert sorted(names) == sorted(SERVED + NOT_SERVED)
    assert sorted(map(str, FAMILIES)) == sorted(SERVED)


def test_nlp_sequence_classification_is_an_alias():
    assert NLPTaskType.SEQUENCE_CLASSIFICATION is NLPTaskType.TEXT_CLASSIFICATION


@pytest.mark.parametrize("task", NLPTaskType.all_tasks(), ids=str)
def test_nlp_task_is_found_by_value_and_by_name(task):
    assert NLPTaskType.from_string(f" {task.value.title()} ") is task
    assert NLPTaskType.from_string(task.name) is task
    assert (
        NLPTaskConfig("t", NLPTaskType.MULTIPLE_CHOICE.value).task_type.value == "multiple_choice"
    )


def test_nlp_sequence_classification_is_found_by_string():
    alias = NLPTaskType.from_string("sequence_classification")
    assert alias is NLPTaskType.TEXT_CLASSIFICATION


def test_nlp_unknown_task_lists_all():
    with pytest.raises(ValueError, match="'parsing' is unknown.*token_class.*opinion_extraction"):
        NLPTaskType.from_string("parsing")


def test_nlp_categories_hold_each_task_once():
    categories = NLPTaskType.get_task_categories()
    assert {name: len(tasks) for name, tasks in categories.items()} == {
        "token": 6, "sequence": 6, "span": 5, "sentence_pair": 4, "generation": 6,
        "regression": 3, "structured": 4, "information_extraction": 3,
    }  # fmt: skip
    assert [t for tasks in categories.values() for t in tasks] == NLPTaskType.all_tasks()
    first = {name: str(tasks[0]) for name, tasks in categories.items()}
    assert first == {
        "token": "token_classification",
        "sequence": "text_classification",
        "span": "question_answering",
        "sentence_pair": "text_similarity",
        "generation": "text_generation",
        "regression": "text_regression",
        "structured": "multiple_choice",
        "information_extraction": "key_phrase_extraction",
    }


def test_nlp_task_config_defaults_are_those_of_the_keras_system():
    c = NLPTaskConfig("t", NLPTaskType.SENTIMENT_ANALYSIS, num_classes=3)
    assert (c.max_length, c.dropout_rate, c.hidden_size, c.loss_weight) == (512, 0.1, None, 1.0)
    assert (c.label_smoothing, c.use_crf, c.use_attention_pooling) == (0.0, False, False)
    assert c.vocabulary_size is None


def test_nlp_num_labels_is_num_classes():
    by_labels = NLPTaskConfig("t", "text_classification", num_labels=4)
    by_classes = NLPTaskConfig("t", "text_classification", num_classes=4)
    assert by_labels == by_classes and by_labels.num_classes == by_classes.num_labels == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(name=""), "name is ''"),
        (dict(name="a.b"), "name is 'a.b'"),
        (dict(task_type=3), "task_type is 3"),
        (dict(task_type="x"), "task_type 'x' is unknown"),
        (dict(num_classes=None), "num_classes is missing; the task 't'"),
        (dict(num_classes=0), "num_classes is 0"),
        (dict(num_classes=2.0), "num_classes is 2.0"),
        (dict(num_classes=True), "num_classes is True"),
        (dict(num_labels=4), "num_classes is 3 and num_labels is 4"),
        (dict(max_length=0), "max_length is 0"),
        (dict(max_length=None), "max_length is None"),
        (dict(dropout_rate=1.0), "dropout_rate is 1.0"),
        (dict(dropout_rate="x"), "dropout_rate is 'x'"),
        (dict(hidden_size=-1), "hidden_size is -1"),
        (dict(loss_weight=-1.0), "loss_weight is -1.0"),
        (dict(loss_weight=float("nan")), "loss_weight is nan"),
        (dict(label_smoothing=1.5), "label_smoothing is 1.5"),
        (dict(use_crf=True), "use_crf is True; a CRF layer is not supported"),
        (dict(use_crf="yes"), "use_crf is 'yes'"),
        (dict(use_attention_pooling=1), "use_attention_pooling is 1"),
        (dict(vocabulary_size=0), "vocabulary_size is 0"),
        (dict(vocabulary_size=9), "vocabulary_size is 9; text_classification does not use it"),
        (dict(task_type="text_regression"), "num_classes is 3; text_regression has no choice.* 1"),
        (
            dict(task_type="paraphrase_detection"),
            "num_classes is 3; paraphrase_detection has no choice: leave it out$",
        ),
        (
            dict(task_type="token_classification", use_attention_pooling=True),
            "use_attention_pooling is True; token_classification does not use it",
        ),
        (
            dict(task_type="token_classification", multi_label=True),
            "multi_label is True; token_classification does not use it",
        ),
        (
            dict(task_type="text_similarity", num_classes=None, label_smoothing=0.1),
            "label_smoothing is 0.1; text_similarity has no classes",
        ),
    ],
    ids=str,
)
def test_nlp_task_config_refuses_by_name(wrong, message):
    given = dict(name="t", task_type="text_classification", num_classes=3) | wrong
    with pytest.raises(ValueError, match=message):
        NLPTaskConfig(**given)


@pytest.mark.parametrize(
    ("task", "classes"), [("text_regression", 1), ("span_extraction", 2), ("multiple_choice", 1)]
)
def test_nlp_fixed_number_of_outputs_may_be_spelled_out(task, classes):
    assert NLPTaskConfig("t", task, num_classes=classes).num_classes == classes


@st.composite
def task_configs(draw):
    task = draw(st.sampled_from(NLPTaskType.all_tasks()))
    family = FAMILIES.get(task)
    size = st.integers(1, 2**20)
    fields = dict(
        name=draw(st.text(st.characters(blacklist_characters=".", codec="utf-8"), min_size=1)),
        task_type=task,
        max_length=draw(size),
        dropout_rate=draw(st.floats(0, 1, exclude_max=True)),
        hidden_size=draw(st.none() | size),
        loss_weight=draw(st.floats(0, 1e6)),
    )
    if family in ("sequence_classification", "token_classification"):
        fields[draw(st.sampled_from(["num_classes", "num_labels"]))] = draw(size)
        fields["label_smoothing"] = draw(st.floats(0, 1, exclude_max=True))
    if family == "sequence_classification":
        fields["multi_label"] = draw(st.booleans())
        fields["use_attention_pooling"] = draw(st.booleans())
    if family == "masked_lm":
        fields["vocabulary_size"] = draw(st.none() | size)
    return NLPTaskConfig(**fields)


@given(task_configs())
def test_nlp_task_config_survives_json(config):
    assert NLPTaskConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_nlp_task_config_from_dict_names_what_is_wrong():
    with pytest.raises(ValueError, match="lacks \\['task_type'\\].*unknown fields \\['colour'\\]"):
        NLPTaskConfig.from_dict({"name": "t", "colour": 1})


def test_nlp_options_default_is_the_plain_pipeline():
    assert HeadOptions() == HeadOptions(
        pooling_type=None,
        use_intermediate=True,
        intermediate_size=None,
        activation_type="gelu",
        similarity_function=None,
        norm_eps=1e-5,
        norm_bias=False,
    )
