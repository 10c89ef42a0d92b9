"""The kit that travels: cases, weights and expected values as files that any language can read.

    models/NAME/  config.json, model.safetensors, weights/*.npy
    cases/NAME/   case.json, inputs.safetensors, inputs/*.npy, expected.safetensors, expected/*.npy
    manifest.json, README.md (kit.md here: the formats, and the order in which to work)

Promise: the folder appears complete or not at all. A case of at most 66 tokens is there in full, a
longer one at its boundaries (`full=True`: at every real token). The content comes from kit.py.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..._version import __version__
from ...files.atomic import open_synced, sync_folder
from .cases import CASES, Case
from .kit import as_json, kit_files
from .rounding import DTYPES, SEEDS, K

KIT_VERSION = 2
"""Of the layout: changes when a reader of an older kit could go wrong."""


def export(
    folder: str | os.PathLike[str], cases: Sequence[Case] = CASES, full: bool = False
) -> Path:
    """Write the kit into a new folder and return its path.

    Raises FileExistsError when there is something at `folder` already (an empty folder is fine),
    and ValueError without a case.
    """
    if not cases:
        raise ValueError("cases is empty; a kit needs at least one")
    return written(folder, kit_files(cases, full), lambda listed: manifest(cases, full, listed))


def written(
    folder: str | os.PathLike[str],
    files: Iterable[tuple[str, bytes]],
    manifest: Callable[[Mapping[str, str]], Mapping[str, Any]],
) -> Path:
    """A new folder with these files and a manifest.json, made of their SHA-256; complete, or not
    there. Raises FileExistsError."""
    target = Path(os.path.abspath(folder))
    if target.is_symlink() or target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists and is not an empty folder; name a new one")
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        listed = {}
        for name, content in files:
            with open_synced(stage / name) as stream:
                stream.write(content)
            listed[name] = hashlib.sha256(content).hexdigest()
        with open_synced(stage / "manifest.json") as stream:
            stream.write(as_json(manifest(listed)))
        os.replace(stage, target)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    sync_folder(target.parent)
    return target


def manifest(cases: Sequence[Case], full: bool, sha256: Mapping[str, str]) -> dict[str, Any]:
    """What made the kit, from what, and the digest of every file."""
    return {
        "kit_version": KIT_VERSION,
        "generator": {
            "refimpl": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
        "provenance": "weights and inputs are drawn from numpy's Philox stream under fixed seeds; "
        "they come from no checkpoint; expected values: the numpy reference in float64",
        "full": full,
        "k": K,
        "seeds": SEEDS,
        "dtypes": {name: {"store": u.store, "compute": u.compute} for name, u in DTYPES.items()},
        "cases": [case.name for case in cases],
        "sha256": dict(sha256),
    }
