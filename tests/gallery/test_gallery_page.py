"""GALLERY.md's table is made from what was recorded, and what was recorded is as expected."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import replace

import pytest
from public_ports import ENVIRONMENTS, PORTS
from run import HERE, PAGE, call, faults, recorded, table

from refimpl.verify.truth.fixtures import FIXTURES
from refimpl.verify.truth.passes import config_of
from refimpl.verify.truth.plan import plan_of
from refimpl.verify.zoo import FAULTY, ZOO

FOUND = recorded()
NAMES = [port.name for port in PORTS]


def test_the_table_is_that_of_the_record() -> None:
    assert table(FOUND) in PAGE.read_text(encoding="utf-8"), (
        f"python tests/gallery/run.py --page writes it:\n{table(FOUND)}"
    )


def test_the_page_names_each_day_of_the_record() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for day in {found["date"] for found in FOUND.values()}:
        assert day in text


@pytest.mark.parametrize("port", [p for p in PORTS if p.name in FOUND], ids=lambda p: p.name)
def test_recorded_verdict_and_causes_are_those_of_the_source(port) -> None:
    assert tuple(faults(port, FOUND[port.name])) == port.owed


def test_all_of_the_table_is_recorded_and_nothing_else() -> None:
    assert set(FOUND) == set(NAMES) and len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("port", PORTS, ids=NAMES)
def test_a_port_is_described_by_known_things(port) -> None:
    assert set(port.causes) <= set(ZOO) | set(FAULTY)
    assert bool(port.causes) == (port.verdict != "exact-spec")
    assert (HERE / "adapters" / port.adapter).is_file()
    pinned = {p for packages in ENVIRONMENTS[port.environment] for p in packages}
    assert all("==" in p for p in pinned)
    assert set(port.packages) <= {re.split(r"[\[=]", p)[0] for p in pinned}


def test_every_way_to_be_wrong_is_a_fault() -> None:
    port = replace(PORTS[0], verdict="fail", causes=("C6", "F2"))
    right = {"verdict": "fail", "causes": [["C6", "C5c"], ["F2"]]}
    assert faults(port, right) == []
    for wrong in (
        right | {"verdict": "exact-spec"},
        right | {"causes": [["C5c", "C6"]]},
        right | {"causes": [*right["causes"], ["W1"]]},
        right | {"causes": [["C6", "F2"]]},
    ):
        assert faults(port, wrong), wrong


def test_configs_in_old_keys_say_the_same_or_are_refused(monkeypatch) -> None:
    spec = importlib.util.spec_from_file_location("adapters_kit", HERE / "adapters" / "kit.py")
    kit = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, kit)
    spec.loader.exec_module(kit)
    refused = set()
    for name, fixture in FIXTURES.items():
        config = fixture.config()
        try:
            old = kit.old_keys(config)
        except kit.Refused:
            refused.add(name)
            continue
        for key in ("layer_types", "rope_parameters"):
            old.pop(key, None)
        assert plan_of(config_of(old), None) == plan_of(config_of(config), None), name
    assert refused == {"cls", "tokens"}  # no period, or one that does not begin with layer 0


def test_a_command_that_fails_or_makes_nothing_ends_the_run(tmp_path) -> None:
    """The exit code of `verify` is a verdict, and so is that of a crash of Python's: 1."""
    log, page = tmp_path / "log", tmp_path / "page"
    with pytest.raises(RuntimeError, match="(?s)ended with 3:.*last words"):
        call(sys.executable, "-c", "print('last words'); exit(3)", log=log)
    with pytest.raises(RuntimeError, match="ended with 1"):
        call(sys.executable, "-c", "exit(1)", log=log, makes=page)
    page.touch()
    call(sys.executable, "-c", "exit(1)", log=log, makes=page)
