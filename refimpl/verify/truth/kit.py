"""What the files of the exported kit hold: config, weights, inputs, expected values, budgets.

    expected: the float64 value of every step, at real tokens (padding is not compared)
    budget:   K times the worst of a family of legitimate evaluations, in two columns

Pure functions to (path, bytes); export.py puts them on the disk. The same arguments give the same
bytes for inputs and weights everywhere, and expected values within 1e-13.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from ...files.safetensors import dump_safetensors
from ...progress import progress
from .cases import Case
from .compare import STATISTICS, error
from .fixtures import hf_names
from .passes import Pass, config_of, forced, of_sequences, per_token, trace
from .rounding import DTYPES, SEEDS, K, noisy, unrounded
from .shapes import Shape, axes_of, tap_shapes
from .texts import text_file, texts_of, tokenizer_files

Array = np.ndarray
Files = Iterator[tuple[str, bytes]]
README = Path(__file__).with_name("kit.md")
COMPLETE_TOKENS = 66
"""A case of at most so many tokens, padding included, is exported at every real token."""
# Columns at which ports break: a window, table, tile or block of a usual size ends there.
EDGES = (63, 64, 65, 127, 128, 129, 255, 256, 511)
DIGITS = 4
"""Of a budget: a statistic of random runs has no more that mean anything."""


def kit_files(cases: Sequence[Case], full: bool) -> Files:
    """Every file of the kit but the manifest: path, content."""
    yield "README.md", README.read_bytes()
    for f in dict.fromkeys(c.fixture for c in cases):
        yield from model_files(f.name, f.config(), f.params(), f.head)
    for case in progress(cases, "export", name=lambda case: case.name):
        yield from case_files(case, full)


# -- one model, one case --------------------------------------------------------------------------


def model_files(
    name: str, config: Mapping[str, Any], params: Mapping[str, Array], head: str | None
) -> Files:
    """config.json, float32 weights under the names of Hugging Face files, and a tokenizer."""
    at = f"models/{name}/"
    weights = {n: np.ascontiguousarray(x, "<f4") for n, x in hf_names(params, head).items()}
    yield at + "config.json", as_json(config)
    for file, content in tokenizer_files(
        config["vocab_size"], config["max_position_embeddings"]
    ).items():
        yield at + file, as_json(content)
    yield from tensor_files(at + "model.safetensors", at + "weights/", weights)


def input_files(
    name: str, model: str, config: Mapping[str, Any], given: Mapping[str, Array | None],
    head: str | None, **more: Any,
) -> Files:  # fmt: skip
    """What a case asks: case.json with the shape of every step, inputs, and texts that become
    them. more: further keys of case.json; `step` maps a step to further keys of its line."""
    at = f"cases/{name}/"
    inputs = {n: np.ascontiguousarray(x, "<i8") for n, x in given.items() if x is not None}
    lines = more.pop("step", {})
    about = {
        "case": name,
        "model": f"../../models/{model}",
        "head": head,
        "inputs": {n: list(x.shape) for n, x in inputs.items()},
        **more,
        "steps": [
            {"tap": step, "shape": list(shape), "rows": _rows(step, shape, given)}
            | lines.get(step, {})
            for step, shape in tap_shapes(config_of(config), given, head).items()
        ],
    }
    yield at + "case.json", as_json(about)
    texts = texts_of(given)
    if texts is not None:
        yield at + "texts.json", text_file(texts)
    yield from tensor_files(at + "inputs.safetensors", at + "inputs/", inputs)


def _rows(step: str, shape: Shape, inputs: Mapping[str, Array | None]) -> str:
    axes = axes_of(inputs)
    return "tokens" if shape[: len(axes)] == axes and not of_sequences(step) else "sequences"


def case_files(case: Case, full: bool) -> Files:
    """Inputs, expected values of every step, and case.json with shapes and budgets."""
    at = f"cases/{case.name}/"
    p = case.model()
    chosen = chosen_tokens(case, full)
    truth = trace(p)
    expected = {}
    budgets = {dtype: step_budgets(p, truth, dtype, chosen) for dtype in DTYPES}
    for name, x in truth.items():
        of_tokens = per_token(name, x, case.real)
        rows = x[chosen] if of_tokens else x[chosen.any(axis=1)]
        expected[name] = np.ascontiguousarray(rows, "<f8")
    index = {"tokens": np.flatnonzero(chosen).astype("<i8")}
    if chosen.ndim == 2:
        index["sequences"] = np.flatnonzero(chosen.any(axis=1)).astype("<i8")
    yield from input_files(
        case.name, case.fixture.name, case.config, case.inputs, case.head,
        why=case.why,
        complete=bool((chosen == case.real).all()),
        step={name: {"budget": {d: budgets[d][name] for d in DTYPES}} for name in truth},
    )  # fmt: skip
    yield from tensor_files(at + "expected.safetensors", at + "expected/", {**index, **expected})


def chosen_tokens(case: Case, full: bool) -> Array:
    """bool, shape of input_ids: the real tokens whose values are exported.

    Of a long case: both ends of each row, the ends of the first and last token's window, EDGES.
    """
    if full or case.real.size <= COMPLETE_TOKENS:
        return case.real
    half = case.config["local_attention"] // 2
    chosen = np.zeros(case.real.shape, bool)
    for row, real in zip(np.atleast_2d(chosen), np.atleast_2d(case.real), strict=True):
        first, last = np.flatnonzero(real)[[0, -1]]
        ends = [first + i for i in (0, 1, half, half + 1)] + [last - i for i in (0, 1, half)]
        row[[i for i in (*ends, *EDGES) if first <= i <= last]] = True
    return chosen & case.real


def step_budgets(
    p: Pass, truth: Mapping[str, Array], dtype: str, chosen: Array
) -> dict[str, dict[str, dict[str, float]]]:
    """Step -> "alone" (its inputs are the expected ones, rounded to the dtype) and "cumulative" ->
    statistic -> allowed.

    K times the worst member of the family, as in compare.py, over the exported tokens.
    """
    worst = {
        name: {column: dict.fromkeys(STATISTICS, 0.0) for column in ("alone", "cumulative")}
        for name in truth
    }
    for seed in range(SEEDS):
        given = unrounded(truth, dtype, seed, DTYPES[dtype].store)
        alone = forced(noisy(p, dtype, seed, fed=True), given)
        for column, values in (("cumulative", trace(noisy(p, dtype, seed))), ("alone", alone)):
            for name, x in values.items():
                mine = worst[name][column]
                for statistic, e in error(name, x, truth[name], chosen).items():
                    mine[statistic] = max(mine[statistic], float(f"{K * e:.{DIGITS - 1}e}"))
    return worst


# -- formats --------------------------------------------------------------------------------------


def tensor_files(together: str, apart: str, tensors: Mapping[str, Array]) -> Files:
    """The same tensors as one .safetensors file and as a folder of .npy files."""
    stream = io.BytesIO()
    dump_safetensors(stream, tensors, metadata={"format": "pt"})
    yield together, stream.getvalue()
    for name, x in tensors.items():
        stream = io.BytesIO()
        npy.write_array(stream, x, version=(1, 0), allow_pickle=False)
        yield f"{apart}{name}.npy", stream.getvalue()


def as_json(content: Mapping[str, Any]) -> bytes:
    """One line per key, per step and per digest: readable, and a third of an indented file."""
    lines = []
    for key, value in content.items():
        text = json.dumps(value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        elif key == "sha256":
            entries = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            text = "{\n  " + ",\n  ".join(entries) + "\n }"
        lines.append(f" {json.dumps(key)}: {text}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()
