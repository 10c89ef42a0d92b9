"""The state of a run that is cut while it is read is an OSError, not the process's end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refimpl.train import run_state


def test_state_that_is_cut_while_it_is_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "training.safetensors"
    params = {"x": np.ones((500, 100), np.float32)}
    run_state.write_state(file, dict.fromkeys(run_state.PARTS, params), {"step": 1})
    assert run_state.read_state(file)[1] == {"step": 1}
    real = run_state.open_safetensors

    def cut(path: Path) -> Any:
        opened = real(path)
        os.truncate(path, 4096)
        return opened

    monkeypatch.setattr(run_state, "open_safetensors", cut)
    with pytest.raises(OSError, match="was changed since it was opened"):
        run_state.read_state(file)
