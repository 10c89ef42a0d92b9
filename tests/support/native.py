"""The CPU engine for the tests: the extension, or a skip with its reason; the tiers that run here.

REFIMPL_REQUIRE_NATIVE=1 turns the skip into a failure.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from refimpl.backends import backend
from refimpl.backends.engine import Engine
from refimpl.reference.config import ModernBertConfig

from .cases import Case

# Sizes around the vector (4, 8, 16 lanes), the panel (8, 16, 32) and the tile heights (4, 6, 14).
SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 24, 31, 32, 33, 47, 64, 65)


def extension() -> Any:
    """`refimpl.backends._native`. Called at the top of a test module."""
    why = backend.why_not_native()
    if why is None:
        return backend.native()
    if os.environ.get("REFIMPL_REQUIRE_NATIVE") == "1":
        pytest.fail(why, pytrace=False)
    pytest.skip(why, allow_module_level=True)


# Tiers whose products in bfloat16 take it on both sides; those of the others take float32 rows.
BOTH_SIDES = ("amx", "avx512bf16")


def tiers() -> list[str]:
    return extension().tiers()


def tiers_and_dtypes() -> list[tuple[str, str]]:
    """Every dtype that the engine can compute in here."""
    return [(tier, dtype) for tier in tiers() for dtype in extension().dtypes(tier)]


def engine_of(
    case: Case, tier: str, num_threads: int = 1, dtype: str = "float32", **params: np.ndarray
) -> Engine:
    """The engine of a generated case's encoder, on one tier."""
    config = ModernBertConfig.from_dict(case.config())
    return Engine(config, case.params(dtype=np.float32) | params, num_threads, tier, dtype)


def misplaced(x: np.ndarray) -> dict[str, np.ndarray]:
    """The same values in memory as nobody wants them: misaligned, strided, transposed, reversed."""
    raw = np.zeros(x.nbytes + 1, np.uint8)
    odd = raw[1:].view(x.dtype).reshape(x.shape)
    odd[...] = x
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    return {
        "misaligned": odd,
        "strided": wide[..., ::2],
        "transposed": np.asfortranarray(x),
        "reversed": x[::-1].copy()[::-1],
    }


@contextmanager
def repeated(function: Callable[[], Any], threads: int = 1) -> Iterator[None]:
    """`function` over and over in so many other threads, while the block runs; raises what it
    raised."""
    done, failed = threading.Event(), []

    def busy() -> None:
        try:
            while not done.is_set():
                function()
        except BaseException as error:
            failed.append(error)

    others = [threading.Thread(target=busy) for _ in range(threads)]
    for thread in others:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in others:
            thread.join()
    if failed:
        raise failed[0]
