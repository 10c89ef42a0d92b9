"""One tokenized text or pair, whole, per token: what both tokenizers give.

    Columns: ids, tokens, type_ids, offsets, word_ids, sequence_ids, special
    Codec:   text to Columns, ids to text, and the vocabulary

Promise: a column is made when it is first asked for. Two codecs follow it: own.py (the C library's)
and package.py (the `tokenizers` package's), with equal columns wherever both take a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..files.tokenizer_files import Token


class Columns(Protocol):
    """Per token; where the template added it None in word_ids and sequence_ids, offsets (0, 0)."""

    length: int

    @property
    def ids(self) -> list[int]: ...
    @property
    def tokens(self) -> list[str]: ...
    @property
    def type_ids(self) -> list[int]: ...
    @property
    def offsets(self) -> list[tuple[int, int]]: ...
    @property
    def word_ids(self) -> list[int | None]: ...
    @property
    def sequence_ids(self) -> list[int | None]: ...
    @property
    def special(self) -> list[bool]: ...


class Codec(Protocol):
    """A tokenizer.json, with tokens that may be added to it."""

    truncation_side: str | None
    """Which end of a long text goes, as the file has it; None where it does not say."""
    subword_prefix: str | None
    """What begins a token that goes on with a word."""

    @property
    def ids(self) -> int:
        """One more than the largest id."""
        ...

    def encode(
        self, texts: Sequence[str | tuple[str, str]], special: bool = True
    ) -> Sequence[Columns]: ...
    def special_tokens(self, pair: bool) -> int:
        """Tokens that the template adds to a text, or to a pair."""
        ...

    def vocabulary(self) -> dict[str, int]: ...
    def id(self, token: str) -> int | None: ...
    def token(self, token_id: int) -> str | None: ...
    def added(self) -> list[Token]:
        """Tokens that a text is searched for, in their order."""
        ...

    def add(self, tokens: Sequence[Token]) -> None: ...
    def split_special(self) -> None:
        """From now on special tokens in a text are text."""
        ...

    def decode(self, ids: Iterable[int], skip_special_tokens: bool) -> str: ...
    def join(self, tokens: Sequence[str]) -> str:
        """The text that vocabulary tokens stand for."""
        ...


def span(columns: Columns, sequence: int) -> tuple[int, int]:
    """[first, end) of the tokens of a text (0) or its pair (1), which stand together."""
    count = columns.sequence_ids.count(sequence)
    first = columns.sequence_ids.index(sequence) if count else columns.length
    return first, first + count
