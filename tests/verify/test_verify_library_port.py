"""A port as a shared library: a ModernBERT in C is judged right, and its planted mistakes too."""

import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cffi")

import refimpl.verify
from refimpl.verify.judge.coverage import COMPANY, HEADS, NAMES
from refimpl.verify.judge.gates import verify
from refimpl.verify.ports.isolation import Limits
from refimpl.verify.ports.library_host import declarations
from refimpl.verify.ports.library_port import LibraryPort
from refimpl.verify.ports.port import Request
from refimpl.verify.truth.cases import case
from refimpl.verify.truth.compare import compare
from refimpl.verify.truth.passes import trace

HERE = Path(__file__).parents[1]
HEADERS = Path(refimpl.verify.__file__).parent / "ports"
SOME = ("padding-mixed", "packed", "positions-left", "mean-65", "spans")

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """build("BUG_X", ...) -> the library compiled with these switches."""
    folder = tmp_path_factory.mktemp("ports")

    @cache
    def compiled(*switches):
        path = folder / ("-".join(("port", *switches)) + ".so")
        line = ["cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        line += [f"-D{switch}" for switch in switches] + [f"-I{HEADERS}", "-o", str(path)]
        subprocess.run([*line, str(HERE / "ports" / "port.c"), "-lm"], check=True)
        return path

    return compiled


def request(name):
    c = case(name)
    return Request.of(c.name, c.config, c.model())


def messages(result, level="fail"):
    return [f.message for f in result.findings if f.level == level]


@pytest.mark.heavy
def test_the_c_port_is_exact_spec(build):
    report = verify(LibraryPort(build()), [case(name) for name in SOME])
    assert report.verdict == "exact-spec", report.findings
    assert report.findings == ()
    assert all(c.comparison and len(c.comparison.rows) > 40 for c in report.cases)


def test_the_kept_window_is_a_fail_at_plan_and_attention(build):
    report = verify(
        LibraryPort(build("BUG_WINDOW")), [case("eight-tokens")], runtime=False, suspects=False
    )
    assert report.verdict == "fail"
    first, total = report.findings[0], case("eight-tokens").config["local_attention"]
    assert first.gate == "plan"
    assert f"layers.1.window is {total}; it must be {total // 2}" in first.message
    assert report.culprit == ("eight-tokens", "layers.1.attention")


def test_the_kept_window_is_named_without_a_plan(build):
    port = LibraryPort(build("BUG_WINDOW", "NO_PLAN"))
    report = verify(port, [case("window-66")], runtime=False)
    assert report.verdict == "fail" and {f.gate for f in report.findings} == {"operations"}
    assert report.culprit == ("window-66", "layers.1.attention")
    top = report.suspects[0]
    assert "W4" in {i.rstrip("abc") for i in (top.id, *top.tied_with)}


def test_tanh_gelu_is_a_deviation_named_so(build):
    cases = [case("window-66"), case("one-token")]
    report = verify(LibraryPort(build("BUG_GELU")), cases, runtime=False, without=NAMES)
    assert report.verdict == "declared deviation" and report.exit_code == 3
    assert {f.data["deviation"] for f in report.findings} == {"F2"}
    assert report.suspects[0].id == "F2"


@pytest.mark.heavy
def test_a_stale_buffer_is_found_by_the_order_of_calls(build):
    report = verify(LibraryPort(build("BUG_STALE")), [case("padding-mixed")], suspects=False)
    assert report.verdict == "fail"
    assert {f.gate for f in report.findings if f.level == "fail"} == {"runtime"}


def test_a_model_stays_loaded_from_call_to_call(build):
    port, r = LibraryPort(build("BUG_STALE")), request("eight-tokens")
    first, again = (port.run(r).taps["logits"] for _ in range(2))
    assert not np.array_equal(first, again)


def test_injected_steps_are_what_the_port_goes_on_with(build):
    r, p = request("eight-tokens"), case("eight-tokens").model()
    changed = trace(p)["layers.1.residual_1"][..., ::-1].astype(np.float32)
    result = LibraryPort(build()).run(replace(r, inject={"layers.1.residual_1": changed}))
    last = {"final_norm": result.taps["final_norm"].astype(np.float64)}
    injected = p.with_edit(lambda name, x: changed if name == "layers.1.residual_1" else x)
    assert compare(injected, last, "float32").ratio <= 1.0 < compare(p, last, "float32").ratio
    assert np.array_equal(result.taps["layers.1.residual_1"], changed)


def test_an_unsupported_config_is_refused_with_the_reason(build):
    r = request("eight-tokens")
    result = LibraryPort(build()).run(
        Request(
            r.name,
            {**r.config, "hidden_activation": "gelu_pytorch_tanh"},
            r.params,
            r.inputs,
            r.head,
        )
    )
    assert messages(result) == []
    assert "activation gelu_pytorch_tanh" in messages(result, "note")[0]


@pytest.mark.parametrize(
    ("bug", "limits", "words"),
    [
        ("BUG_CRASH", {}, "crashes with SIGSEGV"),
        ("BUG_HANG", {"seconds": 2.0}, "hangs: no answer within 2 seconds"),
        ("BUG_MEMORY", {"memory": 2**29}, "bytes of memory"),
        ("BUG_SHAPE", {}, "is given with the shape"),
    ],
)
def test_a_library_that_misbehaves_is_a_finding_and_the_next_call_runs(build, bug, limits, words):
    port = LibraryPort(build(bug), limits=Limits(**limits))
    for _ in range(2):
        (failure,) = messages(port.run(request("eight-tokens")))
        assert words in failure


def test_a_refused_head_is_run_to_the_final_norm(build):
    report = verify(LibraryPort(build("NO_HEADS")), [case(name) for name in SOME])
    assert report.verdict == "exact-spec", report.findings
    assert all(c.comparison.rows[-1].tap == "final_norm" for c in report.cases)
    assert set(HEADS) <= set(report.coverage.lacking) and report.exit_code == 4
    assert not {"padding", "packed", "positions", COMPANY} & set(report.coverage.lacking)
    said = [f.message for f in report.findings if f.gate == "port"]
    assert (
        "run to final_norm, without its head: refused by the port: an encoder only, no head"
        in (said[0])
    )


@pytest.mark.heavy
def test_an_encoder_that_ignores_the_mask_is_caught_without_heads(build):
    report = verify(
        LibraryPort(build("NO_HEADS", "BUG_MASK")), [case("padding-mixed")], suspects=False
    )
    assert report.verdict == "fail"


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("switches", "words"),
    [
        (("BUG_SILENT",), "never wrote final_norm (1280 of 1280 numbers), logits (3880 of 3880"),
        (("BUG_HALF_SILENT", "NO_TAPS"), "never wrote final_norm (1248 of 1280 numbers), logits"),
    ],
)
def test_outputs_that_were_never_written_are_named_so(build, switches, words):
    report = verify(LibraryPort(build(*switches)), [case("padding-mixed")])
    failed = [f for f in report.findings if f.level == "fail"]
    assert report.verdict == "fail" and words in failed[0].message
    # Not a race, not a stale buffer: nothing of the runtime is blamed.
    assert not any(f.gate == "runtime" for f in failed) and not report.suspects


def test_a_file_that_is_no_library_is_refused(tmp_path):
    (tmp_path / "lib.so").write_text("not a library")
    with pytest.raises(ValueError, match=r"lib\.so does not load"):
        LibraryPort(tmp_path / "lib.so")
    with pytest.raises(ValueError, match="not a file"):
        LibraryPort(tmp_path / "none.so")


def test_the_header_is_what_is_loaded():
    text = declarations()
    assert "mbv_forward" in text and "#" not in text
