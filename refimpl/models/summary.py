"""Models in words: a table of parts with shapes and parameters, and one line for `repr`."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from ..nlp import MultiTaskHead, NLPHead
from ..reference.heads import HEADS
from ..reference.params import Shapes, count
from ..reference.sentence import Dense, Pooling, SentenceHead

if TYPE_CHECKING:
    from .model import ModernBERT


def parameter_table(title: str, shapes: Shapes) -> str:
    """One line per tensor in the order of the forward pass, then the total. Of adjacent layers
    whose tensors have the same names and shapes, one line stands for all: layers.1-21 (x 21)."""
    rows = []
    for (first, last), part in folded(shapes):
        times = last - first + 1
        for name, shape in part.items():
            n = f"{times * count({name: shape}):,}"
            if times > 1:
                name = name.replace(f"layers.{first}.", f"layers.{first}-{last}.", 1)
            rows.append((name, _shape(shape) + (f" x {times}" if times > 1 else ""), n))
    rows.append(("total", "", f"{count(shapes):,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {n:>{widths[2]}}" for name, shape, n in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([title, rule, *lines[:-1], rule, lines[-1]])


def folded(shapes: Shapes) -> list[tuple[tuple[int, int], Shapes]]:
    """(first, last layer), the first one's tensors, in order; (0, 0) for what is of no layer."""
    out: list[tuple[tuple[int, int], Shapes]] = []
    alike: object = None  # what the group before looks like, where it is a layer
    for layer, names in groupby(shapes, _layer):
        part = {name: shapes[name] for name in names}
        inside = None if layer is None else {n.split(".", 2)[2]: s for n, s in part.items()}
        if layer is not None and inside == alike:
            out[-1] = (out[-1][0][0], layer), out[-1][1]
        else:
            out.append(((layer or 0, layer or 0), part))
        alike = inside
    return out


def _layer(name: str) -> int | None:
    kind, _, rest = name.partition(".")
    return int(rest.partition(".")[0]) if kind == "layers" else None


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def model_in_words(model: ModernBERT) -> str:
    """One line: head, sizes, what computes, and where it came from."""
    c = model.config
    parts = [] if getattr(model, "head", None) is None else [described_head(model)]
    parts += [
        f"{c.num_hidden_layers} layers",
        f"hidden {c.hidden_size:,}",
        f"vocabulary {c.vocab_size:,}",
        f"{model.num_parameters:,} parameters",
        f"{model.compute_dtype} on {model.backend}",
    ]
    parts += [] if model.folder is None else [f"from {str(model.folder)!r}"]
    return f"{type(model).__name__}({', '.join(parts)})"


def described_modules(head: SentenceHead) -> list[str]:
    """Each module in words: Pooling(mean), Dense(768 -> 256, tanh), Normalize."""
    out = []
    for m in head.modules:
        about = ""
        if isinstance(m, Pooling):
            about = f"({', '.join(m.modes)}{'' if m.include_prompt else ', without the prompt'})"
        if isinstance(m, Dense):
            about = f"({m.in_features} -> {m.out_features}, {m.activation})"
        out.append(type(m).__name__ + about)
    return out


def described_head(model: ModernBERT) -> str:
    """What a model has on top of its encoder, in words."""
    head = getattr(model, "head", None)
    if head is None:
        return "no head, only an encoder"
    if isinstance(head, NLPHead):
        return f"a configurable {head.kind} head ({head.task.task_type})"
    if isinstance(head, MultiTaskHead):
        tasks = ", ".join(f"{one.task.name}: {one.task.task_type}" for one in head.heads)
        return f"a configurable {head.kind} head ({tasks})"
    return f"a {head.kind} head" + (f" ({head.architecture})" if head.kind in HEADS else "")
