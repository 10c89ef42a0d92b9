"""The weight files of one folder: model.safetensors, or its shards and their index.

    read_weights(folder)              key -> Tensor, over all files
    plan_shards(tensors, dtype, n)    file name -> tensors, at most n bytes each
    index_of(shards, dtype)           the content of model.safetensors.index.json

Promise: an index that lies (a file elsewhere, a tensor in another file, twice or nowhere) is a
ModelFormatError. Not here: what the keys mean (checkpoint.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelFormatError, shown
from .identity import Seen, ignored
from .safetensors import DTYPES, Tensor, disk_dtype, open_safetensors
from .strictjson import read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Named = dict[str, np.ndarray]


def read_weights(folder: Path, seen: Seen = ignored) -> dict[str, Tensor]:
    """Key -> tensor over the folder's weights: one file, or the shards of an index.

    seen: is told which files these were (identity.py).
    """
    if (folder / WEIGHTS).is_file():
        return dict(open_safetensors(folder / WEIGHTS, seen))
    file = folder / INDEX
    if not file.is_file():
        pickles = sorted(p.name for p in folder.glob("*.bin"))
        hint = f"; {pickles[0]} is a pickle, which is never read" if pickles else ""
        raise ModelFormatError(f"this file is missing{hint}", file=folder / WEIGHTS)
    places = read_json(file, seen=seen).get("weight_map")
    if not isinstance(places, dict):
        raise ModelFormatError("must map tensors to files", file=file, key="weight_map")
    for key, shard in places.items():
        if not isinstance(shard, str) or Path(shard).name != shard or shard in ("", ".", ".."):
            raise ModelFormatError(f"{shown(shard)} is no file of this folder", file=file, key=key)
    out: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        for key, tensor in open_safetensors(folder / shard, seen).items():
            if places.get(key) != shard:
                where = "nowhere" if key not in places else f"in {places[key]}"
                raise tensor.error(f"the index puts this tensor {where}, but it is here")
            out[key] = tensor
    for key, shard in places.items():
        if key not in out:
            raise ModelFormatError(
                "the index names it, the file has it not", file=folder / shard, key=key
            )
    return out


def plan_shards(tensors: Named, dtype: str | None, limit: int | None) -> dict[str, Named]:
    """File name -> its tensors: one file, or as few in order as stay within the limit."""
    groups: list[Named] = [{}]
    filled = 0
    for name, array in tensors.items():
        size = _disk_size(name, array, dtype)
        if limit is not None and groups[-1] and filled + size > limit:
            groups.append({})
            filled = 0
        groups[-1][name] = array
        filled += size
    if len(groups) == 1:
        return {WEIGHTS: groups[0]}
    n = len(groups)
    return {f"model-{i:05d}-of-{n:05d}.safetensors": g for i, g in enumerate(groups, start=1)}


def _disk_size(name: str, array: np.ndarray, dtype: str | None) -> int:
    return array.size * DTYPES[disk_dtype(name, array, dtype)].itemsize


def index_of(shards: dict[str, Named], dtype: str | None) -> dict[str, Any]:
    """The content of model.safetensors.index.json."""
    named = [(name, x) for tensors in shards.values() for name, x in tensors.items()]
    total = sum(_disk_size(name, x, dtype) for name, x in named)
    return {
        "metadata": {"total_size": total},
        "weight_map": {key: shard for shard, tensors in shards.items() for key in tensors},
    }
