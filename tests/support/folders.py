"""Small model folders for the tests of files, made with the writer and then broken on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refimpl.files.checkpoint import AnyHead, write_checkpoint
from refimpl.files.safetensors import open_safetensors, write_safetensors
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.params import encoder_shapes, initialise

Params = dict[str, np.ndarray]


def small_config(**overrides: Any) -> ModernBertConfig:
    sizes: dict[str, Any] = dict(
        vocab_size=20, hidden_size=8, intermediate_size=6, num_hidden_layers=3,
        num_attention_heads=2, pad_token_id=3, bos_token_id=1, eos_token_id=2, cls_token_id=1,
        sep_token_id=2,
    )  # fmt: skip
    return ModernBertConfig.from_dict({**sizes, **overrides})


def small_params(
    config: ModernBertConfig, head: AnyHead | None, dtype: type = np.float32, seed: int = 5
) -> Params:
    shapes = encoder_shapes(config) | (head.shapes(config) if head else {})
    return initialise(shapes, config, seed, dtype)


def make_folder(
    folder: Path, head: AnyHead | None = None, **options: Any
) -> tuple[ModernBertConfig, Params]:
    """A folder as we write it; config overrides under their names, the rest for the writer."""
    writing = {k: options.pop(k) for k in ("dtype", "max_shard_size") if k in options}
    config = small_config(**options)
    params = small_params(config, head)
    write_checkpoint(folder, config, params, head, **writing)
    return config, params


def change_tensors(file: Path, change: Callable[[Params], object]) -> None:
    """Rewrite a safetensors file after `change` has worked on its arrays."""
    tensors = {name: np.array(t.array()) for name, t in open_safetensors(file).items()}
    change(tensors)
    write_safetensors(file, tensors)


def change_json(file: Path, **changes: Any) -> None:
    """Set keys of a json object; a value of ... removes the key."""
    content = json.loads(file.read_text())
    content = {k: v for k, v in {**content, **changes}.items() if v is not ...}
    file.write_text(json.dumps(content))


def snapshot(folder: Path) -> Mapping[str, bytes]:
    """Relative path -> content of every file."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
