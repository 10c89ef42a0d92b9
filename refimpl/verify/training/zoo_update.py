"""Mistakes of the update and of a run: optimiser, learning rate, what a resumed run has lost.

Long because both optimisers are written out with the parts that mistakes change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...train.optimisers import Moments, Optimiser, StableAdamW, debiased
from ..zoo.mistake import round_bits
from .mistake import Mistake
from .step import Rule, Training, optimiser_of

Array = np.ndarray
TABLE = "embeddings.tok_embeddings.weight"


Arrays = Mapping[str, Array]


class Altered(Optimiser):
    """An optimiser whose step, or whose update of all tensors, is another one."""

    def __init__(self, rule: Rule, step: Callable[..., None] | None = None) -> None:
        super().__init__(rule.betas, rule.eps, rule.weight_decay)
        self.rule, self.inner, self.other = rule, optimiser_of(rule), step
        self.stable = isinstance(self.inner, StableAdamW)

    def step(self, p: Array, g: Array, moments: Moments, lr: float, weight_decay: float) -> None:
        self.inner.steps = self.steps
        if self.other is None:
            self.inner.step(p, g, moments, lr, weight_decay)
        else:
            self.other(self, p, g, moments, lr, weight_decay)


def altered(step: Callable[..., None]) -> Callable[[Training], Training]:
    return lambda t: replace(t, optimiser=lambda rule: Altered(rule, step))


def ruled(change: Callable[[Rule], Rule]) -> Callable[[Training], Training]:
    """The right optimiser with other settings."""
    return lambda t: replace(t, optimiser=lambda rule: t.optimiser(change(rule)))


# -- the formulas, with what a mistake changes ----------------------------------------------------


def moved(o: Altered, g: Array, mo: Moments, b1: float, b2: float, whole: bool = False) -> None:
    """Both moments. whole: the gradient enters the first undiminished."""
    if whole:
        mo.first *= b1
        mo.first += g
    else:
        mo.first += (1.0 - b1) * (g - mo.first)
    mo.second *= b2
    mo.second += (1.0 - b2) * g * g


def step_of(
    *,
    correct: tuple[float, float] = (1.0, 1.0),
    eps: Callable[[Array, float, float], Array] = lambda root, second, e: root / second + e,
    decay: str = "own",
    clip: str = "tensor",
    whole: bool = False,
) -> Callable[..., None]:
    """A step of AdamW or StableAdamW.

    correct: powers of the two bias corrections; eps(root of v, its correction, eps): the divisor;
    decay: own, whole (not times lr), lr (times lr), l2 (added to the gradient), after (the update),
    none; clip of StableAdamW: tensor, none, always; whole: see `moved`.
    """

    def step(o: Altered, p: Array, g: Array, mo: Moments, lr: float, wd: float) -> None:
        (b1, b2), t = o.betas, o.steps
        if decay == "l2":
            g = g + wd * p
        if o.stable:
            d1 = debiased(b1, t) if correct[0] else b1
            d2 = debiased(b2, t) if correct[1] else b2
            moved(o, g, mo, d1, d2, whole)
            rms = math.sqrt(float((g * g / np.maximum(mo.second, o.eps**2)).mean(dtype=np.float64)))
            if clip != "none":
                lr = lr / (rms if clip == "always" else max(1.0, rms))
            first = second = 1.0
            if correct[0] == 2.0:
                first, second = 1.0 - b1**t, math.sqrt(1.0 - b2**t)
            own = lr / o.rule.peak * wd
        else:
            moved(o, g, mo, b1, b2, whole)
            first = (1.0 - b1**t) ** correct[0]
            second = math.sqrt(1.0 - b2**t) ** correct[1]
            own = lr * wd
        share = {"own": own, "whole": wd, "lr": lr * wd, "after": own}.get(decay, 0.0)
        if decay != "after":
            p *= 1.0 - share
        p -= (lr / first) * mo.first / eps(np.sqrt(mo.second), second, o.eps)
        if decay == "after":
            p *= 1.0 - share

    return step


def inside(root: Array, second: float, eps: float) -> Array:
    return np.asarray(np.sqrt((root / second) ** 2 + eps))


def uncorrected(root: Array, second: float, eps: float) -> Array:
    return (root + eps) / second


# -- all tensors together -------------------------------------------------------------------------


class OnVectors(Altered):
    """Weight decay on every parameter."""

    def step(self, p: Array, g: Array, moments: Moments, lr: float, weight_decay: float) -> None:
        super().step(p, g, moments, lr, self.weight_decay)


class PerModel(Altered):
    """One root mean square over all tensors shortens all their steps."""

    def update(
        self, params: Arrays, grads: Arrays, lr: float, shares: Mapping[str, float] | None = None
    ) -> None:
        if self.stable:
            d2, total, n = debiased(self.betas[1], self.steps + 1), 0.0, 0
            for name, g in grads.items():
                v = self.moments[name].second if name in self.moments else np.zeros_like(g)
                v = d2 * v + (1.0 - d2) * g * g
                total += float((g * g / np.maximum(v, self.eps**2)).sum(dtype=np.float64))
                n += g.size
            lr = lr / max(1.0, math.sqrt(total / n))
            self.other = step_of(clip="none")
        super().update(params, grads, lr, shares)


class ClippedNorm(Altered):
    """Gradients shortened to a norm of 1 over all tensors."""

    def update(
        self, params: Arrays, grads: Arrays, lr: float, shares: Mapping[str, float] | None = None
    ) -> None:
        norm = math.sqrt(sum(float((g * g).sum(dtype=np.float64)) for g in grads.values()))
        factor = min(1.0, 1.0 / (norm + 1e-6))
        super().update(
            params, {n: (g * factor).astype(g.dtype) for n, g in grads.items()}, lr, shares
        )


class TwiceTied(Altered):
    """A tied table stands in the optimiser as the embedding and as the decoder."""

    def update(
        self, params: Arrays, grads: Arrays, lr: float, shares: Mapping[str, float] | None = None
    ) -> None:
        super().update(params, grads, lr, shares)
        if "decoder.weight" not in params and "decoder.bias" in params:
            decay = self.weight_decay
            self.step(params[TABLE], grads[TABLE], self.moments[TABLE], lr, decay)


class CountsMicro(Altered):
    """Steps are counted in micro-batches."""

    def __init__(self, rule: Rule, micro: int) -> None:
        super().__init__(rule)
        self.micro = micro

    def step(self, p: Array, g: Array, moments: Moments, lr: float, weight_decay: float) -> None:
        self.inner.steps = self.steps * self.micro
        self.inner.step(p, g, moments, lr, weight_decay)


class LowWeights(Altered):
    """Parameters are kept in bfloat16, without a float32 copy."""

    def update(
        self, params: Arrays, grads: Arrays, lr: float, shares: Mapping[str, float] | None = None
    ) -> None:
        super().update(params, grads, lr, shares)
        for p in params.values():
            p[...] = round_bits(p, 8)


def low(x: float) -> float:
    return float(round_bits(np.asarray(x, np.float64), 8))


def low_rule(rule: Rule) -> Rule:
    """bfloat16 has no beta just below 1; one that rounds to 1 is its last number below."""
    b1, b2 = (min(low(b), 1.0 - 2.0**-9) for b in rule.betas)
    return replace(rule, betas=(b1, b2), eps=low(rule.eps), weight_decay=low(rule.weight_decay))


def low_settings(t: Training) -> Training:
    return replace(ruled(low_rule)(t), rate=lambda own, k: low(t.rate(own, k)))


def of(kind: type[Altered]) -> Callable[[Training], Training]:
    return lambda t: replace(t, optimiser=lambda rule: kind(rule))


def rated(rate: Callable[[Training, int], float]) -> Callable[[Training], Training]:
    return lambda t: replace(t, rate=rate)


def unzeroed(seen: Any) -> dict[str, Array]:
    out = dict(seen[0])
    for grads in seen[1:]:
        out = {name: x + grads[name] for name, x in out.items()}
    return out


# -- a resumed run --------------------------------------------------------------------------------


def fresh(o: Optimiser, t: Training) -> Optimiser:
    return t.optimiser(t.rule)


def lost_moments(o: Optimiser, t: Training) -> Optimiser:
    new = t.optimiser(t.rule)
    new.steps = o.steps
    return new


def lost_count(o: Optimiser, t: Training) -> Optimiser:
    o.steps = 0
    return o


def since_resumed(t: Training, k: int) -> int:
    return k if t.stop_after is None or k < t.stop_after else k - t.stop_after


MISTAKES = (
    Mistake("O1", "bias correction left out", "both moments are used as they are",
            altered(step_of(correct=(0.0, 0.0))), "update"),
    Mistake("O2", "bias corrected twice", "the moments are corrected, and the learning rate or the "
            "betas once more", altered(step_of(correct=(2.0, 2.0))), "update"),
    Mistake("O3", "second moment not corrected", "only the first has its bias correction",
            altered(step_of(correct=(1.0, 0.0))), "update"),
    Mistake("O4", "first moment not corrected", "only the second has its bias correction",
            altered(step_of(correct=(0.0, 1.0))), "update"),
    Mistake("O5", "decay on norms and biases", "every parameter decays", of(OnVectors), "update"),
    Mistake("O6", "decay not times the learning rate", "p (1 - weight_decay)",
            altered(step_of(decay="whole")), "update", ("pytorch#4429", "composer#1334")),
    Mistake("O7", "decay added to the gradient", "L2 regularisation: it passes the moments",
            altered(step_of(decay="l2")), "update", ("apex#1849",)),
    Mistake("O8", "decay times the learning rate", "p (1 - lr weight_decay), where the share of "
            "the peak is meant", altered(step_of(decay="lr")), "update", ("composer#1334",)),
    Mistake("O9", "weight decay left out", "the setting is not read",
            ruled(lambda r: replace(r, weight_decay=0.0)), "update", ("T#40184",)),
    Mistake("O10", "decay after the update", "what was just added decays as well",
            altered(step_of(decay="after")), "update"),
    Mistake("O11", "eps inside the root", "m / sqrt(v + eps)", altered(step_of(eps=inside)),
            "update"),
    Mistake("O12", "eps before the bias correction", "m / ((sqrt(v) + eps) / correction)",
            altered(step_of(eps=uncorrected)), "update"),
    Mistake("O13", "eps not read", "1e-8 whatever is set", ruled(lambda r: replace(r, eps=1e-8)),
            "update", ("T#40184",)),
    Mistake("O14", "betas not read", "0.9 and 0.999 whatever is set",
            ruled(lambda r: replace(r, betas=(0.9, 0.999))), "run", ("T#40184",)),
    Mistake("O15", "betas exchanged", "the first is the second's",
            ruled(lambda r: replace(r, betas=(r.betas[1], r.betas[0]))), "run"),
    Mistake("O16", "update clipped per model", "one root mean square over all tensors shortens "
            "every step", of(PerModel), "run"),
    Mistake("O17", "update not clipped", "StableAdamW without its shortening",
            altered(step_of(clip="none")), "run"),
    Mistake("O18", "update always divided", "by the root mean square, also where that is below 1",
            altered(step_of(clip="always")), "update"),
    Mistake("O19", "gradients clipped to a norm of 1", "a trainer's default that nobody asked for",
            of(ClippedNorm), "update"),
    Mistake("O20", "schedule one step late", "the first step has the learning rate 0",
            rated(lambda t, k: t.rule.lr[k - 1] if k else 0.0), "update"),
    Mistake("O21", "schedule one step early", "each step has the learning rate of the next",
            rated(lambda t, k: t.rule.lr[min(k + 1, len(t.rule.lr) - 1)]), "update"),
    Mistake("O22", "schedule not followed", "every step has the peak's learning rate",
            rated(lambda t, k: t.rule.peak), "update"),
    Mistake("O23", "steps counted in micro-batches", "bias correction goes by the number of "
            "backward passes", lambda t: replace(
                t, optimiser=lambda rule: CountsMicro(rule, t.accumulate)), "update"),
    Mistake("O24", "momentum without 1 - beta", "m = beta m + g",
            altered(step_of(whole=True)), "update"),
    Mistake("O25", "tied table updated twice", "it stands in the optimiser under both names",
            of(TwiceTied), "update"),
    Mistake("O26", "16-bit weights without float32 masters", "small updates are lost",
            of(LowWeights), "update", ("optimi kahan_sum",)),
    Mistake("O27", "16-bit hyper-parameters", "betas, eps, decay and learning rate in bfloat16",
            low_settings, "update", ("mosaicml/examples#236",)),
    Mistake("O28", "gradients never set to zero", "each step adds to those before it",
            lambda t: replace(t, clean=unzeroed), "run"),
    Mistake("R1", "resumed: the schedule restarts", "step 6 has the learning rate of step 1",
            rated(lambda t, k: t.rule.lr[since_resumed(t, k)]), "run", ("SimpleTuner#984",)),
    Mistake("R2", "resumed: moments lost", "they start from zero, the count goes on",
            lambda t: replace(t, resumed=lost_moments), "run"),
    Mistake("R3", "resumed: optimiser lost", "moments and count start from zero",
            lambda t: replace(t, resumed=fresh), "run"),
    Mistake("R4", "resumed: count lost", "the bias correction starts anew with old moments",
            lambda t: replace(t, resumed=lost_count), "run"),
    Mistake("R5", "resumed: data from the start", "step 6 sees the batch of step 1",
            lambda t: replace(t, window=lambda own, k: own.windows[since_resumed(own, k)]), "run",
            ("T#11323", "litData#760")),
)  # fmt: skip
