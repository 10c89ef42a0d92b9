"""Small model folders for the tests of text tasks, made with the bundled tokenizer.

Weights are unit-gain (1 / sqrt(fan_in)) with random norm gains, so that scores differ between
tokens and texts far beyond rounding. Folders are in the Hugging Face and sentence-transformers
layouts, written by the package itself.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from refimpl.files.checkpoint import write_checkpoint
from refimpl.files.safetensors import write_safetensors
from refimpl.models.model import BUNDLED
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.heads import HEADS
from refimpl.reference.params import encoder_shapes

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
WORDS = "the cat sat on a mat import numpy as np for i in range return".split()
NER_LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}


def some_texts(count: int, seed: int = 0, most: int = 30) -> list[str]:
    """Texts of 1 to `most` words, the same ones whenever as many are asked for."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, most))) for _ in range(count)]


def small_config(**overrides: Any) -> ModernBertConfig:
    """Three layers of both kinds, a window that bites after 5 tokens, the bundled vocabulary."""
    small = dict(
        hidden_size=32, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
        local_attention=10, local_rope_theta=100.0,
    )  # fmt: skip
    return ModernBertConfig.from_variant("tiny", **(small | overrides))


def draw(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """float32 tensors: matrices of unit gain, norm gains around 1, biases around 0."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, shape in shapes.items():
        x = rng.standard_normal(shape)
        if len(shape) == 2:
            x = x if "embeddings" in name else x / np.sqrt(shape[1])
        else:
            x = 1 + 0.4 * x if name.endswith("norm.weight") else 0.3 * x
        out[name] = x.astype(np.float32)
    return out


def add_tokenizer(folder: Path) -> Path:
    for name in TOKENIZER_FILES:
        shutil.copy(BUNDLED / name, folder / name)
    return folder


def model_folder(folder: Path, kind: str | None, *, seed: int = 0, **overrides: Any) -> Path:
    """A folder with an encoder and the head `kind` (None: no head), and the bundled tokenizer."""
    config = small_config(**overrides)
    head = None if kind is None else HEADS[kind]
    shapes = encoder_shapes(config) | ({} if head is None else head.shapes(config))
    write_checkpoint(folder, config, draw(shapes, seed), head)
    return add_tokenizer(folder)


def sentence_folder(
    folder: Path,
    modules: list[tuple[str, dict[str, Any]]],
    *,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    transformer: dict[str, Any] | None = None,
    **overrides: Any,
) -> Path:
    """An encoder with sentence-transformers modules after it.

    modules: (class path, its config); Dense and LayerNorm get random weights. settings:
    config_sentence_transformers.json; transformer: sentence_bert_config.json.
    """  # fmt: skip
    model_folder(folder, None, seed=seed, **overrides)
    entries = [("", "sentence_transformers.models.Transformer")]
    for i, (kind, config) in enumerate(modules, start=1):
        name = kind.rpartition(".")[2]
        path = folder / f"{i}_{name}"
        path.mkdir()
        (path / "config.json").write_text(json.dumps(config))
        if name == "Dense":
            wide, narrow = config["in_features"], config["out_features"]
            shapes: dict[str, tuple[int, ...]] = {"linear.weight": (narrow, wide)}
            shapes |= {"linear.bias": (narrow,)} if config.get("bias", True) else {}
            write_safetensors(path / "model.safetensors", draw(shapes, seed + i))
        elif name == "LayerNorm":
            shapes = {"norm.weight": (config["dimension"],), "norm.bias": (config["dimension"],)}
            write_safetensors(path / "model.safetensors", draw(shapes, seed + i))
        entries.append((path.name, kind))
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(entries)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    if settings is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    if transformer is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps(transformer))
    return folder
