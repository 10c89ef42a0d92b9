"""Tokens and texts as a page spells them: everything that cannot be seen has a sign or a number.

A space is U+2423, a line's end U+21B5, a tab U+21E5; controls, formats (those that turn the
direction of writing among them) and what is no character are written as \\u202e. Tokens that are
parts of a character keep the vocabulary's spelling.
"""

from __future__ import annotations

import unicodedata

from ...text.tokenizer import Tokenizer

SIGNS = {" ": "\u2423", "\n": "\u21b5", "\t": "\u21e5"}
UNSEEN = ("C", "Zl", "Zp")  # the categories of Unicode


def visible(text: str, *, spaces: bool = True) -> str:
    """text with signs; spaces: False leaves U+0020 as it is, for text that is read as such."""
    out = []
    for c in text:
        if c == " " and not spaces:
            out.append(c)
        elif c in SIGNS:
            out.append(SIGNS[c])
        elif unicodedata.category(c).startswith(UNSEEN):
            out.append(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}")
        else:
            out.append(c)
    return "".join(out)


def spelled(tokenizer: Tokenizer, token_id: int) -> str:
    """A token as it stands in a text, or else as the vocabulary has it."""
    text = tokenizer.decode([token_id])
    return visible(tokenizer.token(token_id) if not text or "\ufffd" in text else text)


def cut(text: str, most: int) -> str:
    """text, or its beginning and three dots."""
    return text if len(text) <= most else text[: most - 3] + "..."
