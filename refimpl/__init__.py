"""ModernBERT: a readable numpy reference, and what is built on it.

Names are imported when they are first used, so that `import refimpl` costs little more than numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .backend import info
    from .config import VARIANTS, ModernBertConfig
    from .create import create_modern_bert_with_head
    from .errors import (
        HubError,
        LongInputWarning,
        MissingExtraError,
        ModelFormatError,
        TruncationWarning,
    )
    from .model import ModernBERT
    from .nlp import NLPTaskConfig, NLPTaskType, create_multi_task_nlp_head, create_nlp_head
    from .task_model import ModernBERTForTask, load
    from .tasks import Reranker, SentenceEncoder, pipeline
    from .tokenizer import Tokenizer

_WHERE = {
    "ModernBertConfig": "config",
    "VARIANTS": "config",
    "HubError": "errors",
    "LongInputWarning": "errors",
    "MissingExtraError": "errors",
    "ModelFormatError": "errors",
    "TruncationWarning": "errors",
    "info": "backend",
    "ModernBERT": "model",
    "ModernBERTForTask": "task_model",
    "load": "task_model",
    "NLPTaskConfig": "nlp",
    "NLPTaskType": "nlp",
    "create_modern_bert_with_head": "create",
    "create_multi_task_nlp_head": "nlp",
    "create_nlp_head": "nlp",
    "Reranker": "tasks",
    "SentenceEncoder": "tasks",
    "pipeline": "tasks",
    "Tokenizer": "tokenizer",
}

__all__ = [
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
    "Tokenizer",
    "TruncationWarning",
    "VARIANTS",
    "__version__",
    "create_modern_bert_with_head",
    "create_multi_task_nlp_head",
    "create_nlp_head",
    "info",
    "load",
    "pipeline",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'refimpl' has no attribute {name!r}")
    value = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
