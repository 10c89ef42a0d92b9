"""MIGRATION.md: its Python and its commands run, and its tables are those of the code."""

import re
import shlex
from dataclasses import fields

import pytest
from support.examples import check, promised
from support.readme import ROOT, blocks

from refimpl import NLPTaskConfig, NLPTaskType
from refimpl.cli import main
from refimpl.nlp.keras_names import COUNTERPARTS, GONE, WITH_A_HEAD
from refimpl.nlp.options import HEAD_POOLINGS
from refimpl.nlp.task_types import FAMILIES
from refimpl.reference.config import KERAS_NAMES

PAGE = "MIGRATION.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
CONSTRUCTOR = (
    "vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size", "hidden_act",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "type_vocab_size", "initializer_range",
    "layer_norm_eps", "use_bias", "global_attention_interval", "local_attention_window_size",
    "max_position_embeddings", "global_rope_theta",
)  # fmt: skip


def rows(header: str) -> list[list[str]]:
    """The cells of the table under a header line."""
    body = TEXT.split(header + "\n", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]


def test_its_python_and_then_its_commands_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tokenizers", reason="the command takes text")
    monkeypatch.chdir(tmp_path)
    check(PAGE)
    commands = [line for block in blocks(PAGE, "sh") for line in block.splitlines()]
    assert commands and sum(len(promised(block)) for block in blocks(PAGE, "python")) >= 10
    for command in commands:
        program, *argv = shlex.split(command)
        assert (program, main(argv)) == ("modernbert", 0)
        assert "my-model" in capsys.readouterr().out


def test_names_of_keras_are_the_codes():
    told = {name.strip("`"): here for name, here in rows("| of a model | here |")}
    assert told.pop("set_weights`, with a head") == WITH_A_HEAD["set_weights"]
    assert told == COUNTERPARTS


def test_keywords_that_are_gone_are_the_codes():
    assert {name.strip("`"): why for name, why in rows("| keyword | why |")} == GONE


def test_constructor_names_are_the_codes():
    told = rows("| constructor's name | the config's own name, which works as well |")
    assert {a.strip("`"): tuple(re.findall(r"`(\w+)`", b)) for a, b in told} == KERAS_NAMES
    example = blocks(PAGE, "python")[0]
    for name in CONSTRUCTOR:
        assert f"{name}=" in example, f"{name} is not shown"
        assert f"`{name}`" in TEXT


def test_tasks_without_a_head_are_the_codes():
    listed = re.search(r"Tasks without a head, as there: (.*)\.", TEXT)
    assert listed
    without = [str(task) for task in NLPTaskType if task not in FAMILIES]
    assert re.findall(r"`(\w+)`", listed[1]) == without
    assert f"the {len(without)} without a head" in TEXT and f"all {len(NLPTaskType)}" in TEXT


def test_options_of_tasks_and_heads_are_named():
    ours = {"multi_label"}  # not a field there
    for field in {f.name for f in fields(NLPTaskConfig)} - ours:
        assert re.search(rf"\b{field}\b", TEXT), f"{field} is not named"
    assert "Poolings: " + ", ".join(f"`{name}`" for name in HEAD_POOLINGS) in TEXT
