"""README.md's table of speed, error, memory and weight and those of benchmarks/README.md are made
from benchmarks/results; a failure prints the right one."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.readme import ROOT, TEXT, section

RESULTS = ROOT / "benchmarks" / "results"
SPEED = "epyc-avx512-base-2-threads.json"
MEMORY = "epyc-avx512-base-memory.json"
WEIGHT = "install-weight.json"
LONG = "Long inputs, and large"
AMX = "On a processor with AMX"
MORE = {
    "epyc-avx512-base-long-2-threads.json": LONG,
    "epyc-avx512-large-2-threads.json": LONG,
    "xeon-amx-base-2-threads.json": AMX,
    "xeon-amx-large-2-threads.json": AMX,
}


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def measured(rows: dict[str, Any], figure: str) -> dict[str, Any]:
    """The rows that have a figure: who was left out has a reason in its place."""
    return {name: row for name, row in rows.items() if figure in row}


def table(
    speed: dict[str, dict[str, Any]], memory: dict[str, Any], weight: dict[str, Any]
) -> list[list[str]]:
    """A row a contender: tokens a second at each shape, the largest error, peak memory and what its
    install weighs, MiB. "-" where it has not been measured."""
    speeds = {shape: measured(rows, "tokens_per_s") for shape, rows in speed.items()}
    memory, weight = measured(memory, "peak_mib"), measured(weight, "mib")
    names = list(dict.fromkeys([*memory, *(name for rows in speeds.values() for name in rows)]))
    lines = [["", *speed, "error", "memory", "install"]]
    for name in names:
        errors = [r[name]["error"] for r in (*speeds.values(), memory) if name in r]
        ours = name.rsplit(" ", 1)[0]
        lines.append([
            name,
            *(f"{r[name]['tokens_per_s']:,.0f}" if name in r else "-" for r in speeds.values()),
            f"{max(errors):.1e}",
            f"{memory[name]['peak_mib']:,.0f}" if name in memory else "-",
            f"{weight[ours]['mib']:,.0f}" if ours in weight else "-",
        ])  # fmt: skip
    return lines


def speeds_alone(speed: dict[str, dict[str, Any]]) -> list[list[str]]:
    """The same without memory and install; the error is "-" for who ran where no truth was made."""
    by_shape = {shape: measured(rows, "tokens_per_s") for shape, rows in speed.items()}
    lines = [["", *by_shape, "error"]]
    for name in dict.fromkeys(name for rows in by_shape.values() for name in rows):
        rows = [r.get(name) for r in by_shape.values()]
        errors = [r["error"] for r in rows if r and r["error"] is not None]
        told = [f"{r['tokens_per_s']:,.0f}" if r else "-" for r in rows]
        lines.append([name, *told, f"{max(errors):.1e}" if errors else "-"])
    return lines


def written(lines: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def told(found: dict[str, Any]) -> str:
    """Question, processor and date in a sentence."""
    cpu, cores = found["machine"]["cpu"], found["machine"]["cores"]
    return f"{found['question'].capitalize()}, {cpu}, {cores} cores, {found['date']}"


def test_table_is_that_of_the_results():
    speed, memory, weight = map(read, (SPEED, MEMORY, WEIGHT))
    text = section("Run it on a CPU")
    right = written(table(speed["rows"], memory["rows"], weight["rows"]))
    assert right in text, right
    assert told(speed) in text, told(speed)


@pytest.mark.parametrize("name", MORE)
def test_further_tables_are_those_of_the_results(name):
    found = read(name)
    text = section(MORE[name], "benchmarks/README.md")
    right = written(speeds_alone(found["rows"]))
    assert right in text, right
    assert told(found) in text, told(found)


def test_every_result_is_read():
    assert sorted(p.name for p in Path(RESULTS).iterdir()) == sorted([SPEED, MEMORY, WEIGHT, *MORE])


def test_who_was_not_measured_has_a_dash_and_who_was_left_out_no_row():
    speed = {"1x16": {"a float32": {"tokens_per_s": 1000.4, "error": 2e-7}, "b": {"failed": "x"}}}
    memory = {
        "a float32": {"peak_mib": 10.0, "error": 3e-7},
        "c bfloat16": {"peak_mib": 2345.6, "error": 1e-2},
        "d float32": {"left_out": "not installed"},
    }
    assert table(speed, memory, {"a": {"mib": 7.4}, "c": {"left_out": "x"}}) == [
        ["", "1x16", "error", "memory", "install"],
        ["a float32", "1,000", "3.0e-07", "10", "7"],
        ["c bfloat16", "-", "1.0e-02", "2,346", "-"],
    ]


def test_weight_of_an_install_is_that_of_the_results() -> None:
    ours, text = (read(WEIGHT)["rows"][name]["mib"] for name in ("refimpl", "refimpl[text]"))
    said = f"numpy alone, {ours:,.0f} MiB together; with `[text]` it is {text:,.0f}:"
    assert said in TEXT
