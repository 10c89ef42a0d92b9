"""What a model folder holds besides tensors: where its parts lie, and its JSON files.

    folder = ModelFolder(path)
    folder.root                  where config.json, weights and tokenizer lie (modules.json says)
    folder.modules               the parts behind the Transformer, None without modules.json
    folder.base                  of a PEFT adapter's folder, that of the model beneath, else None
    folder.entry(folder.root / CONFIG)     the JSON object of a file, to be read key by key

Promise: strict JSON; a file is opened when it is first asked for, and never twice, so that all that
is made of a folder is made of one state of it; `replaced` tells of a save into the folder that fell
between two of its files. Not here: what the keys mean (meaning.py, sentence_files.py,
tokenizer_files.py) and tensors (weights.py).
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ModelFormatError
from .entry import Entry
from .hub import resolve
from .identity import Identity, Path_, Seen, identity_of
from .strictjson import read_json
from .weights import INDEX, WEIGHTS

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
TOKENIZER = "tokenizer.json"
MODULES_FILE = "modules.json"
# Classes of sentence-transformers' own modules: where they are, and where older versions had them.
OWN = re.compile(
    r"sentence_transformers\.(models|base\.modules|sentence_transformer\.modules)(\.\w+)?\.(\w+)"
)
TRANSFORMER = "Transformer"
BEHIND = ("Pooling", "Dense", "LayerNorm", "Normalize")


@dataclass(frozen=True)
class Listed:
    """An entry of modules.json: a module's class, without its package, and its folder."""

    name: str
    place: Path


class ModelFolder:
    """See above. Raises ModelFormatError for a folder that is missing or a wrong modules.json."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise ModelFormatError("this folder is missing", file=self.path)
        self._objects: dict[Path, dict[str, Any]] = {}
        self._seen: dict[Path, Identity] = {}
        listed = _modules(self.path, self.seen)
        self.root = self.path if listed is None else listed[0].place
        self.modules = None if listed is None else tuple(listed[1:])
        self.base = self._beneath()
        # Whose modules.json says what stands behind the Transformer: an adapter of a model that
        # gives vectors has its modules too.
        self.listing = self
        if self.base is not None and listed is None and not (self.root / CONFIG).is_file():
            task = self.entry(self.root / ADAPTER).get("task_type", str, None)
            if task in (None, "FEATURE_EXTRACTION"):
                self.listing, self.modules = self.base, self.base.modules

    def _beneath(self) -> ModelFolder | None:
        """The model that an adapter's folder names: a path from there, else as everywhere."""
        file = self.root / ADAPTER
        if not file.is_file():
            return None
        if any((self.root / name).is_file() for name in (WEIGHTS, INDEX)):
            warnings.warn(
                f"{file} is not read: the folder has the weights of a whole model",
                UserWarning,
                stacklevel=2,
            )
            return None
        entry = self.entry(file)
        name = entry.get("base_model_name_or_path", str)
        here = self.root / name
        revision = entry.get("revision", str, None)
        path = here if name and here.is_dir() else resolve(name, revision=revision)
        if path.samefile(self.path):
            raise entry.refuse("base_model_name_or_path", "that is the adapter's own folder")
        base = ModelFolder(path)
        if base.base is not None:
            raise entry.refuse("base_model_name_or_path", "that is an adapter itself")
        return base

    def file(self, name: str) -> Path:
        """Where a file beside config.json is: here, or with the model beneath."""
        own = self.root / name
        return own if self.base is None or own.is_file() else self.base.file(name)

    @property
    def tokenizer(self) -> Path:
        """Where the tokenizer's files are: all here, or all with the model beneath."""
        return self.file(TOKENIZER).parent

    def entry(self, file: Path, *, needed: bool = False) -> Entry:
        """The JSON object of a file of the folder, empty where there is no such file.

        Raises ModelFormatError for what is no object, and for a missing one that is needed.
        """
        if file not in self._objects:
            there = needed or file.is_file()
            self._objects[file] = read_json(file, seen=self.seen) if there else {}
        return Entry(file, self._objects[file])

    def seen(self, file: Path_, identity: Identity) -> None:
        """Remember which state of a file was read."""
        self._seen[Path(file)] = identity

    def saved_by_us(self) -> None:
        """What stands there now is what was read: the model was saved where it came from."""
        for file in list(self._seen):
            try:
                self._seen[file] = identity_of(file)
            except OSError:
                del self._seen[file]

    def replaced(self) -> Path | None:
        """A file that does not stand where it was read any more, or was written to; None."""
        for file, identity in self._seen.items():
            try:
                if identity_of(file) != identity:
                    return file
            except OSError:
                return file
        return None if self.base is None else self.base.replaced()

    def is_being_saved(self) -> bool:
        """Whether what makes the folder valid waits aside while its successor moves in
        (atomic.py)."""
        waits = any(
            not (self.root / name).is_file() and any(self.root.glob(f".{name}.*.old"))
            for name in (CONFIG, ADAPTER)
        )
        return waits or (self.base is not None and self.base.is_being_saved())


def _modules(folder: Path, seen: Seen) -> list[Listed] | None:
    """What modules.json lists, the Transformer first; None without the file."""
    file = folder / MODULES_FILE
    if not file.is_file():
        return None
    out: list[Listed] = []
    for i, values in enumerate(read_json(file, list, seen)):
        if not isinstance(values, dict):
            raise ModelFormatError(f"module {i} is no object", file=file)
        entry = Entry(file, values)
        found = OWN.fullmatch(entry.get("type", str))
        path = PurePosixPath(entry.get("path", str))
        if path.is_absolute() or ".." in path.parts or "\0" in str(path):
            raise entry.refuse("path", "it must stay inside the folder")
        if found is None or found[3] not in (BEHIND if out else (TRANSFORMER,)):
            raise entry.refuse(
                "type",
                f"supported are sentence-transformers' own {TRANSFORMER} first, then "
                f"{', '.join(BEHIND)}",
            )
        if entry.get("kwargs", list, []):
            raise entry.refuse("kwargs", "modules with extra arguments are not supported")
        entry.finish({"idx", "name"})
        out.append(Listed(found[3], folder / path))
    if not out:
        raise ModelFormatError("it lists no module", file=file)
    return out
