"""libmodernbert.so as a file: what it shows and needs, a C program over it, the kit through it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.c_interface import CSRC, HEADERS, LIBRARY
from support.heavy import heavy_but_first
from support.native import tiers, tiers_and_dtypes

import refimpl
from refimpl.backends import backend
from refimpl.backends.engine import Engine
from refimpl.cli import main
from refimpl.verify.judge.gates import verify
from refimpl.verify.ports.c_port import CPort
from refimpl.verify.ports.engine_port import EnginePort
from refimpl.verify.ports.port import Request
from refimpl.verify.truth.cases import CASES, case
from refimpl.verify.truth.rounding import DTYPES

every_tier = pytest.mark.parametrize("tier", tiers())
VERIFIED = [(tier, dtype) for tier, dtype in tiers_and_dtypes() if dtype in DTYPES]
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
TINY = Path(refimpl.__file__).parent / "bundled" / "tiny"
IDS = [1, 17, 4000, 2]


def symbols(path: Path, which: str) -> list[str]:
    if shutil.which("nm") is None:
        pytest.skip("needs nm")
    listed = subprocess.run(
        ["nm", "-D", which, str(path)], check=True, capture_output=True, text=True
    )
    return [line.split()[-1] for line in listed.stdout.splitlines()]


def test_library_shows_the_c_interface_and_nothing_else() -> None:
    headers = [(CSRC / name).read_text() for name in HEADERS]
    shown = symbols(LIBRARY, "--defined-only")
    assert "modernbert_forward" in shown
    assert all(name.startswith("modernbert_") for name in shown), shown
    assert all(any(f"{name}(" in text for text in headers) for name in shown), shown


def test_library_needs_nothing_of_python() -> None:
    needed = symbols(LIBRARY, "--undefined-only")
    assert needed and not [name for name in needed if name.startswith(("Py", "_Py"))]


def test_extension_takes_the_engine_from_the_library() -> None:
    extension = Path(backend.native().__file__)
    assert extension.parent == LIBRARY.parent
    assert any(name.startswith("modernbert_create") for name in symbols(extension, "-u"))
    maps = Path("/proc/self/maps").read_text()
    assert {line.split()[-1] for line in maps.splitlines() if "libmodernbert" in line} == {
        str(LIBRARY)
    }


@pytest.fixture(scope="module")
def encode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/native/encode.c, compiled as a user would."""
    program = tmp_path_factory.mktemp("c") / "encode"
    source = Path(__file__).parents[1] / "native" / "encode.c"
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    header = backend.library_header().parent
    line = ["cc", *flags, f"-I{header}", str(source), str(LIBRARY), f"-Wl,-rpath,{LIBRARY.parent}"]
    subprocess.run([*line, "-o", str(program)], check=True)
    return program


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)


@needs_cc
@every_tier
@pytest.mark.parametrize("threads", [1, 3])
def test_c_program_prints_what_python_computes(encode: Path, tier: str, threads: int) -> None:
    got = run(encode, "--tier", tier, "--threads", threads, TINY, *IDS)
    assert got.returncode == 0 and f"tier {tier}" in got.stderr, got.stderr
    numbers = [[float.fromhex(x) for x in line.split()] for line in got.stdout.splitlines()]
    model = refimpl.load(TINY)
    params = {name: np.array(x) for name, x in model.params.items()}
    expected = Engine(model.config, params, 1, tier).packed(np.array(IDS), np.array([0, len(IDS)]))
    np.testing.assert_array_equal(np.array(numbers, np.float32), expected)


@needs_cc
def test_c_program_says_why_it_fails(encode: Path, tmp_path: Path) -> None:
    assert run(encode).returncode == 2
    for arguments, words in (
        ([tmp_path / "absent"], "this folder is missing"),
        ([tmp_path], "config.json: this file is missing"),
        (["--tier", "mmx", TINY], "tier 'mmx' is unknown"),
        (["--dtype", "int4", TINY], "dtype 'int4' is unknown"),
        (["--threads", -1, TINY], "threads is -1"),
        ([TINY, 99999], "ids[0] is 99999"),
    ):
        failed = run(encode, *arguments)
        assert failed.returncode == 1 and words in failed.stderr and not failed.stdout


@needs_cc
@pytest.mark.parametrize("compiler", [["cc", "-std=c99"], ["c++", "-std=c++17"]])
def test_headers_stand_alone(compiler: list[str], tmp_path: Path) -> None:
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"needs {compiler[0]}")
    for header in HEADERS:
        source = tmp_path / ("x.c" if compiler[0] == "cc" else "x.cpp")
        source.write_text(
            f'#include "{header}"\n#include "{header}"\nint main(void) {{ return 0; }}\n'
        )
        line = [*compiler, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]
        subprocess.run([*line, f"-I{CSRC}", str(source)], check=True)


@pytest.mark.parametrize(("tier", "dtype"), heavy_but_first(VERIFIED))
def test_library_is_exact_spec_in_every_case(tier: str, dtype: str) -> None:
    report = verify(CPort(tier, dtype=dtype), CASES, runtime=False)
    assert report.verdict == "exact-spec", [f.message for f in report.findings]
    assert len(report.cases) == len(CASES)


def test_library_is_exact_spec_in_any_company() -> None:
    cases = [case(name) for name in ("window-66", "padding-mixed", "packed")]
    report = verify(CPort(num_threads=2), cases)
    assert report.verdict == "exact-spec", [f.message for f in report.findings]


def test_command_takes_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "verify",
        "--engine-library",
        "scalar",
        "--case",
        "two-tokens",
        "--no-runtime",
        "--partial",
    ]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith(
        "libmodernbert.so, tier scalar (float32), partial, 1 of"
    )


@pytest.mark.parametrize(("tier", "dtype"), VERIFIED)
def test_library_computes_in_the_dtype_that_is_verified(tier: str, dtype: str) -> None:
    p = case("two-tokens").model()
    request = Request.of("two-tokens", case("two-tokens").config, p)
    ports = CPort(tier, dtype=dtype), EnginePort(tier, dtype=dtype)
    got, expected = (port.run(request).taps["final_norm"] for port in ports)
    np.testing.assert_array_equal(got, expected)


def test_command_hands_the_dtype_on(capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "verify",
        "--engine-library",
        "scalar",
        "--case",
        "two-tokens",
        "--no-runtime",
        "--partial",
    ]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--dtype", "float16"])  # which the engine has not, and has a budget
    assert ended.value.code == 2
    assert "dtype 'float16' is not verified on tier scalar" in capsys.readouterr().err


def test_library_tells_its_place() -> None:
    assert os.path.samefile(refimpl.info()["native"]["library"], LIBRARY)
