"""A dump of one row at a time, put together: for ports that take no batch.

    CASE/0/STEP.npy, CASE/1/STEP.npy, ...      row b of the batch, in the shapes of a batch of one

Each row is read as a dump of that row alone (collect.py), so that it may lack its padding, or have
more of it. A row that is not there is not shown, and lacks in the coverage; a step has to be in
every row that is. Packed input is one call: its sequences apart would show nothing of that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..findings import Finding
from ..truth.errors import real_rows
from ..truth.shapes import axes_of
from .port import PortResult, Request

Array = np.ndarray


def row_folders(path: Path) -> dict[int, Path]:
    """Row -> folder, of folders whose name is a number."""
    found = path.iterdir() if path.is_dir() else ()
    return {int(p.name): p for p in sorted(found) if p.name.isdecimal() and p.is_dir()}


def read_rows(
    folders: Mapping[int, Path], request: Request, read: Callable[[Path, Request], PortResult]
) -> PortResult:
    """The case's result from those of its rows. read: as dump.read_dump, of one row."""
    axes = axes_of(request.inputs)
    problem = None
    if len(axes) != 2:
        problem = "rows apart do not show packed input: write one dump, or refuse the case"
    elif max(folders) >= axes[0]:
        problem = f"there is a dump of row {max(folders)}; the case has rows 0 .. {axes[0] - 1}"
    if problem is not None:
        return PortResult(findings=(Finding("port", "fail", problem, request.name),))
    results = {b: read(folder, row_of(request, b)) for b, folder in folders.items()}
    given = {b: result for b, result in results.items() if result.taps}
    first = next(iter((given or results).values()))
    shown = np.zeros(axes, bool)
    for b, result in given.items():
        shown[b] = True if result.shown is None else result.shown[0]
    real = real_rows(request.to_pass())
    taps = {
        name: _stacked(name, {b: result.taps[name] for b, result in given.items()}, axes)
        for name in first.taps
        if all(name in result.taps for result in given.values())
    }
    whole = (shown | ~real).all()
    return replace(
        first, taps=taps, inputs={}, findings=tuple(_findings(results)),
        shown=None if whole else shown & real,
    )  # fmt: skip


def _findings(results: Mapping[int, PortResult]) -> list[Finding]:
    """Those of all rows; what every row says is said once, the rest with its row."""
    out: list[Finding] = []
    for b, result in results.items():
        for f in result.findings:
            everywhere = all(f in other.findings for other in results.values())
            said = f if everywhere else replace(f, message=f"row {b}: {f.message}")
            out += [] if said in out else [said]
    return out


def row_of(request: Request, b: int) -> Request:
    """The request for one row alone, padding included."""
    inputs = {name: None if x is None else x[b : b + 1] for name, x in request.inputs.items()}
    return replace(request, inputs=inputs, wanted=None)


def _stacked(name: str, rows: Mapping[int, Array], axes: tuple[int, ...]) -> Array:
    """[batch, ...] with NaN for the rows that are not there; tables that rows share stay."""
    some = next(iter(rows.values()))
    if some.shape[0] != 1 or name.endswith("inv_freq"):
        return some
    out = np.full((axes[0], *some.shape[1:]), np.nan, some.dtype)
    for b, x in rows.items():
        out[b] = x[0]
    return out
