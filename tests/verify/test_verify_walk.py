"""The walk in the kit's README, walked: its port is run, judged, mended and judged again.

Every block is taken from the page: `python` is the port, `sh` the commands, `text` what they print
(its lines must be printed in this order; measured numbers may differ in their digits, and counts of
steps and cases). Only the export is cut to a few cases, so that the walk is quick.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from refimpl.verify.judge.verdict import EXIT_CODES
from refimpl.verify.truth.cases import CASES
from refimpl.verify.truth.fixtures import FIXTURES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "refimpl" / "verify" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FEW = ("plain-short", "plain-window", "packed", "spans")
PROGRAMS = {"modernbert": [sys.executable, "-m", "refimpl"], "python": [sys.executable]}
MEASURED = re.compile(
    r"\d+\.\d+(e[+-]\d+)?|\d+ of \d+ cases, [\d,]+ of [\d,]+ steps|\d+(?= steps in | cases )"
)


def run(line, folder):
    """One line of an sh block: what it prints."""
    words = shlex.split(line)
    if "--export" in words:
        words += [word for name in FEW for word in ("--case", name)]
    done = subprocess.run(
        [*PROGRAMS.get(words[0], words[:1]), *words[1:]],
        cwd=folder,
        env={
            "PYTHONPATH": os.environ["PYTHONPATH"],
            "OMP_NUM_THREADS": "1",
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    # With 1 when the port is wrong, with 4 when it is right as far as it was run.
    wanted = (1, 4) if "--dump" in words else (0,)
    assert done.returncode in wanted, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """[(output so far of the sh block before, text block)] and the folder."""
    folder = tmp_path_factory.mktemp("walk")
    printed, seen = "", []
    for language, block in BLOCKS:
        if language == "python":
            (folder / "port.py").write_text(block, encoding="utf-8")
        elif language == "sh":
            printed = "".join(run(line, folder) for line in block.splitlines())
        else:
            seen.append((printed, block))
    return folder, seen


@pytest.mark.heavy
def test_the_commands_print_what_the_page_says(walked):
    _, seen = walked
    assert len(seen) == 3
    for printed, block in seen:
        lines = [MEASURED.sub("#", line).split() for line in printed.splitlines()]
        at = 0
        for line in block.splitlines():
            wanted = MEASURED.sub("#", line).split()
            assert wanted in lines[at:], f"{line!r} is not printed (any more) after line {at}"
            at += lines[at:].index(wanted) + 1


@pytest.mark.heavy
def test_the_report_page_is_written(walked):
    folder, _ = walked
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "layers.1.attention" in page


def test_numbers_and_links_of_the_page_hold():
    assert len(CASES) == 27 and "27 inputs" in PAGE
    assert len(FIXTURES) == 14 and "fourteen small models" in PAGE
    codes = "0 exact-spec, 1 fail, 3 declared deviation, 4 incomplete"
    assert codes in " ".join(PAGE.split())
    assert sorted(EXIT_CODES.items(), key=lambda c: c[1]) == [
        tuple(reversed((int(n), name))) for n, name in (c.split(" ", 1) for c in codes.split(", "))
    ]
    for target in re.findall(r"\]\(([\w./]+)\)", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)):
        assert (ROOT / "refimpl" / "verify" / target).exists(), target
