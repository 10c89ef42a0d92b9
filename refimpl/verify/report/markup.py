"""Building HTML and SVG that cannot be broken out of: text is escaped where it enters.

    element("td", name, class_="tap")   ->   <td class="tap">&lt;script&gt;</td>

Only `Safe` passes unescaped, and only `element` and `link` make it.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from .threads import address

VOID = ("meta", "br", "line", "rect", "circle", "path", "polyline")


class Safe(str):
    """Markup, escaped already."""


Child = str | None | Iterable["Child"]


def element(name: str, /, *children: Child, **attributes: object) -> Safe:
    """One element. Children: text (escaped), Safe, None, or iterables of them; attributes: `class_`
    and `data_tap` are written class and data-tap, None leaves one out."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID and not children:
        return Safe(f"<{name}{shown}/>")
    return Safe(f"<{name}{shown}>{_inside(children)}</{name}>")


def _inside(child: Child) -> str:
    if child is None or isinstance(child, Safe):
        return child or ""
    if isinstance(child, str):
        return html.escape(child)
    return "".join(map(_inside, child))


def link(citation: str) -> Safe:
    """A citation with its address, or as text when it has none."""
    to = address(citation)
    return element("a", citation, href=to, rel="noreferrer") if to else element("span", citation)
