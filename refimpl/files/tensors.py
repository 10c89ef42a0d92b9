"""The tensors of a model folder under this project's names, checked against what config.json names.

    take_tensors(folder, config, head, named, dtype) -> config, name -> array

Promise: a tensor that is missing, extra, misshapen or not finite is a ModelFormatError with file
and key; nothing is dropped but the buffers in HARMLESS, and head tensors when the encoder alone is
asked for. Arrays stay views of their file, none of whose pages the checks leave in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelFormatError, shown
from ..nlp import MultiTaskHead, NLPHead
from ..reference.config import ModernBertConfig
from ..reference.heads import HEADS
from ..reference.params import Shapes, encoder_shapes
from ..reference.sentence import SentenceHead
from .adapter import whole_tensors, with_adapter
from .folder import CONFIG, MODULES_FILE, ModelFolder
from .meaning import AnyHead
from .safetensors import CHUNK, Tensor, in_memory
from .stored import any_infinite, widened
from .weights import INDEX, WEIGHTS, read_weights

Params = dict[str, np.ndarray]
# Whether the values of the encoder's tensors of a folder were checked before.
Vouched = Callable[[ModelFolder, ModernBertConfig, AnyHead | None], bool]

EMBEDDING, DECODER = "embeddings.tok_embeddings.weight", "decoder.weight"
# The original training code's spelling: a wrapper's `model.`, then `bert.`, then `encoder.layers.`;
# before and after the first, what torch.compile and data-parallel wrappers add.
WRAPPED = r"((_orig_mod|module)\.)*"
PREFIX = re.compile(rf"^{WRAPPED}(model\.)?{WRAPPED}(bert\.)?(encoder\.(?=layers\.))?")
# Buffers of older files that are computed, not learned.
HARMLESS = re.compile(
    r"((layers\.\d+\.attn\.)?rotary_emb\.(\w+_)?inv_freq|embeddings\.position_ids)$"
)


def take_tensors(
    folder: ModelFolder,
    config: ModernBertConfig,
    head: AnyHead | None,
    named: AnyHead | None,
    dtype: np.dtype | type,
    vouched: Vouched | None = None,
) -> tuple[ModernBertConfig, Params]:
    """The tensors of the encoder and of `head`, and the config that says how the decoder is tied.

    named: the head that the folder names, whose tensors may lie beside an encoder wanted alone.
    dtype: what a tensor is narrowed to where the file has it wider. vouched: see Vouched.
    """
    of_weights = folder if folder.base is None else folder.base
    tensors = _plain_names(read_weights(of_weights.root, folder.seen))
    whole = {} if folder.base is None else whole_tensors(folder)
    tensors |= whole
    config = _decide_tie(config, tensors, head)
    try:
        needed = encoder_shapes(config)
        modules = head.shapes(config) if head is not None else {}
    except ValueError as error:
        by = folder.path / MODULES_FILE if isinstance(head, SentenceHead) else folder.file(CONFIG)
        raise ModelFormatError(str(error), file=by) from None
    if isinstance(head, SentenceHead):
        found = dict(_module_tensors(folder, head))
        params = _take(found, modules, dtype, folder.path / MODULES_FILE)
        allowed = _head_names(config, named)
    else:
        spare = head is None or folder.base is not None  # the model beneath has a head of its own
        params, allowed = {}, _head_names(config, named) if spare else set()
        needed |= modules
    own = {name: t for name, t in tensors.items() if name in needed or name not in allowed}
    if head is not None:
        own |= {n: t for n, t in whole.items() if n in tensors}  # none is spare
    root = of_weights.root
    file = root / (WEIGHTS if (root / WEIGHTS).is_file() else INDEX)
    if folder.base is not None:
        return config, with_adapter(folder, _take(own, needed, dtype, file) | params, dtype)
    known = set(encoder_shapes(config)) if vouched and vouched(folder, config, head) else set()
    return config, _take(own, needed, dtype, file, known) | params


def _plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of any spelling under the names that params.py gives them."""
    out: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = PREFIX.sub("", key)
        if name in out:
            raise tensor.error(f"this is the tensor {shown(out[name].name)} in another spelling")
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
    return all(
        np.array_equal(in_memory(x[i : i + CHUNK]), in_memory(y[i : i + CHUNK])) for i in steps
    )


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


def _module_tensors(folder: ModelFolder, head: SentenceHead) -> Iterator[tuple[str, Tensor]]:
    """Name -> tensor of the modules behind the Transformer that have weights."""
    for (name, _), listed in zip(head.named(), folder.modules or (), strict=True):
        place = listed.place
        if (place / WEIGHTS).is_file() or (place / "pytorch_model.bin").is_file():
            for key, tensor in read_weights(place, folder.seen).items():
                yield f"{name}.{key}", tensor


def _take(
    tensors: Mapping[str, Tensor],
    needed: Shapes,
    dtype: np.dtype | type,
    file: Path,
    known: Collection[str] = (),
) -> Params:
    """Exactly the tensors of `needed`, checked, as they are stored or, where that is too wide for
    `dtype`, in it. known: those whose values need no check."""
    missing = [name for name in needed if name not in tensors]
    if missing:
        more = f" ({len(missing)} are missing)" if len(missing) > 1 else ""
        like = [t.name for t in tensors.values() if t.name.endswith("." + missing[0])]
        near = f"; there is {shown(like[0])}, under a prefix that is not known" if like else ""
        raise ModelFormatError(f"this tensor is missing{more}{near}", file=file, key=missing[0])
    for name, tensor in tensors.items():
        if name not in needed and not HARMLESS.fullmatch(name):
            raise tensor.error("this tensor belongs to no part of the model that config.json names")
        if name in needed and tensor.shape != needed[name]:
            raise tensor.error(f"its shape is {list(tensor.shape)}, not {list(needed[name])}")
    return {name: _finite(tensors[name], dtype, name not in known) for name in needed}


def _finite(tensor: Tensor, dtype: np.dtype | type, check: bool) -> np.ndarray:
    """The tensor as `_take` gives it; ModelFormatError, with the place, for NaN or infinity."""
    array = tensor.floats()
    if array.itemsize > np.dtype(dtype).itemsize:
        array = tensor.astype(dtype)
    if check and (found := first_not_finite(array)):
        raise tensor.error(f"it holds {found[0]} at {found[1]}; weights must be finite")
    return array


def first_not_finite(array: np.ndarray) -> tuple[Any, tuple[int, ...]] | None:
    """The first value of a stored array that is NaN or infinite, and its place."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        chunk = in_memory(flat[start : start + CHUNK])
        if any_infinite(chunk):
            values = widened(chunk, np.float64)
            i = int((~np.isfinite(values)).argmax())
            return values[i], tuple(int(n) for n in np.unravel_index(start + i, array.shape))
    return None
