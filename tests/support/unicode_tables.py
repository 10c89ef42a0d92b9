"""The tables of csrc/text/unicode.inc, as the `tokenizers` package behaves for every code point.

    python tests/support/unicode_tables.py > csrc/text/unicode.inc

Asked of the package rather than of a version of Unicode, since it has three: its pre-tokenizer's
letters are newer than its normalizer's marks. tests/text/test_unicode_tables.py holds the file
against the package that is installed. Takes half a minute.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

LETTER, NUMBER, SPACE, WORD = 1, 2, 4, 8
FILE = Path(__file__).resolve().parents[2] / "csrc" / "text" / "unicode.inc"
POINTS = [p for p in range(0x110000) if not 0xD800 <= p < 0xE000]


def kinds() -> list[int]:
    r"""Per code point, the sum of LETTER (\p{L}), NUMBER (\p{N}) and SPACE (\s) as the byte-level
    pattern has them, and WORD (\w) as single_word has it."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str
    tokenizer = Tokenizer(models.BPE({"Y": 0}, []))
    tokenizer.add_tokens([AddedToken("X", single_word=True)])
    out = [0] * 0x110000
    for p in POINTS:
        c = chr(p)
        joins = [len(split(probe + c)) == 1 for probe in "a1!"]
        kind = {(True, False, False): LETTER, (False, True, False): NUMBER}
        out[p] = kind.get(tuple(joins), SPACE if not any(joins) else 0)
        if p != ord("X") and 1 not in tokenizer.encode("X" + c).ids:
            out[p] |= WORD
    out[ord("'")] = 0  # "a'" is the beginning of a contraction, not a letter
    out[ord("X")] |= WORD
    return out


def marks() -> dict[int, int]:
    """Code point -> canonical combining class, of marks that the normalizer sorts."""
    order = normalizers.NFD().normalize_str
    out = {}
    for p in POINTS:
        c = chr(p)
        # After U+0345 (class 240), before U+0334 (class 1): a mark moves, anything else stays.
        if unicodedata.combining(c) and order(f"a\u0345{c}\u0334") != f"a\u0345{c}\u0334":
            out[p] = unicodedata.combining(c)
    return out


def decompositions() -> dict[int, tuple[int, ...]]:
    """Code point -> its full canonical decomposition; Hangul, which is arithmetic, left out."""
    nfd = normalizers.NFD().normalize_str
    split = {p: nfd(chr(p)) for p in POINTS if not 0xAC00 <= p < 0xD7A4}
    return {p: tuple(map(ord, s)) for p, s in split.items() if s != chr(p)}


def compositions(decomposed: Iterable[int]) -> dict[tuple[int, int], int]:
    """(first, second) -> the code point that they compose to."""
    nfc = normalizers.NFC().normalize_str
    out = {}
    for p in decomposed:
        pair = [int(part, 16) for part in unicodedata.decomposition(chr(p)).split()]
        if len(pair) == 2 and nfc(chr(p)) == chr(p):
            out[pair[0], pair[1]] = p
    return out


def runs(values: list[int]) -> Iterator[tuple[int, int]]:
    """(first code point, value) where the value changes."""
    before = -1
    for p, value in enumerate(values):
        if value != before:
            yield p, value
            before = value


def table(name: str, kind: str, what: str, rows: Iterable[tuple[int, ...]]) -> str:
    cells = ["{" + ",".join(f"0x{n:x}" if n > 9 else str(n) for n in row) + "}" for row in rows]
    lines, line = [], ""
    for cell in cells:
        if len(line) + len(cell) > 116:
            lines, line = [*lines, line], ""
        line += cell + ","
    body = "\n    ".join([*lines, line])
    return f"// {what}\nconstexpr {kind} {name}[] = {{\n    {body}\n}};\n"


def text() -> str:
    split, mark = decompositions(), marks()
    longest = max(map(len, split.values()))
    joined = sorted((a, b, p) for (a, b), p in compositions(split).items())
    return "\n".join(
        [
            "// What text is, by code point: made by tests/support/unicode_tables.py.\n",
            table("kKinds", "Run", "Where kinds change: 1 letter + 2 number + 4 space + 8 word.",
                  runs(kinds())),
            table("kMarks", "Run", "Where combining classes change.",
                  runs([mark.get(p, 0) for p in range(0x110000)])),
            f"constexpr int kLongest = {longest};  // of a decomposition\n",
            table("kSplits", "Split", "Full canonical decompositions, 0 where they are shorter.",
                  ((p, *s, *[0] * (longest - len(s))) for p, s in split.items())),
            table("kJoins", "Join", "Pairs that compose, sorted, and what they make.", joined),
        ]
    )  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(text())
