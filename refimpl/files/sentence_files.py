"""sentence-transformers folders: modules.json and what it names, read and written.

Reads both generations: class paths (the last part counts), 1_Pooling/config.json with one flag per
mode or with `pooling_mode`. Promise: a module, an activation or a key that changes numbers and is
not known is a ModelFormatError with its file, never ignored. Writes the older generation where it
can say it, which all versions read. Long because each file of such a folder has its reader and its
writer side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ModelFormatError
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
from .strictjson import read_json

MODULES_FILE = "modules.json"
SETTINGS_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
EMBEDDING = "sentence_embedding"
# Prompt names that every sentence-transformers model has, filled in or not.
DEFAULT_PROMPTS = ("query", "document")
# Key of an older file -> mode of a newer one.
FLAGS = {flag: POOLINGS[name].sentence for flag, name in named("flag").items()}
TORCH_CLASSES = [row.torch for row in ACTIVATIONS.values() if row.torch]


class Entry:
    """One json object being read: values by key with their type, and every key accounted for."""

    def __init__(self, file: Path, values: dict[str, Any]) -> None:
        self.file, self.values, self.taken = file, values, set[str]()

    def get(self, key: str, kind: type, default: Any = ...) -> Any:
        """values[key], which must be of that type (null when the default is None)."""
        self.taken.add(key)
        value = self.values.get(key, default)
        if value is ...:
            raise ModelFormatError("this key is missing", file=self.file, key=key)
        if value is not default and type(value) is not kind:
            raise self.refuse(key, f"it must be of type {kind.__name__}")
        return value

    def refuse(self, key: str, wanted: str) -> ModelFormatError:
        value = repr(self.values.get(key))[:80]
        return ModelFormatError(f"is {value}; {wanted}", file=self.file, key=key)

    def finish(self) -> None:
        """ModelFormatError when a key was not asked for."""
        for key in self.values:
            if key not in self.taken:
                known = ", ".join(sorted(self.taken))
                raise ModelFormatError(f"unknown key; known: {known}", file=self.file, key=key)


# -- the folder -----------------------------------------------------------------------------------


def transformer_folder(folder: Path) -> Path:
    """Where config.json, weights and tokenizer are: the folder, or what modules.json says."""
    if not (folder / MODULES_FILE).is_file():
        return folder
    return folder / _module_list(folder)[0][1]


def read_sentence_head(folder: Path) -> SentenceHead | None:
    """The modules behind the Transformer; None when it stands alone. Raises ModelFormatError."""
    file = folder / MODULES_FILE
    entries = _module_list(folder)[1:]
    if not entries:
        return None
    modules = []
    for name, path in entries:
        config = folder / path / "config.json"
        values = read_json(config) if name != "Normalize" or config.is_file() else {}
        entry = Entry(config, values)
        modules.append(MODULES[name][0](entry))
        entry.finish()
    if not isinstance(modules[0], Pooling) or any(isinstance(m, Pooling) for m in modules[1:]):
        raise ModelFormatError("the Transformer must be followed by the only Pooling", file=file)
    if any(isinstance(m, Dense) and m.scores for m in modules[:-1]):
        raise ModelFormatError("only the last Dense may write scores", file=file)
    return SentenceHead(tuple(modules), read_settings(folder))


def module_folders(folder: Path) -> list[Path]:
    """Folders of the modules behind the Transformer, in order."""
    return [folder / path for _, path in _module_list(folder)[1:]]


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


def _module_list(folder: Path) -> list[tuple[str, PurePosixPath]]:
    """Class name and relative folder of each module; the first is the Transformer."""
    file = folder / MODULES_FILE
    out: list[tuple[str, PurePosixPath]] = []
    for i, values in enumerate(read_json(file, list)):
        if not isinstance(values, dict):
            raise ModelFormatError(f"module {i} is no object", file=file)
        entry = Entry(file, values)
        name = entry.get("type", str).rpartition(".")[2]
        path = PurePosixPath(entry.get("path", str))
        if path.is_absolute() or ".." in path.parts:
            raise entry.refuse("path", "it must stay inside the folder")
        if name not in (SUPPORTED[1:] if out else SUPPORTED[:1]):
            raise entry.refuse(
                "type", f"supported: {SUPPORTED[0]} first, then {', '.join(SUPPORTED[1:])}"
            )
        if entry.get("kwargs", list, []):
            raise entry.refuse("kwargs", "modules with extra arguments are not supported")
        out.append((name, path))
    if not out:
        raise ModelFormatError("it lists no module", file=file)
    return out


# -- settings -------------------------------------------------------------------------------------


def read_settings(folder: Path) -> Settings:
    """Prompts, similarity and lengths of a folder; defaults for what is not there."""
    file = folder / SETTINGS_FILE
    entry = Entry(file, read_json(file) if file.is_file() else {})
    prompts = {name: text or "" for name, text in entry.get("prompts", dict, {}).items()}
    if not all(isinstance(text, str) for text in prompts.values()):
        raise entry.refuse("prompts", "it must map names to texts")
    default = entry.get("default_prompt_name", str, None)
    if default is not None and default not in {*DEFAULT_PROMPTS, *prompts}:
        raise entry.refuse("default_prompt_name", f"prompts has {sorted(prompts)}")
    similarity = entry.get("similarity_fn_name", str, None)
    if similarity not in (None, *SIMILARITIES):
        raise entry.refuse("similarity_fn_name", f"supported: {', '.join(SIMILARITIES)}")
    file = transformer_folder(folder) / TRANSFORMER_FILE
    own = Entry(file, read_json(file) if file.is_file() else {})
    longest = own.get("max_seq_length", int, None)
    if longest is not None and longest < 1:
        raise own.refuse("max_seq_length", "it must be at least 1, or null")
    kept = entry.get("truncate_dim", int, None)
    if kept is not None and kept < 1:
        raise entry.refuse("truncate_dim", "it must be at least 1, or null")
    return Settings(
        prompts=prompts,
        default_prompt_name=default,
        similarity_fn_name=similarity,
        max_seq_length=longest,
        do_lower_case=own.get("do_lower_case", bool, False),
        activation_fn=entry.get("activation_fn", str, None),
        truncate_dim=kept,
    )


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
    dimension = entry.get(old if old in entry.values else new, int)
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
        entry.get("in_features", int),
        entry.get("out_features", int),
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
        lambda entry: LayerNorm(entry.get("dimension", int)),
        lambda module: {"dimension": module.dimension},
    ),
    "Normalize": (_read_normalize, lambda module: {}),
}
SUPPORTED = ("Transformer", *MODULES)
