"""What a run keeps on disk beside its model: one file to go on from, and a line per figure.

    training.safetensors    params.<name>, optimiser.<name>, data.<name>; counters and identity in
                            its metadata
    metrics.jsonl           one object per step or evaluation, "step" counting from 1

The state is replaced whole or not at all. Lines of steps after the state's are cut on resume: those
steps are taken again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelFormatError
from ..files.atomic import replacing
from ..files.safetensors import in_memory, open_safetensors, write_safetensors

Array = np.ndarray
STATE, METRICS = "training.safetensors", "metrics.jsonl"
FACTS = "refimpl_run"


PARTS = ("params", "optimiser", "data")


def write_state(
    path: Path, parts: Mapping[str, Mapping[str, Array]], facts: Mapping[str, Any]
) -> None:
    """Replace the state: the tensors of each of PARTS. Raises OSError, and then the old one is as
    it was."""
    tensors = {f"{part}.{name}": x for part in PARTS for name, x in parts[part].items()}
    write_safetensors(path, tensors, metadata={FACTS: json.dumps(facts)})


def read_state(path: Path) -> tuple[dict[str, dict[str, Array]], dict[str, Any]]:
    """(tensors of each of PARTS, facts), copied from the file. Raises ModelFormatError."""
    file = open_safetensors(path)
    if FACTS not in file.metadata:
        raise ModelFormatError("is no state of a run", file=path, key=FACTS)
    parts: dict[str, dict[str, Array]] = {part: {} for part in PARTS}
    for name, tensor in file.items():
        part, _, own = name.partition(".")
        parts[part][own] = np.array(in_memory(tensor.array()))
    return parts, json.loads(file.metadata[FACTS])


@contextmanager
def told(what: str, path: Path, step: int) -> Iterator[None]:
    """An OSError of the block names what was written, where, and the step."""
    try:
        yield
    except OSError as error:
        why = f"{error.strerror or error}: {what} of step {step} was not written, what was there is"
        raise OSError(error.errno, f"{why} as it was", str(path)) from error


def append(path: Path, figures: Mapping[str, Any]) -> None:
    """One line more."""
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(figures) + "\n")


def cut(path: Path, step: int) -> None:
    """Leaves the lines of steps up to that one; a line that a crash left half written goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            break
    with replacing(path) as stream:
        stream.write("".join(kept).encode())
