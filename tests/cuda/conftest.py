"""The library of csrc/cuda for this processor, built once."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cuda import library


@pytest.fixture(scope="session")
def here() -> Path:
    return library()


@pytest.fixture
def its_library(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backend cuda is that library."""
    monkeypatch.setenv("REFIMPL_CUDA_LIBRARY", str(here))
