"""The reference beside transformers 5, live, on every generated case and on the real shapes.

float64 with float64 rotary steps: relative L2 <= 1e-12 for everything. float64 as it comes: within
what float32 tables explain (they grow with the position), figure reported. float32 against eager
and sdpa: within the sum of both sides' budgets, and within the absolute promises of the product.
Figures go to the test's properties and, with `pytest -rP`, to its output.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from support import parity
from support.budget import (
    FACTOR,
    FLOAT64_PARITY,
    STATISTICS,
    check_flat,
    explain,
    quantities,
    ratios,
    relative_l2,
)
from support.cases import CASES, HEAD_KINDS, REAL, SHORT, Case, integers, unit

from refimpl.reference.config import ModernBertConfig
from refimpl.reference.pooling import pool

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", minversion="5.0")
import hf  # noqa: E402  (it imports both)

pytestmark = pytest.mark.oracle
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
real_shapes = pytest.mark.parametrize("case", REAL, ids=lambda case: case.name)

# The product's promise against transformers in float32, eager: the length of the difference of
# two normalised embeddings, and the largest difference of two logits.
EMBEDDING_PROMISE, LOGIT_PROMISE = 1e-5, 1e-4


@functools.lru_cache(maxsize=4)
def truth(case: Case, batch: int) -> dict[str, np.ndarray]:
    return parity.run(case, case.inputs(case.batches[batch]))


def report(record_property, name: str, figure: float) -> None:
    record_property(name, f"{figure:.3g}")
    print(f"{name}: {figure:.3g}")


@every_case
def test_parity_float64_with_float64_rotary(case: Case, record_property) -> None:
    worst = 0.0
    for i, batch in enumerate(case.batches):
        inputs = case.inputs(batch)
        theirs = hf.run(case, inputs, float64_rotary=True)
        for q in quantities(truth(case, i), theirs, inputs.mask):
            worst = max(worst, check_flat(q, FLOAT64_PARITY))
    report(record_property, "float64 relative L2", worst)


@every_case
def test_parity_float64_as_it_comes(case: Case, record_property) -> None:
    for i, batch in enumerate(case.batches):
        inputs = case.inputs(batch)
        theirs = hf.run(case, inputs)
        ratio = ratios(theirs, truth(case, i), inputs.mask, case, batch, ("float64-tables",))
        (last,) = [
            q for q in quantities(theirs, truth(case, i), inputs.mask)
            if q.name == f"hidden[{case.layers + 1}]"
        ]  # fmt: skip
        report(record_property, f"as it comes, {batch.seq} tokens, per token", last.errors.max())
        report(record_property, f"as it comes, {batch.seq} tokens, of its budget", ratio)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@every_case
def test_parity_float32(case: Case, attention: str, record_property) -> None:
    for i, batch in enumerate(case.batches):
        inputs = case.inputs(batch)
        kinds = HEAD_KINDS
        if attention == "eager" and case.pooling == "cls" and not inputs.mask[:, 0].all():
            # Column 0 is padding: a row without visible keys is zeros here and in sdpa, the mean
            # of all values in eager.
            kinds = tuple(kind for kind in kinds if kind != "sequence_classification")
        theirs = hf.run(case, inputs, dtype=np.float32, attention=attention, kinds=kinds)
        ours = parity.run(case, inputs, np.float32, kinds)
        exact = {name: truth(case, i)[name] for name in ours}
        both = ("float32", "float32-tables")
        alone = ratios(theirs, exact, inputs.mask, case, batch, ("float32-tables",))
        report(
            record_property, f"transformers' own error, {batch.seq} tokens, of its budget", alone
        )
        ratio = ratios(ours, theirs, inputs.mask, case, batch, both)
        report(record_property, f"difference, {batch.seq} tokens, of both budgets", ratio)
        if not case.hard_rows:  # an embedding row with mean 1000 costs any float32 norm 10 bits
            check_promises(ours, theirs, inputs.mask, record_property)


def check_promises(ours, theirs, mask, record_property) -> None:
    live, real = mask.any(axis=1), mask != 0
    embeddings = []
    for side in (ours, theirs):
        x = pool(np.nan_to_num(side["hidden"][-1]), mask, "mean")[live].astype(np.float64)
        embeddings.append(x / np.linalg.norm(x, axis=-1, keepdims=True))
    apart = np.linalg.norm(embeddings[0] - embeddings[1], axis=-1).max()
    report(record_property, "normalised embeddings", apart)
    assert apart <= EMBEDDING_PROMISE
    for name in ours.keys() - {"hidden"}:
        difference = np.abs(ours[name].astype(np.float64) - theirs[name])
        if difference.shape[:2] == mask.shape and difference.ndim == 3:
            difference = difference[real]
        else:
            difference = difference.reshape(len(mask), -1)[live]
        report(record_property, f"{name} logits", difference.max())
        assert difference.max() <= LOGIT_PROMISE, name


@pytest.mark.parametrize("given_as", ["position_ids", "inputs_embeds"])
@every_case
def test_parity_of_other_inputs(case: Case, given_as: str, record_property) -> None:
    """Explicit positions turn q and k and touch no mask; embeddings given still pass the norm."""
    inputs, config = case.inputs(SHORT), ModernBertConfig.from_dict(case.config())
    shape = inputs.mask.shape
    if given_as == "position_ids":
        extra = {"position_ids": integers(shape, 300, case.seed, "positions")}
        given = {"input_ids": inputs.input_ids, **extra}
    else:
        given = {"inputs_embeds": unit((*shape, case.hidden), case.seed, "embeds")}
    ours = np.stack(parity.states_of(case.params(), config, attention_mask=inputs.mask, **given))
    model = hf.build(case.config(), case.params(), None, torch.float64, "sdpa")
    with hf.exact_rotary(model), hf.recorded_states(model) as states, torch.no_grad():
        model(
            attention_mask=torch.from_numpy(inputs.mask),
            **{name: torch.from_numpy(x) for name, x in given.items()},
        )
    found = quantities({"hidden": ours}, {"hidden": np.stack(states)}, inputs.mask)
    report(
        record_property, "float64 relative L2", max(check_flat(q, FLOAT64_PARITY) for q in found)
    )


@real_shapes
def test_parity_of_real_shapes(case: Case, record_property) -> None:
    (batch,), kinds = case.batches, ("masked_lm",)
    inputs = case.inputs(batch)
    exact = parity.run(case, inputs, kinds=kinds)
    theirs = hf.run(case, inputs, float64_rotary=True, kinds=kinds)
    worst = max(check_flat(q, FLOAT64_PARITY) for q in quantities(exact, theirs, inputs.mask))
    report(record_property, "float64 relative L2", worst)

    ours = parity.run(case, inputs, np.float32, kinds)
    # transformers' float32 tables are up to 1e-3 rad off at position 8191, which costs it 4e-5 per
    # token, 60 times our own error, and 1.2e-4 in a logit: there it gets float64 tables.
    exact_tables = batch.seq > case.config()["max_position_embeddings"]
    settings = dict(dtype=np.float32, attention="eager", kinds=kinds)
    theirs = hf.run(case, inputs, float64_rotary=exact_tables, **settings)
    for mine, peer in zip(
        quantities(ours, exact, inputs.mask), quantities(theirs, exact, inputs.mask), strict=True
    ):
        for name, statistic in STATISTICS.items():
            observed, bound = statistic(mine.errors), FACTOR * statistic(peer.errors)
            assert observed <= bound, explain(
                mine, f"{name} {observed:.3g} over twice theirs", bound
            )
    for name, side in (("ours", ours), ("transformers", theirs)):
        error = relative_l2(side["hidden"][-1], exact["hidden"][-1]).max()
        report(record_property, f"{name} float32, last hidden state per token", error)
    check_promises(ours, theirs, inputs.mask, record_property)
