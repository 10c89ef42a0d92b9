"""The dependency rule, the size guide and the import rule of the package, read from its source.

A file may import the rooms that its own room's line names (rooms.py), files of its own room, and
the ground.
"""

import ast
import re
import sys
from pathlib import Path

import pytest
from support.rooms import HOUSES, ROOT, folder_of, rules

PACKAGE = ROOT / "refimpl"

# Files beside the rooms that every file may import, but one another.
GROUND = {"refimpl": {"_version", "errors", "progress"}, "refimpl.verify": {"findings"}}
# Who puts the public names together, and the command's other name: they may import every room.
TOP = {"__init__", "__main__"}
# The compiled extension: for one module alone.
EXTENSION, ITS_USER = "refimpl.backends._native", "refimpl.backends.backend"

# Optional packages: only inside functions, so that the core needs numpy alone.
OPTIONAL = {"tokenizers", "huggingface_hub", "cffi"}
# Data frames and their engines, for the room that adds columns to them.
FRAMES = {"pyarrow", "pandas", "pyspark"}
HTTP = {"uvicorn", "httptools", "prometheus_client"}
# Ports of others that the conformance kit runs when they are installed.
PORTS = {"torch", "transformers", "onnxruntime"}

LINES_WITHOUT_A_REASON = 200

FILES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(f.relative_to(PACKAGE)) for f in FILES]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(node: ast.AST, path: Path) -> list[str]:
    """Absolute dotted names that an import statement asks for; [] for other nodes."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        package = module_name(path).split(".")
        if path.name != "__init__.py":
            package = package[:-1]
        package = package[: len(package) - (node.level - 1)]
        base = ".".join(package + ([base] if base else []))
    return [f"{base}.{alias.name}" for alias in node.names]


def room_of(name: str, house: str) -> str:
    """The room, or the file beside the rooms, of a dotted name that stands in a house."""
    first = name.removeprefix(house).lstrip(".").split(".")[0]
    return first if first in HOUSES[house] | dict.fromkeys(GROUND[house]) else "__init__"


def inside(name: str, house: str) -> bool:
    return name == house or name.startswith(house + ".")


def breaches(path: Path, tree: ast.AST) -> set[str]:
    """What a file imports and its room may not: rooms, or the extension."""
    own = module_name(path)
    found = set()
    for name in (name for node in ast.walk(tree) for name in imported(node, path)):
        if name == EXTENSION and own != ITS_USER:
            found.add(name)
        for house, rooms in HOUSES.items():
            if not (inside(name, house) and inside(own, house)):
                continue
            mine, its = room_of(own, house), room_of(name, house)
            free = mine == its or its in GROUND[house] or path.parent == PACKAGE and mine in TOP
            if not free and its not in rooms.get(mine, set()):
                found.add(its)
    return found


def outsiders(tree: ast.AST, path: Path, *, everywhere: bool) -> set[str]:
    """Top-level names of third-party packages imported at import time, or anywhere."""
    own = {"refimpl", "__future__"} | set(sys.stdlib_module_names)
    found = set()

    def visit(node: ast.AST) -> None:
        found.update(name.split(".")[0] for name in imported(node, path))
        for child in ast.iter_child_nodes(node):
            if everywhere or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                visit(child)

    visit(tree)
    return found - own


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_every_room_has_a_line():
    for house, rooms in HOUSES.items():
        folder = folder_of(house)
        assert {f.parent.name for f in folder.glob("*/*.py")} == set(rooms)
        beside = {f.stem for f in folder.glob("*.py")}
        assert beside - TOP == GROUND[house], "a file beside the rooms: which room is it of?"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_only_what_its_room_may(path):
    assert breaches(path, parse(path)) == set()


@pytest.mark.parametrize("house", HOUSES)
def test_rooms_say_what_they_may_import(house):
    for room, allowed in HOUSES[house].items():
        text = ast.get_docstring(parse(folder_of(house) / room / "__init__.py"))
        said = re.search(r"Imports:\s([\w,\s]+)\.", text)
        assert said, f"{room}/__init__.py does not say what it imports"
        assert set(re.split(r",\s", said[1])) - {"nothing"} == allowed, room


def test_reference_opens_no_file():
    for path in (PACKAGE / "reference").glob("*.py"):
        tree = parse(path)
        names = {n.split(".")[0] for node in ast.walk(tree) for n in imported(node, path)}
        assert names.isdisjoint({"io", "json", "mmap", "os", "pathlib", "tempfile"}), path.name
        called = {node.func.id for node in ast.walk(tree)
                  if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
        assert "open" not in called, path.name


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_import_time_needs_numpy_alone(path):
    assert outsiders(parse(path), path, everywhere=False) <= {"numpy"}


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_optional_packages_are_the_declared_extras(path):
    more = {"refimpl.verify": PORTS, "refimpl.bulk": FRAMES, "refimpl.serve": HTTP}
    own = set().union(*(names for room, names in more.items() if inside(module_name(path), room)))
    assert outsiders(parse(path), path, everywhere=True) <= {"numpy"} | OPTIONAL | own


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_file_opens_with_its_purpose_and_a_long_one_says_why(path):
    banner = ast.get_docstring(parse(path)) or ""
    assert banner or not path.read_text(encoding="utf-8"), "no banner docstring"
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > LINES_WITHOUT_A_REASON:
        assert re.search(r"\blong\b", banner, re.IGNORECASE), (
            f"{lines} lines, and the banner does not say why the file is long"
        )


@pytest.mark.parametrize(
    ("file", "source", "wrong"),
    [
        ("reference/config.py", "from ..files import strictjson", {"files"}),
        ("reference/ops.py", "def f():\n    from refimpl.cli import main", {"cli"}),
        ("reference/encoder.py", "from .heads import pool\nfrom .ops import rope", set()),
        ("reference/heads.py", "import refimpl", {"__init__"}),
        ("text/tokenizer.py", "from ..reference import ops", {"reference"}),
        ("text/tokenizer.py", "from ..files import folder", set()),
        ("nlp/head.py", "from ..models.model import ModernBERT", {"models"}),
        ("files/checkpoint.py", "from ..backends import backend", {"backends"}),
        ("backends/engine.py", "from . import _native", {EXTENSION}),
        ("backends/backend.py", "from . import _native\nfrom ..errors import HubError", set()),
        ("models/model.py", "from ..tasks.task import open_model", {"tasks"}),
        ("tasks/embed.py", "from ..cli import main\nfrom . import rerank", {"cli"}),
        ("train/encoder.py", "from ..models import model\nfrom ..tasks import task", {"tasks"}),
        ("verify/judge/rank.py", "from ...tasks import embed", {"tasks"}),
        ("verify/truth/kit.py", "from ..ports.port import Port", {"ports"}),
        ("verify/ports/port.py", "from ..judge import gates", {"judge"}),
        ("verify/zoo/mlp.py", "from ..judge.evidence import score", {"judge"}),
        ("verify/judge/gates.py", "from ..report import html", {"report"}),
        ("verify/report/html.py", "from ...cli import main", {"cli"}),
        ("verify/findings.py", "from .truth import cases", {"truth"}),
        ("teach/exercises/table.py", "from ...nlp.head import NLPHead", {"nlp"}),
        ("verify/findings.py", "from ..teach import questions", {"teach"}),
        ("progress.py", "from .reference import ops", {"reference"}),
        ("__init__.py", "from .models.model import ModernBERT", set()),
    ],
)
def test_a_breach_is_seen(file, source, wrong):
    assert breaches(PACKAGE / file, ast.parse(source)) == wrong


@pytest.mark.parametrize("table", ["\na:\na:\n", "\na:   b\nb:\n", "\na:   a\n"])
def test_a_line_that_contradicts_another_is_seen(table):
    with pytest.raises(ValueError):
        rules(table)


def test_third_party_imports_are_told_apart():
    tree = ast.parse("import os, scipy.special\ndef f():\n    import torch\nfrom . import ops")
    path = PACKAGE / "reference" / "heads.py"
    assert outsiders(tree, path, everywhere=False) == {"scipy"}
    assert outsiders(tree, path, everywhere=True) == {"scipy", "torch"}
