"""The 37 tasks of the Keras system by name, their categories, and the head that serves each.

A family is one way from hidden states to outputs (families.py); FAMILIES alone says which task has
which. A task that is not in it has no head, and asking for one is a ValueError. The generation
tasks give scores over the vocabulary at every position: an encoder does not decode text.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class NLPTaskType(Enum):
    """A task by name; the value is what a file holds. SEQUENCE_CLASSIFICATION is an alias."""

    # token level
    TOKEN_CLASSIFICATION = "token_classification"
    NAMED_ENTITY_RECOGNITION = "named_entity_recognition"
    PART_OF_SPEECH_TAGGING = "part_of_speech_tagging"
    DEPENDENCY_PARSING = "dependency_parsing"
    SEMANTIC_ROLE_LABELING = "semantic_role_labeling"
    WORD_SENSE_DISAMBIGUATION = "word_sense_disambiguation"
    # sequence level
    TEXT_CLASSIFICATION = "text_classification"
    SEQUENCE_CLASSIFICATION = "text_classification"
    SENTIMENT_ANALYSIS = "sentiment_analysis"
    EMOTION_DETECTION = "emotion_detection"
    INTENT_CLASSIFICATION = "intent_classification"
    TOPIC_CLASSIFICATION = "topic_classification"
    SPAM_DETECTION = "spam_detection"
    # span level
    QUESTION_ANSWERING = "question_answering"
    SPAN_EXTRACTION = "span_extraction"
    COREFERENCE_RESOLUTION = "coreference_resolution"
    EVENT_EXTRACTION = "event_extraction"
    RELATION_EXTRACTION = "relation_extraction"
    # sentence pairs
    TEXT_SIMILARITY = "text_similarity"
    NATURAL_LANGUAGE_INFERENCE = "natural_language_inference"
    PARAPHRASE_DETECTION = "paraphrase_detection"
    DUPLICATE_DETECTION = "duplicate_detection"
    # generation
    TEXT_GENERATION = "text_generation"
    MASKED_LANGUAGE_MODELING = "masked_language_modeling"
    TEXT_SUMMARIZATION = "text_summarization"
    MACHINE_TRANSLATION = "machine_translation"
    TEXT_COMPLETION = "text_completion"
    DIALOGUE_GENERATION = "dialogue_generation"
    # regression
    TEXT_REGRESSION = "text_regression"
    READABILITY_SCORING = "readability_scoring"
    QUALITY_SCORING = "quality_scoring"
    # structured
    MULTIPLE_CHOICE = "multiple_choice"
    RANKING = "ranking"
    SEQUENCE_LABELING = "sequence_labeling"
    TEXT_MATCHING = "text_matching"
    # information extraction
    KEY_PHRASE_EXTRACTION = "key_phrase_extraction"
    FACT_EXTRACTION = "fact_extraction"
    OPINION_EXTRACTION = "opinion_extraction"

    def __str__(self) -> str:
        return str(self.value)

    @classmethod
    def all_tasks(cls) -> list[NLPTaskType]:
        """All 37, in the order of this page."""
        return list(cls)

    @classmethod
    def from_string(cls, name: str) -> NLPTaskType:
        """The task of that value or member name, in any case. Raises ValueError listing all."""
        key = name.strip().upper()
        if key not in cls.__members__:
            raise ValueError(f"task_type {name!r} is unknown; known: {', '.join(map(str, cls))}")
        return cls[key]

    @classmethod
    def get_task_categories(cls) -> dict[str, list[NLPTaskType]]:
        """Category -> its tasks; every task stands in exactly one."""
        tasks = iter(cls)
        return {name: [next(tasks) for _ in range(n)] for name, n in CATEGORY_SIZES.items()}

    @property
    def family(self) -> str:
        """The family of head that serves this task. Raises ValueError listing those served."""
        if self not in FAMILIES:
            served = ", ".join(map(str, FAMILIES))
            raise ValueError(f"task_type {str(self)!r} has no head; served: {served}")
        return FAMILIES[self]


# The members stand category by category, so a category is a name and how many follow.
CATEGORY_SIZES: Mapping[str, int] = {
    "token": 6,
    "sequence": 6,
    "span": 5,
    "sentence_pair": 4,
    "generation": 6,
    "regression": 3,
    "structured": 4,
    "information_extraction": 3,
}

_SERVED: Mapping[str, tuple[str, ...]] = {
    "sequence_classification": (
        "TEXT_CLASSIFICATION", "SENTIMENT_ANALYSIS", "EMOTION_DETECTION", "INTENT_CLASSIFICATION",
        "TOPIC_CLASSIFICATION", "SPAM_DETECTION", "NATURAL_LANGUAGE_INFERENCE",
    ),
    "regression": ("TEXT_REGRESSION", "READABILITY_SCORING", "QUALITY_SCORING"),
    "token_classification": (
        "TOKEN_CLASSIFICATION", "NAMED_ENTITY_RECOGNITION", "PART_OF_SPEECH_TAGGING",
        "SEQUENCE_LABELING",
    ),
    "question_answering": ("QUESTION_ANSWERING", "SPAN_EXTRACTION"),
    "text_similarity": ("TEXT_SIMILARITY", "PARAPHRASE_DETECTION", "DUPLICATE_DETECTION"),
    "masked_lm": (
        "MASKED_LANGUAGE_MODELING", "TEXT_GENERATION", "TEXT_SUMMARIZATION", "TEXT_COMPLETION",
    ),
    "multiple_choice": ("MULTIPLE_CHOICE",),
}  # fmt: skip
FAMILIES: Mapping[NLPTaskType, str] = {
    NLPTaskType[name]: family for family, names in _SERVED.items() for name in names
}
