"""The files of a sentence-transformers folder: what their keys mean, and how they are written.

Reads both generations: 1_Pooling/config.json with one flag per mode or with `pooling_mode`.
Promise: a module, an activation or a key that is not known, and not known to be harmless, is a
ModelFormatError with its file, never ignored. Writes the older generation where it can say it,
which all versions read. Long because each file of such a folder has its reader and its writer side
by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ModelFormatError, shown
from ..reference.ops import ACTIVATIONS
from ..reference.pooling import POOLINGS, named
from ..reference.sentence import (
    SIMILARITIES,
    Dense,
    LayerNorm,
    Module,
    Normalize,
    Pooling,
    SentenceHead,
    Settings,
    activation_of,
)
from .entry import Entry
from .folder import CONFIG, MODULES_FILE, ModelFolder

SETTINGS_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
EMBEDDING = "sentence_embedding"
MOST = 2**31  # numbers of a vector; beyond any model
# Prompt names that every sentence-transformers model has, filled in or not.
DEFAULT_PROMPTS = ("query", "document")
KINDS = ("SentenceTransformer", "CrossEncoder")
# Keys of config_sentence_transformers.json that say nothing about the numbers of a float32 model.
HARMLESS_SETTINGS = {
    "__version__": "what the folder was written with",
    "requirements": "versions that sentence-transformers asks for",
    "keep_in_fp32_modules": "parts that stay float32 where the rest is float16; here all is",
}
# Keys of sentence_bert_config.json that hold a length.
LENGTHS = ("max_seq_length", "query_length", "document_length")
# ... that are supported only where they do nothing: those values, and why not others.
NEUTRAL_IN_TRANSFORMER: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "transformer_task": (
        ("feature-extraction", "sequence-classification"),
        "supported: feature-extraction, sequence-classification",
    ),
    "module_output_name": (
        ("token_embeddings", "scores"),
        "supported: token_embeddings, scores",
    ),
    "query_expansion": ((), "queries that are padded with tokens to score are not supported"),
    "processing_kwargs": (({},), "arguments of the tokenizer's call are not supported"),
    "tokenizer_args": (({},), NO_ARGUMENTS := "arguments that override a file are not supported"),
    "processor_kwargs": (({},), NO_ARGUMENTS),
    "config_args": (({},), NO_ARGUMENTS),
    "config_kwargs": (({},), NO_ARGUMENTS),
}
HARMLESS_IN_TRANSFORMER = {
    "unpad_inputs": "how padding is left out, which changes no vector",
    "model_args": "how torch loads and runs the model: dtype, attention kernel, device",
    "model_kwargs": "the same, as newer files spell it",
}

# Key of an older file -> mode of a newer one.
FLAGS = {flag: POOLINGS[name].sentence for flag, name in named("flag").items()}
TORCH_CLASSES = [row.torch for row in ACTIVATIONS.values() if row.torch]


# -- the folder -----------------------------------------------------------------------------------


def sentence_head(folder: ModelFolder) -> SentenceHead | None:
    """The modules behind the Transformer; None when it stands alone. Raises ModelFormatError."""
    if not folder.modules:
        return None
    modules = []
    for listed in folder.modules:
        entry = folder.entry(listed.place / CONFIG, needed=listed.name != "Normalize")
        modules.append(MODULES[listed.name][0](entry))
        entry.finish()
    file = folder.listing.path / MODULES_FILE
    if not isinstance(modules[0], Pooling) or any(isinstance(m, Pooling) for m in modules[1:]):
        raise ModelFormatError("the Transformer must be followed by the only Pooling", file=file)
    if any(isinstance(m, Dense) and m.scores for m in modules[:-1]):
        raise ModelFormatError("only the last Dense may write scores", file=file)
    return SentenceHead(tuple(modules), settings_of_folder(folder))


def sentence_files(head: SentenceHead) -> dict[str, Any]:
    """Relative path -> json content of every file of the folder, weights apart."""
    files: dict[str, Any] = {}
    listed = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    ]
    for i, (name, module) in enumerate(head.named(), start=1):
        kind = type(module).__name__
        listed.append(
            {"idx": i, "name": str(i), "path": name, "type": f"sentence_transformers.models.{kind}"}
        )
        files[f"{name}/config.json"] = MODULES[kind][1](module)
    s = head.settings
    files[MODULES_FILE] = listed
    files[TRANSFORMER_FILE] = {
        "max_seq_length": s.max_seq_length,
        "do_lower_case": s.do_lower_case,
        **({"query_length": s.query_length} if s.query_length else {}),
        **({"document_length": s.document_length} if s.document_length else {}),
    }
    files[SETTINGS_FILE] = {
        "model_type": "CrossEncoder" if head.makes_scores else "SentenceTransformer",
        "prompts": dict(s.prompts),
        "default_prompt_name": s.default_prompt_name,
        **({"activation_fn": s.activation_fn} if s.activation_fn else {}),
        **({"similarity_fn_name": s.similarity_fn_name} if s.similarity_fn_name else {}),
        **({"truncate_dim": s.truncate_dim} if s.truncate_dim else {}),
    }
    return files


# -- settings -------------------------------------------------------------------------------------


def settings_of_folder(folder: ModelFolder) -> Settings:
    """Prompts, similarity and lengths of a folder; defaults for what is not there.

    Without modules.json the defaults alone: sentence-transformers then reads none of these files.
    """
    if folder.modules is None:
        return Settings()
    entry = folder.entry(folder.listing.path / SETTINGS_FILE)
    prompts = {name: text or "" for name, text in entry.get("prompts", dict, {}).items()}
    if not all(isinstance(text, str) for text in prompts.values()):
        raise entry.refuse("prompts", "it must map names to texts")
    default = entry.get("default_prompt_name", str, None)
    if default is not None and default not in {*DEFAULT_PROMPTS, *prompts}:
        raise entry.refuse("default_prompt_name", f"prompts has {shown(sorted(prompts))}")
    similarity = entry.get("similarity_fn_name", str, None)
    if similarity not in (None, *SIMILARITIES):
        raise entry.refuse("similarity_fn_name", f"supported: {', '.join(SIMILARITIES)}")
    if entry.get("model_type", str, KINDS[0]) not in KINDS:
        raise entry.refuse("model_type", f"supported: {', '.join(KINDS)}")
    kept = entry.get("truncate_dim", int, None)
    if kept is not None and kept < 1:
        raise entry.refuse("truncate_dim", "it must be at least 1, or null")
    activation = entry.get("activation_fn", str, None)
    entry.finish(HARMLESS_SETTINGS)

    own = folder.entry(folder.listing.root / TRANSFORMER_FILE)
    lengths = {key: _length(own, key) for key in LENGTHS}
    lowercase = own.get("do_lower_case", bool, False)
    for key, (values, why) in NEUTRAL_IN_TRANSFORMER.items():
        own.neutral(key, values, why)
    _check_modalities(own)
    own.finish(HARMLESS_IN_TRANSFORMER)
    return Settings(
        prompts=prompts,
        default_prompt_name=default,
        similarity_fn_name=similarity,
        do_lower_case=lowercase,
        activation_fn=activation,
        truncate_dim=kept,
        **lengths,
    )


def _length(entry: Entry, key: str) -> int | None:
    """A number of tokens; None where there is no limit, also spelled as 1e30."""
    longest = entry.get(key, (int, float), None)
    if longest is None or longest >= 2**31:
        return None
    if longest < 1 or longest != int(longest):
        raise entry.refuse(key, "it must be an integer of at least 1, or null")
    return int(longest)


def _check_modalities(entry: Entry) -> None:
    """Text that goes through `forward` is all that is computed; other inputs may be listed too."""
    listed = entry.get("modality_config", dict, {})
    text = listed.get("text", {"method": "forward"})
    if not isinstance(text, dict) or text.get("method", "forward") != "forward":
        raise entry.refuse("modality_config", "text must go through the method 'forward'")


# -- one module: its config.json, read and written ------------------------------------------------


def _read_pooling(entry: Entry) -> Pooling:
    flags = {mode: entry.get(flag, bool, False) for flag, mode in FLAGS.items()}
    modes = tuple(mode for mode, on in flags.items() if on) or ("mean",)
    if "pooling_mode" in entry.values:
        kind = str if isinstance(entry.values["pooling_mode"], str) else list
        given = entry.get("pooling_mode", kind)
        modes = (given,) if kind is str else tuple(given)
    if not modes or any(mode not in named("sentence") for mode in modes):
        raise entry.refuse("pooling_mode", f"supported: {', '.join(named('sentence'))}")
    old, new = "word_embedding_dimension", "embedding_dimension"
    dimension = _width(entry, old if old in entry.values else new)
    return Pooling(dimension, modes, entry.get("include_prompt", bool, True))


def _write_pooling(module: Pooling) -> dict[str, Any]:
    if tuple(mode for mode in named("sentence") if mode in module.modes) != module.modes:
        return {  # an order of its own, which flags cannot say
            "embedding_dimension": module.dimension,
            "pooling_mode": list(module.modes),
            "include_prompt": module.include_prompt,
        }
    flags = {flag: mode in module.modes for flag, mode in FLAGS.items()}
    return {
        "word_embedding_dimension": module.dimension,
        **flags,
        "include_prompt": module.include_prompt,
    }


def _width(entry: Entry, key: str, least: int | None = None) -> int:
    """Numbers of a vector. What they are to be is known when all modules are."""
    width: int = entry.get(key, int)
    if width > MOST:
        raise entry.refuse(key, f"at most {MOST}")
    if least is not None and width < least:
        raise entry.refuse(key, f"it must be at least {least}")
    return width


def _read_dense(entry: Entry) -> Dense:
    path = entry.get("activation_function", str, "torch.nn.modules.activation.Tanh")
    activation = activation_of(path)
    if activation is None:
        raise entry.refuse("activation_function", f"supported: {', '.join(TORCH_CLASSES)}")
    if entry.get("module_input_name", str, EMBEDDING) != EMBEDDING:
        raise entry.refuse("module_input_name", f"supported: {EMBEDDING}")
    output = entry.get("module_output_name", str, EMBEDDING)
    if output not in (EMBEDDING, "scores"):
        raise entry.refuse("module_output_name", f"supported: {EMBEDDING}, scores")
    if entry.get("use_residual", bool, False):
        raise entry.refuse("use_residual", "a residual connection is not supported")
    return Dense(
        _width(entry, "in_features"),
        _width(entry, "out_features", 1),
        entry.get("bias", bool, True),
        activation,
        output == "scores",
    )


def _write_dense(module: Dense) -> dict[str, Any]:
    path = ACTIVATIONS[module.activation].torch
    if path is None:
        raise ValueError(
            f"activation {module.activation!r} of a Dense has no class in torch that a file could "
            f"name; those with one: {', '.join(TORCH_CLASSES)}"
        )
    return {
        "in_features": module.in_features,
        "out_features": module.out_features,
        "bias": module.bias,
        "activation_function": path,
        **({"module_output_name": "scores"} if module.scores else {}),
    }


def _read_normalize(entry: Entry) -> Normalize:
    for key in ("module_input_name", "module_output_name"):
        if entry.get(key, str, EMBEDDING) != EMBEDDING:
            raise entry.refuse(key, f"supported: {EMBEDDING}")
    return Normalize()


MODULES: dict[str, tuple[Callable[[Entry], Module], Callable[[Any], dict[str, Any]]]] = {
    "Pooling": (_read_pooling, _write_pooling),
    "Dense": (_read_dense, _write_dense),
    "LayerNorm": (
        lambda entry: LayerNorm(_width(entry, "dimension")),
        lambda module: {"dimension": module.dimension},
    ),
    "Normalize": (_read_normalize, lambda module: {}),
}
