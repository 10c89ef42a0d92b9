"""A table of a model's parts with their shapes and parameters."""

from __future__ import annotations

from ..reference.params import Shapes, count


def parameter_table(title: str, shapes: Shapes) -> str:
    """One line per tensor in the order of the forward pass, then the total."""
    rows = [(name, _shape(shape), f"{count({name: shape}):,}") for name, shape in shapes.items()]
    rows.append(("total", "", f"{count(shapes):,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {n:>{widths[2]}}" for name, shape, n in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([title, rule, *lines[:-1], rule, lines[-1]])


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
