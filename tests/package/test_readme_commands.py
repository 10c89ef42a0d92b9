"""The README's first two shell blocks are one command line each, and CI runs those very lines."""

import subprocess
from pathlib import Path

import pytest
from support.readme import ROOT, blocks

SETUP = "python3 -m venv .venv && . .venv/bin/activate && pip install "


def test_readme_first_command_answers_on_the_bundled_model():
    assert blocks("sh")[0].count("\n") == 1
    assert blocks("sh")[0].startswith(SETUP + '".[text]" && modernbert fill-mask "')


def test_readme_second_command_runs_the_tests():
    assert blocks("sh")[1] == SETUP + '".[test]" && pytest\n'


@pytest.mark.parametrize("n", [1, 2])
def test_ci_takes_the_commands_from_the_readme(n):
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("not a checkout: .ci/run is not in the source distribution")
    function = next(x for x in script.read_text().splitlines() if x.startswith("readme_command()"))
    out = subprocess.run(
        ["bash", "-c", f"{function}; readme_command {n}"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert out == blocks("sh")[n - 1]
    assert f"$(readme_command {n})" in Path(script).read_text()
