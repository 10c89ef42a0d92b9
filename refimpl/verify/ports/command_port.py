"""A port as a command that is run once per case, with folders in and out.

    CMD CASE_DIR OUT_DIR            or CMD with {case} and {out} where the folders go

CASE_DIR is a case as the exported kit has it (kit.md), without expected values: `case.json` (case,
head, name and shape of every step, and in `model` where the model's folder is, seen from here), the
inputs in int64 (`inputs.safetensors`, and `inputs/NAME.npy`), and `texts.json` where a tokenizer
makes them of texts. The model's folder holds `config.json`, a tokenizer, and the weights in float32
(`model.safetensors`, and `weights/NAME.npy`). The command writes a dump (dump.py)
into OUT_DIR, any subset of the steps, perhaps with `port.json` ({"dtype": ..., "plan": ...,
"refused": "why it does not run this"}), and ends with exit code 0. A hang, a crash, an error or too
much output is a finding, with the end of its stderr.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..findings import Finding
from ..truth.cases import BY_NAME
from ..truth.kit import input_files, model_files
from .dump import read_dump
from .isolation import (
    ENDED,
    Limits,
    child_signals,
    folder_size,
    how_it_ended,
    kill_group,
    own_group,
    tail,
    watch,
)
from .names import Description
from .port import PortResult, Request

HOW_TO_REFUSE = 'a case is refused by {"refused": "why"} in OUT_DIR/port.json and exit code 0'


@dataclass(frozen=True)
class CommandPort:
    """A command line, split as a shell would but run without one.

    declared: what it computes in (else its port.json, else float32); description: the user's map;
    folder: where it is run, None for here.
    """

    command: str
    declared: str | None = None
    description: Description = field(default_factory=Description)
    limits: Limits = Limits()
    abilities: frozenset[str] = frozenset({"inputs", "packed", "positions"})
    folder: Path | None = None

    @property
    def name(self) -> str:
        return self.command

    @property
    def dtype(self) -> str:
        return self.declared or self.description.dtype or "float32"

    def run(self, request: Request) -> PortResult:
        with tempfile.TemporaryDirectory(prefix="modernbert-verify-") as folder:
            case, out = write_case(Path(folder), request), Path(folder, "out")
            out.mkdir()
            log = Path(folder, "log")
            with child_signals():
                problem = self.execute(self.line(case, out), out, log)
            result = read_dump(out, request, self.description, self.declared)
            if problem is None:
                return detached(result)
            said = tail(log)
            message = f"the command {problem}" + (f"; its last words:\n{said}" if said else "")
            if problem.startswith(ENDED):
                message += f"\n({HOW_TO_REFUSE})"
            return PortResult(
                dtype=result.dtype, findings=(Finding("port", "fail", message, request.name),)
            )

    def run_together(self, requests: Sequence[Request]) -> list[PortResult]:
        return [self.run(request) for request in requests]

    def line(self, case: Path, out: Path) -> list[str]:
        words = shlex.split(self.command)
        filled = [w.replace("{case}", str(case)).replace("{out}", str(out)) for w in words]
        return filled if filled != words else [*words, str(case), str(out)]

    def execute(self, line: list[str], out: Path, log: Path) -> str | None:
        """Run the command; what went wrong, or None."""
        with log.open("wb") as errors:
            try:
                process = subprocess.Popen(
                    line,
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    cwd=self.folder,
                    start_new_session=True,
                    preexec_fn=own_group(self.limits),
                )
            except OSError as error:
                return f"cannot be started: {error.strerror}"
        try:
            killed = watch(process, self.limits, lambda: False, out)
        finally:
            kill_group(process)  # whatever it has left running
        if killed is None and folder_size(out) > self.limits.output:
            killed = f"has written more than {self.limits.output:,} bytes"
        return killed or how_it_ended(process.returncode, self.limits)


def startable(command: str) -> str:
    """The command line itself, if there is a program to start. ValueError says what there is."""
    words = shlex.split(command)
    program = words[0] if words else ""
    if shutil.which(program) is not None:
        return command
    if os.sep not in program:
        here = f"; is it ./{program}?" if Path(program).is_file() else ""
        problem = f"there is no program {program!r} on PATH{here}"
    elif Path(program).is_dir():
        problem = f"{program} is a folder"
    elif Path(program).exists():
        problem = f"{program} may not be executed (chmod +x)"
    else:
        problem = f"{program} does not exist"
    raise ValueError(f"--command cannot be started: {problem}")


def write_case(folder: Path, request: Request) -> Path:
    """CASE_DIR of a request, with its model, below `folder`, as in an exported kit."""
    known = BY_NAME.get(request.name)
    model = known.fixture.name if known else request.name
    config, head = dict(request.config), request.head
    files = dict(model_files(model, config, request.params, head))
    files |= input_files(request.name, model, config, request.inputs, head)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "cases" / request.name


def detached(result: PortResult) -> PortResult:
    """The same with arrays of its own, so that the files that they map can go."""
    return replace(
        result,
        taps={name: np.array(x) for name, x in result.taps.items()},
        inputs={name: np.array(x) for name, x in result.inputs.items()},
        weights=result.weights and {name: np.array(x) for name, x in result.weights.items()},
    )
