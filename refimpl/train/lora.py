"""Low-rank adapters: W + scale B A in the place of W, B and A trained (MODEL.md (65), PEFT's form).

    adapter = Adapter.drawn(params, rank=8, seed=0)      A by chance, B zero: nothing changes yet
    merged(params, adapter), unmerged(params, adapter)   parameters with, and again without
    write_adapter(folder, ..), read_adapter(folder, ..)  adapter_config.json and its safetensors

Promise: what is written, PEFT loads, and the other way round; a key of adapter_config.json that
would change the numbers and is not known here is refused. Long because a folder's every key is
read, known to be harmless, or refused.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelFormatError
from ..files.atomic import staged
from ..files.safetensors import dump_safetensors, in_memory, open_safetensors
from ..files.strictjson import read_json
from ..reference.config import ModernBertConfig
from ..reference.params import encoder_shapes
from .counter import purpose, words

Array = np.ndarray

TARGETS = ("attn.Wqkv", "attn.Wo")
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
A, B = "lora_A.weight", "lora_B.weight"
DECODER, EMBEDDING = "decoder.weight", "embeddings.tok_embeddings.weight"
# What PEFT writes before the name of every tensor of a model.
PREFIX = "base_model.model."
# Kind of head -> PEFT's name of the task.
PEFT_TASKS: Mapping[str, str | None] = {
    "sequence_classification": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
    "question_answering": "QUESTION_ANS",
    "masked_lm": None,
    "multiple_choice": None,
    "sentence_embedding": "FEATURE_EXTRACTION",
}
# Keys of adapter_config.json whose other values would change the numbers: what does nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "alpha_pattern": ({},),
    "bias": ("none",),
    "exclude_modules": (),
    "fan_in_fan_out": (False,),
    "layer_replication": (),
    "layers_pattern": (),
    "layers_to_transform": (),
    "lora_bias": (False,),
    "megatron_config": (),
    "rank_pattern": ({},),
    "target_parameters": (),
    "trainable_token_indices": (),
    "use_dora": (False,),
    "use_qalora": (False,),
    "use_rslora": (False,),
}


@dataclass(frozen=True)
class Adapter:
    """pairs: name of a matrix without `.weight` -> (A [rank, in], B [out, rank])."""

    pairs: Mapping[str, tuple[Array, Array]]
    scale: float

    @classmethod
    def drawn(
        cls,
        params: Mapping[str, Array],
        rank: int,
        alpha: float = 0.0,
        seed: int = 0,
        targets: Sequence[str] = TARGETS,
    ) -> Adapter:
        """A uniform within 1 / sqrt(in), as PEFT draws it, B zero. alpha: scale x rank, default
        2 rank. Raises ValueError for a rank below 1, or targets that no matrix has."""
        if rank < 1:
            raise ValueError(f"rank is {rank}; it must be at least 1")
        names = [n.removesuffix(".weight") for n, x in params.items() if x.ndim == 2]
        found = [n for n in names if any(n == t or n.endswith("." + t) for t in targets)]
        if not found:
            raise ValueError(f"targets is {list(targets)}; no matrix of the model has such a name")
        pairs = {}
        for name in found:
            w = params[name + ".weight"]
            n = rank * w.shape[1]
            drawn = words(purpose(seed, "lora " + name), (np.arange(-(-n // 4)), 0, 0, 0))
            u = drawn.reshape(-1)[:n].reshape(rank, -1).astype(np.float64) / 2**31 - 1.0
            a = (u / math.sqrt(w.shape[1])).astype(w.dtype)
            pairs[name] = a, np.zeros((w.shape[0], rank), w.dtype)
        return cls(pairs, (alpha or 2.0 * rank) / rank)

    @property
    def rank(self) -> int:
        return next(iter(self.pairs.values()))[0].shape[0]

    def tensors(self) -> dict[str, Array]:
        """Name -> array, which a trainer changes in place."""
        return {
            f"{name}.{key}": x
            for name, pair in self.pairs.items()
            for key, x in zip((A, B), pair, strict=True)
        }

    def gradients(self, grads: Mapping[str, Array]) -> dict[str, Array]:
        """(65'): from dW of the matrices to dA = scale B^T dW and dB = scale dW A^T."""
        out = {}
        for name, (a, b) in self.pairs.items():
            d = grads[name + ".weight"] * a.dtype.type(self.scale)
            out[f"{name}.{A}"], out[f"{name}.{B}"] = b.T @ d, d @ a.T
        return out

    def delta(self, name: str) -> Array:
        """scale B A, in the shape of W."""
        a, b = self.pairs[name]
        return (b @ a) * a.dtype.type(self.scale)


def merged(params: Mapping[str, Array], adapter: Adapter) -> dict[str, Array]:
    """The parameters with the adapter in their matrices; the others are the same arrays."""
    out = dict(params)
    for name in adapter.pairs:
        out[name + ".weight"] = params[name + ".weight"] + adapter.delta(name)
    return out


def unmerged(params: Mapping[str, Array], adapter: Adapter) -> dict[str, Array]:
    """The inverse of `merged`, to rounding."""
    out = dict(params)
    for name in adapter.pairs:
        out[name + ".weight"] = params[name + ".weight"] - adapter.delta(name)
    return out


# -- PEFT's folder --------------------------------------------------------------------------------


def write_adapter(
    folder: str | os.PathLike[str],
    adapter: Adapter,
    params: Mapping[str, Array],
    config: ModernBertConfig,
    kind: str,
    base: str,
) -> None:
    """The adapter, and the head whole. kind: of the head; base: the folder or hub id of the model
    that the adapter belongs to, as PEFT's `base_model_name_or_path`. Raises OSError."""
    encoder, inner = encoder_shapes(config), "" if kind == "sentence_embedding" else "model."
    tensors = {PREFIX + inner + name: x for name, x in adapter.tensors().items()}
    whole = [] if kind == "sentence_embedding" else [n for n in params if n not in encoder]
    tensors |= {PREFIX + name: params[name] for name in whole}
    if "decoder.bias" in whole and DECODER not in whole:  # PEFT keeps a module whole: untied there
        tensors[PREFIX + DECODER] = params[EMBEDDING]
    content = {
        "peft_type": "LORA",
        "task_type": PEFT_TASKS[kind],
        "base_model_name_or_path": base,
        "r": adapter.rank,
        "lora_alpha": adapter.scale * adapter.rank,
        "lora_dropout": 0.0,
        "target_modules": sorted({".".join(name.split(".")[-2:]) for name in adapter.pairs}),
        "modules_to_save": sorted({name.split(".")[0] for name in whole}) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "use_dora": False,
        "use_rslora": False,
    }
    with staged(Path(folder), last=CONFIG_FILE) as create:
        with create(WEIGHTS_FILE) as stream:
            dump_safetensors(stream, tensors)
        with create(CONFIG_FILE) as stream:
            stream.write(json.dumps(content, indent=2).encode() + b"\n")


def read_adapter(
    folder: str | os.PathLike[str], params: Mapping[str, Array]
) -> tuple[Adapter, dict[str, Array]]:
    """The adapter of a folder for a model with these parameters, and what it has whole.

    Raises ModelFormatError for a folder that is none, and for one that this cannot compute.
    """
    file = Path(folder) / CONFIG_FILE
    content = read_json(file)
    if content.get("peft_type") != "LORA":
        raise ModelFormatError(f"is {content.get('peft_type')!r}; supported: LORA",
                               file=file, key="peft_type")  # fmt: skip
    for key, values in NEUTRAL.items():
        value = content.get(key)
        if value is not None and value not in values:
            raise ModelFormatError(f"is {value!r}, which is not supported", file=file, key=key)
    rank, alpha = content.get("r"), content.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, (int, float)):
        raise ModelFormatError(f"is {rank!r} with lora_alpha {alpha!r}", file=file, key="r")
    weights = Path(folder) / WEIGHTS_FILE
    halves: dict[str, dict[str, Array]] = {}
    whole: dict[str, Array] = {}
    for key, tensor in open_safetensors(weights).items():
        name = key.removeprefix(PREFIX).removeprefix("model.")
        stem, half = name[: -len(A) - 1], name[-len(A) :]
        dtype = next(iter(params.values())).dtype
        x = np.array(in_memory(tensor.array())).astype(dtype)
        if half in (A, B) and f"{stem}.weight" in params:
            halves.setdefault(stem, {})[half] = x
        elif name in params and params[name].shape == x.shape:
            whole[name] = x
        elif name == DECODER and np.array_equal(x, params[EMBEDDING]):
            continue  # tied here
        else:
            raise ModelFormatError("is no tensor of this model", file=weights, key=key)
    pairs = {}
    for stem, own in halves.items():
        out, width = params[f"{stem}.weight"].shape
        shapes = {key: x.shape for key, x in own.items()}
        if shapes != {A: (rank, width), B: (out, rank)}:
            raise ModelFormatError(
                f"has shapes {shapes} for a matrix [{out}, {width}] and r {rank}",
                file=weights, key=stem,
            )  # fmt: skip
        pairs[stem] = own[A], own[B]
    if not pairs:
        raise ModelFormatError("it holds no adapter", file=weights)
    return Adapter(pairs, alpha / rank), whole
