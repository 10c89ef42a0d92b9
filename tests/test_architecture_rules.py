"""The dependency rule, the size guide and the import rule of the package, read from its source.

A module may import modules of lower layers only; within a package, its own siblings too.
A new module has to be given a layer here, which is where one says what it may touch.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "refimpl"

# Bottom first. The spine is config <- ops <- encoder <- heads <- model <- tasks <- cli.
LAYERS = [
    ["_version", "errors", "progress"],
    ["config", "erf", "pooling", "atomic", "bfloat16", "strictjson"],
    ["ops", "safetensors", "stored", "hub"],
    ["params", "inputs", "encoder", "weights"],
    ["pairs", "taps", "summary"],
    ["heads", "nlp"],
    ["sentence", "tiling"],
    ["sentence_files", "weights"],
    ["checkpoint", "backend"],
    ["engine"],
    ["model", "tokenizer"],
    ["task_model"],
    ["create"],
    ["tasks", "verify"],
    ["__init__"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# The compiled extension: below everything, and for one module alone.
EXTENSION, ITS_USER = "_native", "backend"

# Optional packages: only inside functions, so that the core needs numpy alone.
OPTIONAL = {"tokenizers", "huggingface_hub", "cffi"}
# Ports of others that the conformance kit runs when they are installed.
PORTS = {"torch", "transformers", "onnxruntime"}

LINES_WITHOUT_A_REASON = 200

FILES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(f.relative_to(PACKAGE)) for f in FILES]


def unit(path: Path) -> str:
    """The module or sub-package of refimpl that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


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


def units_used(path: Path, tree: ast.AST) -> set[str]:
    """Modules or sub-packages of refimpl that a file imports, its own unit left out."""
    used = set()
    for node in ast.walk(tree):
        for name in imported(node, path):
            first, _, rest = name.partition(".")
            if first == "refimpl":
                head = rest.split(".")[0]
                used.add(head if head in RANK or head == EXTENSION else "__init__")
    return used - {unit(path)}


def breaches(path: Path, tree: ast.AST) -> set[str]:
    own = RANK[unit(path)]
    allowed = {EXTENSION} if unit(path) == ITS_USER else set()
    return {name for name in units_used(path, tree) - allowed if RANK.get(name, own) >= own}


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


def test_every_module_has_a_layer():
    units = {unit(f) for f in FILES}
    assert units == set(RANK), "a module without a layer, or a layer without a module"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_only_lower_layers(path):
    assert breaches(path, parse(path)) == set()


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_import_time_needs_numpy_alone(path):
    assert outsiders(parse(path), path, everywhere=False) <= {"numpy"}


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_optional_packages_are_the_declared_extras(path):
    allowed = {"numpy"} | OPTIONAL | (PORTS if unit(path) == "verify" else set())
    assert outsiders(parse(path), path, everywhere=True) <= allowed


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
        ("config.py", "from . import ops", {"ops"}),
        ("ops.py", "def f():\n    from refimpl.cli import main", {"cli"}),
        ("encoder.py", "from .heads import pool\nfrom .ops import rope", {"heads"}),
        ("tasks/embed.py", "from ..cli import main\nfrom . import rerank", {"cli"}),
        ("heads.py", "import refimpl", {"__init__"}),
        ("engine.py", "from . import _native", {"_native"}),
        ("backend.py", "from . import _native", set()),
        ("model.py", "from .encoder import encode", set()),
    ],
)
def test_a_breach_is_seen(file, source, wrong):
    assert breaches(PACKAGE / file, ast.parse(source)) == wrong


def test_third_party_imports_are_told_apart():
    tree = ast.parse("import os, scipy.special\ndef f():\n    import torch\nfrom . import ops")
    path = PACKAGE / "heads.py"
    assert outsiders(tree, path, everywhere=False) == {"scipy"}
    assert outsiders(tree, path, everywhere=True) == {"scipy", "torch"}
