"""A run as one picture: loss of every step and evaluation, and the learning rate, as SVG.

    write_plot(folder / "run.svg", read_metrics(folder / "metrics.jsonl"))

Pure text; no package is needed. The line of the training loss is its running mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..files.atomic import replacing

PLOT = "run.svg"
WIDTH, LEFT, RIGHT, TOP, HIGH, LOW = 720, 64, 16, 28, 240, 70
GAP = 44  # between the two panels
SMOOTH = 0.9  # of the running mean
Point = tuple[float, float]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_plot(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Replace the picture. Raises OSError."""
    with replacing(path) as stream:
        stream.write(picture(lines).encode())


def picture(lines: Sequence[Mapping[str, Any]]) -> str:
    """The SVG of a run's metrics."""
    steps = [(float(x["step"]), float(x["loss"])) for x in lines if "loss" in x]
    rates = [(float(x["step"]), float(x["learning_rate"])) for x in lines if "learning_rate" in x]
    held_out = [(float(x["step"]), float(x["eval_loss"])) for x in lines if "eval_loss" in x]
    last = max([1.0, *(x for x, _ in (*steps, *held_out))])
    least, most = limits([y for _, y in (*smoothed(steps), *held_out)])
    top, below = (TOP, TOP + HIGH), (TOP + HIGH + GAP, TOP + HIGH + GAP + LOW)
    parts = [
        label(LEFT, TOP - 10, "loss", "start"),
        path(smoothed(steps), last, least, most, top, "#3b6ea5"),
        path(held_out, last, least, most, top, "#c0392b"),
        *(dot(p, last, least, most, top) for p in held_out),
        *axis(least, most, top),
        label(LEFT, below[0] - 10, "learning rate", "start"),
        path(rates, last, *limits([0.0, *(y for _, y in rates)]), below, "#3b6ea5"),
        *axis(*limits([0.0, *(y for _, y in rates)]), below),
        label(LEFT, below[1] + 18, "step 0", "start"),
        label(WIDTH - RIGHT, below[1] + 18, f"step {last:,.0f}", "end"),
    ]
    if held_out:
        parts.append(label(WIDTH - RIGHT, TOP - 10, "blue: training, red: evaluation", "end"))
    height = below[1] + 32
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'font-family="sans-serif" font-size="12"><rect width="{WIDTH}" height="{height}" '
        f'fill="white"/>{"".join(parts)}</svg>\n'
    )


def smoothed(points: Sequence[Point]) -> list[Point]:
    """The running mean, without the start's pull towards 0."""
    out, mean = [], 0.0
    for n, (x, y) in enumerate(points, start=1):
        mean = SMOOTH * mean + (1.0 - SMOOTH) * y
        out.append((x, mean / (1.0 - SMOOTH**n)))
    return out


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Least and most, apart from one another."""
    least, most = (min(values), max(values)) if values else (0.0, 1.0)
    return (least, most) if most > least else (least - 0.5, most + 0.5)


def place(p: Point, last: float, least: float, most: float, panel: tuple[int, int]) -> Point:
    x = LEFT + p[0] / last * (WIDTH - LEFT - RIGHT)
    return x, panel[1] - (p[1] - least) / (most - least) * (panel[1] - panel[0])


def path(
    points: Sequence[Point], last: float, least: float, most: float, panel: tuple[int, int],
    colour: str,
) -> str:  # fmt: skip
    if not points:
        return ""
    at = (place(p, last, least, most, panel) for p in points)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    return f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def dot(p: Point, last: float, least: float, most: float, panel: tuple[int, int]) -> str:
    x, y = place(p, last, least, most, panel)
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#c0392b"><title>step {p[0]:.0f}: '
        f"{p[1]:.4g}</title></circle>"
    )


def axis(least: float, most: float, panel: tuple[int, int]) -> list[str]:
    """A frame, and the values at its ends."""
    top, bottom = panel
    return [
        f'<path d="M{LEFT} {top}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="#888"/>',
        label(LEFT - 6, top + 4, f"{most:.4g}", "end"),
        label(LEFT - 6, bottom + 4, f"{least:.4g}", "end"),
    ]


def label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="#333">{escape(text)}</text>'
