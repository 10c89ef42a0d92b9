"""Honest training steps: other evaluations of the same formulas, none of which may be called wrong.

    values = HONEST["flash"].values(t)          float64 run of a case -> what the port gives

Each does what trainers do for speed or by accident of their libraries, in float32 but for those
that say otherwise: other orders of sums, a loss fused over the vocabulary, attention's backward
pass from the log-sum-exp, one batch in place of micro-batches, an update with its decay folded in.
Long because each variant is written out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from ...reference import ops as equations
from ...train.losses import IGNORED
from ...train.optimisers import Moments
from ...train.task_loss import SINGLE, Scored
from ..zoo.honest import backwards, in_blocks
from ..zoo.mistake import round_bits
from .compare import values
from .step import Arrays, Micro, Training, by_sequence
from .zoo_update import Altered

Array = np.ndarray
Steps = Sequence[int]
BLOCK = 8


@dataclass(frozen=True)
class Honest:
    """A variant. values(t, steps): what it gives of a run; dtype: what it says it computes in."""

    id: str
    text: str
    values: Callable[[Training, Steps], dict[str, Array]]
    dtype: str = "float32"


def told(made: Mapping[str, Array], inside: bool = False) -> dict[str, Array]:
    """What a port dumps: float32 numbers, of the steps inside the passes none or all."""
    kept = {n: x for n, x in made.items() if inside or n.startswith(("loss", "grad.", "after_"))}
    return {name: round_bits(x.astype(np.float64), 24) for name, x in kept.items()}


def single(change: Callable[[Training], Training], inside: bool = False) -> Any:
    """A change of the float32 run."""
    return lambda t, steps: told(values(change(t.astype(np.float32)), steps), inside)


def summed(order: Callable[[int], list[Array]]) -> Callable[[Training], Training]:
    """Products of both passes whose sums are taken part by part."""

    def product(a: Array, b: Array) -> Array:
        """a [.., n] @ b [n, m]."""
        y = np.zeros((*a.shape[:-1], b.shape[1]), a.dtype)
        for part in order(a.shape[-1]):
            y = y + a[..., part] @ b[part]
        return y

    def forward(x: Array, weight: Array, bias: Array | None = None) -> Array:
        y = product(x, weight.T)
        return y if bias is None else y + bias

    def back(dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
        rows, given = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
        db = product(np.ones((1, len(rows)), rows.dtype), rows)[0]
        return product(dy, weight), product(rows.T, given), db

    return lambda t: t.with_ops(linear=forward).with_adjoints(linear=back)


def fused(t: Training) -> Training:
    """Cross-entropy over parts of the vocabulary: a running maximum and sum, then exp(x - lse)."""

    def score(outputs: Arrays, micro: Micro, own: Training) -> Scored:
        plain = own.problem == SINGLE and own.class_weights is None and not own.label_smoothing
        if not plain:
            return t.score(outputs, micro, own)
        x = outputs["logits"]
        flat, y = x.reshape(-1, x.shape[-1]), micro.labels.reshape(-1)
        live = y != IGNORED
        top = np.full((len(flat), 1), -np.inf, x.dtype)
        total = np.zeros_like(top)
        for part in in_blocks(flat.shape[1]):
            new = np.maximum(top, flat[:, part].max(axis=1, keepdims=True))
            total = total * np.exp(top - new) + np.exp(flat[:, part] - new).sum(
                axis=1, keepdims=True
            )
            top = new
        lse = top + np.log(total)
        d = np.exp(flat - lse)
        at = np.flatnonzero(live), y[live]
        d[at] -= 1
        d[~live] = 0
        loss = (lse[live][:, 0] - flat[at]).sum()
        return Scored(float(loss), float(live.sum()), {"logits": d.reshape(x.shape)})

    return replace(t, score=score)


def flash(t: Training) -> Training:
    """P = exp(s - lse) block by block of keys, and the row's sum of dP P as do . o."""

    def attention(
        dy: Array, q: Array, k: Array, v: Array, key_mask: Array, w: int | None, keep: Any = None
    ) -> tuple[Array, Array, Array]:
        scale = q.dtype.type(q.shape[-1] ** -0.5)
        seen = key_mask[..., None, None]
        v = np.where(seen, v, 0).astype(v.dtype)
        axis, parts = np.arange(q.shape[1]), in_blocks(q.shape[1])
        d, q, k, v = (x.swapaxes(1, 2) for x in (dy.reshape(q.shape), q, k, v))
        mask = equations.visible(axis, axis, w)[None, None] & key_mask[:, None, None, :]
        scores = np.where(mask, (q * scale) @ k.swapaxes(-1, -2), q.dtype.type(-np.inf))
        top = scores.max(axis=-1, keepdims=True)
        shift = np.where(np.isfinite(top), top, q.dtype.type(0))
        total = np.exp(scores - shift).sum(axis=-1, keepdims=True)
        lse = shift + np.log(np.where(total > 0, total, q.dtype.type(1)))
        p = np.exp(scores - lse)
        delta = (d * (p @ v)).sum(axis=-1, keepdims=True)
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        for part in parts:
            pj = p[..., part]
            ds = pj * (d @ v[:, :, part].swapaxes(-1, -2) - delta) * scale
            dq += ds @ k[:, :, part]
            dk[:, :, part] = ds.swapaxes(-1, -2) @ q
            dv[:, :, part] = pj.swapaxes(-1, -2) @ d
        return dq.swapaxes(1, 2), dk.swapaxes(1, 2), dv.swapaxes(1, 2)

    return t.with_adjoints(attention=attention, attention_packed=by_sequence(attention))


def joined(t: Training) -> Training:
    """The micro-batches of a step as one batch."""

    def one(window: Sequence[Micro]) -> Micro:
        inputs: dict[str, Any] = {}
        for name in window[0].inputs:
            every = [np.asarray(micro.inputs[name]) for micro in window]
            if name == "cu_seqlens":
                ends = np.cumsum([0, *(x[-1] for x in every[:-1])])
                every = [x[(i > 0) :] + ends[i] for i, x in enumerate(every)]
            inputs[name] = np.concatenate(every)
        return Micro(inputs, np.concatenate([micro.labels for micro in window]))

    return replace(t, windows=[[one(window)] for window in t.windows], accumulate=1)


def folded(t: Training) -> Training:
    """p - lr (m^ / (sqrt(v^) + eps) + decay p), the corrected moments made first."""

    def step(o: Altered, p: Array, g: Array, mo: Moments, lr: float, wd: float) -> None:
        if o.stable:
            o.inner.step(p, g, mo, lr, wd)
            return
        (b1, b2), k = o.betas, o.steps
        mo.first[...] = b1 * mo.first + (1.0 - b1) * g
        mo.second[...] = b2 * mo.second + (1.0 - b2) * (g * g)
        first, second = mo.first / (1.0 - b1**k), mo.second / (1.0 - b2**k)
        p -= lr * (first / (np.sqrt(second) + o.eps) + wd * p)

    return replace(t, optimiser=lambda rule: Altered(rule, step))


def float_settings(t: Training) -> Training:
    """Betas, eps, decay and learning rates as a language with float32 alone has them."""

    def short(x: float) -> float:
        return float(np.float32(x))

    rule = t.rule
    return replace(t, rule=replace(
        rule, betas=(short(rule.betas[0]), short(rule.betas[1])), eps=short(rule.eps),
        weight_decay=short(rule.weight_decay), peak=short(rule.peak),
        lr=tuple(map(short, rule.lr)),
    ))  # fmt: skip


def low(t: Training) -> Training:
    """Every step of both passes, every gradient and the weights that the passes read in bfloat16,
    sums in float32, float32 masters."""

    def rounded(name: str, x: Array) -> Array:
        return round_bits(x, 8)

    def kept(params: Arrays) -> dict[str, Array]:
        return {name: round_bits(x, 8) for name, x in params.items()}

    return replace(
        t, forward_edit=rounded, backward_edit=rounded, seen=kept,
        total=lambda parts, own: kept(t.total([kept(part) for part in parts], own)),
    )  # fmt: skip


def wider(t: Training, steps: Steps) -> dict[str, Array]:
    return told(values(t, steps))


HONEST: Mapping[str, Honest] = MappingProxyType(
    {
        variant.id: variant
        for variant in (
            Honest("plain", "the reference in float32", single(lambda t: t)),
            Honest("inside", "the same, every step of both passes dumped",
                   single(lambda t: t, inside=True)),
            Honest("wider", "computes in float64 and keeps float32", wider),
            Honest("blocked", f"sums {BLOCK} terms at a time", single(summed(in_blocks))),
            Honest("reversed", "sums term by term from the last", single(summed(backwards))),
            Honest("fused-loss", "cross-entropy in one pass over the vocabulary", single(fused)),
            Honest("flash", "attention backwards from the log-sum-exp", single(flash)),
            Honest("joined", "a step's micro-batches as one batch", single(joined)),
            Honest("folded", "weight decay within the update", single(folded)),
            Honest("float-settings", "betas, eps, decay and rates in float32",
                   single(float_settings)),
            Honest("low", "passes and gradients in bfloat16, float32 masters", single(low),
                   "bfloat16"),
        )
    }
)  # fmt: skip
