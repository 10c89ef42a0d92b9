"""The text that goes before a text: a folder's prompts, and which of them a call means."""

from __future__ import annotations

from collections.abc import Mapping

from ..files.sentence_files import DEFAULT_PROMPTS
from ..reference.sentence import Settings


class Prompts:
    """`texts`: name -> prompt, those of the folder and those given, which win; `default`: the name
    of the one that holds where a call names none, or None."""

    def __init__(
        self, settings: Settings, given: Mapping[str, str] | None, default: str | None
    ) -> None:
        """Raises ValueError for a default that is no name."""
        self.texts = {**dict.fromkeys(DEFAULT_PROMPTS, ""), **settings.prompts, **(given or {})}
        self.default = default or settings.default_prompt_name
        if self.default is not None:
            self.text(None, self.default)

    def text(self, prompt: str | None, prompt_name: str | None) -> str:
        """The prompt itself, or that of the name, or the default, or "". Raises ValueError."""
        if prompt is not None:
            return prompt
        name = self.default if prompt_name is None else prompt_name
        if name is None:
            return ""
        if name not in self.texts:
            raise ValueError(f"prompt_name {name!r} is unknown; known: {sorted(self.texts)}")
        return self.texts[name]
