"""The CPU engine through the kit, on every tier of this machine: exact-spec, in any company."""

import pytest
from native import tiers

from refimpl.cli import main
from refimpl.verify.cases import CASES, case
from refimpl.verify.engine_port import EnginePort
from refimpl.verify.gates import verify

every_tier = pytest.mark.parametrize("tier", tiers())
RUNTIME = ("window-66", "mean-65", "padding-mixed", "packed")


@every_tier
def test_engine_is_exact_spec_in_every_case(tier):
    report = verify(EnginePort(tier), CASES, runtime=False)
    assert report.verdict == "exact-spec", [f.message for f in report.findings]
    assert all(c.comparison.rows[0].tap == "final_norm" for c in report.cases)


@every_tier
def test_engine_is_exact_spec_in_any_company(tier):
    report = verify(EnginePort(tier, num_threads=2), [case(name) for name in RUNTIME])
    assert report.verdict == "exact-spec", [f.message for f in report.findings]


def test_engine_with_a_wrong_window_is_told():
    class Wider(EnginePort):
        def load(self, config, params):
            wider = config.replace(local_attention=config.local_attention + 2)
            return super().load(wider, params)

    report = verify(Wider("scalar"), [case("window-66")], runtime=False)
    assert report.verdict == "fail" and report.culprit == ("window-66", "final_norm")
    assert "window" in report.suspects[0].title


def test_engine_tier_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="tier 'mmx' does not run here; these do: .*scalar"):
        EnginePort("mmx")


def test_command_takes_the_engine(capsys):
    assert main(["verify", "--engine", "scalar", "--case", "two-tokens", "--no-runtime"]) == 0
    assert "engine, tier scalar (float32): exact-spec" in capsys.readouterr().out
