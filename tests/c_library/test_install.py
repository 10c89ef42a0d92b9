"""The C library on its own: built and installed by CMake, found by pkg-config and by find_package,
with the bits of the one beside Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.native import extension
from support.readme import blocks
from support.text_folders import sentence_folder

from refimpl import SentenceEncoder, __version__

extension()
ROOT = Path(__file__).resolve().parents[2]
MODULES = "sentence_transformers.models."
TEXTS = ["for i in range(10):", "", "caf\u00e9 " * 40, "x"]
PROJECT = """cmake_minimum_required(VERSION 3.16)
project(user C)
find_package(modernbert {version} EXACT REQUIRED)
add_executable(user {source})
target_link_libraries(user modernbert::modernbert)
"""
pytestmark = pytest.mark.heavy


def run(*command: object, **more: str) -> str:
    """The output of a command that succeeds. PYTHONPATH is not passed on: cmake may be Python's."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | more
    ran = subprocess.run([str(c) for c in command], env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "warning" not in ran.stderr, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installed by the commands of CMakeLists.txt, and then moved: nothing knows where it was."""
    for tool in ("cmake", "pkg-config", "cc"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    place = tmp_path_factory.mktemp("install")
    build, first = place / "build", place / "first"
    run("cmake", "-S", ROOT / "csrc", "-B", build, "-DCMAKE_INSTALL_LIBDIR=lib")
    run("cmake", "--build", build, "-j", len(os.sched_getaffinity(0)))
    run("cmake", "--install", build, "--prefix", first)
    shutil.rmtree(build)
    return first.rename(place / "moved")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pooling = (MODULES + "Pooling", {"word_embedding_dimension": 32})
    dense = (MODULES + "Dense", {"in_features": 32, "out_features": 20})
    return sentence_folder(tmp_path_factory.mktemp("model") / "model", [pooling, dense])


def check(program: Path, folder: Path) -> None:
    """The texts' vectors, as embed_text.c prints them."""
    ran = subprocess.run(
        [program, folder], input="\n".join(TEXTS) + "\n", capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    got = np.array([line.split() for line in ran.stdout.splitlines()], np.float32)
    expected = SentenceEncoder(folder, backend="native").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_array_equal(got, expected)


def test_what_is_installed(prefix: Path) -> None:
    files = {str(p.relative_to(prefix)) for p in prefix.rglob("*") if p.is_file()}
    assert {f for f in files if "/cmake/" not in f} == {
        "lib/libmodernbert.so", "lib/pkgconfig/modernbert.pc",
        "include/modernbert.h", "include/modernbert_text.h",
    }  # fmt: skip
    exported = run("nm", "-D", "--defined-only", prefix / "lib" / "libmodernbert.so").split("\n")
    names = {line.split()[-1].partition("@")[0] for line in exported if line}
    assert {name for name in names if not name.startswith("modernbert_")} <= {"MODERNBERT"}


def test_pkg_config_finds_it(prefix: Path, folder: Path, tmp_path: Path) -> None:
    config = {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    assert run("pkg-config", "--modversion", "modernbert", **config).strip() == __version__
    flags = run("pkg-config", "--cflags", "--libs", "modernbert", **config).split()
    program, source = tmp_path / "program", ROOT / "examples" / "embed_text.c"
    run("cc", "-std=c11", "-Wall", "-Wextra", "-Werror", source, *flags, "-o", program)
    check(program, folder)


def test_cmake_finds_it(prefix: Path, folder: Path, tmp_path: Path) -> None:
    source = ROOT / "examples" / "embed_text.c"
    text = PROJECT.format(version=__version__, source=source)
    (tmp_path / "CMakeLists.txt").write_text(text)
    run("cmake", "-S", tmp_path, "-B", tmp_path / "b", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path / "b")
    check(tmp_path / "b" / "user", folder)


def test_the_page_names_these_commands() -> None:
    head = (ROOT / "csrc" / "CMakeLists.txt").read_text().splitlines()[2].removeprefix("#").strip()
    assert any(head.partition(" --prefix")[0] in block for block in blocks("csrc/README.md", ""))
