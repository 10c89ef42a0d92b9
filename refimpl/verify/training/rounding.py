"""What rounding may do to a training step: legitimate evaluations of it in a dtype.

`noisy(t, dtype, seed)` computes in float64 and adds to the result of every operation, of the
forward pass (truth/rounding.py), of the backward pass and of the update, a random error of the size
that the operation has in that dtype: u M xi, M its own condition, xi +1 or -1 by chance. A family
of them is how far an honest port may stray. Gradients of activations and of parameters are kept in
the dtype, sums are taken in float32; parameters are kept in float32 whatever the dtype, since an
update below the roundoff of bfloat16 is lost there, which is a mistake. Long because the M of each
adjoint is derived where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...reference import ops as equations
from ...train import adjoints as exact
from ...train.optimisers import Moments, Optimiser
from ...train.task_loss import Scored
from ..truth.passes import Pass
from ..truth.rounding import DTYPES, Precision, sum_growth, unrounded
from ..truth.rounding import noisy as noisy_pass
from .step import Arrays, Micro, Rule, Training, by_sequence

Array = np.ndarray
# A number rounded to nearest errs by u / sqrt(3) in the root mean square.
RMS = 1.0 / math.sqrt(3.0)
# Where the streams of this file start, beside those of the forward pass.
BACKWARD, UPDATES = 7_000, 9_000


def noisy(t: Training, dtype: str, seed: int, fed: bool = False) -> Training:
    """A legitimate evaluation of `t` in `dtype`; equal arguments give equal numbers, once each: its
    random streams go on from call to call.

    fed: its steps will be replaced by a dump's. Raises ValueError for a dtype without a budget.
    """
    forward = noisy_pass(
        Pass(t.config, {}, t.windows[0][0].inputs, t.head, t.ops), dtype, seed, fed
    )
    u = DTYPES[dtype]
    noise = _Noise(u, np.random.Generator(np.random.PCG64([BACKWARD, seed])))
    kept = Precision(u.compute, u.compute)
    updates = _Noise(kept, np.random.Generator(np.random.PCG64([UPDATES, seed])))
    return replace(
        t,
        ops=forward.ops,
        forward_edit=forward.edit,
        adjoints=noise.adjoints(t.adjoints),
        backward_edit=noise.between,
        score=lambda outputs, micro, own: noise.score(t.score(outputs, micro, own), outputs, micro),
        total=lambda parts, own: noise.total(t.total(parts, own)),
        optimiser=lambda rule: _NoisyOptimiser(t.optimiser(rule), rule, updates),
        seen=lambda params: noise.seen(t.seen(params)),
    )


def undone(given: Arrays, dtype: str, seed: int) -> dict[str, Array]:
    """`given` as the port may have had it before it was rounded for the dump."""
    return unrounded(given, dtype, seed)


class _Noise:
    """The adjoints with errors. One random stream."""

    def __init__(self, u: Precision, rng: np.random.Generator) -> None:
        self.u, self.rng = u, rng
        self.signs: dict[str, Array] = {}

    def xi(self, shape: tuple[int, ...]) -> Array:
        return self.rng.integers(0, 2, shape) * 2.0 - 1.0

    def stored(self, x: Array) -> Array:
        """x rounded to the storage dtype."""
        return x * (1.0 + self.u.store * RMS * self.xi(x.shape))

    def erring(self, x: Array, size: Array | float) -> Array:
        """x with the error of sums in any order, u * size, then stored."""
        return self.stored(x + self.u.compute * size * self.xi(x.shape))

    def grown(self, x: Array, n: int) -> Array:
        """x, sums of n terms, with the error that they have where all terms are of one sign."""
        return x * (1.0 + self.u.compute * sum_growth(n) * self.rng.standard_normal(x.shape))

    def seen(self, params: Arrays) -> dict[str, Array]:
        """Parameters as the passes read them: of float32, rounded to the storage dtype, each the
        same way at every step; float32 and float64 hold them as they are."""
        if self.u.store == self.u.compute:
            return dict(params)
        for name, x in params.items():
            if name not in self.signs:
                self.signs[name] = 1.0 + self.u.store * RMS * self.xi(x.shape)
        return {name: x * self.signs[name] for name, x in params.items()}

    # -- the loss ---------------------------------------------------------------------------------

    def score(self, s: Scored, outputs: Mapping[str, Array], micro: Micro) -> Scored:
        """softmax: exp's argument errs by u |x|, the sum by its growth; so does the log of it.
        M = |d| (range of x + growth), and that of the loss the same of its total."""
        gradients = {}
        spread = grow = 1.0
        for name, d in s.gradients.items():
            x = outputs[name]
            spread = 2.0 + float(np.abs(x[np.isfinite(x)]).max(initial=0.0))
            grow = sum_growth(x.shape[-1])
            gradients[name] = self.erring(d, np.abs(d) * (spread + grow))
        terms = max(micro.labelled, 1)
        error = self.u.compute * float(self.xi(()))
        size = abs(s.total) * (grow + sum_growth(terms)) + terms * spread / math.sqrt(terms)
        return Scored(s.total + error * size, s.count, gradients)

    def total(self, grads: Mapping[str, Array]) -> dict[str, Array]:
        """Micro-batches are added in the dtype of the gradients."""
        return {name: self.stored(x) for name, x in grads.items()}

    # -- the adjoints -----------------------------------------------------------------------------

    def adjoints(self, own: Any) -> Any:
        """The module of adjoints, each with its error."""
        names = ("linear", "layer_norm", "activate", "glu", "rope", "take")
        replaced: dict[str, Any] = {name: self._bound(name, getattr(own, name)) for name in names}
        if own.attention is exact.attention and own.attention_packed is exact.attention_packed:
            replaced |= {
                "attention": self.attention,
                "attention_packed": by_sequence(self.attention),
            }
        return SimpleNamespace(**{**vars(own), **replaced})

    def _bound(self, name: str, function: Any) -> Any:
        mine = getattr(self, name)
        return lambda *args: mine(function, *args)

    def linear(self, f: Any, dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
        """dx: M = |dy| |W|; dW: M = |dy|^T |x|; db: M = sum |dy|. Where one of the n terms of a sum
        outweighs the others, as a label's does in dx and a token that all attend to in dW, it is
        in every partial sum: M = sqrt(n / 3) of it. Over tokens terms may be of one sign, as a
        column of x that hardly changes makes them: a normal error of sum_growth(n) |dW| as well.
        """
        sizes = list(exact.linear(np.abs(dy), np.abs(x), np.abs(weight)))
        most = np.abs(dy).argmax(axis=-1)
        term = np.take_along_axis(np.abs(dy), most[..., None], axis=-1) * np.abs(weight)[most]
        sizes[0] = np.maximum(sizes[0], math.sqrt(dy.shape[-1] / 3.0) * term)
        rows, given = (np.abs(a).reshape(-1, a.shape[-1]) for a in (dy, x))
        most, grow = rows.argmax(axis=0), math.sqrt(len(rows) / 3.0)
        sizes[1] = np.maximum(sizes[1], grow * rows.max(axis=0)[:, None] * given[most])
        sizes[2] = np.maximum(sizes[2], grow * rows.max(axis=0))
        dx, dw, db = f(dy, x, weight)
        dw, db = self.grown(dw, len(rows)), self.grown(db, len(rows))
        return self.erring(dx, sizes[0]), self.erring(dw, sizes[1]), self.erring(db, sizes[2])

    def layer_norm(
        self, f: Any, dy: Array, x: Array, weight: Array, eps: float
    ) -> tuple[Array, Array, Array]:
        """n errs as in the forward pass: by its row's mean, sum_growth mean|x| / s, and by s; the
        two means over the row err by the growth of their sums, everything else by a rounding."""
        u, grow, row = self.u.compute, sum_growth(x.shape[-1]), (*x.shape[:-1], 1)
        centred = x - x.mean(axis=-1, keepdims=True)
        s = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
        n, g = centred / s, dy * weight
        shift = u * grow * np.abs(x).mean(axis=-1, keepdims=True) * self.xi(row) / s
        dn = -shift + n * u * (0.5 * grow * self.xi(row) + 2.0 * self.xi(x.shape))
        along = (g * n).mean(axis=-1, keepdims=True)
        moved = dn * along + n * (g * dn).mean(axis=-1, keepdims=True)
        means = np.abs(g).mean(axis=-1, keepdims=True) * self.xi(row)
        means = means + n * np.abs(g * n).mean(axis=-1, keepdims=True) * self.xi(row)
        rounded = (np.abs(g) + np.abs(n * along)) * self.xi(x.shape)
        dx, dw, db = f(dy, x, weight, eps)
        dx = dx - (moved + u * (grow * means + 2.0 * rounded)) / s
        dx = self.stored(dx * (1.0 + 0.5 * u * grow * self.xi(row)))
        dw = self.erring(dw + exact.over_tokens(dy * dn), exact.over_tokens(np.abs(dy * n)))
        return dx, dw, self.erring(db, exact.over_tokens(np.abs(dy)))

    def activate(self, f: Any, dy: Array, x: Array, name: str) -> Array:
        """The slope errs by some u of 1 + |slope|: it is a sum of two terms of that size."""
        y = f(dy, x, name)
        slope = f(np.ones_like(x), x, name)
        return self.erring(y, np.abs(dy) * (1.0 + np.abs(slope)))

    def glu(self, f: Any, dy: Array, u: Array, activation: str) -> Array:
        """Two products, each of something stored: act(a), and dy g before the slope."""
        a, g = np.split(u, 2, axis=-1)
        da, dg = np.split(f(dy, u, activation), 2, axis=-1)
        y = equations.activate(a, activation)
        act = self.u.compute * (np.abs(a) + np.abs(y)) + self.u.store * RMS * np.abs(y)
        dg = self.stored(dg + dy * act * self.xi(a.shape))
        slope = exact.activate(np.ones_like(a), a, activation)
        da = self.stored(self.erring(da, np.abs(dy * g) * (1.0 + np.abs(slope))))
        return np.concatenate([da, dg], axis=-1)

    def rope(self, f: Any, dy: Array, cos: Array, sin: Array) -> Array:
        """M = |dy cos| + |dy sin| turned."""
        turned = equations.rotate_half(np.abs(dy * sin[..., None, :]))
        return self.erring(f(dy, cos, sin), np.abs(dy * cos[..., None, :]) + np.abs(turned))

    def attention(
        self,
        dy: Array,
        q: Array,
        k: Array,
        v: Array,
        key_mask: Array,
        window: int | None,
        keep: Any = None,
    ) -> tuple[Array, Array, Array]:
        """P anew as in the forward pass; dP: M = |do| |v|^T, stored; the row's sum of dP P by its
        growth, and, where it is taken as do . o, by o as it was stored; dS stored; then M = |dS|
        |k|, |dS|^T |q| and P^T |do|, each stored."""
        heads_first = (x.swapaxes(1, 2) for x in (dy.reshape(q.shape), q, k, v))
        d, q, k, v = heads_first
        seen = key_mask[:, None, :, None]
        k, v = np.where(seen, k, 0.0), np.where(seen, v, 0.0)
        u, scale, axis = self.u.compute, q.shape[-1] ** -0.5, np.arange(q.shape[2])
        mask = equations.visible(axis, axis, window)[None, None] & key_mask[:, None, None, :]
        scores = q @ k.swapaxes(-1, -2) * scale
        size = np.abs(q) @ np.abs(k).swapaxes(-1, -2) * scale
        p = equations.softmax(self.erring(scores, size), mask)
        grow, row = sum_growth(q.shape[2]), (*p.shape[:-1], 1)
        p = self.stored(p * (1.0 + u * (2.0 * self.xi(p.shape) + grow * self.xi(row))))
        dp = self.erring(d @ v.swapaxes(-1, -2), np.abs(d) @ np.abs(v).swapaxes(-1, -2))
        total = (dp * p).sum(axis=-1, keepdims=True)
        total = total + u * grow * np.abs(dp * p).sum(axis=-1, keepdims=True) * self.xi(row)
        rounded = self.u.store * RMS * (p @ v) * d * self.xi(d.shape)
        total = total + rounded.sum(axis=-1, keepdims=True)
        ds = p * (dp - total)
        ds = self.erring(ds, p * (np.abs(dp) + np.abs(total)))
        dq = self.erring(ds @ k * scale, np.abs(ds) @ np.abs(k) * scale)
        back, kept = ds.swapaxes(-1, -2), p.swapaxes(-1, -2)
        dk = self.erring(back @ q * scale, np.abs(back) @ np.abs(q) * scale)
        dv = self.erring(kept @ d, kept @ np.abs(d))
        dk, dv = np.where(seen, dk, 0.0), np.where(seen, dv, 0.0)
        return dq.swapaxes(1, 2), dk.swapaxes(1, 2), dv.swapaxes(1, 2)

    def take(self, f: Any, dy: Array, ids: Array, rows: int) -> Array:
        """M = sum |dy| over the tokens of a row."""
        return self.erring(f(dy, ids, rows), exact.take(np.abs(dy), ids, rows))

    def between(self, name: str, d: Array) -> Array:
        """Gradients that are sums of two, or come out of a pooling: stored once more."""
        if name in ("final_norm", "embedding") or ".residual_" in name:
            return self.stored(d)
        return d


class _NoisyOptimiser(Optimiser):
    """An optimiser whose update errs: the gradient by two roundings (it enters the moments), the
    first moment by one, the update by some and by 1 - beta as float32 has it, the parameter by one.
    """

    def __init__(self, inner: Optimiser, rule: Rule, noise: _Noise) -> None:
        super().__init__(rule.betas, rule.eps, rule.weight_decay)
        self.inner, self.noise = inner, noise

    def step(self, p: Array, g: Array, moments: Moments, lr: float, weight_decay: float) -> None:
        u, xi = self.noise.u.compute, self.noise.xi
        before = p.copy()
        self.inner.steps = self.steps
        decay = weight_decay if self.inner.weight_decay else 0.0
        self.inner.step(p, g * (1.0 + 2.0 * u * xi(g.shape)), moments, lr, decay)
        moments.first *= 1.0 + u * xi(p.shape)
        moments.second *= 1.0 + 2.0 * u * xi(p.shape)
        b1, b2 = self.betas
        together = (1.0 / (1.0 - b1) + 1.0 / (1.0 - b2) + sum_growth(p.size)) * float(xi(()))
        moved = (p - before) * (1.0 + u * (4.0 * xi(p.shape) + together))
        p[...] = before + moved + u * np.abs(before) * xi(p.shape)
