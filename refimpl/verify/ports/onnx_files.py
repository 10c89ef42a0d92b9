"""Several ONNX files as one port: which model of the kit each of them holds, and its cases.

    model_of(path)      by name: PLACE/plain.onnx, PLACE/plain/model.onnx, plain/onnx/model.onnx;
                        else by the config.json beside the file or above it: the model that has
                        the same plan, if there is only one

A file's weights are not looked at: exports fold, transpose and quantise them.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...reference.heads import HEADS
from ..findings import Finding
from ..truth.cases import BY_NAME
from ..truth.fixtures import FIXTURES
from ..truth.passes import config_of
from ..truth.plan import Plan, plan_of
from .names import Description
from .onnx_port import OnnxPort
from .port import PortResult, Request

# How far above a file its model's name or config.json may stand: optimum and transformers.js have
# NAME/onnx/model.onnx.
ABOVE = 2


def onnx_files(where: str) -> list[Path]:
    """The file, those of a folder at any depth, or those of a pattern. ValueError if none."""
    path = Path(where)
    if path.is_dir():
        found = sorted(path.rglob("*.onnx"))
    elif path.is_file():
        found = [path]
    else:
        found = sorted(Path(name) for name in glob.glob(where, recursive=True))
    if not found:
        raise ValueError(f"--onnx {where}: there is no such file, and none below it or like it")
    return found


def by_model(files: Sequence[Path]) -> dict[str, Path]:
    """Model of the kit -> file. ValueError where a file is of none, or two are of one."""
    out: dict[str, Path] = {}
    for file in files:
        model = model_of(file)
        if model in out:
            raise ValueError(
                f"{out[model]} and {file} are both of the model {model}; give a pattern that takes "
                "one file of each"
            )
        out[model] = file
    return out


def model_of(file: Path) -> str:
    """The name of the kit's model that a file holds. ValueError says how to tell."""
    places = [file.resolve(), *file.resolve().parents[: ABOVE + 1]]
    for name in (places[0].stem, *(place.name for place in places[1:])):
        if name in FIXTURES:
            return name
    how = f"name it or its folder after its model ({', '.join(FIXTURES)})"
    for place in places[1:]:
        config = place / "config.json"
        if not config.is_file():
            continue
        try:
            plan = _plan(json.loads(config.read_text(encoding="utf-8")))
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(f"{config} is no config.json of ModernBERT: {error}") from None
        like = [f.name for f in FIXTURES.values() if _plan(f.config()) == plan]
        if len(like) == 1:
            return like[0]
        said = f"is that of {' and of '.join(like)}" if like else "is that of no model of the kit"
        raise ValueError(f"{file}: {config} {said}; {how}")
    raise ValueError(f"{file}: nothing says which model it holds; {how}")


def _plan(config: Any) -> Plan:
    if not isinstance(config, dict):
        raise ValueError("it holds no object")
    names = config.get("architectures") or []
    heads = [
        k for k, head in HEADS.items() if isinstance(names, list) and head.architecture in names
    ]
    return plan_of(config_of(config), heads[0] if heads else None)


class OnnxFiles:
    """files: model -> file; dtype and description: as OnnxPort's, for all of them.

    One file is loaded at a time. Raises what OnnxPort raises, and ValueError when the files differ
    in the type of their weights.
    """

    def __init__(
        self,
        files: dict[str, Path],
        dtype: str | None = None,
        description: Description | None = None,
    ) -> None:
        self.files, self.description = files, description
        made = {name: OnnxPort(path, dtype, description) for name, path in files.items()}
        dtypes = {port.dtype for port in made.values()}
        if len(dtypes) > 1:
            told = ", ".join(f"{port.path} {port.dtype}" for port in made.values())
            raise ValueError(f"the files are of several types ({told}); hand them in apart")
        self.dtype = dtypes.pop()
        self.abilities = frozenset.intersection(*(port.abilities for port in made.values()))
        self._loaded = next(iter(made.items()))

    @property
    def name(self) -> str:
        return f"{len(self.files)} ONNX files"

    def run(self, request: Request) -> PortResult:
        return self.run_together([request])[0]

    def run_together(self, requests: Sequence[Request]) -> list[PortResult]:
        model = BY_NAME[requests[0].name].fixture.name
        if model not in self.files:
            note = Finding("port", "note", f"no file is of the model {model}", requests[0].name)
            return [PortResult(findings=(note,))] * len(requests)
        if self._loaded[0] != model:
            self._loaded = model, OnnxPort(self.files[model], self.dtype, self.description)
        return self._loaded[1].run_together(requests)
