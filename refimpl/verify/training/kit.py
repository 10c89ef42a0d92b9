"""What the files of the exported training kit hold: models, batches, expected values, budgets.

    training/models/NAME/  config.json, model.safetensors, weights/*.npy
    training/cases/NAME/   case.json, batch.safetensors, batch/*.npy, expected.safetensors,
                           expected/*.npy

Pure functions to (path, bytes); export.py puts them on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...progress import progress
from ..truth.errors import STATISTICS
from ..truth.fixtures import hf_names
from ..truth.kit import DIGITS, as_json, tensor_files
from ..truth.rounding import SEEDS, K
from .cases import STEPS, TASKS, TrainingCase
from .compare import Right, Told, error, right, values
from .rounding import noisy

Array = np.ndarray
Files = Iterator[tuple[str, bytes]]
README = Path(__file__).with_name("kit.md")
DTYPES = ("float32", "bfloat16")
"""Dtypes with budgets in case.json."""


def kit_files(cases: Sequence[TrainingCase]) -> Files:
    """Every file of the kit but the manifest: path, content."""
    yield "README.md", README.read_bytes()
    for case in progress(cases, "cases"):
        at = f"cases/{case.name}/"
        for name, content in model_files(case):
            yield f"models/{case.name}/{name}", content
        for name, content in case_files(case):
            yield at + name, content


def command_files(case: TrainingCase) -> Files:
    """CASE_DIR of a command: the case without expected values, its model in the same folder."""
    yield from model_files(case)
    batch = {name: _stored(x) for name, x in case.batch().items()}
    yield "case.json", as_json(about(case, "."))
    yield from tensor_files("batch.safetensors", "batch/", batch)


def model_files(case: TrainingCase) -> Files:
    """config.json and float32 weights under the names of Hugging Face files."""
    weights = {n: x.astype("<f4") for n, x in hf_names(case.params(), case.head).items()}
    yield "config.json", as_json(case.config)
    yield from tensor_files("model.safetensors", "weights/", weights)


def case_files(case: TrainingCase) -> Files:
    """Batches, expected values of every step, case.json with shapes and budgets."""
    batch = {name: _stored(x) for name, x in case.batch().items()}
    t = case.training()
    rights = {dtype: right(t, dtype) for dtype in DTYPES}
    truth = rights[DTYPES[0]].truth
    alone = {dtype: updates_alone(of) for dtype, of in rights.items()}
    listed = [
        {
            "value": name,
            "shape": list(x.shape),
            "budget": {
                dtype: {"cumulative": budget(of.strays[name])}
                | ({"alone": alone[dtype][name]} if name in alone[dtype] else {})
                for dtype, of in rights.items()
            },
        }
        for name, x in truth.items()
    ]
    yield "case.json", as_json(about(case, f"../../models/{case.name}") | {"values": listed})
    yield from tensor_files("batch.safetensors", "batch/", batch)
    expected = {name: np.array(x, "<f8", order="C") for name, x in truth.items()}
    yield from tensor_files("expected.safetensors", "expected/", expected)


def about(case: TrainingCase, model: str) -> dict[str, Any]:
    """Everything but arrays that a port needs to know."""
    rule = case.rule
    return {
        "case": case.name,
        "why": case.why,
        "model": model,
        "task": TASKS[case.head],
        "head": case.head,
        "problem": case.problem,
        "label_smoothing": case.label_smoothing,
        "class_weights": None if case.class_weights is None else list(case.class_weights),
        "choices": case.choices or None,
        "steps": STEPS,
        "micro_batches": list(case.windows),
        "accumulate": case.accumulate,
        "stop_after": case.stop_after,
        "optimiser": {
            "name": rule.optimiser,
            "betas": list(rule.betas),
            "eps": rule.eps,
            "weight_decay": rule.weight_decay,
            "peak": rule.peak,
            "lr": list(rule.lr),
        },
        "batch": {name: list(x.shape) for name, x in case.batch().items()},
    }


def budget(strays: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {s: float(f"{K * max(m[s] for m in strays):.{DIGITS - 1}e}") for s in STATISTICS}


def updates_alone(of: Right) -> dict[str, dict[str, float]]:
    """Budgets of the first update from the expected gradients."""
    told = Told({n: x for n, x in of.truth.items() if n.startswith("grad.")})
    fed = values(of.t, (1,), told)
    names = [name for name in fed if name.startswith("after_1.")]
    members = [values(noisy(of.t, of.dtype, seed), (1,), told, seed, of.dtype)
               for seed in range(SEEDS)]  # fmt: skip
    return {n: budget([error(of.t, n, m[n], fed[n]) for m in members]) for n in names}


def _stored(x: Array) -> Array:
    return np.ascontiguousarray(x, "<f8" if x.dtype.kind == "f" else "<i8")
