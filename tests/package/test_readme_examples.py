"""The Python of README.md, USAGE.md and MODEL.md runs, and prints what its comments say.

The reranker that it names is a small one with random weights.
"""

import pytest
from support.examples import check, promised
from support.readme import blocks
from support.text_folders import model_folder

PAGES = ["README.md", "USAGE.md", "MODEL.md"]


@pytest.mark.parametrize("page", PAGES)
def test_python_prints_what_it_says(page, tmp_path, monkeypatch):
    pytest.importorskip("tokenizers", reason="examples take text")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-reranker").mkdir()
    model_folder(tmp_path / "my-reranker", "sequence_classification", id2label={0: "score"})
    check(page)


@pytest.mark.parametrize("page", PAGES)
def test_page_has_examples(page):
    found = blocks(page, "python")
    assert len(found) >= 3
    assert sum(len(promised(block)) for block in found) >= 3
