"""The report as one HTML page that loads nothing: text, tables and inline SVG, no script.

`to_html(data)` renders what `report.to_json` gives, in the order in which a person asks: is it
right, where does it go wrong, what is the likely mistake, what did the gates find, then every
number (html_cases.py). Light and dark by the reader's setting; printed, every case is open. All
text is escaped (markup.py). The colours and sizes are in page.css.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..findings import GATES
from ..judge.verdict import EXIT_CODES
from .html_cases import case_section, overview
from .markup import Safe, element, link
from .plot import figure, number, short
from .report import where

Json = Mapping[str, Any]
STYLE = Path(__file__).with_name("page.css")
VERDICTS = {
    "exact-spec": ("exact-spec", "Every step agrees with the specification within rounding."),
    "declared deviation": ("declared", "Right but for departures that are known and named below."),
    "fail": ("fail", "This is not ModernBERT yet."),
}
INCOMPLETE = (
    "declared",
    "Nothing wrong was found in what was run; not all was run that is asked for.",
)
# Decades over the budget at which a cell of a head map is fully coloured.
DECADES = 6.0


def to_html(data: Json) -> str:
    """The whole page. data: the dict of `report.to_json`."""
    partly = "" if data["coverage"]["complete"] else " (not all was shown)"
    title = f"{data['port']}: {data['verdict']}{partly}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Safe(STYLE.read_text(encoding="utf-8"))),
    )
    body = element(
        "body",
        element("header", summary(data)),
        element("main", suspects(data), first_plot(data), head_map(data), findings(data),
                overview(data), [case_section(data, i) for i in range(len(data["cases"]))]),
        element("footer", "Made by ", ", ".join(f"{k} {v}" for k, v in data["provenance"].items())),
    )  # fmt: skip
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


# -- what a person asks first ---------------------------------------------------------------------


def summary(data: Json) -> list[Safe]:
    """Verdict, and the few facts that say why."""
    css, sentence = VERDICTS[data["verdict"]]
    coverage, shown = data["coverage"], data["verdict"]
    if not coverage["complete"] and shown != "fail":
        enough = data["exit_code"] != EXIT_CODES["incomplete"]
        css, sentence = (css, sentence) if enough else INCOMPLETE
        shown = f"{'partial' if enough else 'incomplete'}: {shown}"
    facts: list[tuple[str, Safe | str]] = [("computes in", data["dtype"])]
    for kind in ("cases", "steps", "tokens"):
        facts.append((kind, f"{coverage[kind]['compared']:,} of {coverage[kind]['of']:,}"))
    if coverage["not_shown"]:
        facts.append(("not shown", ", ".join(coverage["not_shown"])))
    if not coverage["asked_in_other_company"]:
        facts.append(("not asked", "the same input in other company"))
    if data["culprit"]:
        case, tap = data["culprit"]["case"], data["culprit"]["tap"]
        step = element("span", element("code", tap), f" in case {case}")
        facts.append(("first wrong step", step))
    if data["smallest_k"] is not None:
        facts.append(("passes with k =", f"{short(data['smallest_k'])} (2 is allowed)"))
    levels = [f["level"] for f in data["findings"]]
    counts = (f"{levels.count(x)} {x}" for x in ("fail", "deviation", "note") if x in levels)
    facts.append(("findings", ", ".join(counts) or "none"))
    facts.append(("exit code", str(data["exit_code"])))
    return [
        element("h1", data["port"]),
        element("p", shown, class_=f"verdict {css}"),
        element("p", sentence),
        element("dl", [[element("dt", k), element("dd", v)] for k, v in facts], class_="facts"),
    ]


def suspects(data: Json) -> list[Safe]:
    """Known mistakes by the share of the error that each explains, with the threads on them."""
    if not data["suspects"]:
        return []
    return [
        element("h2", "Suspects"),
        element("p", "Known mistakes, replayed at the first wrong step; the share is how much of "
                "the port's error each explains.", class_="soft"),
        element("ol", [_suspect(s) for s in data["suspects"]], class_="suspects"),
    ]  # fmt: skip


def _suspect(s: Json) -> Safe:
    share = min(max(number(s["explained"]), 0.0), 1.0)
    bar = element(
        "svg",
        element("rect", x=0, y=0, width=100, height=8),
        element("rect", x=0, y=0, width=round(100 * share, 2), height=8, class_="part"),
        viewBox="0 0 100 8", preserveAspectRatio="none", aria_hidden="true",
    )  # fmt: skip
    tied, both = s["tied_with"], s["together_with"]
    said = f"explains {100 * share:.4g} %{where(s['steps'])}" if share else "explains none of it"
    threads = [[" " if i else "", link(c)] for i, c in enumerate(s["citations"])]
    return element(
        "li",
        element("strong", s["id"]), " ", s["title"],
        element("div", bar, said, class_="share"),
        element("div", "the same here: ", ", ".join(tied), class_="soft") if tied else None,
        element("div", "together with ", ", ".join(both), class_="soft") if both else None,
        element("div", "others made it: ", threads, class_="soft") if threads else None,
    )  # fmt: skip


def first_plot(data: Json) -> list[Safe]:
    """The plot of the culprit's case, or of the case that comes closest to its budget."""
    cases = [c for c in data["cases"] if c["steps"]]
    if not cases:
        return []
    wanted = (data["culprit"] or {}).get("case")
    case = next((c for c in cases if c["name"] == wanted), None) or max(
        cases, key=lambda c: number(c["ratio"])
    )
    return [element("h2", "Error by layer"), figure(case)]


def head_map(data: Json) -> list[Safe]:
    """Error of each head at each case's first wrong step, as multiples of the step's budget."""
    rows = []
    for case in data["cases"]:
        heads = [s for s in case["slices"] if s["kind"] == "head"]
        wrong = next((s for s in case["steps"] if s["tap"] == case["culprit"]), None)
        if heads and wrong:
            budget = number(wrong["forced"]["budget"]["max"])
            cells = [_heat(number(s["max"]), budget) for s in heads]
            name = element("td", element("span", case["culprit"], class_="tap"))
            rows.append(element("tr", element("td", case["name"]), name, cells))
    if not rows:
        return []
    most = max(len([s for s in c["slices"] if s["kind"] == "head"]) for c in data["cases"])
    names = [element("th", f"head {h}", class_="n") for h in range(most)]
    top = element("tr", element("th", "case"), element("th", "step"), names)
    return [
        element("h2", "Head map"),
        element("p", "Largest teacher-forced error of each head at the first wrong step, in "
                "multiples of the step's budget. One bad head among good ones is a layout; all "
                "alike is a formula.", class_="soft"),
        element("div", element("table", element("thead", top), element("tbody", rows),
                               class_="heads"), class_="scroll"),
    ]  # fmt: skip


def _heat(error: float, budget: float) -> Safe:
    ratio = error / budget if budget else math.inf
    decades = math.log10(ratio) if 0 < ratio < math.inf else math.inf * ratio if ratio else 0.0
    alpha = min(max(decades / DECADES, 0.0), 1.0) * 0.6
    style = f"background: rgba(var(--bad-tint), {alpha:.2f})"
    return element("td", short(ratio), class_="n", style=style)


def findings(data: Json) -> list[Safe]:
    """What each gate found, in the order in which the gates are worked through."""
    out = [element("h2", "Findings by gate")]
    if not data["findings"]:
        return [*out, element("p", "None.")]
    gates = dict.fromkeys(["port", *GATES, *(f["gate"] for f in data["findings"])])
    for gate in gates:
        mine = [f for f in data["findings"] if f["gate"] == gate]
        if mine:
            table = element("table", element("tbody", [_finding(f) for f in mine]))
            out += [element("h3", gate), element("div", table, class_="scroll")]
    return out


def _finding(f: Json) -> Safe:
    where = [element("span", f[key] or "", class_="tap") for key in ("case", "tap")]
    return element(
        "tr",
        element("td", f["level"], class_=f["level"]),
        element("td", where[0]), element("td", where[1]), element("td", f["message"]),
    )  # fmt: skip
