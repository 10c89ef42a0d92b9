"""Model folders in the Hugging Face layout, read and written.

    read_checkpoint(folder)  config.json + model.safetensors (or its shards) -> config, params, head
    write_checkpoint(...)    the inverse, in files that transformers reads as well

A folder is read once, in one direction: what is there (folder.py), what it means (meaning.py), the
tensors (tensors.py). Pickles are never read. Writing replaces files atomically, config.json last.
Long because all that is written together stands together.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelFormatError
from ..nlp import CONFIG_KEY, MultiTaskHead, NLPHead
from ..reference.config import ModernBertConfig, lost_in_float32
from ..reference.heads import HEADS, Head
from ..reference.params import encoder_shapes
from ..reference.sentence import SentenceHead
from .adapter import config_under
from .atomic import is_file, is_there, staged
from .folder import CONFIG, MODULES_FILE, ModelFolder
from .hub import KERAS
from .meaning import ENCODER_ARCHITECTURE, AnyHead, config_of, head_of
from .safetensors import dump_safetensors
from .sentence_files import SETTINGS_FILE, TRANSFORMER_FILE, sentence_files
from .stored import StoredParams, dtype_name, stored
from .tensors import EMBEDDING, Vouched, first_not_finite, take_tensors
from .weights import INDEX, WEIGHTS, index_of, plan_shards

Folder = str | os.PathLike[str]
# Readings of a folder that others save into at the same time, and seconds between them: files are
# exchanged in less.
# Packed weights (csrc/files/pack_file.h), which another model makes stale.
PACK = re.compile(r"modernbert-.*\.pack")
READINGS, PAUSE = 10, 0.02
SHARD = re.compile(r"model-.*-of-.*\.safetensors")
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
    source: ModelFolder


# -- reading --------------------------------------------------------------------------------------


def read_checkpoint(
    folder: Folder,
    *,
    dtype: np.dtype | type = np.float32,
    kind: str | None = "auto",
    vouched: Vouched | None = None,
) -> Checkpoint:
    """Config, parameters and head of a folder. Raises ModelFormatError.

    dtype: of the parameters, float32 or float64, whatever the file holds (stored.py). kind: "auto"
    takes the head that the folder names (modules.json, else config.json); None the encoder alone,
    leaving the tensors of a head out; a key of HEADS that head, whatever is named. vouched: asked,
    once the files are open, whether the values of the encoder's tensors were checked before; they
    are not read then. A save into the
    folder that falls between two of its files is seen, and all of it is read anew.
    """
    if kind not in ("auto", None, *HEADS):
        raise ValueError(f"kind {kind!r} is unknown; known: auto, None, {', '.join(HEADS)}")
    for left in reversed(range(READINGS)):
        source = ModelFolder(folder)  # what is there
        try:
            found = _read(source, dtype, kind, vouched)
            if (file := source.replaced()) is None:
                return found
            raise ModelFormatError("was replaced while the folder was read", file=file)
        except ModelFormatError:
            if not left or (source.replaced() is None and not source.is_being_saved()):
                raise
        time.sleep(PAUSE)
    raise AssertionError("the last reading returned or raised")


def _read(
    source: ModelFolder, dtype: np.dtype | type, kind: str | None, vouched: Vouched | None
) -> Checkpoint:
    """One reading of a folder, which a save may have changed meanwhile."""
    config = config_of(source)  # what it means
    if source.base is not None:
        config = config_under(source, config)
    if np.dtype(dtype) == np.float32 and (lost := lost_in_float32(config)):
        raise ModelFormatError(lost, file=source.file(CONFIG))
    named = head_of(source, config)
    head = named if kind == "auto" else None if kind is None else HEADS[kind]
    config, params = take_tensors(source, config, head, named, dtype, vouched)  # the tensors
    return Checkpoint(config, StoredParams(params, dtype), head, source)


# -- writing --------------------------------------------------------------------------------------


def write_checkpoint(
    folder: Folder,
    config: ModernBertConfig,
    params: Mapping[str, np.ndarray],
    head: AnyHead | None,
    *,
    dtype: str | None = None,
    source: ModelFolder | None = None,
    max_shard_size: int | None = None,
) -> None:
    """Write a model; files of the same name are replaced, all or none.

    dtype: float64, float32, float16 or bfloat16 on disk; None keeps every tensor as it is stored.
    source: the folder that the model came from, whose tokenizer goes along.
    max_shard_size: bytes of tensors per file, None for one file. ValueError: parameters that are
    not the model's or not finite, an unknown dtype, a value too large for it.
    """
    folder, params = Path(folder), stored(params)
    if folder.suffix in KERAS:
        raise ValueError(
            f"folder is {str(folder)!r}; a model is written as a folder of the Hugging Face form, "
            f"not as a file of Keras: {str(folder.with_suffix(''))!r}"
        )
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
    copies = _copies(head, source)

    with staged(folder, last=CONFIG, remove=_stale(folder, {*shards, *files, *copies})) as create:
        for name, tensors in shards.items():
            with create(name) as stream:
                dump_safetensors(stream, tensors, dtype=dtype)
        for name, content in files.items():
            with create(name) as stream:
                stream.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")
        for name, origin in copies.items():
            with create(name) as stream:
                stream.write(origin.read_bytes())
    if source is not None:
        with suppress(OSError):
            if source.path.samefile(folder):
                source.saved_by_us()


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


def _copies(head: AnyHead | None, source: ModelFolder | None) -> dict[str, Path]:
    """Relative path -> file of the source folder that goes along unchanged."""
    if source is None:
        return {}
    wanted = {name: source.tokenizer / name for name in TOKENIZER_FILES}
    if not source.modules and head == HEADS["sequence_classification"]:
        # A reranker of sentence-transformers: a classifier whose activation stands in its settings.
        wanted[MODULES_FILE] = source.path / MODULES_FILE
        wanted[SETTINGS_FILE] = source.path / SETTINGS_FILE
        wanted[TRANSFORMER_FILE] = source.root / TRANSFORMER_FILE
    return {name: path for name, path in wanted.items() if is_file(path)}


def _stale(folder: Path, written: set[str]) -> list[str]:
    """Files of an older model that would be read beside, or before, the new ones, and its packs.

    modules.json goes away even when it is written anew: like config.json it makes a folder valid.
    """
    if not is_there(folder):
        return []
    names = [SETTINGS_FILE, TRANSFORMER_FILE, WEIGHTS, INDEX]
    names += [n for n in os.listdir(folder) if SHARD.fullmatch(n) or PACK.fullmatch(n)]
    return [MODULES_FILE, *(name for name in names if name not in written)]
