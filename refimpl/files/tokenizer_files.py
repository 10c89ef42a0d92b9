"""What a folder says about its tokenizer beside tokenizer.json: special tokens, limits, sides.

    tokenizer_settings(folder) -> TokenizerSettings

Reads tokenizer_config.json and, where that has no `added_tokens_decoder`, the older files
special_tokens_map.json (which then wins over it) and added_tokens.json, as transformers does; of
config.json the ids of special tokens, the size of the vocabulary and the longest input. Promise: a
key that changes ids is read, or refused; one that nobody knows is told. Pure but for the reading.
Long because every key that transformers writes stands here, with what is done about it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ModelFormatError, shown
from .entry import Entry
from .folder import CONFIG, ModelFolder

SETTINGS, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
ROLES = ("cls", "sep", "pad", "mask", "unk", "bos", "eos")
SIDES = ("right", "left")
FLAGS = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True}

# Keys of tokenizer_config.json that change no id.
_IN_JSON = "what it would do is in tokenizer.json, which is used as it is"
_OTHER = "for other uses than text to ids"
HARMLESS: Mapping[str, str] = {
    **dict.fromkeys(
        ("tokenizer_class", "backend", "name_or_path", "tokenizer_file", "init_inputs", "is_local",
         "local_files_only", "processor_class", "auto_map", "files_loaded", "verbose"),
        "how transformers finds and builds its tokenizer",
    ),
    **dict.fromkeys(
        ("add_prefix_space", "trim_offsets", "errors", "do_lower_case", "do_basic_tokenize",
         "never_split", "strip_accents", "tokenize_chinese_chars", "legacy", "add_bos_token",
         "add_eos_token", "vocab_file", "merges_file", "clean_text"),
        _IN_JSON,
    ),
    **dict.fromkeys(
        ("chat_template", "response_template", "response_schema", "chat_control_tokens"), _OTHER
    ),
    **dict.fromkeys(
        ("padding_side", "pad_to_multiple_of", "pad_token_type_id", "max_length", "stride",
         "truncation_strategy", "padding", "truncation", "return_token_type_ids"),
        "how a batch of transformers is laid out; a text's own ids are the same",
    ),
    "model_input_names": "which arrays a call of transformers returns",
    "clean_up_tokenization_spaces": "about turning ids back into text",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": "the same",
    "fix_mistral_regex": "about tokenizers of another family",
}  # fmt: skip


@dataclass(frozen=True)
class Token:
    """A token that text is searched for before it is split, as tokenizers.AddedToken has it."""

    content: str
    special: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = True


@dataclass(frozen=True)
class TokenizerSettings:
    """names: role -> token, of ROLES; ids: role -> id that config.json gives a role without name.

    added: tokens that the files list, in order; those that tokenizer.json has otherwise take these
    flags. named: special tokens by any name, which become tokens where tokenizer.json has none.
    limit: the most tokens of a text, None without one. vocab_size: rows of the model's embedding,
    None where config.json does not say. truncation_side: which end of a long text goes, None where
    tokenizer.json decides. split_special: special tokens in a text are text.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, int] = field(default_factory=dict)
    added: tuple[Token, ...] = ()
    named: tuple[Token, ...] = ()
    limit: int | None = None
    vocab_size: int | None = None
    truncation_side: str | None = None
    split_special: bool = False


def tokenizer_settings(folder: ModelFolder) -> TokenizerSettings:
    """See above. Raises ModelFormatError; warns of keys that nobody knows."""
    root = folder.tokenizer
    settings = folder.entry(root / SETTINGS)
    config = folder.entry(folder.file(CONFIG)).values
    newer = settings.get("added_tokens_decoder", dict, None)
    special = Entry(settings.file, {}) if newer is not None else folder.entry(root / SPECIAL)
    named = _names_of(settings) | _names_of(special)
    extra = _extra_of(settings, "additional_special_tokens", "extra_special_tokens")
    older = ("additional_special_tokens",) if not extra else ()
    extra = (*extra, *_extra_of(special, *older, "extra_special_tokens"))
    if newer is not None:
        added = [_token(settings, f"added_tokens_decoder.{i}", newer[i]) for i in _ordered(newer)]
    else:
        names = {token.content for token in (*named.values(), *extra)}
        listed = folder.entry(root / ADDED).values
        ordered = sorted(listed, key=lambda c: folder.entry(root / ADDED).get(c, (int, float)))
        added = [Token(c, c in names, normalized=c not in names) for c in ordered]
    own = "model_max_length" if "model_max_length" in settings.values else "max_len"
    entries = (settings, own), (folder.entry(folder.file(CONFIG)), "max_position_embeddings")
    limits = [_limit(entry, key) for entry, key in entries]
    side = settings.get("truncation_side", str, None)
    if side not in (None, *SIDES):
        raise settings.refuse("truncation_side", f"supported: {', '.join(SIDES)}")
    split = settings.get("split_special_tokens", bool, None)
    _tell_unknown(settings)
    _tell_unknown(special)
    size = config.get("vocab_size")
    ids = {role: _id(config.get(f"{role}_token_id"), size) for role in ROLES}
    return TokenizerSettings(
        names={r: named[f"{r}_token"].content for r in ROLES if f"{r}_token" in named},
        ids={role: i for role, i in ids.items() if i is not None},
        added=tuple(added),
        named=(*named.values(), *extra),
        limit=min((n for n in limits if n is not None), default=None),
        vocab_size=size if isinstance(size, int) else None,
        truncation_side=side,
        split_special=bool(split),
    )


def _names_of(entry: Entry) -> dict[str, Token]:
    """Key -> special token, of every `*_token`."""
    out: dict[str, Token] = {}
    for key, value in entry.values.items():
        if key.endswith("_token") and not key.startswith("add_"):
            entry.taken.add(key)
            if value is not None:
                out[key] = _token(entry, key, value, special=True)
    return out


def _extra_of(entry: Entry, *keys: str) -> tuple[Token, ...]:
    """Special tokens without a role: a list, or an object of names and tokens."""
    entry.taken.update(("additional_special_tokens", "extra_special_tokens"))
    out: list[Token] = []
    for key in keys:
        value = [] if entry.values.get(key) is None else entry.values[key]
        if not isinstance(value, (list, dict)):
            raise entry.refuse(key, "it must be a list, or an object")
        listed = value.values() if isinstance(value, dict) else value
        out += [_token(entry, key, one, special=True) for one in listed]
    return tuple(out)


def _token(entry: Entry, key: str, value: Any, special: bool | None = None) -> Token:
    """A token as a file spells it: its text, or an object with its flags."""
    if isinstance(value, str):
        return Token(value, special=True, normalized=False)
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, str):
        raise ModelFormatError(
            f"is {shown(value)}; it must be a text, or an object with one as content",
            file=entry.file, key=key,
        )  # fmt: skip
    flags = {name: value.get(name, default) for name, default in FLAGS.items()}
    flags["special"] = value.get("special", False) if special is None else special
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise ModelFormatError(f"has the flags {shown(flags)}; they must be true or false",
                               file=entry.file, key=key)  # fmt: skip
    return Token(content, **flags)


def _ordered(decoder: Mapping[str, Any]) -> list[str]:
    return sorted(decoder, key=lambda i: int(i) if i.isdecimal() else -1)


def _limit(entry: Entry, key: str) -> int | None:
    """The number of tokens under that key; None where there is no limit, also spelled as 1e30."""
    entry.taken.add(key)
    value = entry.values.get(key)
    if not isinstance(value, (int, float)) or not value < 2**31:
        return None
    if value < 1:
        raise entry.refuse(key, "it must be at least 1")
    return int(value)


def _id(value: Any, vocab_size: Any) -> int | None:
    """config.json's id; None for an impossible one, which names no token."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return None
    return None if isinstance(vocab_size, int) and value >= vocab_size else value


def _tell_unknown(entry: Entry) -> None:
    unknown = [key for key in entry.values if key not in entry.taken and key not in HARMLESS]
    if unknown:
        warnings.warn(
            f"{entry.file}: {', '.join(unknown)}: no key that is known; not read",
            UserWarning,
            stacklevel=3,
        )
