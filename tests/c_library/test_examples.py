"""examples/: each is built as its Makefile says, and prints what Python computes, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.c_interface import LIBRARY
from support.readme import blocks
from support.text_folders import sentence_folder

from refimpl import SentenceEncoder
from refimpl.cli import main
from refimpl.models.model import bundled

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
if not EXAMPLES.exists():
    pytest.skip("no examples here", allow_module_level=True)

COMPILERS = {
    "embed-c": "cc", "embed-rust": "rustc", "embed-go": "go",
    "embed-text-c": "cc", "embed-text-rust": "rustc", "embed-text-go": "go",
}  # fmt: skip
TEXTS = ["for i in range(10):", "", "hello world " * 30, "x"]
MODULES = "sentence_transformers.models."


def environment() -> dict[str, str]:
    return {**os.environ, "GO111MODULE": "off"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the examples, beside a `modernbert` that is this Python's."""
    place = shutil.copytree(EXAMPLES, tmp_path_factory.mktemp("examples") / "here")
    command = place / "bin" / "modernbert"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m refimpl "$@"\n')
    command.chmod(0o755)
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pooling = (MODULES + "Pooling", {"word_embedding_dimension": 32})
    dense = (MODULES + "Dense", {"in_features": 32, "out_features": 20})
    return sentence_folder(tmp_path_factory.mktemp("model") / "model", [pooling, dense])


def run(command: list[str], place: Path, **more: str) -> subprocess.CompletedProcess[str]:
    env = environment()
    env |= {"PATH": f"{place / 'bin'}{os.pathsep}{env['PATH']}", "GOCACHE": str(place / "cache")}
    return subprocess.run(
        command, cwd=place, env=env, capture_output=True, text=True, timeout=300, **more
    )


def built(name: str, place: Path) -> list[str]:
    """The command that runs an example."""
    if name == "embed.py":
        return [sys.executable, "-I", str(place / name), str(LIBRARY)]
    for tool in ("make", COMPILERS[name]):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    made = run(["make", name], place)
    if "no default toolchain" in made.stderr or "rustup could not choose" in made.stderr:
        pytest.skip("needs a Rust that rustup has chosen")
    assert made.returncode == 0 and "warning" not in made.stderr, made.stderr
    return [str(place / name)]


@pytest.mark.parametrize("name", ["embed.py", "embed-c", "embed-rust", "embed-go"])
def test_example_prints_the_vectors_of_python(place: Path, folder: Path, name: str) -> None:
    command = built(name, place)
    encoder = SentenceEncoder(folder)
    ids = [e.ids for e in encoder.tokenizer.encode_batch(TEXTS)]
    lines = "".join(" ".join(map(str, row)) + "\n" for row in ids)
    ran = run([*command, str(folder)], place, input=lines)
    assert ran.returncode == 0, ran.stderr
    got = np.array([line.split() for line in ran.stdout.splitlines()], np.float32)
    expected = encoder.encode(TEXTS, normalize_embeddings=True)
    assert expected.shape == (len(TEXTS), 20)
    np.testing.assert_array_equal(got, expected)

    refused = run([*command, str(folder)], place, input="1 99999999\n")
    assert refused.returncode != 0 and "ids[1] is 99999999" in refused.stderr
    absent = run([*command, str(folder / "absent")], place, input="")
    assert absent.returncode != 0 and "this folder is missing" in absent.stderr
    nothing = run([*command, str(folder)], place, input="")
    assert (nothing.returncode, nothing.stdout) == (0, "")


@pytest.mark.parametrize("name", ["embed-text-c", "embed-text-rust", "embed-text-go"])
@pytest.mark.filterwarnings("ignore::refimpl.errors.TruncationWarning")
def test_text_example_prints_the_vectors_of_python(place: Path, folder: Path, name: str) -> None:
    command = built(name, place)
    settings = {"prompts": {"q": "for "}, "default_prompt_name": "q"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 40}')
    ran = run([*command, str(folder)], place, input="\n".join(TEXTS) + "\r\nlast")
    assert ran.returncode == 0, ran.stderr
    got = np.array([line.split() for line in ran.stdout.splitlines()], np.float32)
    encoder, texts = SentenceEncoder(folder), [*TEXTS, "last"]
    expected, lost = encoder.encode(texts, normalize_embeddings=True, return_lost=True)
    np.testing.assert_array_equal(got, expected)
    assert lost.tolist() == [0, 0, lost[2], 0, 0] and lost[2]
    assert ran.stderr == f"line 3: {lost[2]} tokens were cut off\n"

    more = run([*command, str(folder)], place, input="x\n" * 150)  # several calls of the library
    assert len(set(more.stdout.splitlines())) == 1 and more.stdout.count("\n") == 150

    absent = run([*command, str(folder / "absent")], place, input="")
    assert absent.returncode != 0 and "this folder is missing" in absent.stderr
    bare = shutil.copytree(folder, place / f"bare-{name}")
    (bare / "tokenizer.json").unlink()
    no_tokenizer = run([*command, str(bare)], place, input="")
    assert no_tokenizer.returncode != 0 and f"bare-{name}/tokenizer.json" in no_tokenizer.stderr
    assert run([*command, str(folder)], place, input="").stdout == ""


def test_program_of_the_engines_page_prints_a_vector(place: Path, folder: Path) -> None:
    (program,) = blocks("csrc/README.md", "c")
    source = place / "vector.c"
    source.write_text(program.replace("FOLDER", str(folder)))
    cc = shutil.which("cc")
    if cc is None:
        pytest.skip("needs cc")
    line = (
        f"{cc} -Wall -Wextra -Werror {source} $(modernbert info --cflags --libs) -o {place}/vector"
    )
    made = run(["sh", "-c", line], place)
    assert made.returncode == 0, made.stderr
    got = np.array(run([str(place / "vector")], place).stdout.split(), np.float32)
    np.testing.assert_array_equal(got, SentenceEncoder(folder).encode("a text"))


def test_commands_of_the_page_run(place: Path) -> None:
    """In order, in one shell."""
    for name in ("embed-c", "embed-text-c"):
        built(name, place)
    (place / "texts.csv").write_text("id,text\na,import numpy\nb,too,many\nc,the cat\n")
    script = "set -o pipefail\n" + "".join(blocks("examples/README.md", ""))
    ran = run(["bash", "-c", script], place)
    assert ran.returncode == 3, ran.stderr  # the row that is told on stderr
    assert "line 3: 3 columns" in ran.stderr and ran.stderr.count("\n") == 1
    got = np.array([line.split() for line in ran.stdout.splitlines()], np.float32)
    texts = ["a text", "another one", "import numpy", "the cat"]
    want = SentenceEncoder(bundled()).encode(texts, normalize_embeddings=True)
    np.testing.assert_array_equal(got, want)


def test_info_tells_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--cflags"]) == 0
    header = Path(capsys.readouterr().out.strip().removeprefix("-I"))
    assert (header / "modernbert.h").exists() and (header / "modernbert_text.h").exists()
    assert main(["info", "--cflags", "--libs"]) == 0
    where = LIBRARY.parent
    words = capsys.readouterr().out.split()
    assert words == [f"-I{header}", f"-L{where}", f"-Wl,-rpath,{where}", "-lmodernbert"]
    with pytest.raises(SystemExit, match="2"):
        main(["info", "--libs", "--model", "x"])
