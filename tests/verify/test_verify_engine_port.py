"""The CPU engine through the kit, on every tier of this machine and in every dtype that has a
budget: exact-spec, in any company."""

from dataclasses import replace

import pytest
from support.heavy import heavy_but_first
from support.native import extension, tiers_and_dtypes

from refimpl.cli import main
from refimpl.verify.judge.gates import verify
from refimpl.verify.ports.engine_port import EnginePort
from refimpl.verify.truth.cases import CASES, case
from refimpl.verify.truth.rounding import DTYPES

VERIFIED = [(tier, dtype) for tier, dtype in tiers_and_dtypes() if dtype in DTYPES]
mostly_the_best = pytest.mark.parametrize(("tier", "dtype"), heavy_but_first(VERIFIED))
RUNTIME = ("window-66", "mean-65", "padding-mixed", "packed")


@mostly_the_best
def test_engine_is_exact_spec_in_every_case(tier, dtype):
    report = verify(EnginePort(tier, dtype=dtype), CASES, runtime=False)
    assert report.verdict == "exact-spec", [f.message for f in report.findings]
    assert all(c.comparison.rows[0].tap == "final_norm" for c in report.cases)


@mostly_the_best
def test_engine_is_exact_spec_in_any_company(tier, dtype):
    port = EnginePort(tier, num_threads=2, dtype=dtype)
    report = verify(port, [case(name) for name in RUNTIME])
    assert report.verdict == "exact-spec", [f.message for f in report.findings]


def test_engine_with_a_wrong_window_is_told():
    class Wider(EnginePort):
        def load(self, config, params):
            wider = config.replace(local_attention=config.local_attention + 2)
            return super().load(wider, params)

    report = verify(Wider("scalar"), [case("window-66")], runtime=False)
    assert report.verdict == "fail" and report.culprit == ("window-66", "final_norm")
    assert "window" in report.suspects[0].title


@pytest.mark.heavy
def test_engine_in_int8_is_a_declared_deviation_and_no_float32_port():
    some = [case(name) for name in ("two-tokens", "window-66", "padding-mixed", "hard-rows")]
    tier = extension().best_tier()
    report = verify(EnginePort(tier, dtype="int8"), some, runtime=False)
    assert report.verdict == "declared deviation", [f.message for f in report.findings]
    assert all(c.comparison.ratio <= 1 for c in report.cases)

    class Claims(EnginePort):
        @property
        def judged_as(self):
            return "float32"

    report = verify(Claims(tier, dtype="int8"), some[:2], "float32", runtime=False)
    assert report.verdict == "fail"


def test_engine_in_bfloat16_is_no_float32_port():
    """The rounded matrices show: the budgets of float32 are not wide enough by accident."""

    class Claims(EnginePort):
        def __init__(self, tier):
            super().__init__(tier, dtype="bfloat16")

        def run(self, request):
            return replace(super().run(request), dtype="float32")

    report = verify(Claims("scalar"), [case("window-66")], "float32", runtime=False)
    assert report.verdict != "exact-spec"


def test_engine_port_takes_the_best_tier_that_the_environment_leaves(monkeypatch):
    monkeypatch.delenv("REFIMPL_ISA", raising=False)
    assert EnginePort().tier == extension().best_tier()
    monkeypatch.setenv("REFIMPL_ISA", "scalar")
    assert EnginePort().tier == "scalar"
    monkeypatch.setenv("REFIMPL_ISA", "mmx")
    with pytest.raises(ValueError, match="REFIMPL_ISA is 'mmx'"):
        EnginePort()


def test_engine_dtype_without_a_budget_is_refused():
    with pytest.raises(
        ValueError, match="'bf16x3' is not verified on tier scalar: float32, bfloat16, int8"
    ):
        EnginePort("scalar", dtype="bf16x3")


def test_engine_tier_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="tier 'mmx' does not run here; these do: .*scalar"):
        EnginePort("mmx")


def test_command_takes_the_engine(capsys):
    assert main(["verify", "--engine", "scalar", "--case", "two-tokens", "--no-runtime"]) == 4
    assert "engine, tier scalar (float32), incomplete, 1 of 27" in capsys.readouterr().out
    in_half = ["verify", "--engine", "scalar", "--dtype", "bfloat16", "--case", "two-tokens"]
    assert main([*in_half, "--no-runtime"]) == 4
    assert "engine, tier scalar (bfloat16), incomplete, 1 of 27" in capsys.readouterr().out
