"""Public ports through the kit, anew: verdict and causes are those of the table.

    REFIMPL_GALLERY=FOLDER pytest -m gallery

The folder keeps virtual environments (some 10 GB) and dumps; the package index is needed once. A
port that the kit still owes something to is expected to fail, and must.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from public_ports import PORTS, Port
from run import exported, faults, run

pytestmark = pytest.mark.gallery


@pytest.fixture(scope="module")
def cache() -> Path:
    where = os.environ.get("REFIMPL_GALLERY")
    assert where, "REFIMPL_GALLERY must name a folder for environments and dumps"
    folder = Path(where).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def kit(cache: Path) -> Path:
    return exported(cache, None)


@pytest.mark.parametrize("port", PORTS, ids=lambda port: port.name)
def test_verdict_and_causes_are_those_of_the_source(port: Port, cache: Path, kit: Path) -> None:
    assert tuple(faults(port, run(port, cache, kit))) == port.owed
