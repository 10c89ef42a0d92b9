"""What a sentence-transformers folder says beside its modules: prompts, limits, similarity.

    config_sentence_transformers.json  prompts, default_prompt_name, similarity_fn_name,
                                       truncate_dim, activation_fn
    sentence_bert_config.json          max_seq_length, do_lower_case

A file or key that is absent or null leaves the default; a value of the wrong kind, or one that
cannot be followed, is a ModelFormatError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelFormatError
from ..sentence_files import SETTINGS_FILE, TRANSFORMER_FILE, transformer_folder
from ..strictjson import read_json
from .similarity import SIMILARITIES

# Every model answers to these two, as in sentence-transformers; its folder may give them content.
DEFAULT_PROMPTS = {"query": "", "document": ""}


@dataclass(frozen=True)
class SentenceSettings:
    """See the file's banner. `activation_fn` is a reranker's, as the class path in the file."""

    prompts: Mapping[str, str]
    default_prompt_name: str | None
    similarity_fn_name: str
    truncate_dim: int | None
    activation_fn: str | None
    max_seq_length: int | None
    do_lower_case: bool


def read_settings(folder: Path | None) -> SentenceSettings:
    """The settings of a folder; the defaults for a model that came from none."""
    whole = JsonFile(None if folder is None else folder / SETTINGS_FILE)
    of_transformer = None if folder is None else transformer_folder(folder) / TRANSFORMER_FILE
    transformer = JsonFile(of_transformer)
    prompts = dict(DEFAULT_PROMPTS)
    for name, text in whole.get("prompts", dict, {}).items():
        if text is not None and not isinstance(text, str):
            raise whole.refuse("prompts", f"prompt {name!r} must be text")
        prompts[name] = text or ""
    similarity = whole.get("similarity_fn_name", str, "cosine")
    if similarity not in SIMILARITIES:
        raise whole.refuse("similarity_fn_name", f"known: {', '.join(SIMILARITIES)}")
    default = whole.get("default_prompt_name", str, None)
    if default is not None and default not in prompts:
        raise whole.refuse("default_prompt_name", f"prompts has {sorted(prompts)}")
    return SentenceSettings(
        prompts=prompts,
        default_prompt_name=default,
        similarity_fn_name=similarity,
        truncate_dim=whole.positive("truncate_dim"),
        activation_fn=whole.get("activation_fn", str, None),
        max_seq_length=transformer.positive("max_seq_length"),
        do_lower_case=transformer.get("do_lower_case", bool, False),
    )


class JsonFile:
    """The JSON object in a file that may be absent."""

    def __init__(self, file: Path | None) -> None:
        self.file = file or Path()
        self.values: dict[str, Any] = {}
        if file is not None and file.is_file():
            self.values = read_json(file)

    def get(self, key: str, kind: type, default: Any) -> Any:
        """The value of a key, which must be of that type; the default when absent or null."""
        value = self.values.get(key)
        if value is None:
            return default
        if type(value) is not kind:
            raise self.refuse(key, f"must be of type {kind.__name__}")
        return value

    def positive(self, key: str) -> int | None:
        """An int of at least 1, or None when absent or null."""
        value: int | None = self.get(key, int, None)
        if value is not None and value < 1:
            raise self.refuse(key, "must be at least 1")
        return value

    def refuse(self, key: str, wanted: str) -> ModelFormatError:
        value = repr(self.values[key])[:80]
        return ModelFormatError(f"is {value}; {wanted}", file=self.file, key=key)
