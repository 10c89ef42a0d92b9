"""compile, fit and evaluate, as Keras has them: lent to a model by the room `train` above this one.

    model.compile(optimizer="adamw", learning_rate=8e-5)
    history = model.fit(x, y, epochs=3, validation_data=(x2, y2))
    figures = model.evaluate(x2, y2)

This room knows the three names and where they are found when one is called; what they do is
train/keras.py's.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..nlp.keras_names import refuse_gone

LENDER = "..train.keras"


class LentByTraining:
    """The three methods of a model."""

    def compile(
        self, optimizer: Any = "adamw", learning_rate: float | None = None, **options: Any
    ) -> None:
        """How `fit` trains: see refimpl.train.keras.compiled. Raises ValueError, TypeError."""
        refuse_gone("compile", options)
        self._compiled = _lender().compiled(self, optimizer, learning_rate, **options)

    def fit(self, x: Any, y: Any = None, **options: Any) -> Any:
        """Train on arrays or texts, in place: see refimpl.train.keras.fit. -> History."""
        refuse_gone("fit", options)
        return _lender().fit(self, x, y, getattr(self, "_compiled", None), **options)

    def evaluate(self, x: Any, y: Any = None, **options: Any) -> dict[str, float]:
        """Loss and figures: see refimpl.train.keras.evaluate."""
        refuse_gone("evaluate", options)
        found: dict[str, float] = _lender().evaluate(
            self, x, y, getattr(self, "_compiled", None), **options
        )
        return found


def _lender() -> Any:
    return import_module(LENDER, __package__)
