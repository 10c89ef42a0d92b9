"""A dump of a port's tensors, read as a PortResult: any subset of the steps, under any known name.

A dump is a folder of .npy files, an .npz or a .safetensors file per case (PATH/CASE, PATH/CASE.npz,
...), or, for one case, such a folder or file itself; or a folder per row in it (rows.py). Tensors
are steps; `weights.NAME` is a parameter as the port holds it, `inputs.NAME` (input_ids,
attention_mask, position_ids) what it ran on. `port.json` beside them says the rest
(names.Description). Whatever is wrong is a finding: a tensor is read only when its shape is that of
a step (collect.py), so nothing large is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..findings import Finding
from .collect import collect
from .names import Description, read_description
from .port import PortResult, Request
from .rows import read_rows, row_folders
from .tensors import SUFFIXES, stored


@dataclass(frozen=True)
class DumpPort:
    """Files that a port has written. It answers for the cases that are there, and runs nothing.

    path: folder or file; case: the case that `path` itself is a dump of, or None when it holds one
    dump per case; dtype: what the port computes in (else port.json's, else float32); description:
    the user's map, which goes before port.json.
    """

    path: Path
    case: str | None = None
    declared: str | None = None
    description: Description = field(default_factory=Description)
    abilities: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def dtype(self) -> str:
        return self.declared or self.description.dtype or "float32"

    def run(self, request: Request) -> PortResult:
        found = self.path if self.case == request.name else locate(self.path, request.name)
        if found is None:
            return _nothing(request.name, f"{self.path.name} holds no dump of this case")
        return read_dump(found, request, self.description, self.declared)

    def run_together(self, requests: Sequence[Request]) -> list[PortResult]:
        return [self.run(request) for request in requests]


def locate(path: Path, case: str) -> Path | None:
    """The dump of one case in a folder of dumps."""
    places = [path / case, *(path / (case + suffix) for suffix in SUFFIXES[1:])]
    return next((place for place in places if place.exists()), None)


def described(path: Path, description: Description, case: str) -> tuple[Description, list[Finding]]:
    """A dump's description with the nearest port.json's, and what is wrong with that."""
    for folder in (path, path.parent) if path.is_dir() else (path.parent,):
        if (folder / "port.json").is_file():
            try:
                return description.over(read_description(folder / "port.json")), []
            except ValueError as error:
                return description, [Finding("port", "fail", str(error), case)]
    return description, []


def read_dump(
    path: Path, request: Request, description: Description, dtype: str | None = None
) -> PortResult:
    """Read one dump. description: what goes before the dump's own port.json."""
    description, findings = described(path, description, request.name)
    if description.refused is not None:
        return _nothing(request.name, f"refused by the port: {description.refused}")
    folders = row_folders(path)
    if folders:
        result = read_rows(
            folders, request, lambda at, row: collect(row, stored(at), description, dtype)
        )
    else:
        result = collect(request, stored(path), description, dtype)
    return replace(result, findings=(*findings, *result.findings))


def _nothing(case: str, message: str) -> PortResult:
    return PortResult(findings=(Finding("port", "note", message, case),))
