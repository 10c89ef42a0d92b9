"""Where the computation runs: which backends there are, which is taken, and what `info()` tells.

Today there is one, numpy. `REFIMPL_BACKEND` sets the default that "auto" means.
"""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np

from ._version import __version__

# Backend -> the dtypes that it computes in.
BACKENDS: dict[str, tuple[str, ...]] = {"numpy": ("float32", "float64")}


def resolve(backend: str, dtype: str, num_threads: int | None = None) -> tuple[str, np.dtype]:
    """The backend and dtype to compute with. Raises ValueError that says what there is."""
    if backend == "auto":
        backend = os.environ.get("REFIMPL_BACKEND", "auto")
        if backend == "auto":
            backend = "numpy"
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is not available; available: {', '.join(BACKENDS)}")
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if name not in BACKENDS[backend]:
        options = ", ".join(BACKENDS[backend])
        raise ValueError(f"dtype {name!r} is not available on backend {backend}: {options}")
    if num_threads is not None:
        raise ValueError(
            f"num_threads is {num_threads!r}, but the numpy backend has the threads of its BLAS; "
            "set OMP_NUM_THREADS before Python starts"
        )
    return backend, np.dtype(name)


def info() -> dict[str, Any]:
    """Version, numpy and its BLAS, backends with their dtypes, cores that this process may use."""
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "version": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "machine": platform.machine(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "backend": resolve("auto", "float32")[0],
        "backends": {name: list(dtypes) for name, dtypes in BACKENDS.items()},
    }
