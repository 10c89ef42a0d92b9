"""Partial, lying, crashing, slow and silent ports, each handed in three ways: no verdict says more
than was run.

A port is a script of what it gives for one case. As a dump it is the files that it has left, as a
command a shell script that leaves them and ends as it ends, as a library the same behind port.h
(replay.c). A crash shows in the last two only; a dump is judged by what it holds.
"""

import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from refimpl.cli.verify import dispensed
from refimpl.verify.judge.coverage import ASPECTS, HEADS, NAMES
from refimpl.verify.judge.gates import verify
from refimpl.verify.ports.command_port import CommandPort
from refimpl.verify.ports.dump import DumpPort
from refimpl.verify.ports.isolation import Limits
from refimpl.verify.ports.library_port import LibraryPort
from refimpl.verify.report.report import first_line, render, to_json
from refimpl.verify.truth.cases import case
from refimpl.verify.truth.passes import trace
from refimpl.verify.zoo import ZOO
from refimpl.verify.zoo.mistake import round_bits

HERE = Path(__file__).parents[1]
CASE = case("padding-mixed")
P = CASE.model().astype(np.float32)
STEPS = trace(P)
UNMASKED = trace(P.with_inputs(attention_mask=None))
TANH = trace(ZOO["F4a"].apply(P))
LAST = ("layers.3.residual_2", "final_norm", "head.dense", "head.act", "head.norm", "logits")
SLOW = 2.0


def only(*names):
    return {name: STEPS[name] for name in STEPS if name in names}


def starting(*starts):
    return {name: x for name, x in STEPS.items() if name.startswith(starts)}


def but(**changed):
    return {**STEPS, **{name.replace("__", "."): x for name, x in changed.items()}}


def changed(name, change):
    x = STEPS[name].copy()
    change(x)
    return {**STEPS, name: x}


def nan_token(x):
    x[0, 2] = np.nan


@dataclass(frozen=True)
class Script:
    """steps: what it gives; right: whether that is right, as far as it goes; end: how it ends;
    told: its port.json (dumps and commands)."""

    steps: dict = field(default_factory=dict)
    right: bool = True
    end: str = ""
    told: str = ""


PORTS = {
    # partial
    "everything": Script(STEPS),
    "last alone": Script(only("final_norm")),
    "scores alone": Script(only("logits")),
    "last and scores": Script(only("final_norm", "logits")),
    "embedding alone": Script(only("embedding")),
    "one step of one layer": Script(only("layers.1.q")),
    "tables alone": Script(starting("rope.")),
    "layer 0 alone": Script(starting("layers.0.")),
    "no head": Script({k: x for k, x in STEPS.items() if k not in LAST[2:]}),
    "up to the final norm": Script({k: x for k, x in STEPS.items() if k not in LAST[1:]}),
    "residuals alone": Script({k: x for k, x in STEPS.items() if ".residual_" in k}),
    # lying
    "the mask is not read": Script(UNMASKED, right=False),
    "the mask is not read, last alone": Script({"final_norm": UNMASKED["final_norm"]}, False),
    "halves of the MLP swapped": Script(TANH, right=False),
    "no final norm": Script(but(final_norm=STEPS["layers.3.residual_2"]), right=False),
    "a little too large": Script(but(logits=STEPS["logits"] * 1.001), right=False),
    "zeros": Script({k: np.zeros_like(x) for k, x in STEPS.items()}, right=False),
    "a constant last": Script(but(final_norm=np.ones_like(STEPS["final_norm"])), right=False),
    "NaN in a token": Script(changed("layers.2.glu", nan_token), right=False),
    "infinite scores": Script(but(logits=np.full_like(STEPS["logits"], np.inf)), right=False),
    "rows reversed": Script(but(logits=STEPS["logits"][::-1]), right=False),
    "bfloat16 kept as float32": Script({k: round_bits(x, 8) for k, x in STEPS.items()}, False),
    # crashing
    "crash at once": Script(end="crash"),
    "crash after the embedding": Script(only("embedding"), end="crash"),
    "crash after everything": Script(STEPS, end="crash"),
    "error after everything": Script(STEPS, end="error"),
    # slow
    "hang at once": Script(end="hang"),
    "hang after everything": Script(STEPS, end="hang"),
    # silent
    "nothing": Script(),
    "refused": Script(end="refuse", told='{"refused": "as the script says"}'),
    "refused after everything": Script(STEPS, end="refuse", told='{"refused": "after all"}'),
}
ENDS = {"crash": "kill -ABRT $$", "hang": "sleep 600", "error": "exit 3", "refuse": "exit 0"}
SILENT = "final_norm", "logits"


def as_dump(script, folder):
    out = folder / CASE.name
    out.mkdir(parents=True)
    for name, x in script.steps.items():
        np.save(out / f"{name}.npy", x)
    if script.told:
        (out / "port.json").write_text(script.told)
    return DumpPort(folder)


def as_command(script, folder):
    as_dump(script, folder / "made")
    text = f"cp {shlex.quote(str(folder / 'made' / CASE.name))}/* $2 2>/dev/null\n"
    (folder / "port.sh").write_text(text + ENDS.get(script.end, "exit 0") + "\n")
    limits = Limits(seconds=SLOW if script.end == "hang" else 60.0)
    return CommandPort(f"sh {folder / 'port.sh'}", limits=limits)


def as_library(script, folder, library, monkeypatch):
    lines = []
    for i, (name, x) in enumerate(script.steps.items()):
        file = folder / f"{i}.bin"
        file.write_bytes(np.ascontiguousarray(x, "<f4").tobytes())
        shape = " ".join(map(str, x.shape))
        kind = {"final_norm": "hidden", "logits": "scores"}.get(name)
        lines.append(f"{kind} {file}" if kind else f"tap {name} {x.ndim} {shape} {file}")
    (folder / "script").write_text("\n".join([*lines, script.end]) + "\n")
    monkeypatch.setenv("REPLAY", str(folder / "script"))
    return LibraryPort(library, limits=Limits(seconds=SLOW if script.end == "hang" else 60.0))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    pytest.importorskip("cffi")
    path = tmp_path_factory.mktemp("replay") / "replay.so"
    header = HERE.parent / "refimpl" / "verify" / "ports"
    line = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{header}"]
    subprocess.run([*line, "-o", path, HERE / "ports" / "replay.c"], check=True)
    return path


def test_there_are_thirty_of_them():
    assert len(PORTS) >= 30


WAYS = ("dump", "command", "library")
# Every port in one of the ways, in turn; in the others it is heavy.
HANDED_IN = [
    pytest.param(name, way, marks=[] if (i - j) % len(WAYS) == 0 else pytest.mark.heavy)
    for i, name in enumerate(PORTS)
    for j, way in enumerate(WAYS)
]


@pytest.mark.parametrize(("name", "way"), HANDED_IN)
def test_no_verdict_says_more_than_was_run(name, way, tmp_path, monkeypatch, request):
    script = PORTS[name]
    if way == "dump":
        port = as_dump(script, tmp_path)
    elif way == "command":
        port = as_command(script, tmp_path)
    else:
        port = as_library(script, tmp_path, request.getfixturevalue("library"), monkeypatch)
    report = verify(port, [CASE], runtime=False, suspects=False)
    given = set(script.steps)
    if (script.end and way != "dump") or (script.told and way != "library"):
        given = set()  # what came before an end like that is not taken
    # A library has to write its outputs: one that does not has not done its work.
    silent = way == "library" and not set(SILENT) <= given
    right = bool(given) and script.right and not silent
    assert report.verdict == ("exact-spec" if right else "fail"), report.findings
    # What was compared is what was given, and nothing of what was not is called shown.
    assert report.coverage.steps[0] == len(given)
    assert report.coverage.cases[0] == bool(given)
    lacking = set(report.coverage.lacking)
    assert {"packed", "positions", "silu", "old-keys", "cls-pooling"} <= lacking
    assert ("padding" in lacking) == (not given & set(LAST))
    assert ("masked_lm" in lacking) == ("logits" not in given)
    if not given & set(LAST):
        assert lacking >= set(ASPECTS) | set(HEADS)
    # One case is never everything, in no form of the report ...
    assert report.exit_code == (4 if right else 1)
    assert "incomplete, " in first_line(report) and "not shown: " in render(report)
    data = to_json(report)
    assert not data["coverage"]["complete"] and data["coverage"]["not_shown"]
    # ... unless that is asked for, and then only where nothing failed.
    assert set(dispensed("", NAMES)) == set(NAMES)
    accepted = verify(port, [CASE], runtime=False, suspects=False, without=NAMES) if right else None
    assert accepted is None or (accepted.exit_code == 0 and "partial, " in first_line(accepted))
