"""What is right in a student's folder and what is not yet: the conformance kit, in plain words.

    outcome = checked(student)          outcome.right, outcome.lines

First the cases that the exercise is about; when these are right every other case of the kit, since
a mend may break something else. What shows whether a case is right has to be written: a port that
refuses the exercise's cases, or gives its first steps alone, is not right yet. The kit's suspects
are not asked for: they name the mistake, and `modernbert verify --command` says them to whoever
wants to know.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...verify.findings import counted
from ...verify.judge.coverage import SCORES
from ...verify.judge.gates import verify
from ...verify.judge.verdict import CaseReport, Report
from ...verify.ports.command_port import CommandPort
from ...verify.ports.isolation import Limits
from ...verify.ports.library_port import LibraryPort
from ...verify.training import cases as training_cases
from ...verify.training.files_port import TrainingCommand
from ...verify.training.judge import shapes_of
from ...verify.training.judge import verify as verify_step
from ...verify.training.zoo import ZOO as TRAINING_ZOO
from ...verify.truth import cases as forward_cases
from ...verify.truth.passes import config_of
from ...verify.truth.shapes import tap_shapes
from ...verify.zoo import ZOO
from .folder import Student, way
from .table import Exercise

AnyPort = CommandPort | LibraryPort | TrainingCommand
LIMITS = Limits(seconds=30.0)
"""Of one case: a loop without an end is ended."""
BUILD_SECONDS = 120.0
# Lines of what a port has said before it fell over.
LAST_WORDS = 4


@dataclass(frozen=True)
class Outcome:
    """right: whether nothing is wrong on any case; lines: what to tell."""

    right: bool
    lines: tuple[str, ...]


def checked(student: Student) -> Outcome:
    """The verdict on a folder. ExerciseError where port.json says nothing that can be run."""
    problem = built(student)
    if problem is not None:
        return Outcome(False, (f"not yet  it does not build: {problem}",))
    port, own = port_of(student), student.exercise.cases
    report = judged(port, own)
    lines = [*told(report, student.exercise)]
    if any(wrong(case, report) or unshown(case, student.exercise) for case in report.cases):
        hint = f"Not yet. The next hint: modernbert exercise hint {student.folder}"
        return Outcome(False, (*lines, "", hint))
    others = [name for name in names(student.exercise) if name not in own]
    rest = judged(port, others)
    broken = [
        case
        for case in rest.cases
        if wrong(case, rest) or case.comparison and unshown(case, student.exercise)
    ]
    if broken:
        lines += [*told(rest, student.exercise, only=[case.name for case in broken])]
        lines += [
            "",
            "Right where it was wrong, but not on every case of the kit: what was changed",
        ]
        return Outcome(False, (*lines, "must be right for these, too."))
    ran = sum(case.comparison is not None for case in (*report.cases, *rest.cases))
    lines += ["", f"All {ran} cases that this port runs are right: done."]
    if student.exercise.kind == "bug":
        lines.append(name_of(student.exercise, citations=True))
    return Outcome(True, tuple(lines))


# -- the port -------------------------------------------------------------------------------------


def built(student: Student) -> str | None:
    """Run the folder's build, where there is one; what went wrong, or None."""
    build = way(student).get("build")
    if build is None:
        return None
    try:
        done = subprocess.run(
            shlex.split(build), cwd=student.folder, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=BUILD_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()


def port_of(student: Student) -> AnyPort:
    """The port of the kit that port.json names, run in the student's folder."""
    said, folder = way(student), student.folder.resolve()
    if "library" in said:
        return LibraryPort(folder / said["library"], limits=LIMITS)
    words = shlex.split(said["command"])
    if words[0] == "python":  # the one that runs this, which has numpy
        words[0] = sys.executable
    if student.exercise.training:
        return TrainingCommand(shlex.join(words), limits=LIMITS, folder=folder)
    return CommandPort(shlex.join(words), limits=LIMITS, folder=folder)


def names(e: Exercise) -> list[str]:
    """The cases of the exercise's kit."""
    return [*(training_cases if e.training else forward_cases).BY_NAME]


def judged(port: AnyPort, cases: Sequence[str]) -> Report:
    """The kit's report on some cases, without suspects."""
    if isinstance(port, TrainingCommand):
        chosen = [training_cases.case(name) for name in cases]
        return verify_step(port, chosen, suspects=False)
    given = [forward_cases.case(name) for name in cases]
    return verify(port, given, runtime=False, suspects=False)


# -- in words -------------------------------------------------------------------------------------


def wrong(case: CaseReport, report: Report) -> bool:
    """Whether the kit has found anything in a case. A refusal is a note, and nothing wrong."""
    return any(f.level != "note" for f in report.findings if f.case == case.name)


def unshown(case: CaseReport, e: Exercise) -> list[str]:
    """Values that show whether a case is right, and that the port has not given: the last hidden
    state and a head's scores; of a training step the loss, all gradients and parameters."""
    if e.training:
        wanted = shapes_of(training_cases.case(case.name).training())
        last = [name for name in wanted if name == "loss" or name.startswith(("grad.", "after_"))]
    else:
        of = forward_cases.case(case.name)
        shapes = tap_shapes(config_of(of.config), of.inputs, of.head)
        last = [name for name in shapes if name in ("final_norm", *SCORES)]
    given = {row.tap for row in case.comparison.rows} if case.comparison else set()
    return [name for name in last if name not in given]


def told(report: Report, e: Exercise, only: Sequence[str] | None = None) -> Iterator[str]:
    """A line for each case: right, not yet, or not run."""
    for case in report.cases:
        if only is not None and case.name not in only:
            continue
        if wrong(case, report):
            yield f"not yet  {case.name}: {what_is_wrong(case, report, e)}"
        elif case.comparison is None:
            said = [f.message for f in report.findings if f.case == case.name]
            yield f"not run  {case.name}: {said[0] if said else 'nothing was written'}"
        elif lacking := unshown(case, e):
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            yield f"not yet  {case.name}: it does not write {lacking[0]}{more}"
        else:
            yield f"right    {case.name}: {counted(len(case.comparison.rows), 'step')}"


def name_of(e: Exercise, citations: bool = False) -> str:
    """What the kit's zoo says of a bug, and who else has made it."""
    mistake = (TRAINING_ZOO if e.training else ZOO)[e.zoo]
    said = f"The kit calls it {mistake.id}, {mistake.title}: {mistake.text}"
    if citations and mistake.citations:
        said += f"\nOthers have made it: {', '.join(mistake.citations)}"
    return said


def what_is_wrong(case: CaseReport, report: Report, e: Exercise) -> str:
    """One sentence. Of degree 1, and of an equation, it names the first wrong step."""
    found = [f for f in report.findings if f.case == case.name and f.level != "note"]
    fell = next((f for f in found if f.gate == "port"), None)
    if fell is not None:
        return "\n         ".join(fell.message.splitlines()[-LAST_WORDS:])
    comparison = case.comparison
    culprit = comparison.culprit if comparison else None
    if comparison is None:
        return found[0].message
    if e.degree == 1 or e.kind == "equation":
        step = culprit or found[0].tap
        row = next((row for row in comparison.rows if row.tap == step), None)
        off = f", {row.forced.ratio:.3g} times what rounding may do" if row and culprit else ""
        return f"the first step that is wrong by itself is {step}{off}"
    if e.degree == 2:
        return f"its numbers are {comparison.ratio:.3g} times further off than rounding explains"
    return "its numbers are wrong"
