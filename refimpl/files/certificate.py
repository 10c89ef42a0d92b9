"""int8.json of a model folder: what int8 costs this model, and what it keeps in floats.

    {"format": 1, "weights": digest, "kept": {"layers.21.mlp.Wo": "bfloat16"}, "balanced": true,
     "texts": {"count", "tokens", "digest"}, "calibration": {..}, "figures": {"cosine_p1", ..},
     "gate": {"cosine_p1": 0.999, ..}, "measured": {"backend", "tier", "version"}}

Written by `modernbert quantize` (tasks/quantize.py). `weights` tells whether it is of this model:
some rows of every matrix are looked at, which takes no time. The C library reads `kept`, `format`
and `weights` (csrc/files/int8.cpp) and refuses them in the same words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelFormatError, shown
from ..reference.int8 import KEPT_IN, Kept, matrix_names
from .atomic import replacing
from .entry import Entry
from .folder import ModelFolder

CERTIFICATE = "int8.json"
FORMAT = 1


@dataclass(frozen=True)
class TextsSeen:
    """Which texts: how many, their tokens, sha256 of them."""

    count: int
    tokens: int
    digest: str


@dataclass(frozen=True)
class Certificate:
    """See above. figures and gate: name -> number, at least the gate's for a folder that is saved;
    measured: where the figures are from."""

    weights: str
    kept: Kept
    balanced: bool
    texts: TextsSeen
    calibration: TextsSeen
    figures: Mapping[str, float]
    gate: Mapping[str, float]
    measured: Mapping[str, str]


def read_certificate(folder: ModelFolder, layers: int) -> Certificate | None:
    """That of a folder whose model has so many layers; None without one. ModelFormatError."""
    file = folder.root / CERTIFICATE
    if not file.is_file():
        return None
    entry = folder.entry(file)
    entry.taken.add("kept")
    kept = entry.values.get("kept")
    either = " or ".join(KEPT_IN)
    if not isinstance(kept, dict):
        raise ModelFormatError(f"must map matrices to {either}", file=file, key="kept")
    known = set(matrix_names(layers))
    for name, dtype in kept.items():
        if dtype not in KEPT_IN:
            raise ModelFormatError(
                f"{shown(name)} is kept in {shown(dtype)}, not in {either}", file=file, key="kept"
            )
        if name not in known:
            raise ModelFormatError(
                f"{shown(name)} is no matrix of this model", file=file, key="kept"
            )
    if entry.get("format", int) != FORMAT:
        raise entry.refuse("format", f"it must be {FORMAT}")
    weights = entry.get("weights", str)
    figures, gate = (_numbers(entry, key) for key in ("figures", "gate"))
    out = Certificate(
        weights=weights,
        kept=kept,
        balanced=entry.get("balanced", bool),
        texts=_texts(entry, "texts"),
        calibration=_texts(entry, "calibration"),
        figures=figures,
        gate=gate,
        measured={k: str(v) for k, v in entry.get("measured", dict).items()},
    )
    entry.finish()
    return out


def write_certificate(root: Path, certificate: Certificate) -> None:
    """Beside the weights of a folder, whole or not at all."""
    values: dict[str, Any] = {"format": FORMAT, **asdict(certificate)}
    with replacing(root / CERTIFICATE) as stream:
        stream.write((json.dumps(values, indent=2) + "\n").encode())


def _numbers(entry: Entry, key: str) -> dict[str, float]:
    found = entry.get(key, dict)
    for name, x in found.items():
        if isinstance(x, bool) or not isinstance(x, (int, float)):
            raise entry.refuse(key, f"{name} must be a number")
    return {name: float(x) for name, x in found.items()}


def _texts(entry: Entry, key: str) -> TextsSeen:
    found = entry.get(key, dict)
    count, tokens, digest = (found.get(k) for k in ("count", "tokens", "digest"))
    if type(count) is not int or type(tokens) is not int or not isinstance(digest, str):
        raise entry.refuse(key, "it must have count, tokens and digest")
    return TextsSeen(count, tokens, digest)


def digest_of_texts(texts: Iterable[str]) -> str:
    """sha256 over the texts, each with its length before it."""
    out = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        out.update(len(data).to_bytes(8, "little") + data)
    return out.hexdigest()


def digest_of_weights(params: Mapping[str, np.ndarray], layers: int) -> str:
    """sha256 over the first, middle and last row of every matrix that int8 concerns, in float32."""
    out = hashlib.sha256()
    for name in matrix_names(layers):
        weight = params[name + ".weight"]
        rows = weight[[0, len(weight) // 2, len(weight) - 1]]
        out.update(f"{name} {weight.shape}".encode())
        out.update(np.ascontiguousarray(rows, np.float32).tobytes())
    return out.hexdigest()
