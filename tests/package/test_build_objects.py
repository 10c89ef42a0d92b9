"""The build of the engine, on a small csrc: what is compiled again, and that nothing is stale."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
if not (ROOT / "setup.py").exists() or not sys.platform.startswith("linux") or COMPILER is None:
    pytest.skip("no setup.py, or no compiler for it, here", allow_module_level=True)
pytest.importorskip("setuptools")

FILES = {
    "csrc/libmodernbert.map": "{ global: *; };\n",
    "csrc/modernbert.h": "int two(void);\n",
    "csrc/modernbert_text.h": "int five(void);\n",
    "csrc/base/one.h": "#define ONE 1\n",
    "csrc/base/one.inl": '#include "base/one.h"\n',
    "csrc/base/two.cpp": '#include "base/one.inl"\n'
    'extern "C" __attribute__((visibility("default"))) int two() { return 2 * ONE; }\n',
    "csrc/base/three.cpp": 'extern "C" int three() { return 3; }\n',
    "csrc/bindings.cpp": '#include "modernbert.h"\nextern "C" int four() { return 4; }\n',
    # What setup.py asks of it; the small sources include nothing of it.
    "site/pybind11.py": '__version__ = "1"\ndef get_include(): return "nowhere"\n',
}
ALL = {"base/two.o", "base/three.o", "bindings.o"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("built")
    for name, text in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    (tree / "refimpl" / "backends").mkdir(parents=True)
    shutil.copy(ROOT / "setup.py", tree)
    shutil.copy(ROOT / "refimpl" / "_version.py", tree / "refimpl")
    assert build(tree) == ALL and two_of(tree) == "2\n"
    return tree


@pytest.fixture
def tree(built: Path, tmp_path: Path) -> Path:
    """A built one."""
    return shutil.copytree(built, tmp_path / "tree")


def build(tree: Path, place: tuple[str, ...] = ("--inplace",), **variables: str) -> set[str]:
    """Builds, in place unless another is given; the objects that were compiled."""
    objects = tree / "objects" / "csrc"
    before = {p: p.stat().st_mtime_ns for p in objects.rglob("*.o")}
    env = {**os.environ, "PYTHONPATH": str(tree / "site"), "REFIMPL_REQUIRE_NATIVE": "1"}
    command = [sys.executable, "setup.py", "-q", "build_ext", *place, "--build-temp=objects"]
    ran = subprocess.run(
        command, cwd=tree, env=env | variables, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    after = {p: p.stat().st_mtime_ns for p in objects.rglob("*.o")}
    return {str(p.relative_to(objects)) for p in after if before.get(p) != after[p]}


def two_of(tree: Path) -> str:
    library = tree / "refimpl" / "backends" / "libmodernbert.so"
    code = f"import ctypes; print(ctypes.CDLL({str(library)!r}).two())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout


def test_install_has_the_headers_beside_the_library(tree: Path) -> None:
    build(tree, place=("--build-lib=lib",))
    found = {path.name for path in (tree / "lib" / "refimpl" / "backends").iterdir()}
    assert {"libmodernbert.so", "modernbert.h", "modernbert_text.h"} <= found


def test_what_has_not_changed_is_compiled_once(tree: Path) -> None:
    assert build(tree) == set()
    for path in tree.rglob("csrc/**/*"):  # as a checkout touches files
        os.utime(path)
    assert build(tree) == set() and two_of(tree) == "2\n"


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "source": (lambda t: (t / "csrc/base/three.cpp").write_text("int x;\n"), {"base/three.o"}),
    "header of a header": (
        lambda t: (t / "csrc/base/one.h").write_text("#define ONE 7\n"),
        {"base/two.o"},
    ),
    "header of the bindings": (
        lambda t: (t / "csrc/modernbert.h").write_text("int two(void);\nint more(void);\n"),
        {"bindings.o"},
    ),
    "version": (
        lambda t: (t / "refimpl/_version.py").write_text('__version__ = "9"\n'),
        {"base/two.o", "base/three.o"},
    ),
    "pybind11": (
        lambda t: (t / "site/pybind11.py").write_text(FILES["site/pybind11.py"].replace("1", "2")),
        ALL,
    ),
    "flags": (
        lambda t: (t / "setup.py").write_text((t / "setup.py").read_text().replace("-g0", "-g1")),
        ALL,
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_has_changed_is_compiled_again(tree: Path, what: str) -> None:
    change, expected = CHANGES[what]
    change(tree)
    assert build(tree) == expected
    assert two_of(tree) == ("14\n" if what == "header of a header" else "2\n")


def test_flags_of_the_environment_count(tree: Path) -> None:
    assert build(tree, CFLAGS="-fno-common", CXXFLAGS="-fno-common") == ALL


def test_an_object_that_did_not_compile_is_not_taken_for_one(tree: Path) -> None:
    source = tree / "csrc" / "base" / "two.cpp"
    text = source.read_text()
    source.write_text("this is no C++\n")
    with pytest.raises(AssertionError, match="two.cpp"):
        build(tree)
    source.write_text(text)
    assert build(tree) == {"base/two.o"}
