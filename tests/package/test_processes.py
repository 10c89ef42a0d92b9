"""`pytest` alone takes a process a core; a process that it started takes none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support.readme import ROOT

Source = pytest.Config.ArgsSource


@pytest.fixture
def conftest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # these tests may run in one
    return request.config.pluginmanager.getplugin(str(ROOT / "tests" / "conftest.py"))


def options(conftest: Any, source: Any = Source.TESTPATHS, **said: Any) -> SimpleNamespace:
    """What the options are after the hook."""
    usual = dict(numprocesses=None, dist="no", capture="fd", usepdb=False)
    found = SimpleNamespace(**{**usual, **said})
    conftest.pytest_cmdline_main(SimpleNamespace(option=found, args_source=source))
    return found


def test_everything_runs_in_a_process_a_core(conftest: Any, monkeypatch: pytest.MonkeyPatch):
    for cores, processes in ((1, 1), (2, 2), (64, 8)):
        monkeypatch.setattr(conftest, "CORES", cores)
        found = options(conftest)
        assert (found.numprocesses, found.dist) == (processes, "worksteal")


@pytest.mark.parametrize(
    "said",
    [
        dict(source=Source.ARGS),  # named tests
        dict(capture="no"),
        dict(usepdb=True),
        dict(numprocesses=0),
        dict(numprocesses=3, dist="load"),
    ],
)
def test_what_is_said_otherwise_stands(conftest: Any, said: dict[str, Any]):
    found = options(conftest, **said)
    assert found.numprocesses == said.get("numprocesses")
    assert found.dist == said.get("dist", "no")


def test_a_worker_starts_no_workers(conftest: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    assert options(conftest).numprocesses is None


def test_without_xdist_there_is_one_process(conftest: Any):
    found = SimpleNamespace(capture="fd", usepdb=False)
    conftest.pytest_cmdline_main(SimpleNamespace(option=found, args_source=Source.TESTPATHS))
    assert vars(found) == dict(capture="fd", usepdb=False)
