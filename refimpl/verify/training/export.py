"""The training kit that travels: models, batches and expected values for any language.

Formats: kit.md; content: kit.py. Promise: the folder appears complete or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..._version import __version__
from ..truth.export import written
from ..truth.rounding import SEEDS, K
from .cases import CASES, STEPS, TrainingCase
from .compare import AFTER
from .kit import DTYPES, kit_files

KIT_VERSION = 1
"""Of the layout: changes when a reader of an older kit could go wrong."""


def export(folder: str | os.PathLike[str], cases: Sequence[TrainingCase] = CASES) -> Path:
    """Write the kit into a new folder and return its path. Raises FileExistsError, ValueError."""
    if not cases:
        raise ValueError("cases is empty; a kit needs at least one")
    return written(
        folder,
        kit_files(cases),
        lambda listed: {
            "training_kit_version": KIT_VERSION,
            "generator": {"refimpl": __version__, "numpy": np.__version__},
            "provenance": "weights and batches are drawn from numpy's Philox stream under fixed "
            "seeds; they come from no checkpoint; expected values: refimpl.train in float64",
            "k": K,
            "seeds": SEEDS,
            "dtypes": list(DTYPES),
            "steps": STEPS,
            "compared_after": list(AFTER),
            "cases": [case.name for case in cases],
            "sha256": dict(listed),
        },
    )
