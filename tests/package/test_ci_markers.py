"""Every marker of pytest that the default run leaves out is run by CI, or is said to be by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / ".ci" / "run"
if not CI.exists():
    pytest.skip("no .ci here", allow_module_level=True)


def test_what_the_default_run_leaves_out_is_run_by_ci() -> None:
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    chosen = re.search(r'addopts = \["-m", "(.*?)"', settings)
    assert chosen is not None
    left_out = set(re.findall(r"not (\w+)", chosen[1]))
    assert left_out == {"heavy", "oracle", "soak", "gallery", "extras", "browser"}
    by_hand = set(re.findall(r'"(\w+): .*by hand', settings))
    assert by_hand == {"soak", "gallery"}
    steps = re.findall(r'pytest"? .*-m "(\w+)[ "]', CI.read_text(encoding="utf-8"))
    assert left_out - by_hand == set(steps)
