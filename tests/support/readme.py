"""README.md in parts, for the tests that hold it against the tree."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order; "" for those without one."""
    fences = re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", TEXT)
    return [body for name, body in fences if name == language]


def section(title: str) -> str:
    found = re.search(rf"(?ms)^## {re.escape(title)}\n.*?(?=^## |\Z)", TEXT)
    assert found, f"README.md has no section {title!r}"
    return found[0]
