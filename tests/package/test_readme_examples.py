"""README.md's Python runs, one block after the other, and prints what the comments say."""

import contextlib
import io
import re

import pytest
from support.readme import blocks

BLOCKS = blocks("python")


def promised(block: str) -> list[str]:
    """What stands behind `# ` on each print line."""
    prints = [line for line in block.splitlines() if line.startswith("print(")]
    comments = [re.search(r"\)  # (.+)$", line) for line in prints]
    assert all(comments), "a print without the line that it prints"
    return [comment[1] for comment in comments]


def test_readme_python_prints_what_it_says(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers", reason="the first example takes text")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in BLOCKS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block, "README.md", "exec"), names)
        assert [line.strip() for line in out.getvalue().splitlines()] == promised(block)


def test_readme_has_examples():
    assert len(BLOCKS) >= 3
    assert sum(len(promised(block)) for block in BLOCKS) >= len(BLOCKS)
