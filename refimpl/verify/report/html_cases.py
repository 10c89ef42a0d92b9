"""The lower half of the HTML report: every case, with its plot, its slices and every step.

A table of all cases comes first; each case is a section that can be folded away, and the one in
which the port first goes wrong is open. Numbers are those of `report.to_json`, nothing is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .markup import Safe, element
from .plot import bands, figure, number, short

Json = Mapping[str, Any]


def overview(data: Json) -> list[Safe]:
    """One line per case."""
    rows = []
    for i, c in enumerate(data["cases"]):
        worst = {
            key: max((number(s[key]["ratio"]) for s in c["steps"]), default=None)
            for key in ("forced", "cumulative")
        }
        rows.append(element(
            "tr",
            element("td", element("a", c["name"], href=f"#case-{i}")),
            [_ratio(worst[key]) for key in ("forced", "cumulative")],
            element("td", element("span", c["culprit"] or "", class_="tap")),
            element("td", element("span", c["first_nonfinite"] or "", class_="tap")),
        ))  # fmt: skip
    names = ("case", "worst alone", "worst cumulative", "first wrong step", "first NaN or infinity")
    top = element("tr", [element("th", n, class_="n" if "worst" in n else None) for n in names])
    table = element("table", element("thead", top), element("tbody", rows))
    return [element("h2", "Cases"), element("div", table, class_="scroll")]


def _ratio(ratio: object, css: str = "") -> Safe:
    if ratio is None:
        return element("td", "not compared", class_=f"soft {css}".strip())
    over = "" if number(ratio) <= 1 else "over"
    return element("td", short(ratio), class_=f"n {over} {css}".strip())


def case_section(data: Json, place: int) -> Safe:
    """Plot, slices and every step of one case; open when it is the culprit's."""
    case = data["cases"][place]
    is_first = (data["culprit"] or {}).get("case") == case["name"]
    parts: list[Safe | None] = [element("p", case["why"], class_="soft")]
    if case["steps"]:
        parts += [None if is_first else figure(case), slices(case), steps(case)]
    return element(
        "details",
        element("summary", element("strong", case["name"]), _state(case)),
        parts,
        id=f"case-{place}",
        open="open" if is_first else None,
    )


def _state(case: Json) -> Safe:
    if not case["steps"]:
        return element("span", " not compared", class_="soft")
    worst = number(case["ratio"])
    css = "pass" if worst <= 1 else "over"
    return element("span", f" worst ratio {short(worst)}", class_=css)


def slices(case: Json) -> Safe | None:
    """Where in the first wrong step the error sits."""
    if not case["slices"]:
        return None
    rows = [
        element("tr", element("td", s["kind"]), element("td", s["name"]),
                element("td", str(s["tokens"]), class_="n"),
                element("td", short(s["mean"]), class_="n"),
                element("td", short(s["max"]), class_="n"))
        for s in case["slices"]
    ]  # fmt: skip
    names = (("slice of " + str(case["culprit"]), ""), ("", ""), ("tokens", "n"), ("mean", "n"),
             ("max", "n"))  # fmt: skip
    top = element("tr", [element("th", name, class_=css or None) for name, css in names])
    table = element("table", element("thead", top), element("tbody", rows))
    return element("div", table, class_="scroll")


def steps(case: Json) -> Safe:
    """Every step in two columns: observed, floor, budget (their maxima over tokens) and ratio."""
    kinds: dict[int, str] = {}
    for first, last, _, kind in bands([s["tap"] for s in case["steps"]], case["layers"]):
        kinds |= dict.fromkeys(range(first, last + 1), kind)
    rows = []
    for i, s in enumerate(case["steps"]):
        cells = []
        for column in ("forced", "cumulative"):
            c, css = s[column], "group"
            for part in ("observed", "floor", "budget"):
                cells.append(element("td", short(c[part]["max"]), class_=f"n {css}".strip()))
                css = ""
            cells.append(_ratio(c["ratio"]))
        name = element("td", element("span", s["tap"], class_="tap"))
        kind = element("td", kinds[i], class_="soft")
        marked = "culprit" if s["tap"] == case["culprit"] else None
        rows.append(element("tr", name, kind, cells, data_tap=s["tap"], class_=marked))
    names = ("observed", "floor", "budget", "ratio") * 2
    top = [
        element("tr", element("th"), element("th"),
                element("th", "teacher-forced", colspan=4, class_="group"),
                element("th", "cumulative", colspan=4, class_="group")),
        element("tr", element("th", "step"), element("th", "layer"),
                [element("th", n, class_="n group" if n == "observed" else "n") for n in names]),
    ]  # fmt: skip
    table = element("table", element("thead", top), element("tbody", rows))
    return element("div", table, class_="scroll")
