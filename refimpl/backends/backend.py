"""Where the computation runs: which backends there are, which is taken, and what `info()` tells.

numpy is the reference, in float32 and float64. native is the CPU engine, where the extension
`_native` was built, in the dtypes that its tier has: float32; bfloat16, whose matrices take half
the memory; int8, where they take a quarter; bf16x3 on AMX. numpy has int8 as the engine's twin, in
no hurry. cuda, or cuda:1, is the engine on a device, where its library was built (cuda.py): only
for those who ask for it. "auto" means numpy for float64 and native for the rest. The environment
decides what the caller leaves open:

    REFIMPL_BACKEND         numpy, native, cuda or cuda:1 in place of "auto"; float64 stays numpy's
    REFIMPL_ISA             the highest tier of instructions that the engine may use
    REFIMPL_THREADS         the engine's threads, else OMP_NUM_THREADS, else the usable cores
    REFIMPL_REQUIRE_NATIVE  1: a missing engine is an error, where "auto" would fall back to numpy

The only module that imports `_native`. Long because what is chosen and what is told about the
choice must stay the same.
"""

from __future__ import annotations

import os
import platform
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .._version import __version__

# Backend -> the dtypes that it may compute in; of native's a tier may lack some.
BACKENDS: dict[str, tuple[str, ...]] = {
    "native": ("float32", "bf16x3", "bfloat16", "int8"),
    "numpy": ("float32", "float64", "int8"),
    "cuda": ("float32", "bf16x3", "bfloat16"),
}
# Dtypes of native that take a unit which one tier alone has.
ONLY_ON = {"bf16x3": "amx"}

# Of the engine; more are not used (csrc/base/pool.h).
MOST_THREADS = 256

# Written by setup.py where it could not build the extension: one line that says why.
NOT_BUILT = Path(__file__).with_name("native_not_built.txt")


def resolve(backend: str, dtype: str, num_threads: int | None = None) -> tuple[str, str]:
    """The backend and dtype to compute with. Raises ValueError that says what there is."""
    if dtype is None:  # which numpy takes for float64
        raise ValueError(f"dtype is None; available: {', '.join(_all_dtypes())}")
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    by = ""
    if backend == "auto":
        backend = _automatic(name)
        if backend == os.environ.get("REFIMPL_BACKEND"):
            by = f"REFIMPL_BACKEND is {backend!r}: "
        elif not any(name in dtypes for dtypes in BACKENDS.values()):
            raise ValueError(
                f"dtype {name!r} is not available; available: {', '.join(_all_dtypes())}"
            )
    kind = backend.partition(":")[0] if isinstance(backend, str) else backend
    if kind == "cuda":
        from . import cuda

        try:
            cuda.check(backend)
        except ValueError as error:
            raise ValueError(f"{by}{error}; available: {', '.join(present())}") from None
    elif backend not in BACKENDS:
        raise ValueError(
            f"{by}backend {backend!r} is not available; available: {', '.join(present())}"
        )
    offered = dtypes_of(kind)
    if name not in offered:
        why = why_not_dtypes().get(name) if backend == "native" else None
        raise ValueError(
            f"{by}dtype {name!r} is not available on backend {backend}: {', '.join(offered)}"
            + (f" ({name}: {why})" if why else "")
        )
    if num_threads is not None and backend == "numpy":
        raise ValueError(
            f"{by}num_threads is {num_threads!r}, but the numpy backend has the threads of its "
            "BLAS; set OMP_NUM_THREADS before Python starts"
        )
    if num_threads is not None and kind == "cuda":
        raise ValueError(f"{by}num_threads is {num_threads!r}, but a device has threads of its own")
    if num_threads is not None and (type(num_threads) is not int or num_threads < 1):
        raise ValueError(f"num_threads is {num_threads!r}; it must be an int of at least 1")
    if num_threads is None and backend == "native":
        default_threads()  # now, not at the first call
    return backend, name


def array_dtype(dtype: str) -> np.dtype:
    """The dtype of arrays that go in and come out where `dtype` is computed in."""
    return np.dtype("float64" if dtype == "float64" else "float32")


def _automatic(dtype: str) -> str:
    """What "auto" means for a dtype."""
    wanted = os.environ.get("REFIMPL_BACKEND") or "auto"
    if wanted.startswith("cuda") and dtype not in BACKENDS["cuda"]:
        return "numpy"
    if wanted not in ("auto", "native"):
        return wanted
    if dtype not in BACKENDS["native"]:
        return "numpy"
    if wanted == "native" or os.environ.get("REFIMPL_REQUIRE_NATIVE") == "1":
        return "native"
    why = why_not_native()
    if why is None or dtype not in BACKENDS["numpy"]:
        return "native"
    _tell_once(why)
    return "numpy"


@cache
def _tell_once(why: str) -> None:
    """That numpy computes in the engine's place: a slow start should not have to be guessed at."""
    warnings.warn(f"{why}; numpy computes instead, slower", UserWarning, stacklevel=4)


def present() -> list[str]:
    """Names of the backends of this processor that can be used, the preferred one first; whether
    there is a device, only loading its library would tell (`info`)."""
    there = {"native": why_not_native() is None, "numpy": True}
    return [name for name in BACKENDS if there.get(name)]


def dtypes_of(backend: str) -> list[str]:
    """What a backend computes in here. Raises ValueError where native is not there."""
    here = native().dtypes(chosen_tier()) if backend == "native" else BACKENDS[backend]
    return [name for name in BACKENDS[backend] if name in here]


def _all_dtypes() -> list[str]:
    return list(dict.fromkeys(name for backend in present() for name in dtypes_of(backend)))


def why_not_dtypes() -> dict[str, str]:
    """The dtypes of native that the chosen tier lacks, and why."""
    tier, here = chosen_tier(), dtypes_of("native")
    return {
        name: f"tier {tier} lacks it" + (f", {ONLY_ON[name]} has it" if name in ONLY_ON else "")
        for name in BACKENDS["native"]
        if name not in here
    }


# -- the extension --------------------------------------------------------------------------------


@cache
def _import_native() -> tuple[ModuleType | None, str | None]:
    """The extension, or why there is none."""
    try:
        from . import _native
    except ImportError as error:
        if error.name != __package__:  # found, and not loadable
            return None, f"the extension does not load: {error}"
        reason = NOT_BUILT.read_text().strip() if NOT_BUILT.exists() else "no extension beside it"
        return None, f"the extension was not built: {reason}"
    return _native, None


def why_not_native() -> str | None:
    """Why the CPU engine is not there; None where it is."""
    return _import_native()[1]


def native() -> Any:
    """The extension. Raises ValueError that says why there is none."""
    module, why = _import_native()
    if module is None:
        raise ValueError(f"backend 'native' is not available: {why}; available: numpy")
    return module


def scores(function: str, logits: np.ndarray) -> np.ndarray:
    """logits [rows, columns] float32 by "none", "sigmoid", "softmax" over each row, or a name of
    ACTIVATIONS: in double, rounded once, as the C library has it."""
    return native().scores(function, logits)


def library() -> Path:
    """libmodernbert.so, the engine as a C library (csrc/modernbert.h). ValueError without it."""
    native()
    return Path(__file__).with_name("libmodernbert.so")


def library_header() -> Path:
    """modernbert.h, with modernbert_text.h in its folder: beside the library, or in the checkout
    that it was built in."""
    beside = library().with_name("modernbert.h")
    return beside if beside.exists() else beside.parents[2] / "csrc" / beside.name


def chosen_tier() -> str:
    """The tier that a new engine takes. Raises ValueError for an unknown REFIMPL_ISA."""
    cap = os.environ.get("REFIMPL_ISA", "")
    try:
        return native().best_tier(cap)
    except ValueError as error:
        raise ValueError(f"REFIMPL_ISA is {cap!r}: {error}") from None


def default_threads() -> int:
    """The engine's threads where nobody names a number. ValueError for a REFIMPL_THREADS that is
    no number of at least 1 (the library itself would pass over it)."""
    given = os.environ.get("REFIMPL_THREADS")
    if given and not re.fullmatch(r"\s*0*[1-9][0-9]*\s*", given):
        raise ValueError(f"REFIMPL_THREADS is {given!r}; it must be an int of at least 1")
    return native().default_threads()


def give_way() -> None:
    """From here on the calling thread, and the engine's threads that help it, take what others
    leave of the cores, and a tenth at least (Linux). Nothing where the engine is not there."""
    if why_not_native() is None:
        native().give_way()


_here = threading.local()


@contextmanager
def on_threads(most: int) -> Iterator[None]:
    """Passes that the calling thread starts within take at most so many threads, whatever their
    model has: the others have passes of their own. Bits are the same."""
    before = threads_here()
    _here.most = most
    try:
        yield
    finally:
        _here.most = before


def threads_here() -> int | None:
    """What `on_threads` says to the calling thread; None where nothing."""
    return getattr(_here, "most", None)


# -- facts ----------------------------------------------------------------------------------------


def info() -> dict[str, Any]:
    """Version, numpy and its BLAS, backends with their dtypes, cores that this process may use.

    `native`: the engine's tier and why others are left out, the dtypes that this tier lacks and
    why, its threads, its compiler; or, where it is missing, why. `cuda`: whether it was `built`,
    for which `architectures`, which `devices` there are, and the `reason` where no model can be on
    one.
    """
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    affinity = getattr(os, "sched_getaffinity", None)
    devices = _cuda_facts()
    backends = {name: dtypes_of(name) for name in present()}
    if devices["built"] and devices["reason"] is None:
        backends["cuda"] = dtypes_of("cuda")
    return {
        "version": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "machine": platform.machine(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "backend": resolve("auto", "float32")[0],
        "backends": backends,
        "native": _native_facts(),
        "cuda": devices,
    }


def _cuda_facts() -> dict[str, Any]:
    from . import cuda

    return cuda.facts()


def _native_facts() -> dict[str, Any]:
    why = why_not_native()
    if why is not None:
        return {"available": False, "why": f"{why}; numpy computes"}
    module, tier = native(), chosen_tier()
    left_out = dict(module.missing_tiers())
    above = module.tiers()[: module.tiers().index(tier)]
    left_out |= {name: f"REFIMPL_ISA is {os.environ['REFIMPL_ISA']}" for name in above}
    return {
        "available": True,
        "tier": tier,
        "tiers": module.tiers(),
        "left_out": left_out,
        "dtypes_left_out": why_not_dtypes(),
        "threads": default_threads(),
        "compiler": module.compiler,
        "library": str(library()),
    }
