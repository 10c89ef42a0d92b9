"""tokenizer.json files of every kind that the C library's tokenizer covers, made on the spot.

plain: the bundled model's; nfc: the same behind NFC, with added tokens of every flag;
characters: BPE over characters with bytes to fall back on, as mmBERT has it
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from refimpl.models.model import BUNDLED

# What a text may hold to be awkward: marks, Hangul, spaces of all kinds, literal tokens, emoji.
PIECES = [
    *["a", "b", " ", "  ", "    ", "\n", "\t", "'s", "'re", "'", "12", "\u00b2", "the", "Hello"],
    *["\u00e9", "e\u0301", "\u0301", "\u0327", "\u0344", "\u0f73", "\u0345", "\u212b", "\u0958"],
    *["\u1100", "\u1161", "\u11a8", "\uac00", "\ud55c", "\u4e2d", "\u3000", "\u00a0", "\u2028"],
    *["\U0001f600", "\U0001f468\u200d\U0001f469", "\u200b", "\ufeff", "\ufffd", "\x00", "\u2581"],
    *["[MASK]", " [MASK]", "[CLS]", "<|end|>", "|||", "Zq", "Zq\u00e9", "caf\u00e9", "<0x41>"],
]  # fmt: skip


def token(content: str, **flags: bool) -> dict[str, Any]:
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"content": content} | {name: flags.get(name, False) for name in names}


@cache
def plain() -> str:
    return (BUNDLED / "tokenizer.json").read_text(encoding="utf-8")


@cache
def nfc() -> str:
    content = json.loads(plain())
    content["normalizer"] = {"type": "NFC"}
    tokens = [
        token("  ", normalized=True),
        token("    ", normalized=True),
        token("cafe\u0301", normalized=True),
        token("<|end|>", special=True),
        token("|||", lstrip=True, special=True),
        token("Zq", single_word=True),
        token("12\u00e9", single_word=True, lstrip=True, normalized=True),
    ]
    first = len(content["model"]["vocab"])
    content["added_tokens"] += [t | {"id": first + i} for i, t in enumerate(tokens)]
    return json.dumps(content)


@cache
def characters() -> str:
    """Small, with tokens that have U+2581 at their beginning, within, and alone."""
    vocab = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{b:02X}>" for b in range(256))]
    vocab += [*"abcdefghijklmnopqrstuvwxyz0123456789_()[]':.,=HZM\u2581\u00e9"]
    merges = [
        "t h",
        "th e",
        "\u2581 the",
        "H e",
        "He l",
        "l o",
        "Hel lo",
        "\u2581 a",
        "a b",
        "b \u2581",
    ]
    merges += ["\u2581 \u2581", "\u2581\u2581 \u2581\u2581", "1 2", "ab a", "aba b"]
    vocab += [pair.replace(" ", "") for pair in merges]
    model = {
        "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
        "vocab": {t: i for i, t in enumerate(vocab)},
        "merges": [pair.split(" ") for pair in merges],
    }  # fmt: skip
    blank, space = "\u2581", " "
    special = {"<bos>": 2, "<eos>": 1}

    def element(name: str, type_id: int = 0) -> dict[str, Any]:
        kind = "SpecialToken" if name in special else "Sequence"
        return {kind: {"id": name, "type_id": type_id}}

    added = [(i, token(vocab[i], special=True)) for i in range(5)]
    new = [token("\n"), token("\n\n"), token("\u2581\u2581", normalized=True)]
    added += [(vocab.index("\u2581\u2581"), new[2]), (len(vocab), new[0]), (len(vocab) + 1, new[1])]
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i} | one for i, one in added],
        "normalizer": {"type": "Replace", "pattern": {"String": space}, "content": blank},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": space},
                          "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [element("<bos>"), element("A"), element("<eos>")],
            "pair": [element("<bos>"), element("A"), element("<eos>"),
                     element("B", 1), element("<eos>", 1)],
            "special_tokens": {n: {"id": n, "ids": [i], "tokens": [n]} for n, i in special.items()},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": blank}, "content": space},
            {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": model,
    })  # fmt: skip


KINDS = {"plain": plain, "nfc": nfc, "characters": characters}
