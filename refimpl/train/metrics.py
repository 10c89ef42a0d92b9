"""How good a classifier is: accuracy, macro-F1, MCC; for values, the errors and Pearson's r.

Each takes predictions and labels and gives plain floats. A class that neither predictions nor
labels have is left out of macro-F1; where a figure is 0 / 0 it is 0.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def classes(predicted: Array, labels: Array) -> dict[str, float]:
    """Class numbers [n], [n] -> accuracy, macro_f1 (the mean of each class's F1) and mcc."""
    n = int(max(predicted.max(), labels.max())) + 1
    table = np.zeros((n, n))
    np.add.at(table, (labels, predicted), 1.0)
    right, of_label, of_guess = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    there = of_label + of_guess > 0
    f1 = 2.0 * right[there] / (of_label + of_guess)[there]
    total, hits = table.sum(), right.sum()
    over = hits * total - of_label @ of_guess
    under = np.sqrt((total**2 - of_guess @ of_guess) * (total**2 - of_label @ of_label))
    return {
        "accuracy": float(hits / total),
        "macro_f1": float(f1.mean()),
        "mcc": float(over / under) if under else 0.0,
    }


def several(predicted: Array, labels: Array) -> dict[str, float]:
    """0 and 1 [n, classes] both -> accuracy (all classes of a text right), micro_f1, macro_f1."""
    right, guessed, there = (x.sum(axis=0) for x in (predicted * labels, predicted, labels))
    both = guessed + there
    f1 = 2.0 * right / np.where(both > 0, both, 1)
    return {
        "accuracy": float((predicted == labels).all(axis=1).mean()),
        "micro_f1": float(2.0 * right.sum() / both.sum()) if both.sum() else 0.0,
        "macro_f1": float(f1[both > 0].mean()) if (both > 0).any() else 0.0,
    }


def values(predicted: Array, labels: Array) -> dict[str, float]:
    """Numbers [n, width] both -> mse, mae and pearson."""
    gap, a, b = predicted - labels, predicted - predicted.mean(), labels - labels.mean()
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return {
        "mse": float((gap * gap).mean()),
        "mae": float(np.abs(gap).mean()),
        "pearson": float((a * b).sum()) / spread if spread else 0.0,
    }
