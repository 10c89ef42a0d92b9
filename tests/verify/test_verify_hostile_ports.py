"""Ports that misbehave, through every gate: each way is a clear finding, and never our end."""

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from support.heavy import heavy_but_first

from refimpl.verify.judge.gates import verify
from refimpl.verify.ports.command_port import CommandPort
from refimpl.verify.ports.dump import DumpPort
from refimpl.verify.ports.isolation import Limits
from refimpl.verify.ports.port import PortResult, ReferencePort
from refimpl.verify.report.report import render, to_json
from refimpl.verify.truth.cases import case
from refimpl.verify.truth.passes import trace

PORT = Path(__file__).parents[1] / "ports" / "numpy_port.py"
CASES = [case("padding-mixed")]


def check(how, runtime=False, **limits):
    command = shlex.join([sys.executable, str(PORT), how])
    report = verify(
        CommandPort(command, limits=Limits(**limits)), CASES, runtime=runtime, suspects=False
    )
    assert render(report) and to_json(report)["verdict"] == report.verdict
    return report


def failures(report):
    return [f for f in report.findings if f.level == "fail"]


@pytest.mark.parametrize("how", ["right", "big_endian", "extra", "last_only"])
def test_odd_but_right_ports_pass(how):
    report = check(how)
    assert report.verdict == "exact-spec", report.findings
    notes = [f.message for f in report.findings]
    assert bool(notes) == (how in ("extra", "last_only"))
    if how == "extra":
        assert any("layers.99.q" in m and "scratch" in m for m in notes)
    if how == "last_only":
        assert any(" not: embedding" in m for m in notes)


@pytest.mark.parametrize(
    ("how", "tap", "words"),
    [
        ("nan", "layers.1.attention", "NaN or infinity in real tokens, first at [0, 2, 1]"),
        ("nan_in_padding", "final_norm", "NaN or infinity in padding"),
        ("wrong_shape", "final_norm", "has the shape [5, 7, 32]; expected [5, 8, 32]"),
        ("wrong_dtype", "final_norm", "is of dtype int32; steps are floats"),
        ("wrong_dtype", "embedding", "is of dtype complex64; steps are floats"),
        ("half", None, "no value of any step uses more than 8 significant bits"),
        ("nothing", None, "there is no tensor"),
        ("nothing", None, "no case could be compared"),
        ("crashes", None, "crashes with SIGSEGV"),
        ("fails", None, "cannot read these weights"),
        ("sparse", None, "writes a file of more than"),
    ],
)
def test_each_misbehaviour_is_a_clear_finding(how, tap, words):
    report = check(how)
    assert report.verdict == "fail"
    assert any(words in f.message and f.tap == tap for f in failures(report)), failures(report)


def test_a_hang_is_a_finding_in_every_gate_that_runs_the_port():
    report = check("hangs", runtime=True, seconds=1.0)
    assert report.verdict == "fail" and any("hangs" in f.message for f in failures(report))


def test_a_port_that_refuses_everything_has_not_passed():
    report = check("refuses")
    assert report.verdict == "fail"
    assert any(f.level == "note" and "no such head" in f.message for f in report.findings)


def test_a_sparse_dump_of_ten_gigabytes_is_refused_unread(tmp_path):
    steps = trace(CASES[0].model().astype(np.float32))
    np.save(tmp_path / "embedding.npy", steps["embedding"])
    np.lib.format.open_memmap(tmp_path / "final_norm.npy", "w+", np.float32, (10 * 2**28,))
    with (tmp_path / "layers.0.q.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": steps["layers.0.q"].shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(10 * 2**30)
    report = verify(DumpPort(tmp_path, case=CASES[0].name), CASES)
    said = {f.tap: f.message for f in failures(report)}
    assert f"has the shape [{10 * 2**28}]" in said["final_norm"]
    assert "bytes of data; its header says float32" in said[None]
    assert report.cases[0].comparison is not None


class Telling:
    """The reference, telling what `change` makes of its result."""

    name, dtype = "telling", "float32"
    abilities = frozenset()

    def __init__(self, change):
        self.change = change

    def run(self, request):
        return PortResult(**{**vars(ReferencePort().run(request)), **self.change(request)})

    def run_together(self, requests):
        return [self.run(request) for request in requests]


@pytest.mark.parametrize("value", heavy_but_first([np.nan, 1e300, -np.inf, 0.0]))
def test_any_number_is_judged_and_none_warns(value):
    def change(request):
        taps = dict(ReferencePort().run(request).taps)
        taps["layers.1.k"] = np.full(taps["layers.1.k"].shape, value)
        return {"taps": taps}

    report = verify(Telling(change), CASES, suspects=False)
    assert report.verdict == "fail" and report.culprit == (CASES[0].name, "layers.1.k")


def rounded_wrong(request):
    weights = dict(request.params)
    weights["final_norm.weight"] = np.nextafter(weights["final_norm.weight"], 9).astype(np.float32)
    weights["layers.1.attn.Wo.weight"] = weights["layers.1.attn.Wo.weight"].T
    weights["layers.1.mlp.Wo.weight"] = weights["layers.2.mlp.Wo.weight"]
    weights["layers.2.mlp.Wo.weight"] = weights["layers.2.mlp.Wo.weight"] * (1 + 2.0**-20)
    return {"weights": weights}


def test_weights_are_held_exactly():
    found = {f.tap: f.message for f in failures(verify(Telling(rounded_wrong), CASES))}
    assert set(found) == {
        "layers.1.attn.Wo.weight",
        "layers.1.mlp.Wo.weight",
        "layers.2.mlp.Wo.weight",
    }
    assert "transposed" in found["layers.1.attn.Wo.weight"]
    assert "it is layers.2.mlp.Wo.weight" in found["layers.1.mlp.Wo.weight"]
    assert "values differ" in found["layers.2.mlp.Wo.weight"]


def test_inputs_are_held_exactly():
    def change(request):
        mask = request.inputs["attention_mask"].copy()
        mask[1, 0] = 0
        positions = np.cumsum(request.inputs["attention_mask"], axis=1) - 1
        return {"inputs": {"attention_mask": mask, "position_ids": positions}}

    found = {f.tap: f.message for f in failures(verify(Telling(change), CASES))}
    assert set(found) == {"attention_mask", "position_ids"}
    assert "in 1 places, first at [1, 0]" in found["attention_mask"]


def test_the_plan_is_held_exactly_and_unknown_facts_are_named():
    plan = {
        "layers": [{"window": 99}],
        "hidden_activation": "gelu_tanh",
        "colour": 3,
        "norm_bias": 1,
    }
    report = verify(Telling(lambda request: {"plan": plan}), CASES, suspects=False)
    said = {f.data.get("fact"): f for f in report.findings}
    assert said["layers.0.window"].level == "fail" and said["norm_bias"].level == "fail"
    assert (
        said["hidden_activation"].level == "deviation" and "F2" in said["hidden_activation"].message
    )
    assert said[None].level == "note" and "colour" in said[None].message


@pytest.mark.parametrize(("ulps", "wrong"), [(1, False), (2, True)])
def test_inverse_frequencies_are_held_to_one_ulp(tmp_path, ulps, wrong):
    config = CASES[0].model().config
    inv = config.global_rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    lower = inv.astype(np.float32)
    lower = np.where(lower > inv, np.nextafter(lower, np.float32(0)), lower)
    # The float32 number at or below the truth, less one more ulp for every ulp over one.
    for _ in range(ulps - 1):
        lower = np.nextafter(lower, np.float32(0))
    np.save(tmp_path / "rope.full.inv_freq.npy", lower)
    np.save(tmp_path / "embedding.npy", trace(CASES[0].model())["embedding"])
    found = failures(verify(DumpPort(tmp_path, case=CASES[0].name), CASES, suspects=False))
    assert [f.tap for f in found if f.gate == "rope"] == ["rope.full.inv_freq"] * wrong


def one_ulp_more(p, ulps):
    """Inverse frequencies in float32, off by so many units in the last place."""

    def table(positions, head_dim, theta, dtype):
        inv = (theta ** (-np.arange(0, head_dim, 2) / head_dim)).astype(np.float32)
        inv = inv + np.float32(ulps) * np.spacing(inv)
        angle = np.asarray(positions, np.float32)[..., None] * inv
        angle = np.concatenate([angle, angle], axis=-1)
        return np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)

    return p.with_ops(rope_table=table)


@pytest.mark.parametrize(("ulps", "verdict"), [(0, "exact-spec"), (4, "fail")])
def test_rotary_tables_may_be_one_ulp_off_and_not_four(ulps, verdict):
    port = ReferencePort(mistake=lambda p: one_ulp_more(p, ulps))
    report = verify(port, [case("positions-far")], runtime=False, suspects=False)
    assert report.verdict == verdict
    assert bool([f for f in report.findings if f.gate == "rope"]) == (verdict == "fail")
