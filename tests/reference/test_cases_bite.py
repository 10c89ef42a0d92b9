"""The generated cases are themselves tested: every setting, weight and boundary has an effect.

A case on which the window masks nothing, the thetas are equal or a tensor is never read proves
nothing. Each knob is turned by the smallest step, and must move the result by far more than the
float32 budget of that case.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from support.budget import FACTOR, family_figures, quantities
from support.cases import CASES, HEAD_KINDS, Case, single
from support.heavy import heavy_but_first

from refimpl.reference.config import FULL, SLIDING, ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.reference.heads import HEADS
from refimpl.reference.params import encoder_shapes

LENGTHS = {1, 2, 8, 64, 65, 66, 127, 128, 129, 130, 255, 256, 257, 512, 600}
# A planted mistake must be missed by this factor, so that no honest rounding can hide it.
VISIBLE = 10.0
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
mostly_some_cases = pytest.mark.parametrize(
    "case", heavy_but_first(CASES, 4), ids=lambda case: case.name
)


def config_of(case: Case) -> ModernBertConfig:
    return ModernBertConfig.from_dict(case.config())


def test_cases_cover_lengths_paddings_and_spellings() -> None:
    rows = [row for case in CASES for batch in case.batches for row in batch.rows]
    assert {row.length for row in rows} >= LENGTHS
    assert {row.padding for row in rows} == {"none", "right", "left", "inside", "empty"}
    assert {case.spelling for case in CASES} == {"v4", "v5"}
    assert {case.head_dim for case in CASES} >= {16, 32, 64, 128}
    assert {case.window for case in CASES} >= {1, 2, 5, 6, 7, 65, 128}
    for case in CASES:
        for batch in case.batches:
            for row, visible in zip(batch.rows, case.inputs(batch).mask.sum(axis=1), strict=True):
                assert row.length == visible
    batches = [batch for case in CASES for batch in case.batches]
    trailing = [b.seq - row.length for b in batches for row in b.rows if row.padding == "right"]
    assert max(trailing) > 64


def test_cases_differ_from_the_defaults_in_every_field_that_changes_numbers() -> None:
    default = ModernBertConfig()
    inert = {
        "initializer_range", "initializer_cutoff_factor", "attention_dropout", "embedding_dropout",
        "mlp_dropout", "classifier_dropout", "sparse_prediction", "sparse_pred_ignore_index",
        "problem_type", "architectures", "extra",
    }  # fmt: skip
    # Not in transformers' ModernBERT; tested with the Keras system's API.
    inert |= {"type_vocab_size"}
    for f in fields(ModernBertConfig):
        if f.name in inert:
            continue
        usual = getattr(default, f.name)
        assert sum(getattr(config_of(c), f.name) != usual for c in CASES) >= 4, f.name


@every_case
def test_case_has_both_layer_types_and_two_thetas(case: Case) -> None:
    config = config_of(case)
    assert set(config.layer_types) == {FULL, SLIDING}
    assert config.layer_types == tuple(FULL if kind == "f" else SLIDING for kind in case.pattern)
    thetas = {config.rope_theta(i) for i in range(case.layers)}
    assert thetas == {case.theta_full, case.theta_sliding}
    assert case.theta_full != case.theta_sliding


@every_case
def test_case_tensors_are_those_of_the_reference(case: Case) -> None:
    config = config_of(case)
    assert case.shapes() == encoder_shapes(config)
    for kind in HEAD_KINDS:
        if kind == "question_answering":  # answers have a start and an end, whatever the labels
            config = replace(config, id2label={0: "start", 1: "end"})
        assert case.head_shapes(kind) == HEADS[kind].shapes(config), kind


def knobs(config: ModernBertConfig) -> dict[str, ModernBertConfig]:
    """Every setting of the plan, moved by one step."""
    shifted = config.layer_types[1:] + config.layer_types[:1]
    swap = {FULL: SLIDING, SLIDING: FULL}
    first = (swap[config.layer_types[0]], *config.layer_types[1:])
    full, sliding = config.global_rope_theta, config.local_rope_theta
    out = {
        "window one wider": replace(config, local_attention=config.local_attention + 2),
        "no window": replace(config, local_attention=2048),
        "thetas swapped": replace(config, global_rope_theta=sliding, local_rope_theta=full),
        "one theta": replace(config, local_rope_theta=full),
        "layer 0 of the other kind": replace(config, layer_types=first),
        "schedule shifted": replace(config, layer_types=shifted),
        "norm_eps": replace(config, norm_eps=config.norm_eps * 100),
    }
    if config.local_attention > 1:
        narrower = config.local_attention - 2 or 1
        out["window one narrower"] = replace(config, local_attention=narrower)
    else:  # a token that sees itself alone has no use for a theta
        del out["one theta"]
    return out


def final_states(case: Case, config: ModernBertConfig, batch: int) -> np.ndarray:
    inputs = case.inputs(case.batches[batch])
    return encode(case.params(), config, inputs.input_ids, attention_mask=inputs.given_mask)


@mostly_some_cases
def test_case_shows_every_knob_far_above_its_float32_budget(case: Case) -> None:
    config = config_of(case)
    batches = range(len(case.batches))
    before = [final_states(case, config, i) for i in batches]
    name = f"hidden[{case.layers + 1}]"
    for knob, changed in knobs(config).items():
        shown = 0.0
        for i in batches:
            mask = case.inputs(case.batches[i]).mask
            pair = ({"hidden": x[None]} for x in (final_states(case, changed, i), before[i]))
            (q,) = quantities(*pair, mask)
            budget = FACTOR * family_figures(case, case.batches[i], "float32")[name]["max"]
            shown = max(shown, q.errors.max() / budget)
        assert shown >= VISIBLE, f"{knob}: {shown:.2g} times the float32 budget"


@mostly_some_cases
def test_case_reads_every_weight(case: Case) -> None:
    """Three entries of every tensor, moved one at a time, each change a visible output."""
    inputs, config = case.inputs(single(24)), config_of(case)
    ids = inputs.input_ids[0]

    def outputs(params: dict[str, np.ndarray], kind: str, x: np.ndarray) -> list[np.ndarray]:
        x = x[None] if kind == "multiple_choice" else x
        return list(HEADS[kind].forward(params, config, x, None).values())

    def moved(
        params: dict[str, np.ndarray], name: str, place: float, step: float
    ) -> dict[str, np.ndarray]:
        x = params[name].copy()
        flat = int(place * (x.size - 1))
        if name == "embeddings.tok_embeddings.weight":  # a row that the input looks up
            flat = int(ids[int(place * (len(ids) - 1))]) * x.shape[1] + flat % x.shape[1]
        x.flat[flat] += step
        return {**params, name: x}

    encoder = case.params()
    # A token that sees itself alone has no use for its query and its key, only for its value.
    blind = tuple(f"layers.{i}.attn.Wqkv" for i in range(case.layers) if config.window(i) == 0)
    places, steps = (0.0, 0.37, 1.0), (16.0, -16.0)  # a unit that relu silences wakes up for one
    visible = np.sqrt(np.finfo(np.float64).eps)
    hidden = encode(encoder, config, inputs.input_ids)
    for name in encoder:
        for place in (1.0,) if blind and name.startswith(blind) else places:
            other = encode(moved(encoder, name, place, steps[0]), config, inputs.input_ids)
            assert np.abs(other - hidden).max() > visible, name
    for kind in HEAD_KINDS:
        params = case.params(kind)
        before = outputs(params, kind, hidden)
        for name in params.keys() - encoder.keys():
            for place in places:
                change = 0.0
                for step in steps:
                    after = outputs(moved(params, name, place, step), kind, hidden)
                    pairs = zip(after, before, strict=True)
                    change = max(change, *(np.abs(a - b).max() for a, b in pairs))
                assert change > visible, (kind, name)
