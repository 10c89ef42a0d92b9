"""AdamW and StableAdamW: one step of each parameter from its gradient (MODEL.md section 15).

    optimiser = StableAdamW(peak=8e-4)
    optimiser.update(params, grads, lr)        params change in place, tensor by tensor

Moments have the dtype of their parameter. Weight decay leaves parameters of one dimension alone
(norms and biases). Three conventions go by the one name "weight decay", each class says which is
its own: added to the gradient (neither), times the learning rate (AdamW), times the learning rate
as a share of its peak (StableAdamW).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass
class Moments:
    """Running means of a parameter's gradient and of its square, in its shape and dtype."""

    first: Array
    second: Array


class Optimiser(ABC):
    """What both have: settings, `steps` taken, and the moments of each parameter by name.

    betas: of the two running means, in [0, 1). eps: added to the root of the second. weight_decay:
    see the class. Raises ValueError for a setting out of range.
    """

    def __init__(self, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
        for name, value in (("betas[0]", betas[0]), ("betas[1]", betas[1])):
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value!r}; it must be in [0, 1)")
        if not (math.isfinite(eps) and eps > 0):
            raise ValueError(f"eps is {eps!r}; it must be positive and finite")
        if not (math.isfinite(weight_decay) and weight_decay >= 0):
            raise ValueError(f"weight_decay is {weight_decay!r}; it must be finite and at least 0")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.steps = 0
        self.moments: dict[str, Moments] = {}

    def update(
        self,
        params: Mapping[str, Array],
        grads: Mapping[str, Array],
        lr: float,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        """One step at the learning rate lr: the arrays of params that have a gradient change.

        shares: name -> what its learning rate is of lr, 1 where it is not named.

        ValueError, before anything changes, for a gradient without its parameter, of another shape
        or dtype, for a parameter that is read-only, as a model's are, or for a learning rate that
        is negative or not finite.
        """
        self.check(params, grads, lr)
        self.steps += 1
        self.apply(params, grads, lr, shares)

    def check(self, params: Mapping[str, Array], grads: Mapping[str, Array], lr: float) -> None:
        """The ValueErrors of `update`."""
        if not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"lr is {lr!r}; it must be finite and at least 0")
        for name, g in grads.items():
            p = params.get(name)
            if p is None or p.shape != g.shape or p.dtype != g.dtype:
                own = "nothing" if p is None else f"{list(p.shape)} in {p.dtype}"
                raise ValueError(
                    f"grads[{name!r}] is {list(g.shape)} in {g.dtype}, params have {own} there"
                )
            if not p.flags.writeable:
                raise ValueError(
                    f"params[{name!r}] is read-only, as a model's are; update copies of them, "
                    "{name: x.copy() for name, x in model.params.items()}, and make a new model: "
                    "type(model)(model.config, params), with a head "
                    "type(model)(model.config, params, model.head)"
                )

    def apply(
        self,
        params: Mapping[str, Array],
        grads: Mapping[str, Array],
        lr: float,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        """A part of the step whose number `steps` is: what `update` does with each tensor."""
        for name, g in grads.items():
            p = params[name]
            if name not in self.moments:
                self.moments[name] = Moments(np.zeros_like(p), np.zeros_like(p))
            decay = self.weight_decay if p.ndim > 1 else 0.0
            self.step(p, g, self.moments[name], lr * (shares or {}).get(name, 1.0), decay)

    @abstractmethod
    def step(self, p: Array, g: Array, moments: Moments, lr: float, weight_decay: float) -> None:
        """The formula: p and its moments change in place; self.steps counts from 1."""

    def in_words(self) -> str:
        """Class and settings: what tells one rule from another."""
        return f"{type(self).__name__} betas {self.betas} eps {self.eps} decay {self.weight_decay}"

    def state(self) -> dict[str, Array]:
        """All that a run needs to go on: "steps", and "first.<name>", "second.<name>"."""
        out = {"steps": np.array(self.steps, np.int64)}
        for name, m in self.moments.items():
            out |= {f"first.{name}": m.first, f"second.{name}": m.second}
        return out

    def restore(self, state: Mapping[str, Array]) -> None:
        """The inverse of `state`; the arrays are copied."""
        self.steps = int(state["steps"])
        names = [key.removeprefix("first.") for key in state if key.startswith("first.")]
        self.moments = {
            name: Moments(state[f"first.{name}"].copy(), state[f"second.{name}"].copy())
            for name in names
        }


class AdamW(Optimiser):
    """MODEL.md (53). Weight decay: p <- p (1 - lr weight_decay), as torch.optim.AdamW has it: it
    shrinks with the schedule. Defaults are those of fine-tuning (transformers: 0 decay)."""

    def __init__(
        self,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(betas, eps, weight_decay)

    def step(self, p: Array, g: Array, moments: Moments, lr: float, weight_decay: float) -> None:
        (b1, b2), m, v = self.betas, moments.first, moments.second
        p *= 1.0 - lr * weight_decay
        m += (1.0 - b1) * (g - m)
        v *= b2
        v += (1.0 - b2) * g * g
        first, second = 1.0 - b1**self.steps, math.sqrt(1.0 - b2**self.steps)
        p -= (lr / first) * m / (np.sqrt(v) / second + self.eps)


class StableAdamW(Optimiser):
    """MODEL.md (54), (55): ModernBERT's own. Where a tensor's gradients outgrow their running
    square, its step is shortened, which takes the place of gradient clipping.

    Weight decay: p <- p (1 - lr' / peak weight_decay), with the shortened lr' and the schedule's
    peak: fully decoupled, so that weight_decay is the share that one step at the peak takes.
    """

    def __init__(
        self,
        peak: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 1e-5,
    ) -> None:
        super().__init__(betas, eps, weight_decay)
        if not (math.isfinite(peak) and peak > 0):
            raise ValueError(f"peak is {peak!r}; it must be positive and finite")
        self.peak = peak

    def step(self, p: Array, g: Array, moments: Moments, lr: float, weight_decay: float) -> None:
        m, v, eps = moments.first, moments.second, self.eps
        b1, b2 = (debiased(b, self.steps) for b in self.betas)
        m += (1.0 - b1) * (g - m)
        v *= b2
        v += (1.0 - b2) * g * g
        ratio = g * g / np.maximum(v, eps * eps)
        lr = lr / max(1.0, math.sqrt(float(ratio.mean(dtype=np.float64))))
        p *= 1.0 - lr / self.peak * weight_decay
        p -= lr * m / (np.sqrt(v) + eps)


def debiased(beta: float, step: int) -> float:
    """beta (1 - beta^(step - 1)) / (1 - beta^step): Adam's bias correction, in the running mean."""
    return beta * (1.0 - beta ** (step - 1)) / (1.0 - beta**step)
