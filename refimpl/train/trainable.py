"""Which parameters a run changes, and at which share of the learning rate.

    parts = Trainable(model, settings)
    parts.tensors                 what the optimiser changes in place, by name
    parts.gradients(grads)        their gradients, from those of the model's parameters
    parts.apply()                 the model's parameters are made of them again

Frozen parameters, adapters in the place of the encoder's matrices (lora.py), and a learning rate
that falls from layer to layer towards the embedding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from ..models.task_model import ModernBERTForTask
from ..reference.lora import Adapter
from ..reference.params import encoder_shapes
from .lora import drawn, gradients
from .settings import Settings

Array = np.ndarray


class Trainable:
    """params: the model's, by name; those that change are copied into it first, and then change in
    place. Raises ValueError for settings that freeze nothing that there is, or everything."""

    def __init__(
        self, model: ModernBERTForTask, params: dict[str, Array], settings: Settings
    ) -> None:
        self.params, encoder = params, encoder_shapes(model.config)
        for start in settings.freeze:
            if not any(name.startswith(start) for name in params):
                raise ValueError(
                    f"freeze is {start!r}; no parameter begins so: they begin with "
                    f"{', '.join(sorted({name.split('.')[0] for name in params}))}"
                )
        free = {n for n in params if not n.startswith(settings.freeze or ("\0",))}
        self.adapter: Adapter | None = None
        held: list[str] = []
        if settings.lora_rank:
            matrices = {n: x for n, x in params.items() if n in free and n in encoder}
            self.adapter = drawn(matrices, settings.lora_rank, settings.lora_alpha, settings.seed)
            held = [f"{name}.weight" for name in self.adapter.pairs]
            self._without = {name: params[name] for name in held}
            params |= {name: x.copy() for name, x in self._without.items()}
            free -= set(encoder)
        params |= {name: np.array(params[name]) for name in free}
        self.tensors = {n: x for n, x in params.items() if n in free}
        if self.adapter is not None:
            self.tensors |= self.adapter.tensors()
        if not self.tensors:
            raise ValueError(f"freeze is {list(settings.freeze)}; that leaves nothing to train")
        self.wanted = [*(n for n in params if n in free), *held]
        layers = model.config.num_hidden_layers
        self.rates = {name: settings.layer_decay ** depth(name, layers) for name in self.tensors}

    def gradients(self, grads: Mapping[str, Array]) -> dict[str, Array]:
        """Of what is trained, from those of the model's parameters."""
        own = {n: g for n, g in grads.items() if n in self.tensors}
        return own if self.adapter is None else own | gradients(self.adapter, grads)

    def apply(self) -> None:
        """W = the matrix before + scale B A, where there are adapters."""
        if self.adapter is not None:
            for name, before in self._without.items():
                delta = self.adapter.delta(name.removesuffix(".weight"))
                np.add(before, delta, out=self.params[name])


LAYER = re.compile(r"layers\.(\d+)\.")


def depth(name: str, layers: int) -> int:
    """How far below the head a parameter stands: 0 for the head and the final norm, 1 for the last
    layer, layers + 1 for the embedding."""
    found = LAYER.match(name)
    if found is not None:
        return layers - int(found[1])
    return layers + 1 if name.startswith("embeddings.") else 0
