"""README.md's table of speeds is made from benchmarks/results; a failure prints the right one."""

import json
from pathlib import Path

import pytest
from support.readme import ROOT, section

RESULTS = ROOT / "benchmarks" / "results"


def table(path: Path) -> str:
    """Tokens per second, a column a contender, a row a shape; the error of each in the last row."""
    found = json.loads(path.read_text(encoding="utf-8"))
    names = list(next(iter(found["rows"].values())))
    lines = [["tokens/s", *names], ["---"] * (1 + len(names))]
    for shape, rows in found["rows"].items():
        lines.append([shape, *(f"{rows[name]['tokens_per_s']:,.0f}" for name in names)])
    worst = [max(rows[name]["error"] for rows in found["rows"].values()) for name in names]
    lines.append(["largest error", *(f"{error:.1e}" for error in worst)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def told(path: Path) -> str:
    """Processor, date and question in a sentence."""
    found = json.loads(path.read_text(encoding="utf-8"))
    cpu, cores = found["machine"]["cpu"], found["machine"]["cores"]
    return f"{found['question'].capitalize()}, {cpu}, {cores} cores, {found['date']}"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda p: p.stem)
def test_table_of_speeds_is_that_of_the_results(path):
    text = section("Run it on a CPU")
    assert table(path) in text and told(path) in text
