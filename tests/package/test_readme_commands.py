"""The commands of README.md and USAGE.md run as they stand; CI runs the README's first two."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.readme import ROOT, blocks

from refimpl.cli import EPILOG
from refimpl.models.model import BUNDLED

SETUP = "python3 -m venv .venv && . .venv/bin/activate && pip install "


def test_readme_first_command_answers_on_the_bundled_model():
    assert blocks("README.md", "sh")[0].count("\n") == 1
    assert blocks("README.md", "sh")[0].startswith(SETUP + '".[text]" && modernbert fill-mask "')


def test_readme_second_command_runs_the_tests():
    assert blocks("README.md", "sh")[1] == SETUP + '".[test]" && pytest\n'


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
    assert out == blocks("README.md", "sh")[n - 1]
    assert f"$(readme_command {n})" in Path(script).read_text()


PAGES = [("README.md", i) for i in range(2, len(blocks("README.md", "sh")))]
PAGES += [("USAGE.md", i) for i in range(len(blocks("USAGE.md", "sh")))]
# Of a block that needs an extra which the tests' own environment has not.
EXTRAS = ("--resume",)
COMMANDS = [
    pytest.param(
        *at,
        marks=pytest.mark.extras if any(w in blocks(at[0], "sh")[at[1]] for w in EXTRAS) else (),
    )
    for at in PAGES
]
# What must stand in what a block prints, by a word of it.
SAID = {
    "exercise": "first step that is wrong by itself is layers.1.attention",
    "--break": "first wrong step: layers.1.attention",
    "search": '"id": "c"',
    "--resume": "vectors has 1 part of 3 rows, 1 made now",
    "finetune": "my-classifier",
    "pretrain": "my-model",
    "bench": "tokens_per_s",
    "quantize": "cosine_p1",
    "explain": "wrote page.html",
}


@pytest.mark.parametrize(("page", "n"), COMMANDS)
def test_commands_of_a_page_run(page, n, tmp_path):
    pytest.importorskip("tokenizers")
    rows = [{"text": f"a {w} day", "label": w} for w in ("good", "bad")] * 4
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "texts.csv").write_text("id,text\na,one text\nb,two\nc,three\n")
    texts = [f"a {w} day is a day like any other {w} one" for w in ("good", "bad", "long")] * 20
    for name in ("corpus.jsonl", "held-out.jsonl"):
        lines = (json.dumps({"text": text}) + "\n" for text in texts[: 60 if name[0] == "c" else 3])
        (tmp_path / name).write_text("".join(lines))
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    (tmp_path / "more.txt").write_text("\n\n".join(texts))
    block = blocks(page, "sh")[n].replace("FOLDER", str(BUNDLED))
    script = f'modernbert() {{ "{sys.executable}" -m refimpl "$@"; }}\n{block}'
    run = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    fails = "--break" in block  # the port is wrong, and the exit code says so
    assert run.returncode == (1 if fails else 0), run.stderr
    words = [said for word, said in SAID.items() if word in block]
    assert words and all(said in run.stdout + run.stderr for said in words), run.stdout + run.stderr


def test_page_tells_environment_and_exit_codes_as_the_command_does():
    told = blocks("USAGE.md", "")
    assert EPILOG.split("\nHelp and examples")[0].strip() in [block.strip() for block in told]
