"""What an exercise is, and how it is planted: a right port, and lines of it that become others.

    planted(source, exercise.edits)     the source with every edit made

An edit's right text stands in the source exactly once, so that a port that was changed fails at
once, and not in a classroom. Nothing here reads a student's folder.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GIVEN = Path(__file__).with_name("given")
"""What students get is made of the files in here."""
FORWARD, TRAINING = "port.py", "trainer.py"
DEGREES = {
    1: "the report names the first wrong step",
    2: "only the numbers that come out",
    3: "only what somebody has noticed",
}


@dataclass(frozen=True)
class Edit:
    """right: text of the port, whole lines or a part of one; wrong: what stands there instead."""

    right: str
    wrong: str


@dataclass(frozen=True)
class InC:
    """An equation to be written in C. skeleton: equation.c; call: the body of the port's function,
    which hands it to the library."""

    skeleton: str
    call: str


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    kind: "bug" or "equation"; degree: a key of DEGREES, of equations how much is to be written;
    title: one line, for the list; symptom: what the student is told; edits: from the right port
    (`file`) to the student's; hints: one after the other, none of them the solution; cases: of the
    kit, on which it shows and, where that says something, on which it does not; zoo: of a bug, the
    kit's id of the mistake; in_c: of an equation that can be written in C, too.
    """

    id: str
    kind: str
    degree: int
    title: str
    symptom: str
    edits: tuple[Edit, ...]
    hints: tuple[str, ...]
    cases: tuple[str, ...]
    file: str = FORWARD
    zoo: str = ""
    in_c: InC | None = None

    @property
    def training(self) -> bool:
        """Whether the kit for training steps is the referee."""
        return self.file == TRAINING


def planted_bug(
    file: str,
    prefix: str,
    number: int,
    degree: int,
    zoo: str,
    title: str,
    symptom: str,
    hint: str,
    cases: tuple[str, ...],
    *edits: tuple[str, str],
) -> Exercise:
    """A row of the bugs in a file: edits are pairs of its right text and the wrong one."""
    return Exercise(
        f"{prefix}-{number:02d}", "bug", degree, title, symptom,
        tuple(Edit(*edit) for edit in edits), (hint,), cases, file=file, zoo=zoo,
    )  # fmt: skip


def given(name: str) -> str:
    """The text of a file that students get, before anything is planted in it."""
    return (GIVEN / name).read_text(encoding="utf-8")


def planted(source: str, edits: Sequence[Edit]) -> str:
    """The source with the edits made. ValueError unless each right text stands in it once."""
    for edit in edits:
        found = source.count(edit.right)
        if found != 1:
            raise ValueError(f"{edit.right!r} stands {found} times in the port; it must once")
        source = source.replace(edit.right, edit.wrong)
    return source


def place(exercise: Exercise) -> str:
    """The function in which the first edit is made: its name, and the numbers of its equations."""
    source = given(exercise.file)
    line = source[: source.index(exercise.edits[0].right)].count("\n") + 1
    inside = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    outer = min(inside, key=lambda node: node.lineno)
    first = (ast.get_docstring(outer) or "").split(".")[0]
    return f"`{outer.name}`" + (f": {first}" if first.startswith("(") else "")
