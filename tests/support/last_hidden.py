"""An engine's last hidden state against the budget of a family (budget.py)."""

from __future__ import annotations

import numpy as np

from refimpl.backends.engine import lengths_to_last

from .budget import FACTOR, STATISTICS, family_figures, relative_l2
from .cases import Batch, Case


def kept(mask: np.ndarray) -> np.ndarray:
    """Tokens up to the last real one of each row: what is computed. bool [batch, seq]."""
    return np.arange(mask.shape[1]) < lengths_to_last(mask != 0)[:, None]


def within_figures(
    got: np.ndarray, truth: np.ndarray, case: Case, batch: Batch, which: np.ndarray
) -> float:
    """Largest observed / budget over the statistics of tokens `which`, [batch, seq, hidden]; the
    budget is that of the tokens up to the last real one of each row, padding among them."""
    figures = family_figures(case, batch, "float32", padding=True)[f"hidden[{case.layers + 1}]"]
    errors = relative_l2(got[which], truth[which])
    shares = {n: statistic(errors) / (FACTOR * figures[n]) for n, statistic in STATISTICS.items()}
    assert max(shares.values()) <= 1, shares
    return max(shares.values())
