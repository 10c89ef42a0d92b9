"""A port as a command: what it is given, what is read back, and that its end is never ours."""

import json
import shlex
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from refimpl.files.safetensors import open_safetensors
from refimpl.verify.ports.command_port import CommandPort, startable, write_case
from refimpl.verify.ports.isolation import Limits
from refimpl.verify.ports.port import Request
from refimpl.verify.truth.cases import case
from refimpl.verify.truth.passes import trace

PORT = Path(__file__).parents[1] / "ports" / "numpy_port.py"
NAME = "padding-mixed"


def command(how="right"):
    return shlex.join([sys.executable, str(PORT), how])


def run(how, name=NAME, **limits):
    c = case(name)
    port = CommandPort(command(how), limits=Limits(**limits))
    return port.run(Request.of(c.name, c.config, c.model()))


def only_failure(result):
    (failure,) = [f.message for f in result.findings if f.level == "fail"]
    assert "Traceback" not in failure.splitlines()[0]
    return failure


@pytest.mark.parametrize("name", [NAME, "packed", "positions-left", "hard-rows"])
def test_a_command_gets_everything_that_the_case_holds(name):
    result = run("right", name)
    truth = trace(case(name).model().astype(np.float32))
    assert result.findings == () and result.dtype == "float32"
    assert all(np.array_equal(result.taps[k], x) for k, x in truth.items())
    assert list(result.taps) == list(truth)


def test_both_formats_of_a_case_hold_the_same(tmp_path):
    c = case(NAME)
    folder = write_case(tmp_path, Request.of(c.name, c.config, c.model()))
    model = folder / json.loads((folder / "case.json").read_text())["model"]
    for at, kind, file in ((model, "weights", "model"), (folder, "inputs", "inputs")):
        together = open_safetensors(at / f"{file}.safetensors")
        apart = {p.stem: np.load(p) for p in (at / kind).glob("*.npy")}
        assert set(together) == set(apart)
        assert all(np.array_equal(together[k].array(), x) for k, x in apart.items())


def test_a_command_runs_in_the_folder_that_it_is_given(tmp_path):
    shutil.copy(PORT, tmp_path / "mine.py")
    c = case("one-token")
    line = shlex.join([sys.executable, "mine.py", "right"])
    request = Request.of(c.name, c.config, c.model())
    assert CommandPort(line, folder=tmp_path).run(request).taps
    assert "exit code 2" in only_failure(CommandPort(line).run(request))


def test_placeholders_say_where_the_folders_go():
    line = shlex.join([sys.executable, str(PORT), "right"]) + " {case} {out}"
    c = case(NAME)
    result = CommandPort(line).run(Request.of(c.name, c.config, c.model()))
    assert result.findings == () and result.taps


def test_a_refusal_is_a_note_with_the_reason():
    result = run("refuses")
    (note,) = result.findings
    assert note.level == "note" and "no such head" in note.message


def test_an_error_is_a_finding_with_the_last_words():
    failure = only_failure(run("fails"))
    assert "exit code 1" in failure and "cannot read these weights" in failure


def test_a_crash_is_a_finding_with_the_signal():
    failure = only_failure(run("crashes"))
    assert "SIGSEGV" in failure and "about to fall over" in failure


def test_an_exit_status_survives_where_child_signals_are_ignored(monkeypatch):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert "SIGSEGV" in only_failure(run("crashes"))
        assert run("right").findings == ()
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
        # In another thread nothing can be done about it: then a status is not taken for success.
        with ThreadPoolExecutor(1) as pool:
            assert "SIGCHLD is ignored" in only_failure(pool.submit(run, "crashes").result())
    finally:
        signal.signal(signal.SIGCHLD, before)


def alive(marker):
    """Processes whose command line holds the marker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker in (entry / "cmdline").read_bytes():
                    found.append(entry.name)
            except OSError:
                continue
    return found


@pytest.fixture
def marked(tmp_path, monkeypatch):
    """Temporary folders of the port lie here, so that its processes can be told."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return str(tmp_path).encode()


def test_a_hang_is_a_finding_and_its_children_end_with_it(marked):
    failure = only_failure(run("hangs", seconds=2.0))
    assert "hangs" in failure and "2 seconds" in failure
    assert not alive(marked)


def test_children_left_behind_end_with_the_command(marked):
    result = run("leaves_a_child")
    assert result.findings == ()
    assert not alive(marked)


@pytest.mark.parametrize(
    ("how", "limits", "words"),
    [
        ("sparse", {}, "a file of more than"),
        ("many_files", {"output": 2**20}, "more than 1,048,576 bytes"),
        ("memory_hog", {"memory": 2**28}, "bytes of memory"),
    ],
)
def test_too_much_is_a_finding(how, limits, words):
    assert words in only_failure(run(how, **limits))


def test_a_command_that_does_not_exist_is_a_finding():
    c = case(NAME)
    result = CommandPort("/no/such/command").run(Request.of(c.name, c.config, c.model()))
    assert "cannot be started" in only_failure(result)


def test_an_exit_code_is_told_with_its_last_words_and_how_to_refuse():
    said = only_failure(run("fails"))
    assert said.startswith("the command ends with exit code 1; its last words:\n")
    assert said.endswith('{"refused": "why"} in OUT_DIR/port.json and exit code 0)')
    assert "refused" not in only_failure(run("crashes"))


def test_a_file_here_that_is_not_on_the_path_is_pointed_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "port").write_text("#!/bin/sh\n")
    with pytest.raises(ValueError, match=r"no program 'port' on PATH; is it \./port\?"):
        startable("port kit")
    with pytest.raises(ValueError, match=r"\./port may not be executed \(chmod \+x\)"):
        startable("./port kit")
    (tmp_path / "port").chmod(0o755)
    assert startable("./port {case} {out}") == "./port {case} {out}"
