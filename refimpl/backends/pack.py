"""Packed weights of a model folder in a file that the engine maps (csrc/files/pack_file.h).

    FromPack(dtype, threads)(folder, config, head) -> whether there is a fresh pack, `.engine` on it
    make_pack(folder, dtype) -> its path, written unless it is fresh

A model whose pack is fresh opens without reading its matrices, whose values were checked when the
pack was made, and processes share its pages. The environment decides:

    REFIMPL_PACK         take (default): a fresh pack is used; make: and written where there is
                         none; leave: weights are packed in memory
    REFIMPL_PACK_FOLDER  where packs are, else beside config.json
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ..files.folder import ModelFolder
from ..files.meaning import AnyHead, is_described
from ..reference.config import ModernBertConfig
from ..reference.heads import Head
from ..reference.sentence import SentenceHead
from .backend import chosen_tier, native
from .engine import CLASSIFIER, Engine

USES = ("take", "make", "leave")


def use_of_packs() -> str:
    """REFIMPL_PACK. ValueError for what is none of USES."""
    use = os.environ.get("REFIMPL_PACK") or USES[0]
    if use not in USES:
        raise ValueError(f"REFIMPL_PACK is {use!r}; it must be one of {', '.join(USES)}")
    return use


def packs_folder() -> str | None:
    """REFIMPL_PACK_FOLDER; None: each beside its config.json."""
    return os.environ.get("REFIMPL_PACK_FOLDER") or None


def make_pack(folder: str | os.PathLike[str], dtype: str, packs: str | None = None) -> Path:
    """The pack of a folder for the chosen tier, written unless it is fresh.

    packs: the folder of packs; None: packs_folder(). Raises OSError, ModelFormatError, ValueError
    for an adapter's folder.
    """
    if ModelFolder(folder).base is not None:
        raise ValueError(
            f"folder is {os.fspath(folder)!r}, which holds an adapter; a pack is of a whole model: "
            "refimpl.load(folder).save_pretrained(out) writes one"
        )
    where = os.fspath(folder), chosen_tier(), dtype, packs or packs_folder()
    native().Engine.make_pack(*where)
    return Path(native().Engine.open_packed(*where).pack)


class FromPack:
    """Asked by read_checkpoint whether the values of a folder's encoder were checked before."""

    def __init__(self, dtype: str, num_threads: int | None) -> None:
        self._dtype, self._num_threads = dtype, num_threads
        self._use, self._packs = use_of_packs(), packs_folder()
        self.engine: Engine | None = None

    def __call__(self, folder: ModelFolder, config: ModernBertConfig, head: AnyHead | None) -> bool:
        self.engine = None
        own = head if isinstance(head, SentenceHead) or head == CLASSIFIER else None
        bare = not folder.modules and not is_described(config)
        # The library puts behind the encoder what the folder names.
        if self._use == "leave" or not (bare or own is not None):
            return False
        packs = Path(self._packs or folder.root)
        if self._use == "take" and not any(packs.glob("modernbert-*.pack")):
            return False
        where = os.fspath(folder.path), chosen_tier(), self._dtype, self._packs
        with suppress(OSError):
            self.engine = self._opened(where, config, own)
        return self.engine is not None

    def _opened(
        self,
        where: tuple[str, str, str, str | None],
        config: ModernBertConfig,
        head: SentenceHead | Head | None,
    ) -> Engine:
        opened = native().Engine.open_packed
        try:
            found = opened(*where)
        except OSError:
            if self._use != "make":
                raise
            native().Engine.make_pack(*where)
            found = opened(*where)
        return Engine.over(found, config, head, self._num_threads)
