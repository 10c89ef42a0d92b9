"""What one task asks of its head: `NLPTaskConfig`.

Every field does what it says or is refused by name: a value that the task's family would never read
is a ValueError, not a silence. `dropout_rate`, `loss_weight` and `label_smoothing` act in training
only; at inference dropout is the identity. `max_length` is where text is truncated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .task_types import FAMILIES, NLPTaskType

# How many outputs a family has when `num_classes` is not for the caller to choose.
FIXED_CLASSES = {"regression": 1, "question_answering": 2, "multiple_choice": 1}
WITH_CLASSES = ("sequence_classification", "token_classification")


@dataclass(frozen=True)
class NLPTaskConfig:
    """One task.

    name: of the task, its key in multi-task outputs and in tensor names. task_type: NLPTaskType or
    its name. num_classes (or num_labels, the same): number of classes. max_length: tokens that text
    is cut to. hidden_size: width of the intermediate layer, default the input's. loss_weight: of
    this task in a multi-task loss. label_smoothing: of its cross-entropy. use_attention_pooling:
    the same as the head option pooling_type="attention". vocabulary_size: of tasks that score a
    vocabulary. multi_label: classes do not exclude each other (sigmoid in place of softmax).
    Raises ValueError that names the field; `use_crf=True` is not supported and refused.
    """

    name: str
    task_type: NLPTaskType
    num_classes: int | None = None
    num_labels: int | None = None
    max_length: int = 512
    dropout_rate: float = 0.1
    hidden_size: int | None = None
    loss_weight: float = 1.0
    label_smoothing: float = 0.0
    use_crf: bool = False
    use_attention_pooling: bool = False
    vocabulary_size: int | None = None
    multi_label: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or "." in self.name:
            raise ValueError(f"name is {self.name!r}; it must be a text without '.', not empty")
        if isinstance(self.task_type, str):
            object.__setattr__(self, "task_type", NLPTaskType.from_string(self.task_type))
        if not isinstance(self.task_type, NLPTaskType):
            raise ValueError(f"task_type is {self.task_type!r}; it must be an NLPTaskType")
        if None not in (self.num_classes, self.num_labels) and self.num_classes != self.num_labels:
            raise ValueError(
                f"num_classes is {self.num_classes!r} and num_labels is {self.num_labels!r}; they "
                "are the same thing"
            )
        classes = self.num_labels if self.num_classes is None else self.num_classes
        object.__setattr__(self, "num_classes", classes)
        object.__setattr__(self, "num_labels", classes)
        _check_values(self)
        if self.task_type in FAMILIES:
            _check_use(self, self.task_type.family)

    @property
    def family(self) -> str:
        """The family of head that serves the task. ValueError when there is none."""
        return self.task_type.family

    def to_dict(self) -> dict[str, Any]:
        """Json-ready, for config.json."""
        return {**asdict(self), "task_type": str(self.task_type)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NLPTaskConfig:
        """The inverse of to_dict. ValueError for an unknown or missing field."""
        known = {f.name for f in fields(cls)}
        unknown, missing = sorted(set(values) - known), {"name", "task_type"} - set(values)
        if unknown or missing:
            raise ValueError(
                f"task config lacks {sorted(missing) or 'nothing'} and has the unknown fields "
                f"{unknown or 'none'}; known: {', '.join(sorted(known))}"
            )
        return cls(**values)


def _check_values(c: NLPTaskConfig) -> None:
    for name in ("num_classes", "max_length", "hidden_size", "vocabulary_size"):
        value = getattr(c, name)
        if value is None and name != "max_length":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is {value!r}; it must be an integer >= 1")
    for name in ("use_crf", "use_attention_pooling", "multi_label"):
        if not isinstance(getattr(c, name), bool):
            raise ValueError(f"{name} is {getattr(c, name)!r}; it must be True or False")
    for name in ("dropout_rate", "label_smoothing", "loss_weight"):
        value = getattr(c, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{name} is {value!r}; it must be a number")
    for name in ("dropout_rate", "label_smoothing"):
        if not 0 <= getattr(c, name) < 1:
            raise ValueError(f"{name} is {getattr(c, name)}; it must be in [0, 1)")
    if not (math.isfinite(c.loss_weight) and c.loss_weight >= 0):
        raise ValueError(f"loss_weight is {c.loss_weight}; it must be finite and not negative")
    if c.use_crf:
        raise ValueError("use_crf is True; a CRF layer is not supported: leave it out")


def _check_use(c: NLPTaskConfig, family: str) -> None:
    """Refuse what the family would never read, and ask for what it needs."""
    if family in WITH_CLASSES:
        if c.num_classes is None:
            raise ValueError(
                f"num_classes is missing; the task {c.name!r} ({c.task_type}) needs it"
            )
    elif c.num_classes not in (None, FIXED_CLASSES.get(family)):
        fixed = FIXED_CLASSES.get(family)
        right = "leave it out" if fixed is None else f"leave it out or give {fixed}"
        raise ValueError(f"num_classes is {c.num_classes}; {c.task_type} has no choice: {right}")
    for name, families in (
        ("vocabulary_size", ("masked_lm",)),
        ("multi_label", ("sequence_classification",)),
        ("use_attention_pooling", POOLED_FAMILIES),
    ):
        if getattr(c, name) and family not in families:
            raise ValueError(f"{name} is {getattr(c, name)}; {c.task_type} does not use it")
    if c.label_smoothing and family in ("regression", "text_similarity"):
        raise ValueError(
            f"label_smoothing is {c.label_smoothing}; {c.task_type} has no classes to smooth"
        )


# Families that make one vector of each sequence; the others work token by token.
POOLED_FAMILIES = ("sequence_classification", "regression", "text_similarity", "multiple_choice")
