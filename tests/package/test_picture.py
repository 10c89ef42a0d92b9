"""The picture of local and full attention is drawn from the reference's own mask.

`python tests/package/test_picture.py` draws it anew.
"""

from pathlib import Path

import numpy as np

from refimpl import ModernBertConfig
from refimpl.reference.ops import visible

PICTURE = Path(__file__).resolve().parents[2] / "refimpl" / "reference" / "attention.svg"
TOKENS, CELL, GAP, TOP = 25, 7, 24, 44
SHOWN = (0, 1, 2, 3)
SEEN, UNSEEN, INK = "#2563eb", "#e5e7eb", "#6b7280"


def drawing() -> str:
    """Layers 0 to 3 of base, with a window of 8 in place of 128: row i shows what token i sees."""
    config = ModernBertConfig.from_variant("base", local_attention=8)
    axis, side = np.arange(TOKENS), TOKENS * CELL
    width, height = len(SHOWN) * (side + GAP) + GAP, TOP + side + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" font-family="sans-serif" font-size="13">',
        "<title>Which tokens a token sees, layer by layer: everything in every third layer, in the "
        "others those within half a window to each side</title>",
    ]
    for place, layer in enumerate(SHOWN):
        left = GAP + place * (side + GAP)
        kind = "full" if config.is_global(layer) else f"{config.window(layer)} to each side"
        parts.append(f'<text x="{left}" y="{TOP - 12}" fill="{INK}">layer {layer}: {kind}</text>')
        parts.append(f'<rect x="{left}" y="{TOP}" width="{side}" height="{side}" fill="{UNSEEN}"/>')
        mask = visible(axis, axis, config.window(layer))
        for row in axis:  # what a token sees is one run of tokens
            seen = np.flatnonzero(mask[row])
            parts.append(
                f'<rect x="{left + seen[0] * CELL}" y="{TOP + row * CELL}" '
                f'width="{len(seen) * CELL}" height="{CELL - 1}" fill="{SEEN}"/>'
            )
    return "\n".join([*parts, "</svg>", ""])


def test_picture_shows_what_the_mask_says():
    assert PICTURE.read_text(encoding="utf-8") == drawing()


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
