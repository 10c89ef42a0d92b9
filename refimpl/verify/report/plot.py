"""The error-by-layer plot: observed / budget of every step on a log axis, as inline SVG.

Two lines, teacher-forced and cumulative, over bands of layers; 1 is the budget. The first point
above 1 in the teacher-forced line is the culprit; a cumulative line that rises alone is precision.
An infinite ratio stands at the top as a triangle, a ratio below the axis at its foot.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from .markup import Safe, element

WIDTH, HEIGHT = 1000, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 22, 40
LOWEST = -3  # a ratio of a thousandth is as good as none
TICKS = 8
COLUMNS = (("forced", "teacher-forced"), ("cumulative", "cumulative"))


def number(x: object) -> float:
    """A number of the JSON report, where "inf" and "nan" are text."""
    return math.inf if x == "nan" else float(x)  # type: ignore[arg-type]


def short(x: object) -> str:
    """Three digits, for people."""
    value = number(x)
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3g}"
    if 1000 <= abs(value) < 100000:
        return f"{value:.0f}"
    return f"{value:.2e}" if math.isfinite(value) else "not finite"


def figure(case: Mapping[str, Any]) -> Safe:
    """The ratios of one case, with a legend."""
    return element(
        "figure",
        ratio_plot(case["steps"], case["layers"], case["culprit"]),
        element(
            "figcaption", f"Case {case['name']}: observed error / budget of every step.",
            element("span", class_="key forced"), "teacher-forced (this step alone)",
            element("span", class_="key cumulative"), "cumulative",
            element("span", class_="key budget"), "budget",
        ),
    )  # fmt: skip


def ratio_plot(
    steps: Sequence[Mapping[str, Any]], layers: Sequence[str], culprit: str | None
) -> Safe:
    """steps: those of a case's JSON, at least one; layers: type of each layer; culprit: its tap."""
    axis = _Axis(steps)
    dots = [_dot(axis, i, step, key, name) for key, name in COLUMNS for i, step in enumerate(steps)]
    label = "Ratio of observed error to budget at every step, teacher-forced and cumulative"
    return element(
        "svg",
        [_band(axis, *band) for band in bands([step["tap"] for step in steps], layers)],
        [_tick(axis, power) for power in axis.ticks],
        element("line", class_="budget", **axis.horizontal(0.0)),
        [_line(axis, steps, key) for key, _ in COLUMNS],
        dots,
        _mark(axis, steps, culprit),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=label,
    )


def bands(taps: Sequence[str], layers: Sequence[str]) -> Iterator[tuple[int, int, str, str]]:
    """(first step, last step, label, layer type or "") of each layer and of what is around them."""
    at = 0
    for name, group in groupby(taps, key=_part):
        n = len(list(group))
        kind = ""
        if name.isdigit() and int(name) < len(layers):
            kind = layers[int(name)].removesuffix("_attention")
        yield at, at + n - 1, name, kind
        at += n


def _part(tap: str) -> str:
    words = tap.split(".")
    if words[0] == "layers":
        return words[1]
    return "in" if words[0] in ("embedding", "rope") else "out"


class _Axis:
    """Where a step and a ratio stand, in the units of the drawing."""

    def __init__(self, steps: Sequence[Mapping[str, Any]]) -> None:
        ratios = [number(step[key]["ratio"]) for step in steps for key, _ in COLUMNS]
        powers = [math.log10(r) for r in ratios if 0 < r < math.inf]
        self.low = max(LOWEST, math.floor(min(powers, default=-1.0)))
        self.low = min(self.low, -1)
        self.high = max(1, math.ceil(max(powers, default=0.0))) + (math.inf in ratios)
        self.step = (WIDTH - LEFT - RIGHT) / max(len(steps), 1)
        every = math.ceil((self.high - self.low) / TICKS)
        self.ticks = [p for p in range(self.low, self.high + 1) if p % every == 0]

    def x(self, i: float) -> float:
        return round(LEFT + (i + 0.5) * self.step, 1)

    def y(self, power: float) -> float:
        share = (min(max(power, self.low), self.high) - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def of_ratio(self, ratio: object) -> float:
        value = number(ratio)
        if value <= 0:
            return self.y(self.low)
        return self.y(self.high if value == math.inf else math.log10(value))

    def horizontal(self, power: float) -> dict[str, float]:
        return {"x1": LEFT, "x2": WIDTH - RIGHT, "y1": self.y(power), "y2": self.y(power)}


def _band(axis: _Axis, first: int, last: int, name: str, kind: str) -> Safe:
    left, right = axis.x(first - 0.5), axis.x(last + 0.5)
    bottom = HEIGHT - BOTTOM
    middle = (left + right) / 2
    return element(
        "g",
        element("rect", class_=f"band {kind or 'around'}", x=left, y=TOP,
                width=round(right - left, 1), height=bottom - TOP),
        element("text", name if not kind else f"layer {name}", x=middle, y=bottom + 16),
        element("text", kind, x=middle, y=bottom + 31, class_="kind") if kind else None,
    )  # fmt: skip


def _tick(axis: _Axis, power: int) -> Safe:
    label = f"{10.0**power:g}" if -3 <= power <= 3 else f"1e{power}"
    return element(
        "g",
        element("line", class_="grid", **axis.horizontal(power)),
        element("text", label, x=LEFT - 6, y=axis.y(power) + 4, class_="tick"),
    )


def _line(axis: _Axis, steps: Sequence[Mapping[str, Any]], key: str) -> Safe:
    points = " ".join(f"{axis.x(i)},{axis.of_ratio(s[key]['ratio'])}" for i, s in enumerate(steps))
    return element("polyline", class_=f"line {key}", points=points)


def _dot(axis: _Axis, i: int, step: Mapping[str, Any], key: str, name: str) -> Safe:
    ratio = step[key]["ratio"]
    title = element("title", f"{step['tap']}: {name} {short(ratio)} x budget")
    x, y = axis.x(i), axis.of_ratio(ratio)
    if number(ratio) == math.inf:
        path = f"M{x - 4} {y + 6} L{x + 4} {y + 6} L{x} {y - 1} Z"
        return element("path", title, class_=f"dot {key}", d=path)
    return element("circle", title, class_=f"dot {key}", cx=x, cy=y, r=2.6)


def _mark(axis: _Axis, steps: Sequence[Mapping[str, Any]], culprit: str | None) -> Safe | None:
    """A line down from the culprit, with its name."""
    at = next((i for i, step in enumerate(steps) if step["tap"] == culprit), None)
    if at is None:
        return None
    x, right_half = axis.x(at), at > len(steps) / 2
    return element(
        "g",
        element("line", class_="culprit", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM),
        element("text", str(culprit), class_="culprit", x=x, y=TOP - 8,
                style=f"text-anchor: {'end' if right_half else 'start'}"),
    )  # fmt: skip
