"""`modernbert verify --training`: ways in, exit codes, files, and the page's walk."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.kit_reader import read_safetensors
from support.readme import blocks

from refimpl.cli import main
from refimpl.verify.training import judge
from refimpl.verify.training.cases import CASES, case
from refimpl.verify.training.compare import values
from refimpl.verify.training.zoo import ZOO

ROOT = Path(__file__).resolve().parents[2]
PAGE = "refimpl/verify/training/README.md"
NAME = "token-types"


def run(*arguments):
    return main(["verify", "--training", *map(str, arguments)])


def usage_error(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["verify", *map(str, arguments)])
    assert ended.value.code == 2
    return capsys.readouterr().err


def dump(folder, change=lambda name, x: x, name=NAME):
    folder.mkdir(parents=True)
    for value, x in values(case(name).training().astype(np.float32)).items():
        if value.startswith(("loss", "grad.", "after_")):
            np.save(folder / f"{value}.npy", change(value, x))
    return folder


def test_a_right_dump_is_incomplete_unless_that_is_asked_for(tmp_path, capsys):
    path = dump(tmp_path / "dump")
    files = tmp_path / "report.json", tmp_path / "report.html"
    given = "--dump", path, "--case", NAME
    assert run(*given, "--json", files[0], "--html", files[1]) == 4
    first, lacking = capsys.readouterr().out.splitlines()[:2]
    assert first.startswith("dump (float32), incomplete, 1 of 13 cases, 73 of ")
    assert first.endswith(": exact-spec") and "packed" in lacking
    data = json.loads(files[0].read_text())
    assert data["verdict"] == "exact-spec" and not data["coverage"]["complete"]
    assert files[1].read_text().startswith("<!doctype html>")
    assert run(*given, "--partial") == 0


def test_a_wrong_gradient_is_named(tmp_path, capsys):
    wrong = "grad.layers.1.mlp.Wi.weight"
    path = dump(tmp_path / "dump", lambda name, x: x * 1.001 if name == wrong else x)
    assert run("--dump", path, "--case", NAME, "--partial") == 1
    assert f"first wrong step: {wrong}   (case {NAME})" in capsys.readouterr().out


def test_what_is_wrong_with_a_dump_is_told(tmp_path, capsys):
    path = dump(tmp_path / "dump")
    np.save(path / "grad.layers.0.mlp.Wo.weight.npy", np.zeros((20, 32), np.float32))
    np.save(path / "grad.final_norm.weight.npy", np.zeros(32, np.int64))
    np.save(path / "something.npy", np.zeros(3))
    assert run("--dump", path, "--case", NAME) == 1
    said = capsys.readouterr().out
    assert "grad.layers.0.mlp.Wo.weight has the shape [20, 32]; expected [32, 20] (transp" in said
    assert "grad.final_norm.weight is of dtype int64; values are floats" in said
    assert "not used: something" in said and "2 values are not given" in said


def test_names_of_hugging_face_are_taken(tmp_path):
    path = dump(tmp_path / "dump")
    for file in list(path.iterdir()):
        kind, _, name = file.name.partition(".")
        if name.startswith(("layers.", "embeddings.", "final_norm.")):
            file.rename(path / f"{kind}.model.{name}")
    assert run("--dump", path, "--case", NAME, "--partial") == 0


COMMAND = """
import json, sys
from pathlib import Path
import numpy as np
case, out = map(Path, sys.argv[1:])
about = json.loads((case / "case.json").read_text())
assert (case / "model.safetensors").exists() and "values" not in about
assert list(np.load(case / "batch/labels.npy").shape) == about["batch"]["labels"]
if about["case"] == "resumed":
    (out / "port.json").write_text(json.dumps({"refused": "no resume"}))
else:
    sys.exit("no such optimiser")
"""


def test_a_command_may_refuse_and_may_fail(tmp_path, capsys):
    (tmp_path / "port.py").write_text(COMMAND)
    line = f"{sys.executable} {tmp_path / 'port.py'}"
    assert run("--command", line, "--case", "resumed", "--case", NAME) == 1
    said = capsys.readouterr().out
    assert "not run: refused by the port: no resume" in said
    assert "no such optimiser" in said


@pytest.mark.heavy
def test_this_trainer_is_right(capsys):
    given = [
        word for name in ("resumed", "classes-weighted", "choice") for word in ("--case", name)
    ]
    assert run("--trainer", *given, "--partial") == 0
    assert capsys.readouterr().out.startswith("refimpl.train (float32), partial, 3 of 13 cases")


@pytest.mark.heavy
def test_the_export_holds_what_a_case_takes_and_gives(tmp_path, capsys):
    assert run("--export", tmp_path / "kit", "--case", NAME) == 0
    at = tmp_path / "kit" / "cases" / NAME
    about = json.loads((at / "case.json").read_text())
    expected = read_safetensors(at / "expected.safetensors")
    assert [v["value"] for v in about["values"]] == list(judge.shapes_of(case(NAME).training()))
    for value in about["values"]:
        x = expected[value["value"]]
        assert list(x.shape) == value["shape"] and x.dtype == np.float64
        assert value["budget"]["float32"]["cumulative"]["max"] > 0.0
    assert np.array_equal(np.load(at / "batch" / "labels.npy"), case(NAME).batch()["labels"])
    listed = json.loads((tmp_path / "kit" / "manifest.json").read_text())
    assert {"README.md", f"models/{NAME}/config.json"} <= set(listed["sha256"])
    # The expected values are a dump themselves.
    assert run("--dump", at / "expected.safetensors", "--case", NAME, "--partial") == 0
    said = usage_error(capsys, "--training", "--export", tmp_path / "kit")
    assert "exists and is not an empty folder" in " ".join(said.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--trainer",), "--trainer is of --training"),
        (("--training", "--header"), "--header is not of --training"),
        (("--training", "--trainer", "--accumulate"), "--accumulate is of --transformers"),
        (("--training", "--break", "W4a"), "--break 'W4a' is unknown; known: L1, "),
        (("--training", "--trainer", "--case", "x"), "case 'x' is unknown; known: mask-tied, "),
        (("--training", "--trainer", "--partial", "x"), "--partial 'x' is unknown; known: mask, "),
        (("--training", "--dump", "nowhere"), "--dump nowhere does not exist"),
        (("--training", "--torch", "nowhere.py:f"), "must be FILE.py:FUNCTION"),
        (("--training", "--trainer", "--dtype", "bfloat16"), "not one that refimpl.train computes"),
    ],
)
def test_wrong_usage(capsys, arguments, said):
    assert said in " ".join(usage_error(capsys, *arguments).split())


def test_lists(capsys):
    assert run("--list-cases") == 0
    said = capsys.readouterr().out
    assert all(c.name in said for c in CASES)
    assert run("--zoo") == 0
    said = capsys.readouterr().out
    assert all(f"{id} " in said for id in ZOO) and "not here: ST#3757" in said


@pytest.mark.heavy
def test_the_page_is_walked(tmp_path):
    """Its commands, its port and what it says they print; numbers may differ."""
    names = ("mask-tied", "partial-window")
    export, verify = blocks(PAGE, "sh")
    (port,), (text,) = blocks(PAGE, "python"), blocks(PAGE, "text")
    (tmp_path / "port.py").write_text(port)
    env = {"PYTHONPATH": os.environ["PYTHONPATH"], "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}

    def call(*words, wanted=0):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=env, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == wanted, done.stderr
        return done.stdout

    some = [word for name in names for word in ("--case", name)]
    call("-m", "refimpl", *export.split()[1:], *some)
    call("port.py")
    said = call("-m", "refimpl", *verify.split()[1:], wanted=1)
    number = re.compile(r"[\d,.]*\d")
    lines = [number.sub("#", line).split() for line in said.splitlines()]
    for line in text.splitlines():
        assert number.sub("#", line).split() in lines, f"{line!r} is not printed: {said}"
