"""The Python of README.md, USAGE.md and MODEL.md runs, and prints what its comments say."""

import pytest
from support.examples import check, promised
from support.readme import blocks

PAGES = ["README.md", "USAGE.md", "MODEL.md"]


@pytest.mark.parametrize("page", PAGES)
def test_python_prints_what_it_says(page, tmp_path, monkeypatch):
    pytest.importorskip("tokenizers", reason="examples take text")
    monkeypatch.chdir(tmp_path)
    check(page)


@pytest.mark.parametrize("page", PAGES)
def test_page_has_examples(page):
    found = blocks(page, "python")
    assert len(found) >= 3
    assert sum(len(promised(block)) for block in found) >= 3
