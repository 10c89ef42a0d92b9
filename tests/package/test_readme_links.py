"""Links of the documents lead to files that exist, and tests that they name exist there."""

import re

import pytest
from support.readme import ROOT

DOCUMENTS = [
    "README.md", "USAGE.md", "MODEL.md", "MIGRATION.md", "CHANGELOG.md", "CONTRIBUTING.md",
    "benchmarks/README.md",
    "csrc/README.md", "examples/README.md", "refimpl/bulk/README.md", "refimpl/files/README.md",
    "lessons/README.md", "refimpl/serve/README.md", "refimpl/verify/README.md",
    "refimpl/verify/training/README.md",
]  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    path = ROOT / document
    text = re.sub(r"(?ms)^```.*?^```$|`[^`\n]*`", "", path.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)#\s]+)\)", text)
    missing = [t for t in targets if not (path.parent / t).exists()]
    assert missing == []


def test_every_promise_names_its_tests():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    promises = re.search(r"(?ms)^## Promises.*", text)[0]
    items = re.findall(r"(?ms)^\d+\. .*?(?=^\d+\. |\Z)", promises)
    assert len(items) >= 5
    for item in items:
        files = re.findall(r"\]\((tests/[^)]+\.py)\)", item)
        assert files, f"no test is linked: {item}"
        sources = "".join((ROOT / f).read_text(encoding="utf-8") for f in files)
        for name in re.findall(r"`(test_\w+)`", item):
            assert re.search(rf"\bdef {name}\b", sources), f"{name} is in none of {files}"
