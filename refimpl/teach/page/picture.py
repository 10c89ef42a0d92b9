"""One layer's attention as an SVG picture for slides: one head, or all of them.

    svg = picture(explained(text), layer=2, head=0)

A row for each query, a column for each key; a cell's darkness is the square root of (27), keys that
the window hides are hatched. Of one head the tokens stand beside the cells, and the probs in them
where there is room. A long text gives its part around the token that is looked at first. Plain
attributes on white paper: what shows slides knows no style sheets.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from .explained import Explained
from .spelling import cut, visible

Array = np.ndarray

MOST_OF_ONE, MOST_OF_ALL = 48, 64  # tokens to a side
SHADES = 64  # of a map among others: its cells are drawn shade by shade
NUMBERS = 12  # so many tokens have their probs written into the cells
PAPER, INK, SOFT, RGB = "#ffffff", "#1a1d21", "#5a6270", (8, 42, 96)
TOP, GAP, LABEL = 54, 16, 110
LONGEST_TOKEN, LONGEST_TEXT = 14, 50
LEGEND = " - rows look at columns; hatched: not seen"


def picture(found: Explained, layer: int = 0, head: int | None = None) -> str:
    """The picture as text. Raises ValueError for a layer or a head that the model has not."""
    config = found.config
    for name, value, size in (
        ("layer", layer, config.num_hidden_layers),
        ("head", head, config.num_attention_heads),
    ):
        if value is not None and not 0 <= value < size:
            raise ValueError(f"{name} is {value}; the model has {size}, 0 to {size - 1}")
    maps, first = part(found, layer, MOST_OF_ALL if head is None else MOST_OF_ONE)
    if head is None:
        return all_heads(found, layer, maps, first)
    return one_head(found, layer, head, maps[head], first)


def part(found: Explained, layer: int, most: int) -> tuple[Array, int]:
    """Probs [heads, n, n] of up to `most` tokens around the centre whose rows there are, NaN where
    a key is not seen; and the first of those tokens."""
    rows = np.arange(len(found.ids)) if found.chosen.whole else np.array(found.chosen.rows)
    run = [i for i in rows if abs(i - found.centre) <= most]
    start = max(run[0], min(found.centre - most // 2, run[-1] + 1 - most))
    tokens = np.array([i for i in run if start <= i < start + most])
    window, seq = found.config.window(layer), len(found.ids)
    probs = found.arrays[f"layers.{layer}.probs"]
    banded = window is not None and 2 * window + 1 < seq
    out = np.full((probs.shape[0], len(tokens), len(tokens)), np.nan)
    for a, i in enumerate(tokens):
        for b, j in enumerate(tokens):
            if window is None or abs(i - j) <= window:
                key = j - i + window if banded and window is not None else j
                out[:, a, b] = probs[:, int(np.searchsorted(rows, i)), key]
    return out, int(tokens[0])


def one_head(found: Explained, layer: int, head: int, probs: Array, first: int) -> str:
    n = len(probs)
    cell = max(12, min(44, 640 // n))
    left, top, size = LABEL + GAP, TOP + LABEL, 12 if cell > 14 else 10
    names = [cut(t, LONGEST_TOKEN) for t in found.tokens[first : first + n]]
    parts = []
    for a, name in enumerate(names):
        middle = (a + 0.5) * cell + 4
        parts.append(text(left - 6, top + middle, name, anchor="end", mono=True, size=size))
        x, y = left + middle, top - 6
        turn = f"rotate(-90 {x:g} {y:g})"
        parts.append(text(x, y, name, mono=True, turn=turn, size=size))
    parts.append(ground(n, left, top, cell))
    parts += cells(found, probs, first, left, top, cell)
    side = n * cell
    title = (
        f"layer {layer}, head {head}: {seen_in_words(found, layer)}{of_the_text(found, first, n)}"
    )
    return document(left + side + GAP, top + side + GAP, title, found, parts)


def all_heads(found: Explained, layer: int, maps: Array, first: int) -> str:
    heads, n, _ = maps.shape
    across = math.ceil(math.sqrt(heads))
    cell = max(4, 320 // n)
    side = n * cell
    parts = []
    for head in range(heads):
        left = GAP + (head % across) * (side + GAP)
        top = TOP + 18 + (head // across) * (side + GAP + 18)
        parts.append(text(left, top - 5, f"head {head}", colour=SOFT))
        parts.append(ground(n, left, top, cell))
        parts += runs(maps[head], left, top, cell)
    down = math.ceil(heads / across)
    title = f"layer {layer}: {seen_in_words(found, layer)}{of_the_text(found, first, n)}"
    width = GAP + across * (side + GAP)
    return document(width, TOP + down * (side + GAP + 18) + GAP, title, found, parts)


def cells(
    found: Explained, probs: Array, first: int, left: int, top: int, cell: int
) -> Iterator[str]:
    """A map's cells, each with its tokens and its number; written where there is room."""
    n = len(probs)
    for a, b in np.argwhere(~np.isnan(probs)):
        p = float(probs[a, b])
        x, y = left + int(b) * cell, top + int(a) * cell
        pair = f"{found.tokens[first + a]} looks at {found.tokens[first + b]}: {p:.4f}"
        yield (
            f'<rect x="{x}" y="{y}" width="{cell}" height="{cell}" fill="{shade(p)}" '
            f'stroke="{PAPER}"><title>{html.escape(pair)}</title></rect>'
        )
        if n <= NUMBERS:
            colour = PAPER if math.sqrt(p) > 0.55 else INK
            middle = x + cell / 2, y + cell / 2 + 4
            yield text(*middle, f"{p:.2f}", anchor="middle", colour=colour, size=11)


def runs(probs: Array, left: int, top: int, cell: int) -> Iterator[str]:
    """A map's cells as one path for each of SHADES: alike neighbours in a row are joined."""
    found: dict[int, list[str]] = {}
    levels = np.where(np.isnan(probs), -1.0, np.rint(np.sqrt(probs) * (SHADES - 1))).astype(int)
    for a, row in enumerate(levels):
        ends = [0, *(np.flatnonzero(np.diff(row)) + 1), len(row)]
        for b, end in pairwise(map(int, ends)):
            if row[b] >= 0:
                x, wide = left + b * cell, (end - b) * cell
                box = f"M{x} {top + a * cell}h{wide}v{cell}H{x}z"
                found.setdefault(int(row[b]), []).append(box)
    for level, boxes in sorted(found.items()):
        yield f'<path fill="{shade((level / (SHADES - 1)) ** 2)}" d="{"".join(boxes)}"/>'


def ground(n: int, left: int, top: int, cell: int) -> str:
    """What lies below the cells: hatched, and so where a key is not seen."""
    side = n * cell
    return (
        f'<rect x="{left}" y="{top}" width="{side}" height="{side}" fill="url(#unseen)" '
        f'stroke="{SOFT}"/>'
    )


def shade(p: float) -> str:
    """White for 0, dark blue for 1, by the square root."""
    part = math.sqrt(min(max(p, 0.0), 1.0))
    return "#" + "".join(f"{round(255 + (c - 255) * part):02x}" for c in RGB)


def text(
    x: float, y: float, words: str, *, anchor: str = "start", colour: str = INK, size: int = 12,
    mono: bool = False, turn: str = "",
) -> str:  # fmt: skip
    family = ' font-family="monospace"' if mono else ""
    turned = f' transform="{turn}"' if turn else ""
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" text-anchor="{anchor}"'
        f"{family}{turned}>{html.escape(words)}</text>"
    )


def seen_in_words(found: Explained, layer: int) -> str:
    window = found.config.window(layer)
    return "every token is seen" if window is None else f"{window} tokens to each side are seen"


def of_the_text(found: Explained, first: int, n: int) -> str:
    seq = len(found.ids)
    return "" if n == seq else f"; tokens {first} to {first + n - 1} of {seq}"


def document(width: int, height: int, title: str, found: Explained, parts: list[str]) -> str:
    """The SVG element with its title, paper and legend."""
    words = cut(visible(found.text, spaces=False), LONGEST_TEXT) + LEGEND
    width = max(width, 2 * GAP + 8 * len(title), 2 * GAP + 7 * len(words))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-family="sans-serif">',
        f"<title>{html.escape(f'{title}. {words}')}</title>",
        '<defs><pattern id="unseen" width="6" height="6" patternUnits="userSpaceOnUse">'
        f'<rect width="6" height="6" fill="{PAPER}"/>'
        '<path d="M0 6L6 0" stroke="#c3c8d0"/></pattern></defs>',
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        text(GAP, 22, title, size=15),
        text(GAP, 41, words, colour=SOFT),
        *parts,
        "</svg>",
        "",
    ])  # fmt: skip
