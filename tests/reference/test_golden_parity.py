"""The reference against golden files made from transformers in float64, and float32 against that.

Per token relative L2 <= 1e-12 for every hidden state, the same for the logits of every head and for
all poolings; float32 within the budget derived from float64 (budget.py). Padding is finite, never
compared. Neither torch nor transformers is needed; `golden/generate.py` tells how files are made.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support import parity
from support.budget import FLOAT64_PARITY, Quantity, check_flat, ratios
from support.cases import CASES, HEAD_KINDS, Case, watched

from refimpl.reference.pooling import pool

GOLDEN = Path(__file__).parents[1] / "golden"
PER_TOKEN = ("masked_lm", "token_classification", "question_answering")
# sentence-transformers 5.5 and later call the first visible token "cls".
POOLINGS = {"cls": "first_token"} | {
    how: how for how in ("mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def golden(case: Case) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{case.name}.npz") as file:
        return dict(file)


def test_golden_folder_holds_one_file_per_case() -> None:
    assert sorted(p.stem for p in GOLDEN.glob("*.npz")) == sorted(case.name for case in CASES)


@every_case
def test_golden_was_made_from_these_weights_and_inputs(case: Case) -> None:
    facts = json.loads(str(golden(case)["provenance"]))
    assert facts["digest"] == case.digest()
    assert facts["config"] == case.config()
    assert facts["dtype"] == "float64" and facts["transformers"].startswith("5.")


@every_case
def test_golden_parity_float64(case: Case) -> None:
    stored = golden(case)
    for i, batch in enumerate(case.batches):
        inputs = case.inputs(batch)
        found = parity.run(case, inputs)
        for name, x in found.items():
            assert x.dtype == np.float64 and np.isfinite(x).all(), name

        index = watched(case, batch, inputs.mask)
        at = tuple(index.T)
        for k, state in enumerate(found["hidden"]):
            q = Quantity(f"batch {i} hidden[{k}]", state[at], stored[f"{i}.hidden"][k], index)
            check_flat(q, FLOAT64_PARITY)
        live = np.flatnonzero(inputs.mask.any(axis=1))
        for kind in HEAD_KINDS:
            expected = stored[f"{i}.{kind}"]
            if kind in PER_TOKEN:
                got = found[kind][at]
            else:  # one row, or one choice, per sequence; an empty one has no mean
                got = found[kind].reshape(len(inputs.mask), -1)[live]
                expected = expected.reshape(len(inputs.mask), -1)[live]
            if kind != "masked_lm":  # few labels: all logits of the batch are one vector
                got, expected = got.reshape(1, -1), expected.reshape(1, -1)
            check_flat(Quantity(f"batch {i} {kind}", got, expected, index), FLOAT64_PARITY)
        for theirs, ours in POOLINGS.items():
            got = pool(found["hidden"][-1], inputs.mask, ours)[live]
            expected = stored[f"{i}.pooled.{theirs}"][live]
            check_flat(Quantity(f"batch {i} {ours}", got, expected, live[:, None]), FLOAT64_PARITY)


@every_case
def test_float32_stays_within_its_budget(case: Case, record_property) -> None:
    worst = 0.0
    for batch in case.batches:
        inputs = case.inputs(batch)
        truth, found = parity.run(case, inputs), parity.run(case, inputs, np.float32)
        assert all(x.dtype == np.float32 and np.isfinite(x).all() for x in found.values())
        worst = max(worst, ratios(found, truth, inputs.mask, case, batch))
    record_property("observed / budget", f"{worst:.2f}")
