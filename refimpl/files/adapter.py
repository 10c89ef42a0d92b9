"""PEFT's folders of low-rank adapters: adapter_config.json and adapter_model.safetensors.

    write_adapter(folder, adapter, params, config, head, base)
    read_adapter(folder, params)       -> the adapter, and the tensors that it has whole (the head)
    config_under(folder, config)       what its task changes in the config of the model beneath
    whole_tensors(folder), with_adapter(folder, params)     for a folder that is read as a model

Promise: what is written, PEFT loads, and the other way round; a key of adapter_config.json that
would change the numbers and is not known here is refused. A config.json beside it says what the
head is; it must leave the encoder as it is. Long because a folder's every key is read, known to be
harmless, or refused.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelFormatError, shown
from ..reference.config import ModernBertConfig, default_labels
from ..reference.heads import HEADS
from ..reference.lora import A, Adapter, B
from ..reference.params import encoder_shapes
from ..reference.sentence import SentenceHead
from .atomic import staged
from .entry import Entry
from .folder import ADAPTER, CONFIG, ModelFolder
from .meaning import AnyHead
from .safetensors import Tensor, dump_safetensors, open_safetensors
from .sentence_files import sentence_files
from .stored import StoredParams
from .strictjson import read_json
from .weights import WEIGHTS as OF_A_MODULE

Array = np.ndarray
Folder = str | os.PathLike[str]

WEIGHTS = "adapter_model.safetensors"
DECODER, EMBEDDING = "decoder.weight", "embeddings.tok_embeddings.weight"
CLASSIFIER = "classifier.weight"
# What PEFT writes before the name of every tensor of a model.
PREFIX = "base_model.model."
# Kind of head -> PEFT's name of the task.
TASKS: Mapping[str, str | None] = {
    "sequence_classification": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
    "question_answering": "QUESTION_ANS",
    "masked_lm": None,
    "multiple_choice": None,
    "sentence_embedding": "FEATURE_EXTRACTION",
}
READ = ("peft_type", "task_type", "base_model_name_or_path", "revision", "r", "lora_alpha",
        "use_rslora")  # fmt: skip
# Keys whose other values would change the numbers: what does nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "alora_invocation_tokens": ((),),
    "alpha_pattern": ({},),
    "arrow_config": (),
    "bias": ("none",),
    "ensure_weight_tying": (False,),
    "exclude_modules": (),
    "fan_in_fan_out": (False,),
    # Other ways to begin change the matrices beneath.
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),
    "kasa_config": (),
    "layer_replication": (),
    "layers_pattern": (),
    "layers_to_transform": (),
    "lora_bias": (False,),
    "megatron_config": (),
    "monteclora_config": (),
    "rank_pattern": ({},),
    "target_parameters": (),
    "trainable_token_indices": (),
    "use_bdlora": (False,),
    "use_dora": (False,),
    "use_qalora": (False,),
}
HARMLESS = {
    "auto_mapping": "classes that PEFT loads the model beneath with",
    "corda_config": "of another way to begin",
    "eva_config": "of a way to begin",
    "inference_mode": "whether PEFT trains it",
    "loftq_config": "of another way to begin",
    "lora_dropout": "of training",
    "lora_ga_config": "of another way to begin",
    "megatron_core": "a module's name, of megatron_config",
    "modules_to_save": "the tensors say it",
    "peft_version": "what the folder was written with",
    "qalora_group_size": "of use_qalora",
    "target_modules": "the tensors say it",
    "velora_config": "memory in training",
}
# Fields of a config that are of the head, of training, or of the folder: an adapter's own
# config.json may have others there than the model beneath.
OF_HEAD = {
    "architectures", "classifier_activation", "classifier_bias", "classifier_dropout",
    "classifier_pooling", "decoder_bias", "extra", "id2label", "problem_type",
    "sparse_prediction", "sparse_pred_ignore_index", "tie_word_embeddings",
    "attention_dropout", "embedding_dropout", "mlp_dropout", "initializer_range",
    "initializer_cutoff_factor",
}  # fmt: skip


def write_adapter(
    folder: Folder,
    adapter: Adapter,
    params: Mapping[str, Array],
    config: ModernBertConfig,
    head: AnyHead,
    base: str,
) -> None:
    """The adapter, and the head whole, with the files that name the head: config.json, or
    modules.json and what goes with it. base: the folder or hub id of the model that the adapter
    belongs to, as PEFT's `base_model_name_or_path`. Raises OSError."""
    encoder, of_sentences = encoder_shapes(config), isinstance(head, SentenceHead)
    inner = "" if of_sentences else "model."
    tensors = {PREFIX + inner + name: x for name, x in adapter.tensors().items()}
    whole = [n for n in params if n not in encoder and not of_sentences]
    tensors |= {PREFIX + name: params[name] for name in whole}
    if "decoder.bias" in whole and DECODER not in whole:  # PEFT keeps a module whole: untied there
        tensors[PREFIX + DECODER] = params[EMBEDDING]
    content = {
        "peft_type": "LORA",
        "task_type": TASKS.get(head.kind),
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
    parts: dict[str, dict[str, Array]] = {WEIGHTS: tensors}
    if isinstance(head, SentenceHead):
        files = sentence_files(head)
        for name in head.shapes(config):
            module, _, own = name.partition(".")
            parts.setdefault(f"{module}/{OF_A_MODULE}", {})[own] = params[name]
    else:
        files = {CONFIG: {**config.to_dict(), "architectures": [head.architecture]}}
    with staged(Path(folder), last=ADAPTER) as create:
        for name, own_tensors in parts.items():
            with create(name) as stream:
                dump_safetensors(stream, own_tensors)
        for name, values in {**files, ADAPTER: content}.items():
            with create(name) as stream:
                stream.write(json.dumps(values, indent=2).encode() + b"\n")


def read_adapter(folder: Folder, params: Mapping[str, Array]) -> tuple[Adapter, dict[str, Array]]:
    """The adapter of a folder for a model with these parameters, and what it has whole.

    Raises ModelFormatError for a folder that is none, and for one that this cannot compute.
    """
    root = Path(folder)
    entry = Entry(root / ADAPTER, read_json(root / ADAPTER))
    tensors = by_name(open_safetensors(root / WEIGHTS))
    adapter = _adapter(entry, tensors, params)
    whole: dict[str, Array] = {}
    for name in tensors.keys() - adapter.tensors().keys():
        tensor = tensors[name]
        x = _finite(tensor, _dtype(params))
        if name in params and params[name].shape == x.shape:
            whole[name] = x
        elif name != DECODER or not np.array_equal(x, params[EMBEDDING]):  # tied here
            raise tensor.error("is no tensor of this model")
    return adapter, whole


def _adapter(entry: Entry, tensors: Mapping[str, Tensor], params: Mapping[str, Array]) -> Adapter:
    """A and B of each matrix that has them. Raises ModelFormatError."""
    rank, scale = _rank_and_scale(entry)
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        half = name[-len(A) :]
        if half in (A, B):
            stem = name[: -len(A) - 1]
            if f"{stem}.weight" not in params or params[f"{stem}.weight"].ndim != 2:
                raise tensor.error("is no tensor of this model")
            halves.setdefault(stem, {})[half] = tensor
    pairs = {}
    for stem, own in halves.items():
        out, width = params[f"{stem}.weight"].shape
        shapes = {key: t.shape for key, t in own.items()}
        if shapes != {A: (rank, width), B: (out, rank)}:
            some = next(iter(own.values()))
            raise some.error(f"has shapes {shapes} for a matrix [{out}, {width}] and r {rank}")
        a, b = (_finite(own[half], _dtype(params)) for half in (A, B))
        pairs[stem] = a, b
    if not pairs:
        raise ModelFormatError("it holds no adapter", file=entry.file.with_name(WEIGHTS))
    return Adapter(pairs, scale)


def _dtype(params: Mapping[str, Array]) -> np.dtype:
    return params.dtype if isinstance(params, StoredParams) else next(iter(params.values())).dtype


def _finite(tensor: Tensor, dtype: np.dtype) -> Array:
    """A tensor in memory, in a dtype."""
    x = np.array(tensor.astype(dtype))
    if not np.isfinite(x).all():
        raise tensor.error("it holds a value that is not finite; weights must be")
    return x


def _rank_and_scale(entry: Entry) -> tuple[int, float]:
    """What adapter_config.json says of the numbers. Raises ModelFormatError."""
    if entry.get("peft_type", str, "") != "LORA":
        raise entry.refuse("peft_type", "supported: LORA")
    for key, values in NEUTRAL.items():
        entry.neutral(key, values, "which is not supported")
    rank, alpha = entry.get("r", int), entry.get("lora_alpha", (int, float))
    if rank < 1:
        raise entry.refuse("r", "it must be at least 1")
    if not math.isfinite(alpha):
        raise entry.refuse("lora_alpha", "it must be finite")
    stabilised = entry.get("use_rslora", bool, False)
    entry.taken |= set(READ)
    entry.finish(HARMLESS)
    return rank, alpha / (math.sqrt(rank) if stabilised else rank)


def by_name(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file by the names that params have. Raises ModelFormatError."""
    out: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(PREFIX).removeprefix("model.")
        if name in out:
            raise tensor.error(f"this is the tensor {shown(out[name].name)} in another spelling")
        out[name] = tensor
    return out


# -- a folder that is read as a model -------------------------------------------------------------


def config_under(folder: ModelFolder, config: ModernBertConfig) -> ModernBertConfig:
    """The config of an adapter's folder. config: of its own config.json, or else of the model
    beneath, where task_type and the classifier's rows say what the head is.

    Raises ModelFormatError for an encoder that is not the one beneath, and for an unknown task.
    """
    assert folder.base is not None
    entry = folder.entry(folder.root / ADAPTER)
    task = entry.get("task_type", str, None)
    kinds = {name: kind for kind, name in TASKS.items() if name is not None}
    if task is not None and task not in kinds:
        raise entry.refuse("task_type", f"supported: {', '.join(kinds)}, or null")
    if (folder.root / CONFIG).is_file():
        beneath = ModernBertConfig.from_dict(folder.entry(folder.base.file(CONFIG)).values)
        for name in (f.name for f in fields(config) if f.name not in OF_HEAD):
            if getattr(config, name) != getattr(beneath, name):
                raise ModelFormatError(
                    f"is {getattr(config, name)!r}; the model that it adapts, {folder.base.path}, "
                    f"has {getattr(beneath, name)!r}",
                    file=folder.root / CONFIG, key=name,
                )  # fmt: skip
        return config
    if task is None or kinds[task] == "sentence_embedding":
        return config
    head = HEADS[kinds[task]]
    classifier = whole_tensors(folder).get(CLASSIFIER)
    labels = 2 if classifier is None else classifier.shape[0]
    same = classifier is None or labels == config.num_labels
    names = config.id2label if same else default_labels(labels)
    return config.replace(architectures=(head.architecture,), id2label=names)


def whole_tensors(folder: ModelFolder) -> dict[str, Tensor]:
    """The tensors that an adapter has whole, by their names in params."""
    tensors = by_name(open_safetensors(folder.root / WEIGHTS, folder.seen))
    return {name: t for name, t in tensors.items() if not name.endswith((A, B))}


def with_adapter(
    folder: ModelFolder, params: Mapping[str, Array], dtype: np.dtype | type
) -> dict[str, Array]:
    """Stored parameters of a model, the whole ones of the adapter among them, with W + scale B A in
    the place of each W, in `dtype`."""
    held = StoredParams(params, dtype)
    entry = folder.entry(folder.root / ADAPTER)
    tensors = by_name(open_safetensors(folder.root / WEIGHTS, folder.seen))
    adapter = _adapter(entry, tensors, held)
    out = dict(params)
    for name in adapter.pairs:
        with np.errstate(over="ignore", invalid="ignore"):
            whole = held[f"{name}.weight"] + adapter.delta(name)
        if not np.isfinite(whole).all():
            raise tensors[f"{name}.{B}"].error("with it the matrix is not finite")
        out[f"{name}.weight"] = whole
    return out
