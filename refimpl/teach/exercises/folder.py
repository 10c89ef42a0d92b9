"""A student's folder: made by `start`, known again by its exercise.json, which holds the state.

    FOLDER/README.md       the task, the symptom, the commands
    FOLDER/MODEL.md        the equations
    FOLDER/port.py         the port (trainer.py: a training step) with one thing wrong or missing
    FOLDER/port.json       how it is run: "command", perhaps "build" before it, or "library"
    FOLDER/exercise.json   which exercise it is, and how many hints were taken

Promise: the folder appears complete or not at all, no solution is in it, and nothing outside of it
is ever written. Whatever has no such exercise.json is refused (ExerciseError).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import ExerciseError
from ...files.atomic import replacing, staged
from .catalogue import EXERCISES, exercise
from .table import Exercise, given, planted

STATE, WAY = "exercise.json", "port.json"
MADE_BY = "modernbert exercise"
FORMAT = 1
"""Of exercise.json: changes when an older one could be misread."""
LONGEST_STATE = 2**16
LANGUAGES = ("python", "c")
BUILD = "cc -O2 -std=c99 -shared -fPIC -o equation.so equation.c -lm"


@dataclass(frozen=True)
class Student:
    """A folder and what its exercise.json says. hints: how many were taken."""

    folder: Path
    exercise: Exercise
    hints: int = 0

    def state(self) -> dict[str, Any]:
        return {
            "made_by": MADE_BY,
            "format": FORMAT,
            "exercise": self.exercise.id,
            "hints": self.hints,
        }


def contents(e: Exercise, language: str = "python") -> dict[str, str]:
    """Name -> text of the files that a student gets, but README.md and what a first run shows.

    ValueError for a language in which this exercise cannot be written.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r} is unknown; known: {', '.join(LANGUAGES)}")
    way = {"command": f"python {e.file}"}
    if language == "python":
        source = planted(given(e.file), e.edits)
        files = {e.file: source}
    else:
        if e.in_c is None:
            known = ", ".join(x.id for x in EXERCISES.values() if x.in_c is not None)
            raise ValueError(f"{e.id} is not there in C; there are {known}")
        source = planted(given(e.file), [replace(x, wrong=e.in_c.call) for x in e.edits])
        files = {
            e.file: source,
            "in_c.py": given("in_c.py"),
            "equation.c": e.in_c.skeleton,
        }
        way = {"build": BUILD, **way}
    files["MODEL.md"] = given("MODEL.md")
    files[WAY] = json.dumps(way, indent=1) + "\n"
    files[STATE] = json.dumps(Student(Path(), e).state(), indent=1) + "\n"
    return files


def write(folder: str | os.PathLike[str], files: Mapping[str, str]) -> Path:
    """A new folder with these files. ExerciseError when there is something already."""
    target = Path(os.path.abspath(folder))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExerciseError(f"{target} exists and is not an empty folder; name a new one")
    with staged(target, last=STATE) as create:
        for name, text in files.items():
            with create(name) as stream:
                stream.write(text.encode())
    return target


def read(folder: str | os.PathLike[str]) -> Student:
    """What `start` has made. ExerciseError when the folder is something else."""
    at = Path(folder)
    path = at / STATE
    if not path.is_file():
        raise ExerciseError(
            f"{at} is no exercise: it has no {STATE}; `modernbert exercise start ID` makes one"
        )
    try:
        if path.stat().st_size > LONGEST_STATE:
            raise ValueError(f"it has more than {LONGEST_STATE:,} bytes")
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ExerciseError(f"{path} cannot be read: {error}") from None
    if not isinstance(said, dict) or said.get("made_by") != MADE_BY:
        raise ExerciseError(f'{path} was not made by `{MADE_BY} start`: no "made_by": "{MADE_BY}"')
    if said.get("format") != FORMAT:
        raise ExerciseError(
            f"{path} has format {said.get('format')!r}; this version reads {FORMAT}: start anew"
        )
    hints = said.get("hints")
    if not isinstance(hints, int) or isinstance(hints, bool) or hints < 0:
        raise ExerciseError(f"{path} has hints {hints!r}; it must be a number of hints, 0 or more")
    id = said.get("exercise")
    if not isinstance(id, str):
        raise ExerciseError(f"{path} has exercise {id!r}; it must be an id of the list")
    return Student(at, exercise(id), hints)


def save(student: Student) -> None:
    """The state into the folder's exercise.json."""
    with replacing(student.folder / STATE) as stream:
        stream.write((json.dumps(student.state(), indent=1) + "\n").encode())


def way(student: Student) -> dict[str, str]:
    """What port.json says: how the port is built and run. ExerciseError."""
    path = student.folder / WAY
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExerciseError(f"{path} is not there; it says how the port is run") from None
    except (ValueError, RecursionError, OSError) as error:
        raise ExerciseError(f"{path} cannot be read: {error}") from None
    known = {"build", "command", "library"}
    if not isinstance(said, dict) or not set(said) <= known:
        raise ExerciseError(f"{path} must hold an object with keys of {sorted(known)}")
    for key, value in said.items():
        if not isinstance(value, str) or not value.strip():
            raise ExerciseError(f"{path}: {key} is {value!r}; it must be text")
    if ("command" in said) == ("library" in said):
        raise ExerciseError(f'{path} must have "command" or "library", and not both')
    if "library" in said and student.exercise.training:
        raise ExerciseError(f'{path}: a training step is run as a "command"')
    return said
