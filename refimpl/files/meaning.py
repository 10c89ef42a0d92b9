"""What the JSON files of a model folder mean: the config, the head that it names.

    config_of(folder)         config.json -> ModernBertConfig
    head_of(folder, config)   modules.json, or else config.json -> a head, None for a bare encoder

Pure functions of what folder.py has read; no tensors here. Settings of sentence-transformers are
sentence_files.py's, the tokenizer's are tokenizer_files.py's.
"""

from __future__ import annotations

import warnings
from typing import TypeAlias

from ..errors import ModelFormatError, shown
from ..nlp import CONFIG_KEY, MultiTaskHead, NLPHead, head_from_config
from ..reference.config import ModernBertConfig
from ..reference.heads import HEADS, Head
from ..reference.sentence import SentenceHead
from .folder import CONFIG, ModelFolder
from .sentence_files import sentence_head

AnyHead: TypeAlias = Head | SentenceHead | NLPHead | MultiTaskHead

ENCODER_ARCHITECTURE = "ModernBertModel"
# Beyond any that exists; a lie here would cost memory before any check.
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "type_vocab_size")
LIMITS = {"num_hidden_layers": 1_000, "num_labels": 10_000_000, **dict.fromkeys(SIZES, 2**31)}
# Keys of config.json that others of this project read: heads by task type, rerankers.
OTHERS = (CONFIG_KEY, "sentence_transformers", "sbert_ce_default_activation_function")


def config_of(folder: ModelFolder) -> ModernBertConfig:
    """What config.json says. ModelFormatError where it is missing, wrong or not supported.

    Warns of keys that nobody here knows: they are kept for saving, and not read.
    """
    entry = folder.entry(folder.file(CONFIG), needed=True)
    for key, limit in LIMITS.items():
        if isinstance(entry.values.get(key), int) and entry.values[key] > limit:
            raise entry.refuse(key, f"at most {limit}")
    try:
        config = ModernBertConfig.from_dict(entry.values)
    except (TypeError, ValueError) as error:
        raise ModelFormatError(str(error), file=entry.file) from error
    unknown = [key for key in config.unknown if key not in OTHERS]
    if unknown:
        warnings.warn(
            f"{entry.file}: {', '.join(unknown)}: no key that is known; not read, and kept for "
            "saving",
            UserWarning,
            stacklevel=2,
        )
    return config


def is_described(config: ModernBertConfig) -> bool:
    """Whether config.json describes a configurable head."""
    return config.extra.get(CONFIG_KEY) is not None


def head_of(folder: ModelFolder, config: ModernBertConfig) -> AnyHead | None:
    """The head that modules.json, or else config.json, names. Raises ModelFormatError."""
    sentence = sentence_head(folder)
    if sentence is not None:
        return sentence
    file = folder.file(CONFIG)
    by_architecture = {head.architecture: head for head in HEADS.values()}
    for name in config.architectures:
        if not isinstance(name, str) or name not in (ENCODER_ARCHITECTURE, *by_architecture):
            known = ", ".join([ENCODER_ARCHITECTURE, *by_architecture])
            raise ModelFormatError(
                f"{shown(name)} is unknown; known: {known}", file=file, key="architectures"
            )
    try:
        configured = head_from_config(config)
    except ValueError as error:
        raise ModelFormatError(str(error), file=file, key=CONFIG_KEY) from None
    if configured is not None or not config.architectures:
        return configured
    return by_architecture.get(config.architectures[0])
