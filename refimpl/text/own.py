"""Text to ids by the C library (csrc/text), for the tokenizer.json files of ModernBERT models.

Byte-level BPE with its added tokens, NFC and template; BPE over characters with bytes to fall back
on, as mmBERT has it. Equal to the `tokenizers` package in every column, without it. Other files are
refused with the step that is not known.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..backends.backend import native
from ..files.tokenizer_files import FLAGS, Token
from .decoding import DECODERS

ORDER = ("lstrip", "rstrip", "single_word", "normalized")


class OwnColumns:
    """A text or pair as the extension gives it, each column made when it is asked for."""

    def __init__(self, raw: dict[str, Any], texts: tuple[str, ...], codec: OwnCodec) -> None:
        self.raw, self.length = raw, len(raw["ids"])
        self._texts, self._codec = texts, codec

    @cached_property
    def ids(self) -> list[int]:
        return self.raw["ids"].tolist()

    @cached_property
    def tokens(self) -> list[str]:
        rows = zip(self.ids, self._sequences, self.offsets, strict=True)
        return [self._codec.shown(i, self._texts[s][slice(*span)]) for i, s, span in rows]

    @cached_property
    def type_ids(self) -> list[int]:
        return self.raw["types"].tolist()

    @cached_property
    def offsets(self) -> list[tuple[int, int]]:
        return list(zip(self.raw["starts"].tolist(), self.raw["ends"].tolist(), strict=True))

    @cached_property
    def word_ids(self) -> list[int | None]:
        return [None if word < 0 else word for word in self.raw["words"].tolist()]

    @cached_property
    def _sequences(self) -> list[int]:
        return self.raw["sequences"].tolist()

    @cached_property
    def sequence_ids(self) -> list[int | None]:
        return [None if sequence < 0 else sequence for sequence in self._sequences]

    @cached_property
    def special(self) -> list[bool]:
        return [sequence < 0 for sequence in self._sequences]


class OwnCodec:
    """A codec (columns.py) over the extension's Tokenizer."""

    subword_prefix: str | None = None

    def __init__(self, tokenizer: Any, file: Path) -> None:
        self._native, self._file, self._state = tokenizer, file, _state(file)
        self._decoder, normalizer, side = tokenizer.facts
        self._normal = NORMAL[normalizer]
        self.truncation_side: str | None = side or None
        self._split = False
        self._forget()

    @classmethod
    def read(cls, path: Path) -> OwnCodec:
        """A tokenizer.json. OSError for what is not covered, ValueError without C library."""
        return cls(native().Tokenizer(str(path)), path)

    def __deepcopy__(self, memo: Any) -> OwnCodec:
        return self  # nothing changes it once its folder is read

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its file's content, which must still be the one that was read."""
        if _state(self._file) != self._state:
            raise OSError(f"{self._file}: was changed since it was read, so it cannot be pickled")
        return _unpickled, (self._file, self._file.read_bytes(), self.added(), self._split)

    def _forget(self) -> None:
        added = self._native.added()
        self._special = {i for i, (_, special, *_) in added if special}
        self._strips = {i for i, (_, _, lstrip, rstrip, *_) in added if lstrip or rstrip}
        normalized = {i: self._normal(content) for i, (content, *_, flag) in added if flag}
        self._names: dict[int, str] = (
            normalized  # of added ones as a text has them; the rest as met
        )

    def shown(self, token_id: int, piece: str) -> str:
        """The token of an id as the package spells it: one that takes spaces along with these.

        piece: what it covers of the text.
        """
        found = self._names.get(token_id)
        if found is None:
            found = self._names[token_id] = self._native.token(token_id)
        if token_id not in self._strips or not piece:
            return found
        before = piece[: len(piece) - len(piece.lstrip())]
        after = piece[len(piece.rstrip()) :]
        return self._normal(before) + found + self._normal(after)

    @property
    def ids(self) -> int:
        return self._native.ids

    def encode(
        self, texts: Sequence[str | tuple[str, str]], special: bool = True
    ) -> list[OwnColumns]:
        both = [(text,) if isinstance(text, str) else text for text in texts]
        return [OwnColumns(self._native.encode(*t, special=special), t, self) for t in both]

    def special_tokens(self, pair: bool) -> int:
        return self._native.template_tokens(pair)

    def vocabulary(self) -> dict[str, int]:
        return self._native.vocabulary()

    def id(self, token: str) -> int | None:
        return self._native.id(token)

    def token(self, token_id: int) -> str | None:
        return self._native.token(token_id) if 0 <= token_id < self.ids else None

    def added(self) -> list[Token]:
        return [
            Token(content, special, **dict(zip(ORDER, flags, strict=True)))
            for _, (content, special, *flags) in self._native.added()
        ]

    def add(self, tokens: Sequence[Token]) -> None:
        given = [(t.content, t.special, *(getattr(t, name) for name in ORDER)) for t in tokens]
        self._native.add(given, self._split)
        self._forget()

    def split_special(self) -> None:
        self._split = True
        self._native.add([], self._split)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool) -> str:
        skipped = self._special if skip_special_tokens else set()
        names = (self.token(i) for i in ids if i not in skipped)
        return self.join([name for name in names if name is not None])

    def join(self, tokens: Sequence[str]) -> str:
        return DECODERS[self._decoder](tokens)


NORMAL: dict[str, Callable[[str], str]] = {
    "": str,
    "NFC": partial(unicodedata.normalize, "NFC"),
    "blanks": lambda text: text.replace(" ", "\u2581"),
}


def _state(file: Path) -> tuple[int, ...] | None:
    """What tells whether a file was written to; None where it is gone."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _unpickled(file: Path, content: bytes, added: Sequence[Token], split: bool) -> OwnCodec:
    codec = OwnCodec(native().Tokenizer(str(file), content), file)
    codec.add(added)
    if split:
        codec.split_special()
    return codec


assert set(ORDER) == set(FLAGS)
