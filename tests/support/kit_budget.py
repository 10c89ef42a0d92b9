"""A last hidden state against the budget that the conformance kit derives for its dtype."""

from __future__ import annotations

import numpy as np

from refimpl.verify.truth.compare import budgets
from refimpl.verify.truth.errors import error, real_rows
from refimpl.verify.truth.passes import Pass, trace


def kit_share(p: Pass, got: np.ndarray, dtype: str) -> float:
    """Largest observed / budget over the statistics of final_norm; p: the pass in float64, dtype as
    the kit names it: "float32", "float32+bf16x3", "bfloat16"."""
    assert got.dtype == np.float32 and np.isfinite(got).all()
    allowed = budgets(p, dtype, ["final_norm"])["final_norm"]
    truth = trace(p)["final_norm"]
    observed = error("final_norm", got.astype(np.float64), truth, real_rows(p))
    return max(observed[s] / allowed[s] for s in allowed)
