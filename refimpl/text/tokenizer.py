"""Text to ids and back, by a folder's tokenizer.json.

    texts -> Encoded (ids, character offsets, word and sequence ids, special mask, tokens lost)
    pad: Encoded, ... -> input_ids, attention_mask [batch, seq] int64, padded on the right

Promise: offsets are positions in the text as given; nothing is cut without being counted (`lost`)
and, unless asked otherwise, told; an empty text is the special tokens alone; calls are thread-safe.
The C library's tokenizer (own.py) reads the files that it covers, the `tokenizers` package
(package.py) the others; ids are equal. Not here: what the ids mean to a model (model.py), or to a
task (tasks/). Long because every refusal of a folder or a text stands here.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np

from ..backends.backend import why_not_native
from ..errors import ModelFormatError, TruncationWarning, shown
from ..files.folder import TOKENIZER, ModelFolder
from ..files.identity import Identity, identity_of
from ..files.tokenizer_files import ROLES, TokenizerSettings, tokenizer_settings
from .columns import Codec, Columns, span
from .own import OwnCodec
from .package import PackageCodec

T = TypeVar("T")
Text: TypeAlias = "str | tuple[str, str] | list[str]"
"""A text, or a pair of texts."""

POLICIES = ("warn", "error", "silent", "never")
"""What becomes of a text over the limit: cut and told, refused, cut (still counted), left whole."""


SHOWN = 8  # tokens of an encoding that its repr shows


@dataclass(frozen=True)
class Encoded:
    """One tokenized text or pair, or a part of it, special tokens included.

    kept: the slices of `whole` that it consists of; lost: tokens that truncation cut.
    """

    whole: Columns
    kept: tuple[slice, ...] = (slice(None),)
    lost: int = 0

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _length(self) -> int:
        return sum(len(range(*part.indices(self.whole.length))) for part in self.kept)

    def __repr__(self) -> str:
        tokens = self.tokens
        shown = ", ".join(map(repr, tokens[:SHOWN])) + (", .." if len(tokens) > SHOWN else "")
        lost = f", {self.lost} lost" if self.lost else ""
        return f"Encoded({len(tokens)} tokens: {shown}{lost})"

    def _column(self, values: list[T]) -> list[T]:
        first, *more = self.kept
        return sum((values[part] for part in more), values[first])

    @property
    def ids(self) -> list[int]:
        return self._column(self.whole.ids)

    @property
    def tokens(self) -> list[str]:
        return self._column(self.whole.tokens)

    @property
    def type_ids(self) -> list[int]:
        return self._column(self.whole.type_ids)

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Per token, [start, end) in characters of its own text; (0, 0) for special tokens."""
        return self._column(self.whole.offsets)

    @property
    def word_ids(self) -> list[int | None]:
        """Per token, the index of its pre-tokenized word; None for special tokens."""
        return self._column(self.whole.word_ids)

    @property
    def sequence_ids(self) -> list[int | None]:
        """Per token, 0 for the first text, 1 for the second; None for special tokens."""
        return self._column(self.whole.sequence_ids)

    @property
    def special(self) -> list[bool]:
        """Per token, True for those that the template added (not for a [MASK] in the text)."""
        return self._column(self.whole.special)


class Tokenizer:
    """A folder's tokenizer.

    `max_length`: the most tokens a text may have, specials included, or None when neither
    tokenizer_config.json (model_max_length) nor config.json (max_position_embeddings) says.
    `truncation_side`: the end of a long text that goes, "right" or "left". `cls_token_id`,
    `sep_token_id`, `pad_token_id`, `mask_token_id`, `unk_token_id`, ...: None when the folder names
    no such token, or one that the vocabulary lacks.
    """

    def __init__(self, codec: Codec, settings: TokenizerSettings) -> None:
        self.truncation_side: str = settings.truncation_side or codec.truncation_side or "right"
        self.codec = codec
        self.max_length = settings.limit
        special = {role: _special_id(codec, role, settings) for role in ROLES}
        self.cls_token_id = special["cls"]
        self.sep_token_id = special["sep"]
        self.pad_token_id = special["pad"]
        self.mask_token_id = special["mask"]
        self.unk_token_id = special["unk"]
        self.bos_token_id = special["bos"]
        self.eos_token_id = special["eos"]
        self.subword_prefix = codec.subword_prefix
        self._settings = settings
        self._file: tuple[Path, Identity, bool] | None = None

    @cached_property
    def vocab(self) -> dict[str, int]:
        """Token -> id, added ones too."""
        return self.codec.vocabulary()

    def __repr__(self) -> str:
        limit = f", {self.max_length:,} at most in a text" if self.max_length else ""
        return f"Tokenizer({len(self.vocab):,} tokens{limit})"

    @classmethod
    def from_folder(
        cls, folder: str | PathLike[str] | ModelFolder, *, lowercase: bool = False
    ) -> Tokenizer:
        """Read tokenizer.json, and what the files beside it say (files/tokenizer_files.py);
        `lowercase` lowers every text first (`do_lower_case`).

        folder: a model folder, or one that was read already, whose files are not opened again.
        Raises MissingExtraError where the file needs the `tokenizers` package and there is none;
        ModelFormatError when tokenizer.json is absent or broken, when a file beside it is, when the
        vocabulary has ids that the model has no row for, or when a model was saved into the folder
        since it was read, whose tokenizer may be another; TypeError for what is no folder.
        """
        if not isinstance(folder, (str, PathLike, ModelFolder)):
            raise TypeError(
                f"folder is {folder!r}; it must be a model folder with a {TOKENIZER} (model.folder "
                "is None for a model that came from none)"
            )
        source = folder if isinstance(folder, ModelFolder) else ModelFolder(folder)
        path = source.tokenizer / TOKENIZER
        if not path.is_file():
            raise ModelFormatError(
                "no such file, so text cannot be turned into ids; copy the tokenizer.json that the "
                "model was trained with into the folder, or call the model with input_ids",
                file=path,
            )
        settings = tokenizer_settings(source)
        identity = identity_of(path)
        codec = _codec(path, settings, lowercase)
        _check_vocabulary(codec, settings.vocab_size, path)
        if (file := source.replaced()) is not None:
            raise ModelFormatError("was replaced since the folder was read", file=file)
        out = cls(codec, settings)
        out._file = path, identity, lowercase
        return out

    def digest(self) -> str:
        """sha256 of what decides which ids a text has: tokenizer.json and what stands beside it.

        Raises ValueError for a tokenizer that came from no folder; OSError where the file is gone
        or was changed since it was read.
        """
        if self._file is None:
            raise ValueError("this tokenizer was not read from a folder, so nothing names its file")
        path, identity, lowercase = self._file
        content = path.read_bytes()
        if identity_of(path) != identity:
            raise OSError(f"{path} was changed since it was read; load the model anew")
        return hashlib.sha256(content + repr((self._settings, lowercase)).encode()).hexdigest()

    # -- text -> ids --------------------------------------------------------------------------

    def encode(
        self,
        text: str,
        pair: str | None = None,
        *,
        max_length: int | None = None,
        truncate: str = "warn",
        add_special_tokens: bool = True,
    ) -> Encoded:
        """One text, or one text and its pair; see `encode_batch`."""
        texts = [text if pair is None else (text, pair)]
        return self.encode_batch(
            texts, max_length=max_length, truncate=truncate, add_special_tokens=add_special_tokens
        )[0]

    def encode_batch(
        self,
        texts: Sequence[Text],
        *,
        max_length: int | None = None,
        truncate: str = "warn",
        add_special_tokens: bool = True,
    ) -> list[Encoded]:
        """Texts or pairs in order, each at most `max_length` tokens (default: the tokenizer's).

        `truncate` is one of POLICIES; what is cut comes off the end (`truncation_side`), of the
        longer of a pair first. Raises TypeError for what is not text, naming its position;
        ValueError for an unknown policy, a limit without room, a lone surrogate, or (policy
        "error") a text over the limit. Warns TruncationWarning once per call (policy "warn").
        """
        if truncate not in POLICIES:
            raise ValueError(f"truncate must be one of {', '.join(POLICIES)}, not {truncate!r}")
        if isinstance(texts, str):
            raise TypeError("texts must be a sequence of texts, not a str; use encode for one text")
        inputs = [_checked(text, i) for i, text in enumerate(texts)]
        limit = self.max_length if max_length is None else max_length
        is_pair = any(isinstance(text, tuple) for text in inputs)
        if limit is not None:
            self.room(limit, pair=is_pair, add_special_tokens=add_special_tokens)
        encoded = [Encoded(columns) for columns in self.codec.encode(inputs, add_special_tokens)]
        long = [i for i, e in enumerate(encoded) if limit is not None and len(e) > limit]
        if not long or limit is None or truncate == "never":
            return encoded
        if truncate == "error":
            raise ValueError(
                f"texts[{long[0]}] has {len(encoded[long[0]])} tokens, over max_length {limit} "
                f"({len(long)} of {len(encoded)} texts are); shorten it, raise max_length, or "
                'pass truncate="warn"'
            )
        for i in long:
            encoded[i] = _cut(encoded[i].whole, limit, self.truncation_side)
        if truncate == "warn":
            warn_truncated([e.lost for e in encoded], limit)
        return encoded

    def chunks(
        self, text: str, pair: str | None = None, *, max_length: int, stride: int
    ) -> list[Encoded]:
        """A long text in pieces of at most `max_length` tokens that overlap by `stride` tokens;
        with a pair, the first text is whole in every piece and the second is split.

        Raises ValueError when the pieces would have no room for more than the overlap.
        """
        inputs = _checked(text if pair is None else (text, pair), 0)
        whole = self.codec.encode([inputs])[0]
        room = self.room(max_length, pair=pair is not None)
        if pair is not None:
            start, end = span(whole, 0)
            room -= end - start
            if room < 1:
                raise ValueError(
                    f"the first text has {end - start} tokens, which leaves no room for the second "
                    f"within max_length {max_length}"
                )
        if not 0 <= stride < room:
            raise ValueError(
                f"stride {stride} must be from 0 to {room - 1}: a piece has room for {room} tokens "
                f"within max_length {max_length}"
            )
        first, end = span(whole, 0 if pair is None else 1)
        starts = range(first, max(end - stride, first + 1), room - stride)
        return [
            Encoded(whole, (slice(first), slice(start, min(start + room, end)), slice(end, None)))
            for start in starts
        ]

    def room(self, max_length: int, *, pair: bool = False, add_special_tokens: bool = True) -> int:
        """Tokens of text that fit into `max_length`; ValueError when none does."""
        if isinstance(max_length, bool) or not isinstance(max_length, (int, np.integer)):
            raise TypeError(f"max_length must be an int, not {type(max_length).__name__}")
        special = self.codec.special_tokens(pair) if add_special_tokens else 0
        if max_length <= special:
            raise ValueError(
                f"max_length {max_length} leaves no room for text: "
                f"{'a pair' if pair else 'a text'} has {special} special tokens"
            )
        return int(max_length) - special

    def pad(
        self, encodings: Sequence[Encoded], *, token_type_ids: bool = False
    ) -> dict[str, np.ndarray]:
        """`input_ids` and `attention_mask` (and `token_type_ids`) [batch, seq] int64.

        Padded on the right to the longest. Raises ValueError for no encodings, or for ragged ones
        without a pad token.
        """
        if not encodings:
            raise ValueError("encodings is empty: there is nothing to pad")
        lengths = np.array([len(e) for e in encodings])
        if self.pad_token_id is None and lengths.min() != lengths.max():
            raise ValueError(
                "this tokenizer names no padding token, so texts of different lengths "
                "cannot share a batch; use batch_size=1 or set pad_token_id in config.json"
            )
        here = np.arange(lengths.max()) < lengths[:, None]

        def padded(rows: Iterable[list[int]], padding: int) -> np.ndarray:
            out = np.full(here.shape, padding, np.int64)
            out[here] = [value for row in rows for value in row]
            return out

        inputs = {
            "input_ids": padded((e.ids for e in encodings), self.pad_token_id or 0),
            "attention_mask": here.astype(np.int64),
        }
        if token_type_ids:
            inputs["token_type_ids"] = padded((e.type_ids for e in encodings), 0)
        return inputs

    # -- ids -> text --------------------------------------------------------------------------

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text of `ids`."""
        return self.codec.decode([int(i) for i in ids], skip_special_tokens)

    def token(self, token_id: int) -> str:
        """The token of an id as the vocabulary spells it. Raises ValueError for an unknown id."""
        token = self.codec.token(int(token_id))
        if token is None:
            raise ValueError(f"id {token_id} is not in the vocabulary")
        return token

    def join(self, tokens: Sequence[str]) -> str:
        """The text that vocabulary tokens stand for."""
        return self.codec.join(tokens)


def _cut(whole: Columns, limit: int, side: str) -> Encoded:
    """At most `limit` tokens: the ends of the texts go (or, side "left", their beginnings), of the
    longer of a pair first.

    The shorter keeps all that it has up to half of the room, as the package has it; of an odd room
    the longer gets one more, of equally long texts the second.
    """
    spans = [span(whole, 0), span(whole, 1)]
    lengths = [end - start for start, end in spans]
    room = limit - (whole.length - sum(lengths))
    short = min(*lengths, room // 2)
    keep = (room - short, short) if lengths[0] > lengths[1] else (short, room - short)
    gaps = [
        (start, end - kept) if side == "left" else (start + kept, end)
        for (start, end), kept in zip(spans, keep, strict=True)
    ]
    (gap, end_gap), (gap_2, end_gap_2) = sorted(gaps)
    kept_parts = (slice(gap), slice(end_gap, gap_2), slice(end_gap_2, None))
    return Encoded(whole, kept_parts, whole.length - limit)


def warn_truncated(lost: Sequence[int], limit: int | None) -> None:
    """One TruncationWarning for all texts of a call, or none when nothing was lost."""
    cut = [i for i, n in enumerate(lost) if n]
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(lost)} texts cut to max_length {limit}: {sum(lost)} tokens lost "
            f"(texts[{cut[0]}] the first, {lost[cut[0]]} tokens)",
            TruncationWarning,
            stacklevel=3,
        )


def _checked(text: Text, i: int) -> str | tuple[str, str]:
    """The text or pair, if it is one and can be written as UTF-8."""
    parts = [text] if isinstance(text, str) else text
    is_pair = isinstance(text, (tuple, list)) and len(text) == 2
    if not (isinstance(text, str) or is_pair) or not all(isinstance(part, str) for part in parts):
        raise TypeError(f"texts[{i}] must be a str or a pair of str, not {_described(text)}")
    for part in parts:
        try:
            part.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"texts[{i}] holds a lone surrogate at character {error.start}: it is not text"
            ) from None
    return parts[0] if isinstance(text, str) else (parts[0], parts[1])


def _described(value: object) -> str:
    if isinstance(value, (tuple, list)):
        kinds = ", ".join(type(part).__name__ for part in value[:3])
        return f"a {type(value).__name__} of {len(value)} ({kinds})"
    return type(value).__name__


def _codec(path: Path, settings: TokenizerSettings, lowercase: bool) -> Codec:
    """The C library's where it covers the file with what stands beside it, else the package's."""
    reason = why_not_native()
    if reason is None and lowercase:
        reason = "do_lower_case is for it alone"
    if reason is None:
        try:
            own = OwnCodec.read(path)
            _add_tokens(own, settings)
            return own
        except (OSError, ValueError) as error:
            reason = str(error)
    package = PackageCodec.read(path, lowercase=lowercase, reason=str(reason))
    _add_tokens(package, settings)
    return package


def _add_tokens(codec: Codec, settings: TokenizerSettings) -> None:
    """Tokens that the files beside tokenizer.json list and it has not, or has otherwise.

    In transformers' order: those with flags by their ids, then special ones by name. A named one
    that would get an id without a row in the embedding stays out: no text can mean it.
    """
    known = set(codec.added())
    contents = {token.content for token in known}
    special = {token.content for token in settings.named}
    for token in (*settings.added, *settings.named):
        named = token in settings.named and token not in settings.added
        new = replace(token, special=token.special or token.content in special)
        if new in known or (named and token.content in contents):
            continue
        grows = codec.id(token.content) is None
        size = settings.vocab_size
        if named and grows and size is not None and codec.ids >= size:
            continue
        codec.add([new])
        contents.add(token.content)
    if settings.split_special:
        codec.split_special()


def _special_id(codec: Codec, role: str, settings: TokenizerSettings) -> int | None:
    """The id of a special token: by the name that the folder gives it, else by config.json's id."""
    name = settings.names.get(role)
    return settings.ids.get(role) if name is None else codec.id(name)


def _check_vocabulary(codec: Codec, vocab_size: int | None, path: Path) -> None:
    """Every id that the tokenizer can give must be a row of the model's embedding."""
    if vocab_size is None or codec.ids <= vocab_size:
        return
    token_id = min(i for i in codec.vocabulary().values() if i >= vocab_size)
    raise ModelFormatError(
        f"token {shown(codec.token(token_id))} has id {token_id}, but the model's vocab_size is "
        f"{vocab_size} (config.json): this tokenizer belongs to another model",
        file=path,
    )
