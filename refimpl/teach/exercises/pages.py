"""What a student is told: README.md of the folder, what a first run of the port has shown, hints.

    started("bug-09", "there")          the folder, complete

How much a first run shows goes by the degree: the kit's report without its suspects (1), how far
the results are off (2), nothing (3). Hints come one by one, and the last one of a bug is what the
kit calls the mistake.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...verify.judge.verdict import Report
from ...verify.report.html import to_html
from ...verify.report.report import render, to_json
from . import referee
from .catalogue import exercise, heading
from .folder import Student, contents, save, write
from .table import Exercise, place

README = """\
# {id}: {title}

{kind}

{symptom}

## What is here

- `{file}`: {what}. It is run case by case: `python {file} CASE OUT`.
- `MODEL.md`: the equations, with the names of the steps.
{more}- `port.json`: how the kit runs the port. Another `"command"`, in any language, will do, and a
  `"build"` before it.
- `exercise.json`: which exercise this is. Leave it alone.

## What to do

{task}

    modernbert exercise check .    what is right, and what is not yet
    modernbert exercise hint .     one hint more, of {hints}

This writes a case with the expected value of every step, as .npy, and then those of the port:

    modernbert verify {training}--export kit --case {case}
    {command} kit/cases/{case} mine

The referee is the conformance kit. This shows its whole report, with the names of the steps and,
for a bug, the mistakes that would explain it, which is the end of the game:

    modernbert verify {training}--command "{command}" --case {case}
"""
TASKS = {
    "bug": "Find the mistake and mend it: one line, or a few that belong together.",
    "equation": "Write it: shapes and the number of the equation are in the function's docstring.",
}


def readme(e: Exercise, language: str, shown: str, command: str) -> str:
    """README.md. shown: the lines about files that a first run has left."""
    what = "a training step of ModernBERT" if e.training else "ModernBERT"
    lacks = "a mistake in it" if e.kind == "bug" else "an equation missing"
    more = shown
    if language == "c":
        more += "- `equation.c`: where you write; `in_c.py` calls it.\n"
    return README.format(
        id=e.id, title=e.title, kind=heading(e), symptom=e.symptom, file=e.file,
        what=f"{what} in one file of numpy, with {lacks}", more=more,
        task=TASKS[e.kind], hints=len(e.hints) + (3 if e.kind == "bug" else 0),
        training="--training " if e.training else "", command=command, case=e.cases[-1],
    )  # fmt: skip


def started(id: str, folder: str | os.PathLike[str], language: str = "python") -> Path:
    """Make a student's folder. ExerciseError for an unknown id or a folder that is not empty."""
    e = exercise(id)
    files = contents(e, language)
    shown: dict[str, str] = {}
    about = ""
    if e.kind == "bug" and e.degree < 3:
        with tempfile.TemporaryDirectory(prefix="modernbert-exercise-") as trial:
            at = write(Path(trial, e.id), files)
            port = referee.port_of(Student(at, e))
            report = replace(referee.judged(port, e.cases), port=e.file)
        if e.degree == 1:
            shown = {"report.txt": render(report) + "\n", "report.html": to_html(to_json(report))}
            about = "- `report.txt`, `report.html`: what the kit says of it.\n"
        else:
            shown = {"numbers.txt": numbers(report)}
            about = "- `numbers.txt`: how far its results are off.\n"
    command = json.loads(files["port.json"])["command"]
    return write(folder, {"README.md": readme(e, language, about, command), **files, **shown})


def numbers(report: Report) -> str:
    """How far the last steps of each case are off: the largest relative error of a token, beside
    what rounding may do."""
    lines = [f"{'case':20s} {'step':22s} {'off by':>9s} {'rounding':>9s}"]
    for case in report.cases:
        rows = case.comparison.rows if case.comparison else ()
        for row in [r for r in rows if r.tap in LAST_STEPS]:
            c = row.cumulative
            lines.append(
                f"{case.name:20s} {row.tap:22s} {c.observed['max']:9.2e} {c.budget['max']:9.2e}"
            )
    return "\n".join(lines) + "\n"


LAST_STEPS = (
    "final_norm", "logits", "start_logits", "end_logits", "mean_pooled", "loss",
    "grad.embeddings.tok_embeddings.weight", "after_1.embeddings.tok_embeddings.weight",
    "after_10.embeddings.tok_embeddings.weight",
)  # fmt: skip


# -- hints ----------------------------------------------------------------------------------------


def next_hint(student: Student) -> str:
    """One more hint, and how many there are; the folder remembers."""
    hints = hints_of(student)
    if student.hints >= len(hints):
        return f"There are no more than {len(hints)} hints. From the first on:\n" + "\n".join(
            f"{i}. {text()}" for i, text in enumerate(hints, start=1)
        )
    text = hints[student.hints]()
    taken = student.hints + 1
    save(replace(student, hints=taken))
    return f"{taken} of {len(hints)}. {text}"


def hints_of(student: Student) -> list[Callable[[], str]]:
    """What gives each hint: of a bug where it goes wrong, a question, in which function it is, and
    what the kit calls the mistake."""
    e = student.exercise
    own: list[Callable[[], str]] = [partial(str, text) for text in e.hints]
    if e.kind == "equation":
        return own
    return [partial(first_wrong, student), *own, partial(where, e), partial(referee.name_of, e)]


def first_wrong(student: Student) -> str:
    """The kit's first wrong step on the folder as it is."""
    e = student.exercise
    problem = referee.built(student)
    if problem is not None:
        return f"It does not build: {problem}"
    report = referee.judged(referee.port_of(student), e.cases)
    case = next((c for c in report.cases if referee.wrong(c, report)), None)
    if case is None:
        return "Nothing is wrong any more: modernbert exercise check"
    said = referee.what_is_wrong(case, report, replace(e, degree=1))
    return f"In {case.name} {said}."


def where(e: Exercise) -> str:
    return f"It is in {place(e)}."
