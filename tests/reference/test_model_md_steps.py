"""MODEL.md against the code: steps and their shapes, tensors, functions, activations, sections."""

import re
from pathlib import Path

import numpy as np
import pytest

from refimpl.nlp.families import FAMILY_OUTPUTS
from refimpl.nlp.head import nlp_head
from refimpl.nlp.task_config import NLPTaskConfig
from refimpl.nlp.task_types import NLPTaskType
from refimpl.reference import ops
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.reference.heads import HEADS
from refimpl.reference.params import encoder_shapes, init_std, initialise
from refimpl.reference.pooling import POOLINGS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "MODEL.md").read_text(encoding="utf-8")

SMALL = dict(
    vocab_size=11, hidden_size=12, intermediate_size=10, num_hidden_layers=4,
    num_attention_heads=3, local_attention=4, pad_token_id=0, bos_token_id=1, cls_token_id=1,
    eos_token_id=2, sep_token_id=2,
)  # fmt: skip
EVERYTHING = dict(norm_bias=True, attention_bias=True, mlp_bias=True, type_vocab_size=3)
CONFIGS = {
    "plain": ModernBertConfig.from_dict(SMALL),
    "everything on": ModernBertConfig.from_dict({**SMALL, **EVERYTHING}),
    "norm biases": ModernBertConfig.from_dict({**SMALL, "norm_bias": True}),
}


def section(number: int) -> str:
    """The text of one numbered section."""
    found = re.search(rf"(?ms)^## {number}\. .*?(?=^## |\Z)", TEXT)
    assert found, f"MODEL.md has no section {number}"
    return found[0]


def rows(text: str, columns: int) -> list[list[str]]:
    """Cells of the table rows that have so many columns, headings left out."""
    lines = [line[1:-1].split("|") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return [c for c in cells if len(c) >= columns and "---" not in "".join(c)]


def steps() -> list[tuple[str, str]]:
    """(name, shape text) of each step of section 2, in the order of the page."""
    found = re.findall(r"(?m)^\|[^|]*\| `([^`]+)` \|.*\| (\[[^|]+\]) \|$", section(2))
    assert len(found) > 2
    return found


def expanded(items: list[tuple], layers: int) -> list[tuple]:
    """The items with `{i}` written out, a run of them repeated for each layer."""
    first = next(n for n, item in enumerate(items) if "{i}" in item[0])
    last = max(n for n, item in enumerate(items) if "{i}" in item[0]) + 1
    run = items[first:last]
    assert all("{i}" in item[0] for item in run), "the steps of a layer stand together"
    written_out = [(n.replace("{i}", str(i)), *rest) for i in range(layers) for n, *rest in run]
    return items[:first] + written_out + items[last:]


def size(text: str, config: ModernBertConfig, **more: int) -> tuple[int, ...]:
    """A shape such as `[batch, seq, 2 inter]` in numbers."""
    dims = {
        "hidden": config.hidden_size, "inter": config.intermediate_size,
        "heads": config.num_attention_heads, "head_dim": config.head_dim,
        "vocab": config.vocab_size, "types": config.type_vocab_size, **more,
    }  # fmt: skip
    shape = []
    for axis in text.strip("[]").split(","):
        factor, name = re.fullmatch(r"\s*(\d*)\s*(\w+)\s*", axis).groups()
        shape.append(int(factor or 1) * dims[name])
    return tuple(shape)


def recorded_steps(config: ModernBertConfig) -> list[tuple[str, tuple[int, ...]]]:
    seen = []

    def tap(name, value):
        seen.append((name, value.shape))
        return value

    ids = np.array([[1, 5, 7, 2, 0], [1, 3, 4, 9, 2]])
    encode(initialise(encoder_shapes(config), config), config, ids, tap=tap)
    return seen


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_model_md_steps_are_those_of_the_encoder_in_order_and_shape(config):
    said = [
        (name, size(shape, config, batch=2, seq=5))
        for name, shape in expanded(steps(), config.num_hidden_layers)
    ]
    assert said == recorded_steps(config)


def tensors(config: ModernBertConfig) -> list[tuple[str, tuple[int, ...]]]:
    """Name and shape of each encoder tensor by the first table of section 7."""
    table = section(7).split("The heads add")[0]
    found = re.findall(r"(?m)^\| `([^`]+)` \| (\[[^|]+\]) \| (.+) \|$", table)
    switches = {"always": True} | vars(config)
    kept = []
    for name, shape, exists in expanded(found, config.num_hidden_layers):
        layer = re.match(r"layers\.(\d+)\.", name)
        i = int(layer[1]) if layer else None
        if eval(exists.replace("`", ""), {}, switches | {"i": i}):
            kept.append((name, size(shape, config)))
    return kept


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_model_md_tensors_are_those_of_the_encoder(config):
    assert tensors(config) == list(encoder_shapes(config).items())


def head_rows() -> dict[str, list[str]]:
    """Kind -> [equation number, kind, computation, result], from the table of section 9."""
    found = [r for r in rows(section(9), 4) if r[1].strip("`") in HEADS]
    return {r[1].strip("`"): [r[0].strip("()"), *r[1:]] for r in found}


def test_model_md_heads_are_those_of_the_code():
    assert list(head_rows()) == list(HEADS)


@pytest.mark.parametrize("switched", [False, True], ids=["plain", "everything on"])
@pytest.mark.parametrize("kind", HEADS)
def test_model_md_head_tensors_are_those_of_the_code(kind, switched):
    more = {"decoder_bias": switched, "classifier_bias": switched, "norm_bias": switched}
    config = ModernBertConfig.from_dict({**SMALL, **more, "tie_word_embeddings": not switched})
    labels = 1 if kind == "multiple_choice" else config.num_labels
    switches = {"always": True, "number": int(head_rows()[kind][0])} | vars(config)

    said = {}
    table = section(7).split("The heads add")[1]
    for name, shape, exists in re.findall(r"(?m)^\| `([^`]+)` \| (\[[^|]+\]) \| (.+) \|$", table):
        rule = re.sub(r"\((\d+)\) to \((\d+)\)", r"\1 <= number <= \2", exists.replace("`", ""))
        if eval(re.sub(r"\((\d+)\)", r"number == \1", rule), {}, switches):
            said[name] = size(shape, config, labels=labels)
    assert said == HEADS[kind].shapes(config)


@pytest.mark.parametrize("kind", HEADS)
def test_model_md_head_steps_are_those_of_the_code(kind):
    config, head = CONFIGS["plain"], HEADS[kind]
    params = initialise(encoder_shapes(config) | head.shapes(config), config)
    axes = (2, 3, 5) if kind == "multiple_choice" else (2, 5)
    seen = []

    def tap(name, value):
        seen.append(name)
        return value

    head.forward(params, config, np.ones((*axes, 12), np.float32), tap=tap)
    common = [r[1].strip("`") for r in rows(section(9), 4) if r[1].startswith("`head.")]
    own = re.findall(r"`(\w+)`", " ".join(head_rows()[kind][2:]))
    own = [name for name in own if not hasattr(config, name)]
    before = [name for name in own if name == "pooled"]
    assert seen == before + common + [name for name in own if name != "pooled"]


def test_model_md_initial_deviations_are_those_of_the_code():
    config = ModernBertConfig.from_dict({**SMALL, "tie_word_embeddings": False})
    heads = HEADS["masked_lm"].shapes(config) | HEADS["sequence_classification"].shapes(config)
    shapes = encoder_shapes(config) | heads
    values = vars(config) | {"sqrt": np.sqrt, "L": config.num_hidden_layers}
    values["hidden"] = config.hidden_size
    said = {}
    for tensors_of_row, rule in (r for r in rows(section(8), 2) if "`" in r[0]):
        std = eval(rule.replace("`", "").replace("2 L", "2 * L"), {}, values)
        for part in re.findall(r"`([\w.]+)`", tensors_of_row):
            said |= {n: std for n, s in shapes.items() if part in n and len(s) == 2}
    matrices = [n for n, s in shapes.items() if len(s) == 2]
    for name in matrices:
        got = init_std(name, config)
        # A root and a quotient, each rounded once, in one order or the other.
        assert abs(got - said[name]) <= 2 * np.spacing(got), name


def test_model_md_families_are_those_of_the_configurable_heads():
    table = section(11).split("With y")[1]
    assert [r[1].strip("`") for r in rows(table, 3) if r[1].startswith("`")] == list(FAMILY_OUTPUTS)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_model_md_configurable_head_steps_are_those_of_the_code(pooling):
    config = CONFIGS["plain"]
    task = NLPTaskConfig("mood", NLPTaskType.SENTIMENT_ANALYSIS, num_classes=3)
    head = nlp_head(task, config.hidden_size, {"pooling_type": pooling})
    seen = []

    def tap(name, value):
        seen.append(name)
        return value

    params = initialise(head.shapes(config), config)
    head.forward(params, config, np.ones((2, 5, 12), np.float32), tap=tap)
    table = section(11).split("With y")[0]
    named = [r[1].strip("`") for r in rows(table, 4) if r[1].startswith("`")]
    assert seen == [*named, "logits"]


def test_model_md_functions_are_in_ops():
    text = "".join(section(n) for n in (3, 4, 5, 6))
    named = re.findall(r"(?m)^(?:\(\d+\)|    ) (\w+)\([^)]*\)(?:\[i\])? +?=", text)
    assert len(named) >= 6
    assert [name for name in named if not hasattr(ops, name)] == []


def test_model_md_activations_are_those_of_the_config():
    named = re.findall(r"`(\w+)`", " ".join(r[0] for r in rows(section(4), 2)))
    assert named == list(ops.ACTIVATIONS)


def test_model_md_poolings_are_those_of_the_code():
    named = re.findall(r"(?m)^\| `(\w+)` \|", section(10))
    assert sorted(named) == sorted(POOLINGS)


def test_model_md_equations_are_numbered_in_order():
    defined = "".join(section(n) for n in (*range(1, 12), *range(14, 20)))
    numbers = [int(n) for n in re.findall(r"(?m)^(?:\| |\| name \| )?\((\d+)\) ", defined)]
    assert numbers == list(range(1, len(numbers) + 1))
    cited = {int(n) for n in re.findall(r"\((\d+)\)", TEXT)}
    assert cited == set(numbers)


def test_sections_and_equations_that_the_code_cites_exist():
    equations = set(re.findall(r"(?m)^(?:\| |\| name \| )?\((\d+)\) ", TEXT))
    for path in sorted((ROOT / "refimpl").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for cited in re.findall(r"MODEL\.md\s+(?:sections?\s+)?(\d[\d\s,and-]*)", text):
            for number in re.findall(r"\d+", cited):
                section(int(number))
        assert set(re.findall(r"MODEL\.md\s+\((\d+)\)", text)) <= equations
