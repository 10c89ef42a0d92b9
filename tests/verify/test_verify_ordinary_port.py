"""An ordinary port in C: the encoder, one text at a time, old keys, GELU, no biases.

It is judged on what it does, all of that and no more, as a command and by its dump, in the words of
the page; its planted mistakes are named, and nothing else is.
"""

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from support.heavy import heavy_but_first
from support.readme import ROOT

from refimpl.verify.judge.gates import verify
from refimpl.verify.ports.command_port import CommandPort
from refimpl.verify.ports.dump import DumpPort
from refimpl.verify.report.report import render
from refimpl.verify.truth.cases import CASES, case
from refimpl.verify.truth.export import export

HERE = Path(__file__).parents[1] / "ports" / "ordinary"
PAGE = (ROOT / "refimpl" / "verify" / "README.md").read_text(encoding="utf-8")
FIRST = [case(name) for name in ("plain-short", "plain-window", "plain-padded")]
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """build("BUG_X") -> the program compiled with that switch."""
    folder = tmp_path_factory.mktemp("ordinary")

    @cache
    def compiled(*switches):
        path = folder / "-".join(("case", *switches))
        line = ["cc", "-std=c99", "-pedantic", "-O2", "-Wall", "-Wextra", "-Werror"]
        line += [*(f"-D{switch}" for switch in switches), "-o", str(path)]
        subprocess.run([*line, HERE / "case.c", HERE / "encoder.c", "-lm"], check=True)
        return path

    return compiled


@pytest.mark.heavy
def test_it_is_right_as_far_as_it_goes_and_the_page_says_so(build, monkeypatch):
    monkeypatch.chdir(build().parent)
    report = verify(CommandPort("./case"), CASES)
    assert report.verdict == "exact-spec", report.findings
    assert {f.level for f in report.findings} == {"note"} and not report.coverage.unasked
    first, lacking, *_ = render(report).splitlines()
    assert f"    {first}\n    {lacking}\n" in PAGE


@pytest.mark.parametrize(
    ("bug", "verdict", "first", "named"),
    heavy_but_first(
        [
            ("BUG_WINDOW", "fail", ("plain-short", "layers.1.attention"), "W3a"),
            ("BUG_TANH", "declared deviation", ("plain-short", "layers.0.glu"), "F2"),
            ("BUG_MASK", "fail", ("plain-padded", "layers.0.attention"), "W7"),
        ]
    ),
)
def test_a_planted_mistake_is_named_alone(build, bug, verdict, first, named):
    report = verify(CommandPort(str(build(bug))), FIRST)
    assert report.verdict == verdict and report.culprit == first
    (suspect,) = report.suspects
    assert suspect.id == named and suspect.explained > 0.9999


def test_the_loop_on_the_page_writes_a_dump_of_the_kit(build, tmp_path):
    (loop,) = [
        line.strip() for line in PAGE.splitlines() if line.strip().startswith("for case in kit/")
    ]
    export(tmp_path / "kit", [*FIRST, case("packed")])
    shutil.copy(build(), tmp_path / "port")
    subprocess.run(["sh", "-ec", loop], cwd=tmp_path, check=True)
    (packed,) = (tmp_path / "dump" / "packed").iterdir()
    assert packed.name == "port.json"
    report = verify(DumpPort(tmp_path / "dump"), FIRST)
    assert report.verdict == "exact-spec", report.findings
    assert report.coverage.cases[0] == len(FIRST)
