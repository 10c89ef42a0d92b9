"""Training runs of other programs: a dump that they have written, or a command that writes it.

    DUMP/CASE/NAME.npy, DUMP/CASE.npz, DUMP/CASE.safetensors      names: port.py, formats: kit.md
    CMD CASE_DIR OUT_DIR                                          or with {case} and {out}

CASE_DIR is one case of the exported kit with its model beside it (case.json, config.json, weights,
batch); OUT_DIR takes the dump, perhaps with `port.json` ({"dtype": ..., "refused": ...}).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..ports.command_port import CommandPort
from ..ports.dump import described, locate
from ..ports.isolation import Limits, child_signals, tail
from ..ports.names import Description
from ..ports.tensors import stored
from .cases import TrainingCase
from .kit import command_files
from .port import Answer, collect, failed, refused

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class DumpPort:
    """A folder of dumps, or (case given) the dump of one case itself."""

    path: Path
    case: str | None = None
    declared: str | None = None
    description: Description = field(default_factory=Description)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def dtype(self) -> str:
        return self.declared or self.description.dtype or "float32"

    def run(self, case: TrainingCase, shapes: Shapes) -> Answer:
        found = self.path if self.case == case.name else locate(self.path, case.name)
        if found is None:
            return refused(case, f"{self.path.name} holds no dump of this case")
        return read(found, case, shapes, self.description, self.declared)


def read(
    path: Path, case: TrainingCase, shapes: Shapes, description: Description, dtype: str | None
) -> Answer:
    """One dump. description: what goes before its own port.json."""
    description, findings = described(path, description, case.name)
    if description.refused is not None:
        return refused(case, f"refused by the port: {description.refused}")
    answer = collect(case, shapes, stored(path), dtype or description.dtype or "float32")
    return replace(answer, findings=(*findings, *answer.findings))


@dataclass(frozen=True)
class TrainingCommand:
    """A command line that trains, run once per case, in `folder` where that is given."""

    command: str
    declared: str | None = None
    description: Description = field(default_factory=Description)
    limits: Limits = Limits()
    folder: Path | None = None

    @property
    def name(self) -> str:
        return self.command

    @property
    def dtype(self) -> str:
        return self.declared or self.description.dtype or "float32"

    def run(self, case: TrainingCase, shapes: Shapes) -> Answer:
        with tempfile.TemporaryDirectory(prefix="modernbert-verify-") as folder:
            given, out, log = Path(folder, "case"), Path(folder, "out"), Path(folder, "log")
            out.mkdir()
            for name, content in command_files(case):
                path = given / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            runner = CommandPort(self.command, limits=self.limits, folder=self.folder)
            with child_signals():
                problem = runner.execute(runner.line(given, out), out, log)
            if problem is None:
                return read(out, case, shapes, self.description, self.declared)
            said = tail(log)
            return failed(
                case, f"the command {problem}" + (f"; its last words:\n{said}" if said else "")
            )
