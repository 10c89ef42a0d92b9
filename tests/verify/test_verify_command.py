"""`modernbert verify`: exit codes, files, and what it says about wrong usage."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from refimpl.cli import main
from refimpl.verify.truth.cases import CASES, case
from refimpl.verify.truth.passes import trace
from refimpl.verify.zoo import FAULTY, NOT_EXPRESSED, ZOO

NAME = "eight-tokens"


def dump(folder, change=lambda name, x: x, name=NAME):
    folder.mkdir(parents=True)
    for step, x in trace(case(name).model().astype(np.float32)).items():
        np.save(folder / f"{step}.npy", change(step, x))
    return folder


def run(*arguments):
    return main(["verify", *map(str, arguments)])


def usage_error(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_right_dump_of_one_case_is_incomplete_unless_that_is_asked_for(tmp_path, capsys):
    path = dump(tmp_path / "dump")
    files = tmp_path / "report.json", tmp_path / "report.html"
    given = "--dump", path, "--case", NAME
    assert run(*given, "--json", files[0], "--html", files[1]) == 4
    first, lacking, unasked = capsys.readouterr().out.splitlines()[:3]
    assert first.startswith("dump (float32), incomplete, 1 of 27 cases, 70 of 1,694 steps")
    assert first.endswith(": exact-spec")
    assert lacking.startswith("not shown: padding, ") and "packed" in lacking
    assert unasked.startswith("not asked: ")
    data = json.loads(files[0].read_text())
    assert data["verdict"] == "exact-spec" and data["cases"][0]["name"] == NAME
    assert data["exit_code"] == 4 and not data["coverage"]["complete"]
    assert data["coverage"]["cases"] == {"compared": 1, "of": 27}
    assert "packed" in data["coverage"]["not_shown"]
    page = files[1].read_text()
    assert page.startswith("<!doctype html>") and "incomplete: exact-spec" in page
    assert run(*given, "--partial") == 0
    assert "(float32), partial, 1 of 27" in capsys.readouterr().out
    assert run(*given, "--partial", ",".join(data["coverage"]["not_shown"])) == 0
    assert run(*given, "--partial", ",".join(data["coverage"]["not_shown"][1:])) == 4


@pytest.mark.heavy
def test_a_wrong_dump_fails_with_1_and_names_the_step(tmp_path, capsys):
    path = dump(tmp_path / "dump", lambda step, x: x * (1 + 1e-3 * (step == "layers.1.attn_out")))
    assert run("--dump", path, "--case", NAME, "--full") == 1
    out = capsys.readouterr().out
    assert "first wrong step: layers.1.attn_out" in out
    assert "layers.0.mlp_out" in out  # --full: steps that are right, too


def test_a_deviation_ends_with_3(capsys):
    assert run("--break", "F2", "--case", "one-token", "--no-runtime", "--partial") == 3
    assert "F2  tanh GELU for erf" in capsys.readouterr().out


def test_dumps_per_case_are_found_and_the_others_left_out(tmp_path, capsys):
    dump(tmp_path / "all" / NAME)
    dump(tmp_path / "all" / "one-token", name="one-token")
    page = tmp_path / "report.json"
    assert run("--dump", tmp_path / "all", "--json", page) == 4
    names = [c["name"] for c in json.loads(page.read_text())["cases"]]
    assert sorted(names) == sorted([NAME, "one-token"])


def test_a_map_names_steps_and_layouts(tmp_path):
    folder = tmp_path / "dump"
    folder.mkdir()
    step = trace(case(NAME).model().astype(np.float32))["layers.1.q"]
    np.save(folder / "blk1_query.npy", step.swapaxes(1, 2))
    names = tmp_path / "map.json"
    names.write_text(
        json.dumps({"names": {"blk{i}_query": "layers.{i}.q"},
                    "layouts": {"layers.{i}.q": "batch heads seq head_dim"}})
    )  # fmt: skip
    assert run("--dump", folder, "--case", NAME, "--map", names) == 4
    assert run("--dump", folder, "--case", NAME) == 1


def test_a_dump_of_a_lower_dtype_is_held_to_the_dtype_that_is_asked_for(tmp_path):
    def cut(step, x):
        return x.astype(np.float16)

    path = dump(tmp_path / "dump", cut)
    assert run("--dump", path, "--case", NAME) == 1
    assert run("--dump", path, "--case", NAME, "--dtype", "float16") == 4


def test_a_broken_reference_fails_and_its_mistake_leads_the_suspects(capsys):
    assert run("--break", "W3a", "--case", "window-66", "--no-runtime") == 1
    out = capsys.readouterr().out
    assert "1. W3a" in out or "W3a" in out.split("2. ")[0]


def test_lists_name_everything(capsys):
    assert run("--list-cases") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        c.name for c in CASES
    ]
    assert run("--zoo") == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [*ZOO, *FAULTY, *NOT_EXPRESSED]
    assert run("--header") == 0
    assert "mbv_forward" in capsys.readouterr().out


def test_an_export_of_some_cases(tmp_path, capsys):
    target = tmp_path / "kit"
    assert run("--export", target, "--case", "one-token") == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(target)
    files = [f for f in target.rglob("*") if f.is_file()]
    assert f"wrote {target}: 1 models and 1 cases, {len(files)} files, " in said.err
    assert (target / "cases" / "one-token" / "case.json").is_file()
    assert "not an empty folder" in usage_error(capsys, "--export", target)


def test_one_blas_thread_unless_the_user_says_otherwise_and_never_for_the_port():
    script = (
        "import os, sys; from refimpl.cli.verify import one_blas_thread; one_blas_thread(); "
        "import numpy; print(len(os.listdir('/proc/self/task')), "
        "os.environ.get('OPENBLAS_NUM_THREADS'))"
    )
    env = {k: x for k, x in os.environ.items() if "NUM_THREADS" not in k}
    told = [
        subprocess.run(
            [sys.executable, "-c", script], env=env | more, capture_output=True, text=True,
            check=True,
        ).stdout.split()
        for more in ({}, {"OPENBLAS_NUM_THREADS": "2"})
    ]  # fmt: skip
    assert told[0] == ["1", "None"] and told[1][1] == "2"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_is_told_the_case_in_hand_the_calls_and_the_search(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr", stream := Terminal())
    run("--break", "W4a", "--case", "plain-window", "--case", "plain-padded")
    for words in ("0/2  plain-window", "1/2  plain-padded", "row 2 alone", "known mistakes"):
        assert words in stream.getvalue(), words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "is required"),
        (("--dump", "x", "--command", "y"), "not allowed with"),
        (("--dump", "nowhere"), "does not exist"),
        (("--dump", ".", "--case", "none"), "case 'none' is unknown"),
        (("--dump", "."), "holds no dump under the name of a case"),
        (("--break", "Z9"), "those that --zoo lists"),
        (("--break", "W3"), "W3a, W3b"),
        (("--break", next(iter(NOT_EXPRESSED))), NOT_EXPRESSED[next(iter(NOT_EXPRESSED))][:20]),
        (("--library", "none.so"), "is not a file"),
        (("--onnx", "none.onnx"), "there is no such file"),
        (("--command", "true", "--partial", "padding,x"), "--partial 'x' is unknown; known: padd"),
        (("--command", "no-port"), "cannot be started: there is no program 'no-port' on PATH"),
        (("--command", "./no-port"), "./no-port does not exist"),
        (("--command", "./ x"), "./ is a folder"),
        (("--command", ""), "there is no program ''"),
        (
            ("--command", "true", "--dtype", "int8"),
            "--dtype 'int8': dtype 'int8' has no budget; known: float64, float32",
        ),
        (("--command", "true", "--map", "none.json"), "none.json is not readable"),
        (("--command", "true", "--timeout", "nan"), "must be at least 0, not nan"),
        (("--command", "true", "--json", "no/x.json"), "--json no/x.json: there is no folder no"),
        (("--command", "true", "--html", "."), "--html . is a folder"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_would_be_right(
    arguments, words, capsys, tmp_path, monkeypatch
):
    pytest.importorskip("cffi")
    monkeypatch.chdir(tmp_path)
    assert words in usage_error(capsys, *arguments)
