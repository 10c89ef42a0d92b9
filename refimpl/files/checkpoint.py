"""Model folders in the Hugging Face layout, read and written: names, shapes, dtypes, heads.

    read_checkpoint(folder)  config.json + model.safetensors (or its shards) -> config, params, head
    write_checkpoint(...)    the inverse, in files that transformers reads as well

Promise: a tensor that is missing, extra, misshapen or not finite is a ModelFormatError with file
and key; nothing is dropped but the buffers in HARMLESS, and head tensors when the encoder alone is
asked for. Parameters stay views of the mapped file, none of whose pages reading leaves in memory.
Pickles are never read. Writing replaces files atomically, config.json last. Long because reading
and writing stand beside each other.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelFormatError
from ..nlp import CONFIG_KEY, MultiTaskHead, NLPHead, head_from_config
from ..reference.config import ModernBertConfig
from ..reference.heads import HEADS, Head
from ..reference.params import Shapes, encoder_shapes
from ..reference.sentence import SentenceHead
from .atomic import open_synced, staged
from .safetensors import CHUNK, Tensor, dump_safetensors, release
from .sentence_files import (
    MODULES_FILE,
    SETTINGS_FILE,
    TRANSFORMER_FILE,
    module_folders,
    read_sentence_head,
    sentence_files,
    transformer_folder,
)
from .stored import StoredParams, any_infinite, dtype_name, stored, widened
from .strictjson import read_json
from .weights import INDEX, WEIGHTS, index_of, plan_shards, read_weights

Folder = str | os.PathLike[str]
AnyHead = Head | SentenceHead | NLPHead | MultiTaskHead
Params = dict[str, np.ndarray]

CONFIG = "config.json"
ENCODER_ARCHITECTURE = "ModernBertModel"
EMBEDDING, DECODER = "embeddings.tok_embeddings.weight", "decoder.weight"
# The original training code's spelling: a wrapper's `model.`, then `bert.`, then `encoder.layers.`.
PREFIX = re.compile(r"^(model\.)?(bert\.)?(encoder\.(?=layers\.))?")
# Buffers of older files that are computed, not learned.
HARMLESS = re.compile(
    r"((layers\.\d+\.attn\.)?rotary_emb\.(\w+_)?inv_freq|embeddings\.position_ids)$"
)
# Larger than any that exists by a factor of 30; a lie here would cost memory before any check.
LIMITS = {"num_hidden_layers": 1_000, "num_labels": 10_000_000}
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds; `head` is None for a bare encoder."""

    config: ModernBertConfig
    params: StoredParams
    head: AnyHead | None


# -- reading --------------------------------------------------------------------------------------


def read_checkpoint(
    folder: Folder, *, dtype: np.dtype | type = np.float32, kind: str | None = "auto"
) -> Checkpoint:
    """Config, parameters and head of a folder. Raises ModelFormatError.

    dtype: of the parameters, float32 or float64, whatever the file holds (stored.py). kind: "auto"
    takes the head that the folder names (modules.json, else config.json); None the encoder alone,
    leaving the tensors of a head out; a key of HEADS that head, whatever is named.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelFormatError("this folder is missing", file=folder)
    root = transformer_folder(folder)
    config = read_config(root)
    named = _named_head(folder, root, config)
    head: AnyHead | None = named if kind == "auto" else None
    if kind not in ("auto", None):
        if kind not in HEADS:
            raise ValueError(f"kind {kind!r} is unknown; known: auto, None, {', '.join(HEADS)}")
        head = HEADS[kind]

    tensors = _plain_names(read_weights(root))
    config = _decide_tie(config, tensors, head)
    try:
        needed = encoder_shapes(config)
        modules = head.shapes(config) if head is not None else {}
    except ValueError as error:
        by = folder / MODULES_FILE if isinstance(head, SentenceHead) else root / CONFIG
        raise ModelFormatError(str(error), file=by) from None
    if isinstance(head, SentenceHead):
        found = dict(_module_tensors(folder, head))
        params = _take(found, modules, dtype, folder / MODULES_FILE)
        allowed = _head_names(config, named)
    else:
        params, allowed = {}, set() if head is not None else _head_names(config, named)
        needed |= modules
    own = {name: t for name, t in tensors.items() if name in needed or name not in allowed}
    file = root / (WEIGHTS if (root / WEIGHTS).is_file() else INDEX)
    params = _take(own, needed, dtype, file) | params
    return Checkpoint(config, StoredParams(params, dtype), head)


def read_config(folder: Path) -> ModernBertConfig:
    """config.json of a folder. ModelFormatError for one that is missing, wrong or not supported."""
    file = folder / CONFIG
    values = read_json(file)
    for key, limit in LIMITS.items():
        if isinstance(values.get(key), int) and values[key] > limit:
            raise ModelFormatError(f"is {values[key]}; at most {limit}", file=file, key=key)
    try:
        return ModernBertConfig.from_dict(values)
    except (TypeError, ValueError) as error:
        raise ModelFormatError(str(error), file=file) from error


def _named_head(folder: Path, root: Path, config: ModernBertConfig) -> AnyHead | None:
    """The head that modules.json, or else config.json, names."""
    if (folder / MODULES_FILE).is_file():
        sentence = read_sentence_head(folder)
        if sentence is not None:
            return sentence
    by_architecture = {head.architecture: head for head in HEADS.values()}
    for name in config.architectures:
        if name != ENCODER_ARCHITECTURE and name not in by_architecture:
            known = ", ".join([ENCODER_ARCHITECTURE, *by_architecture])
            raise ModelFormatError(
                f"{name!r} is unknown; known: {known}", file=root / CONFIG, key="architectures"
            )
    try:
        configured = head_from_config(config)
    except ValueError as error:
        raise ModelFormatError(str(error), file=root / CONFIG, key=CONFIG_KEY) from None
    if configured is not None or not config.architectures:
        return configured
    return by_architecture.get(config.architectures[0])


def _plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of any spelling under the names that params.py gives them."""
    out: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = PREFIX.sub("", key)
        if name in out:
            raise tensor.error(f"this is the tensor {out[name].name!r} in another spelling")
        out[name] = tensor
    return out


def _decide_tie(
    config: ModernBertConfig, tensors: dict[str, Tensor], head: AnyHead | None
) -> ModernBertConfig:
    """The rule of the decoder; adjusts `tensors`, returns the config that says what holds.

    No decoder.weight: tied. One that differs from the embedding: untied. One alone fills the
    embedding, and they are tied. An equal one counts as the config says.
    """
    decoder, embedding = tensors.get(DECODER), tensors.get(EMBEDDING)
    if decoder is not None and embedding is None:
        tensors[EMBEDDING] = tensors.pop(DECODER)
        return replace(config, tie_word_embeddings=True)
    if head != HEADS["masked_lm"]:
        return config
    if decoder is None or embedding is None:
        return replace(config, tie_word_embeddings=True)
    if not config.tie_word_embeddings or not _same(decoder, embedding):
        return replace(config, tie_word_embeddings=False)
    del tensors[DECODER]
    return config


def _same(a: Tensor, b: Tensor) -> bool:
    """The same type, shape and bytes, compared in chunks."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    x, y = (t.array().reshape(-1).view(np.uint8) for t in (a, b))
    steps = range(0, x.size, CHUNK)
    for one, other in ((x[i : i + CHUNK], y[i : i + CHUNK]) for i in steps):
        same = np.array_equal(one, other)
        release(one)
        release(other)
        if not same:
            return False
    return True


def _head_names(config: ModernBertConfig, named: AnyHead | None) -> set[str]:
    """Tensors that may lie beside an encoder that is wanted alone: those of the heads we know."""
    biased = config.replace(
        tie_word_embeddings=False,
        decoder_bias=True,
        classifier_bias=True,
        norm_bias=True,
        id2label={0: "start", 1: "end"},
    )
    names = {name for head in HEADS.values() for name in head.shapes(biased)}
    return names | set(named.shapes(config) if isinstance(named, NLPHead | MultiTaskHead) else ())


def _module_tensors(folder: Path, head: SentenceHead) -> Iterator[tuple[str, Tensor]]:
    """Name -> tensor of the modules behind the Transformer that have weights."""
    for (name, _), place in zip(head.named(), module_folders(folder), strict=True):
        if (place / WEIGHTS).is_file() or (place / "pytorch_model.bin").is_file():
            for key, tensor in read_weights(place).items():
                yield f"{name}.{key}", tensor


def _take(
    tensors: Mapping[str, Tensor], needed: Shapes, dtype: np.dtype | type, file: Path
) -> Params:
    """Exactly the tensors of `needed`, checked, as they are stored or, where that is too wide for
    `dtype`, in it."""
    missing = [name for name in needed if name not in tensors]
    if missing:
        more = f" ({len(missing)} are missing)" if len(missing) > 1 else ""
        raise ModelFormatError(f"this tensor is missing{more}", file=file, key=missing[0])
    for name, tensor in tensors.items():
        if name not in needed and not HARMLESS.fullmatch(name):
            raise tensor.error("this tensor belongs to no part of the model that config.json names")
        if name in needed and tensor.shape != needed[name]:
            raise tensor.error(f"its shape is {list(tensor.shape)}, not {list(needed[name])}")
    return {name: _finite(tensors[name], dtype) for name in needed}


def _finite(tensor: Tensor, dtype: np.dtype | type) -> np.ndarray:
    """The tensor as `_take` gives it; ModelFormatError, with the place, for NaN or infinity."""
    array = tensor.floats()
    if array.itemsize > np.dtype(dtype).itemsize:
        array = tensor.astype(dtype)
    if found := first_not_finite(array):
        raise tensor.error(f"it holds {found[0]} at {found[1]}; weights must be finite")
    return array


def first_not_finite(array: np.ndarray) -> tuple[Any, tuple[int, ...]] | None:
    """The first value of a stored array that is NaN or infinite, and its place."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        chunk = flat[start : start + CHUNK]
        if any_infinite(chunk):
            values = widened(chunk, np.float64)
            i = int((~np.isfinite(values)).argmax())
            return values[i], tuple(int(n) for n in np.unravel_index(start + i, array.shape))
        release(chunk)
    return None


# -- writing --------------------------------------------------------------------------------------


def write_checkpoint(
    folder: Folder,
    config: ModernBertConfig,
    params: Mapping[str, np.ndarray],
    head: AnyHead | None,
    *,
    dtype: str | None = None,
    source: Folder | None = None,
    max_shard_size: int | None = None,
) -> None:
    """Write a model; files of the same name are replaced, all or none.

    dtype: float64, float32, float16 or bfloat16 on disk; None keeps every tensor as it is stored.
    source: the folder that the model came from, whose tokenizer goes along.
    max_shard_size: bytes of tensors per file, None for one file. ValueError: parameters that are
    not the model's or not finite, an unknown dtype, a value too large for it.
    """
    folder, params = Path(folder), stored(params)
    expected = encoder_shapes(config) | (head.shapes(config) if head is not None else {})
    if {name: x.shape for name, x in params.items()} != expected:
        wrong = next(n for n in {**expected, **params} if n not in params or n not in expected
                     or params[n].shape != expected[n])  # fmt: skip
        raise ValueError(
            f"params do not fit the config: {wrong!r} has shape "
            f"{params[wrong].shape if wrong in params else None}, not {expected.get(wrong)}"
        )
    for name, x in params.items():
        if found := first_not_finite(x):
            raise ValueError(
                f"params[{name!r}] holds {found[0]} at {found[1]}; weights must be finite"
            )
    parts = _parts(params, head)
    shards = {
        place + name: tensors
        for place, own in parts.items()
        for name, tensors in plan_shards(own, dtype, max_shard_size).items()
    }
    files = _texts(config, params, head, dtype)
    if len(root := [name for name in shards if "/" not in name]) > 1:
        files[INDEX] = index_of({name: shards[name] for name in root}, dtype)
    copies = _copies(head, None if source is None else Path(source))

    with staged(folder, last=CONFIG, remove=_stale(folder, {*shards, *files, *copies})) as stage:
        for name, tensors in shards.items():
            with open_synced(stage / name) as stream:
                dump_safetensors(stream, tensors, dtype=dtype)
        for name, content in files.items():
            with open_synced(stage / name) as stream:
                stream.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")
        for name, origin in copies.items():
            with open_synced(stage / name) as stream:
                stream.write(origin.read_bytes())


def _parts(
    params: Mapping[str, np.ndarray], head: AnyHead | None
) -> dict[str, dict[str, np.ndarray]]:
    """Subfolder ("" or "2_Dense/") -> tensors by their key on disk."""
    parts: dict[str, dict[str, np.ndarray]] = {"": {}}
    modules = dict(head.named()) if isinstance(head, SentenceHead) else {}
    for name, array in params.items():
        module, _, rest = name.partition(".")
        if module in modules:
            parts.setdefault(module + "/", {})[rest] = array
        else:
            in_encoder = name.startswith(("embeddings.", "layers.", "final_norm."))
            prefix = "model." if isinstance(head, Head) and in_encoder else ""
            parts[""][prefix + name] = array
    return parts


def _texts(
    config: ModernBertConfig,
    params: Mapping[str, np.ndarray],
    head: AnyHead | None,
    dtype: str | None,
) -> dict[str, Any]:
    """Relative path -> content of the json files. Both names of the dtype, for both generations."""
    on_disk = dtype or dtype_name(params[EMBEDDING])
    architecture = ENCODER_ARCHITECTURE if head is None else head.architecture
    content = {
        **config.to_dict(),
        "architectures": [architecture],
        "dtype": on_disk,
        "torch_dtype": on_disk,
    }
    if not isinstance(head, NLPHead | MultiTaskHead):
        content.pop(CONFIG_KEY, None)  # the head that the config describes stays behind
    modules = sentence_files(head) if isinstance(head, SentenceHead) else {}
    return {CONFIG: content, **modules}


def _copies(head: AnyHead | None, source: Path | None) -> dict[str, Path]:
    """Relative path -> file of the source folder that goes along unchanged."""
    if source is None or not source.is_dir():
        return {}
    root = transformer_folder(source)
    wanted = {name: root / name for name in TOKENIZER_FILES}
    lone = not (source / MODULES_FILE).is_file() or not module_folders(source)
    if lone and head == HEADS["sequence_classification"]:
        # A reranker of sentence-transformers: a classifier whose activation stands in its settings.
        wanted[MODULES_FILE] = source / MODULES_FILE
        wanted[SETTINGS_FILE] = source / SETTINGS_FILE
        wanted[TRANSFORMER_FILE] = root / TRANSFORMER_FILE
    return {name: path for name, path in wanted.items() if path.is_file()}


def _stale(folder: Path, written: set[str]) -> list[str]:
    """Files of an older model that would be read beside, or before, the new ones.

    modules.json goes away even when it is written anew: like config.json it makes a folder valid.
    """
    if not folder.is_dir():
        return []
    names = [SETTINGS_FILE, TRANSFORMER_FILE, WEIGHTS, INDEX]
    names += [path.name for path in folder.glob("model-*-of-*.safetensors")]
    return [MODULES_FILE, *(name for name in names if name not in written)]
