"""Where the engine takes its weights from while it packs them: memory, or files, layer by layer.

Promise: what stands in a file is read, never looked at in a map, and is in memory only while its
layer is packed; a file that was changed since it was opened is an OSError.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from contextlib import suppress

import numpy as np

from ..files.safetensors import FileMap, in_file

Array = np.ndarray


class Source:
    """Tensors for the engine, those of files in memory only while their layer is packed.

    arrays: name -> array; one of a file is a place to read it to, empty until `read` fills it.
    """

    def __init__(self, given: Mapping[str, Array]) -> None:
        self.arrays: dict[str, Array] = {}
        self._places: dict[str, tuple[FileMap, int, mmap.mmap]] = {}
        for name, x in given.items():
            if (place := in_file(x)) is None or not x.nbytes:
                self.arrays[name] = x
                continue
            memory = mmap.mmap(-1, x.nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self.arrays[name] = np.frombuffer(memory, x.dtype).reshape(x.shape)
            self._places[name] = (*place, memory)
        self._fill("")

    def read(self, layer: int) -> None:
        """Read the tensors of a layer. OSError."""
        self._fill(f"layers.{layer}.")

    def _fill(self, prefix: str) -> None:
        for name, (file, offset, _) in self._places.items():
            if name.startswith(prefix or ("embeddings.", "final_norm.")):
                file.read_into(self.arrays[name], offset)

    def let_go(self, layer: int) -> None:
        """Give the memory of a layer back, which was packed."""
        for name, (_, _, memory) in self._places.items():
            if name.startswith(f"layers.{layer}.") and hasattr(mmap, "MADV_DONTNEED"):
                with suppress(OSError):
                    memory.madvise(mmap.MADV_DONTNEED)
