"""Text to ids by the `tokenizers` package, for any tokenizer.json that it reads.

The codec of files that the C library does not cover, and where there is no C library. The package's
own truncation, padding and dropout are switched off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError, ModelFormatError
from ..files.tokenizer_files import FLAGS, Token


class PackageColumns:
    """A tokenizers.Encoding, each column fetched once."""

    def __init__(self, raw: Any) -> None:
        self.raw, self.length = raw, len(raw)

    @cached_property
    def ids(self) -> list[int]:
        return self.raw.ids

    @cached_property
    def tokens(self) -> list[str]:
        return self.raw.tokens

    @cached_property
    def type_ids(self) -> list[int]:
        return self.raw.type_ids

    @cached_property
    def offsets(self) -> list[tuple[int, int]]:
        return self.raw.offsets

    @cached_property
    def word_ids(self) -> list[int | None]:
        return self.raw.word_ids

    @cached_property
    def sequence_ids(self) -> list[int | None]:
        return self.raw.sequence_ids

    @cached_property
    def special(self) -> list[bool]:
        return [bool(flag) for flag in self.raw.special_tokens_mask]


class PackageCodec:
    """A codec (columns.py) over a tokenizers.Tokenizer, which it changes."""

    def __init__(self, backend: Any) -> None:
        self.truncation_side: str | None = (backend.truncation or {}).get("direction")
        self.subword_prefix = getattr(backend.model, "continuing_subword_prefix", None)
        backend.no_truncation()
        backend.no_padding()
        if getattr(backend.model, "dropout", None):
            backend.model.dropout = None  # chance is for training: the same text, the same ids
        self._backend = backend

    @classmethod
    def read(cls, path: Path, *, lowercase: bool, reason: str) -> PackageCodec:
        """A tokenizer.json. reason: why the C library's codec does not read it.

        Raises MissingExtraError without the package, ModelFormatError for what is no tokenizer.
        """
        try:
            import tokenizers
        except ImportError:
            purpose = f"turning text into ids ({reason})"
            raise MissingExtraError("tokenizers", "text", purpose) from None
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises bare Exception
            raise ModelFormatError(f"not a tokenizer: {error}", file=path) from error
        if lowercase:
            lower, given = tokenizers.normalizers.Lowercase(), backend.normalizer
            steps = [lower] if given is None else [lower, given]
            backend.normalizer = tokenizers.normalizers.Sequence(steps)
        return cls(backend)

    @property
    def ids(self) -> int:
        return 1 + max(self.vocabulary().values(), default=-1)

    def encode(
        self, texts: Sequence[str | tuple[str, str]], special: bool = True
    ) -> list[PackageColumns]:
        raw = self._backend.encode_batch(texts, add_special_tokens=special)
        return [PackageColumns(one) for one in raw]

    def special_tokens(self, pair: bool) -> int:
        return self._backend.num_special_tokens_to_add(pair)

    def vocabulary(self) -> dict[str, int]:
        return self._backend.get_vocab(with_added_tokens=True)

    def id(self, token: str) -> int | None:
        return self._backend.token_to_id(token)

    def token(self, token_id: int) -> str | None:
        return self._backend.id_to_token(token_id)

    def added(self) -> list[Token]:
        tokens = self._backend.get_added_tokens_decoder().values()
        return [
            Token(t.content, special=t.special, **{name: getattr(t, name) for name in FLAGS})
            for t in tokens
        ]

    def add(self, tokens: Sequence[Token]) -> None:
        import tokenizers

        self._backend.add_tokens(
            [
                tokenizers.AddedToken(
                    t.content, special=t.special, **{name: getattr(t, name) for name in FLAGS}
                )
                for t in tokens
            ]
        )

    def split_special(self) -> None:
        self._backend.encode_special_tokens = True

    def decode(self, ids: Iterable[int], skip_special_tokens: bool) -> str:
        return self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def join(self, tokens: Sequence[str]) -> str:
        decoder = self._backend.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(list(tokens))
