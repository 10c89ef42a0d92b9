"""What a model takes: bytes on disk and in memory for each dtype, from its shapes.

    on disk      parameters * bytes of a number, as `save_pretrained(dtype=)` writes them
    in memory    numpy: the same for the dtype that is computed in; of float32 for int8
                 native: the layers' matrices in the engine's form, vectors and head in float32;
                 rows of the token embedding are read from the file as they are needed

Without what a call takes for its activations, and without pages of mapped files, which the system
takes back when it needs them.
"""

from __future__ import annotations

from ..backends import backend as backends
from ..reference.params import Shapes, count

ON_DISK = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
# Of a weight of the layers, in the engine; everything else there is float32.
IN_ENGINE = {"float32": 4, "bf16x3": 4, "bfloat16": 2}
# int8: a byte, rows filled up to whole lines, a scale and a start for each (kernels/int8_rows.inl).
LINE, OF_ROW = 64, 8
EMBEDDING = "embeddings.tok_embeddings.weight"


def disk_bytes(shapes: Shapes) -> dict[str, int]:
    """dtype -> bytes of the tensors in a file."""
    return {dtype: size * count(shapes) for dtype, size in ON_DISK.items()}


def memory_bytes(shapes: Shapes) -> dict[str, dict[str, int]]:
    """backend -> dtype -> bytes that a model holds once it has run, for what there is here."""
    out: dict[str, dict[str, int]] = {}
    for backend in backends.present():
        dtypes = backends.dtypes_of(backend)
        size = _native if backend == "native" else _numpy
        out[backend] = {dtype: size(shapes, dtype) for dtype in dtypes}
    return out


def _numpy(shapes: Shapes, dtype: str) -> int:
    return (ON_DISK["float32"] if dtype == "int8" else ON_DISK[dtype]) * count(shapes)


def _native(shapes: Shapes, dtype: str) -> int:
    packed = {n: s for n, s in shapes.items() if n.startswith("layers.") and len(s) == 2}
    rest = {n: s for n, s in shapes.items() if n not in packed and n != EMBEDDING}
    if dtype == "int8":
        matrices = sum(n * (-(-k // LINE) * LINE + OF_ROW) for n, k in packed.values())
    else:
        matrices = IN_ENGINE[dtype] * count(packed)
    return matrices + 4 * count(rest)
