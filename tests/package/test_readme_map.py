"""README.md's map names every entry of the top level and of the package, and no other.

Rooms stand in it layer by layer, the lowest first, with the first line of their docstrings; a
failure prints them as they should stand.
"""

import fnmatch
import re
from pathlib import Path

import pytest
from support.readme import ROOT, blocks, section
from support.rooms import HOUSES, purpose

if not (ROOT / ".gitignore").exists():
    pytest.skip("not a checkout: the map is that of the repository", allow_module_level=True)

IGNORED = [
    line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line.strip()
] + [".git"]


def listed() -> dict[str, str]:
    """Path -> description, from the indented listing of the map."""
    listing = next(b for b in blocks("README.md", "") if b in section("The map"))
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
    """What holds a file: the top level, refimpl/ and the kit's rooms, folders with a slash."""
    found = set()
    for file in ROOT.rglob("*"):
        path = file.relative_to(ROOT)
        if file.is_file() and not ignored(path):
            parts = path.parts[:2] if path.parts[0] == "refimpl" else path.parts[:1]
            if path.parts[:2] == ("refimpl", "verify") and len(path.parts) > 3:
                parts = path.parts[:3]
            names = [part + "/" for part in path.parts[:-1]] + [path.name]
            found |= {"".join(names[: n + 1]) for n in range(len(parts))}
    return found


def test_map_is_that_of_the_tree():
    assert set(listed()) == entries()


def rooms() -> list[tuple[str, str]]:
    """(path, purpose) of every room in the order of the map: the kit's follow the kit."""
    out = []
    for room in HOUSES["refimpl"]:
        house = f"refimpl.{room}"
        out.append((f"refimpl/{room}/", purpose("refimpl", room)))
        out += [(f"refimpl/{room}/{r}/", purpose(house, r)) for r in HOUSES.get(house, ())]
    return out


def test_map_shows_the_rooms_layer_by_layer_as_they_describe_themselves():
    places = dict(rooms())
    assert [entry for entry in listed().items() if entry[0] in places] == rooms()
