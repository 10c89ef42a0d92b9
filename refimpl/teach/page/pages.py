"""The page: one HTML file that asks for nothing else, made of frame.html, style.css and script/.

    html = page(explained(text));  page(one, other) shows two side by side

Promise: its policy (CSP) forbids every request, and every style and script but its own, which it
names by their hashes; text is escaped where it enters; numbers are those of numbers.py, which
`read_page` takes out again. The modules of script/ are put behind one another in the order of their
imports, without those lines: a page that is opened from a file may load no module.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..._version import __version__
from .blocks import blocks, facts
from .equations import ANSWERS, FUNCTIONS, STEPS
from .explained import Explained
from .numbers import Kept, packed, unpacked
from .spelling import cut, visible

FOLDER = Path(__file__).parent
FRAME, STYLE, SCRIPT, MAIN = "frame.html", "style.css", "script", "main.js"
IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z_]+\.js)";\n', re.MULTILINE)
BLOCK = re.compile(r'<script type="text/plain" id="([ab])\.([a-z0-9.]+)">([^<]*)</script>')
FACTS = re.compile(r'<script type="application/json" id="facts">([^<]*)</script>')
LONGEST_TITLE = 80
LARGEST = 8e6  # bytes of a page, unless said otherwise
TRIES = 4


def page(*found: Explained) -> str:
    """The page of one text, or of two beside each other, as one str of UTF-8 text."""
    if len(found) not in (1, 2):
        raise ValueError(f"a page shows one text, or two, not {len(found)}")
    sides, data = [], []
    for label, one in zip("ab", found, strict=False):
        kept = blocks(one)
        sides.append(facts(one, label, kept))
        for name, arrays in kept.items():
            data.append(f'<script type="text/plain" id="{label}.{name}">{packed(arrays)}</script>')
    about = {
        "version": __version__,
        "sides": sides,
        "steps": [step._asdict() for step in STEPS],
        "functions": FUNCTIONS,
        "answers": ANSWERS,
    }
    style = (FOLDER / STYLE).read_text(encoding="utf-8")
    script = joined_script(FOLDER / SCRIPT / MAIN)
    titles = [cut(visible(one.text, spaces=False), LONGEST_TITLE) for one in found]
    parts = {
        "policy": policy(style, script),
        "title": html.escape(" | ".join(titles)),
        "style": style,
        "facts": as_json(about),
        "blocks": "\n".join(data),
        "script": script,
    }
    frame = (FOLDER / FRAME).read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], frame)


def fitted_page(
    run_in: Callable[[float], list[Explained]], largest: float
) -> tuple[list[Explained], str]:
    """What run_in(bytes) gives, and its page of at most `largest` bytes: it is asked again with
    less where numbers pack worse than chosen.py took them to. ValueError where even that is too
    much."""
    budget = largest
    for _ in range(TRIES):
        found = run_in(budget)
        text = page(*found)
        size = len(text.encode("utf-8"))
        if size <= largest:
            return found, text
        budget *= 0.9 * largest / size
    raise ValueError(
        f"the page takes {size / 1e6:.1f} MB, over {largest / 1e6:g}: ask for fewer tokens, or for "
        "a larger page (--size)"
    )


def policy(style: str, script: str) -> str:
    """The content security policy: nothing from anywhere, and inline only what has these hashes."""
    return (
        f"default-src 'none'; style-src '{digest(style)}'; script-src '{digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def digest(text: str) -> str:
    """The source expression of an inline element."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def as_json(value: Any) -> str:
    """JSON in ASCII that ends no element: no `<` is in it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def joined_script(main: Path) -> str:
    """A module with those that it imports, as one script. ValueError for a circle of imports."""
    done: dict[Path, str] = {}

    def add(path: Path, above: tuple[Path, ...]) -> None:
        if path in above:
            raise ValueError(f"{path.name} imports itself, by {above[-1].name}")
        if path in done:
            return
        text = path.read_text(encoding="utf-8")
        for name in IMPORT.findall(text):
            add(path.parent / name, (*above, path))
        done[path] = re.sub(r"(?m)^export ", "", IMPORT.sub("", text))

    add(main, ())
    return '"use strict";\n{\n' + "\n".join(done.values()) + "}\n"


def read_page(text: str) -> tuple[dict[str, Any], list[dict[str, Kept]]]:
    """A page's facts, and every array of each of its texts by name. Raises ValueError."""
    about = FACTS.search(text)
    if about is None:
        raise ValueError("this is no page of `modernbert explain`: it has no facts")
    known = json.loads(about[1])
    out: list[dict[str, Kept]] = [{} for _ in known["sides"]]
    for label, name, data in BLOCK.findall(text):
        side = "ab".index(label)
        out[side] |= unpacked(data, known["sides"][side]["blocks"][name])
    return known, out
