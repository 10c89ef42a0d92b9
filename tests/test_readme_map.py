"""README.md's map names every entry of the top level and of the package, and no other."""

import fnmatch
import re
from pathlib import Path

import pytest
from readme import ROOT, blocks, section

if not (ROOT / ".gitignore").exists():
    pytest.skip("not a checkout: the map is that of the repository", allow_module_level=True)

IGNORED = [
    line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line.strip()
] + [".git"]


def listed() -> dict[str, str]:
    """Path -> description, from the indented listing of the map."""
    listing = next(b for b in blocks("") if b in section("The map"))
    folders: list[str] = []
    found: dict[str, str] = {}
    for line in listing.splitlines():
        indent, name, text = re.fullmatch(r"( *)(\S+)  +(\S.*)", line).groups()
        del folders[len(indent) // 2 :]
        path = "".join(folders) + name
        assert path not in found, f"{path} stands on the map twice"
        found[path] = text
        if name.endswith("/"):
            folders.append(name)
    return found


def ignored(path: Path) -> bool:
    return any(fnmatch.fnmatch(part, p) for part in path.parts for p in IGNORED)


def entries() -> set[str]:
    """What holds a file: entries of the top level and of refimpl/, folders with a slash."""
    found = set()
    for file in ROOT.rglob("*"):
        path = file.relative_to(ROOT)
        if file.is_file() and not ignored(path):
            parts = path.parts[:2] if path.parts[0] == "refimpl" else path.parts[:1]
            names = [part + "/" for part in path.parts[:-1]] + [path.name]
            found |= {"".join(names[: n + 1]) for n in range(len(parts))}
    return found


def test_map_is_that_of_the_tree():
    assert set(listed()) == entries()
