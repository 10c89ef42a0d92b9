"""A mistake planted into each kernel of csrc/cuda is seen by that kernel's cases.

Each is a line of a copy of the sources, changed (planted.txt); the cases of one kernel then have to
fail. A mistake of each kernel is planted among the heavy tests, all others by `pytest -m soak`.
"""

from __future__ import annotations

import shutil

import pytest
from support.cuda import COMPILER, ROOT, SOURCES, built, lines

if not SOURCES or COMPILER is None:
    pytest.skip("no sources of the engine, or no C++ compiler, here", allow_module_level=True)


def mistakes() -> dict[str, tuple[str, str, str, str]]:
    """What it is -> (kernel, file, what stands there, what instead)."""
    found = {}
    text = (ROOT / "tests" / "cuda" / "planted.txt").read_text(encoding="utf-8")
    for entry in text.split("\n== ")[1:]:
        head, *rest = entry.rstrip("\n").split("\n")
        place, _, what = head.partition(": ")
        kernel, name = place.split()
        right, wrong = ("\n".join(line[1:] for line in rest if line[0] == sign) for sign in "-+")
        assert what not in found
        found[what] = kernel, name, right, wrong
    return found


MISTAKES = mistakes()
FIRST = {kernel: what for what, (kernel, *_) in reversed(MISTAKES.items())}.values()
# Each builds a program.
EVERY = [pytest.param(x, marks=pytest.mark.heavy if x in FIRST else pytest.mark.soak)
         for x in MISTAKES]  # fmt: skip


@pytest.mark.parametrize("what", EVERY)
def test_a_planted_mistake_is_seen(what, tmp_path):
    kernel, name, right, wrong = MISTAKES[what]
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    path = tmp_path / "csrc" / "cuda" / name
    text = path.read_text(encoding="utf-8")
    assert text.count(right) == 1, f"{name} has {text.count(right)} places of {right!r}"
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    source = "pass.cpp" if kernel == "forward" else "kernels.cpp"
    only = f'-DREFIMPL_ONLY="{kernel}"'
    program = built(tmp_path / "program", source, only, csrc=tmp_path / "csrc")
    status, report = lines(program, "--op", kernel, "--rounds", "12")
    assert status == 1, "\n".join(report)
    assert any("FAILED" in line or "the kernel is wrong" in line for line in report)
