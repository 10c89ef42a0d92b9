"""Text in, answers out: one file per task.

`pipeline` picks one by name. Imports: reference, text, nlp, files, models.
"""

from __future__ import annotations

from typing import Any

from ..text.tokenizer import Tokenizer
from .answer import QuestionAnswering
from .classify import TextClassification
from .embed import SentenceEncoder
from .features import FeatureExtraction
from .fill_mask import FillMask
from .rerank import Reranker
from .task import Model, TextTask
from .tokens import TokenClassification

__all__ = [
    "FeatureExtraction",
    "FillMask",
    "QuestionAnswering",
    "Reranker",
    "SentenceEncoder",
    "TextClassification",
    "TextTask",
    "TokenClassification",
    "pipeline",
]

TASKS: dict[str, type[TextTask]] = {
    task.task: task
    for task in (
        FillMask,
        TextClassification,
        TokenClassification,
        QuestionAnswering,
        FeatureExtraction,
    )
}
ALIASES = {"ner": "token-classification", "sentiment-analysis": "text-classification"}


def pipeline(
    task: str,
    model: Model = None,
    *,
    tokenizer: Tokenizer | None = None,
    backend: str = "auto",
    dtype: str = "float32",
    num_threads: int | None = None,
    revision: str | None = None,
    **options: Any,
) -> TextTask:
    """A callable that turns text into answers, with the result keys of transformers' pipelines.

    task: fill-mask, text-classification (sentiment-analysis), token-classification (ner),
    question-answering or feature-extraction. model: a folder, a hub id in the local cache, a loaded
    model, or None for a bundled one (not every task has one). tokenizer: that of the model's folder
    by default.
    options: defaults for the calls, see each task's `run`. Raises ValueError for an unknown task or
    a model without the head that the task needs; ModelFormatError, HubError, MissingExtraError.
    """
    name = ALIASES.get(task, task)
    if name not in TASKS:
        known = ", ".join([*TASKS, *ALIASES])
        raise ValueError(f"task {task!r} is unknown; known: {known}")
    return TASKS[name](
        model,
        tokenizer=tokenizer,
        backend=backend,
        dtype=dtype,
        num_threads=num_threads,
        revision=revision,
        **options,
    )
