"""ModernBERT: a readable numpy reference, and what is built on it.

Names are imported when they are first used, so that `import refimpl` costs little more than numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .backends.backend import info
    from .errors import (
        ExerciseError,
        HubError,
        LongInputWarning,
        MissingExtraError,
        ModelFormatError,
        SpaceError,
        TruncationWarning,
        UncertifiedWarning,
    )
    from .models.create import create_modern_bert_with_head
    from .models.model import ModernBERT
    from .models.task_model import ModernBERTForTask, load
    from .nlp import NLPTaskConfig, NLPTaskType, create_multi_task_nlp_head, create_nlp_head
    from .reference.config import VARIANTS, ModernBertConfig
    from .reference.taps import record
    from .tasks import Reranker, SentenceEncoder, pipeline
    from .text.tokenizer import Tokenizer

_WHERE = {
    "ModernBertConfig": "reference.config",
    "VARIANTS": "reference.config",
    "ExerciseError": "errors",
    "HubError": "errors",
    "LongInputWarning": "errors",
    "MissingExtraError": "errors",
    "ModelFormatError": "errors",
    "SpaceError": "errors",
    "TruncationWarning": "errors",
    "UncertifiedWarning": "errors",
    "info": "backends.backend",
    "ModernBERT": "models.model",
    "ModernBERTForTask": "models.task_model",
    "load": "models.task_model",
    "NLPTaskConfig": "nlp",
    "NLPTaskType": "nlp",
    "create_modern_bert_with_head": "models.create",
    "create_multi_task_nlp_head": "nlp",
    "create_nlp_head": "nlp",
    "Reranker": "tasks",
    "SentenceEncoder": "tasks",
    "pipeline": "tasks",
    "record": "reference.taps",
    "Tokenizer": "text.tokenizer",
}

__all__ = [
    "ExerciseError",
    "HubError",
    "LongInputWarning",
    "MissingExtraError",
    "ModelFormatError",
    "ModernBERT",
    "ModernBERTForTask",
    "ModernBertConfig",
    "NLPTaskConfig",
    "NLPTaskType",
    "Reranker",
    "SentenceEncoder",
    "SpaceError",
    "Tokenizer",
    "TruncationWarning",
    "UncertifiedWarning",
    "VARIANTS",
    "__version__",
    "create_modern_bert_with_head",
    "create_multi_task_nlp_head",
    "create_nlp_head",
    "info",
    "load",
    "pipeline",
    "record",
]


def __getattr__(name: str) -> Any:
    if name == "load_model":  # Keras' word
        raise AttributeError(
            "module 'refimpl' has no attribute 'load_model', which Keras has; here it is "
            "refimpl.load(folder)"
        )
    if name not in _WHERE:
        raise AttributeError(f"module 'refimpl' has no attribute {name!r}")
    value = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
