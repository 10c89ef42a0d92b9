"""What rounding may do: legitimate evaluations of a pass in a dtype, as noise of derived size.

`noisy(p, dtype, seed)` computes in float64 and adds to every operation's result a random error of
the size that the operation has in that dtype: u M xi, with u the unit roundoff, M the operation's
own condition (MODEL.md names the operations; the sizes are derived beside each), xi +1 or
-1 by chance (not normal: a family of few members should agree on the size of what few draws make,
such as a table's inverse frequencies). Runs with different seeds are a family; how far its members
stray from the truth is the budget of a port. It does not model mistakes, nor precision below what
the dtype's name promises.

A step that is recomputed starts from a dump, and a dump is rounded: the port went on with x, and
kept x^ = x (1 + d), |d| <= v, v the unit roundoff of the dump. A port that computes wider than it
dumps, or adds a residual before it rounds, then has f(x) where the reference has f(x^), and

    f(x) - f(x^) = -J(x^) d x^ + O(v^2)

is no error of its step: for residual sums it is as large as the step's own rounding. `unrounded`
gives x^ (1 - d) for a random d, and the family's forced members start from that. v is what the
values themselves say (float32 numbers use 24 bits, in whatever file they lie), and never more than
the roundoff of the declared dtype, so that a coarser dump buys no room. A port that adds a residual
in its product's epilogue never had the product that it dumps: its sum has the error of the
product's terms, u |W| |a|, once more (`fed`).

A dtype may be followed by what a port declares to do otherwise, "float32+tf32": the operations that
this is about then err as it allows, and no other (`DEVIATIONS`).

Long because each operation's M is derived where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...reference import ops as exact
from .passes import Pass

Array = np.ndarray

K = 2.0
"""Budget = K times the worst statistic of the family: the one safety factor of the kit."""
SEEDS = 4
"""Members of a family."""


@dataclass(frozen=True)
class Precision:
    """Unit roundoffs: `store` of what is kept between operations (activations, weights, softmax
    weights), `compute` of sums and of the steps inside an operation, `angle` of rotary angles,
    `tables` of their cosines and sines, `operands` of what goes into a product, `reductions` of
    sums in norms and softmax, with `spacing` of the smallest numbers there, `scores` of masked
    scores; `tokens` and `weights`: half a step of the integers that a row of a product's operands
    becomes, relative to its largest number. 0 where nothing is declared: then it is `store` or
    `compute`."""

    store: float
    compute: float
    angle: float = 2.0**-24
    tables: float = 0.0
    operands: float = 0.0
    reductions: float = 0.0
    spacing: float = 0.0
    scores: float = 0.0
    tokens: float = 0.0
    weights: float = 0.0


# Rotary angles are positions times inverse frequencies in float32 in every dtype but float64.
DTYPES: dict[str, Precision] = {
    "float64": Precision(2.0**-53, 2.0**-53, 2.0**-53),
    "float32": Precision(2.0**-24, 2.0**-24),
    "bfloat16": Precision(2.0**-8, 2.0**-24),
    "float16": Precision(2.0**-11, 2.0**-24),
}
# The eight signs that a byte's bits stand for.
SIGNS = 1.0 - 2.0 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)


@dataclass(frozen=True)
class Allowance:
    """A known departure in precision that a port may declare. allows: fields of Precision and the
    roundoff that they have at least."""

    text: str
    allows: Mapping[str, float]


DEVIATIONS: dict[str, Allowance] = {
    "tf32": Allowance(
        "operands of matrix products are rounded to 11 bits (TF32)", {"operands": 2.0**-11}
    ),
    # Two bfloat16 terms hold 16 bits, and the product of the two lower ones is left out.
    "bf16x3": Allowance("matrix products are three of bfloat16 terms", {"operands": 2.0**-16}),
    "float32-tables": Allowance(
        "rotary tables are made in float32", {"angle": 2.0**-24, "tables": 2.0**-24}
    ),
    # Sums beyond 65504 are lost, which no budget covers.
    "float16-reductions": Allowance(
        "sums of norms and softmax are kept in float16",
        {"reductions": 2.0**-11, "spacing": 2.0**-24},
    ),
    # Integers of 8 bits, symmetric, with a scale per token; of 7, with one per row of W.
    "int8": Allowance(
        "products with weights are of integers, of 8 bits for each token and 7 for each row of W",
        {"tokens": 1.0 / 254.0, "weights": 1.0 / 126.0},
    ),
    "bfloat16-mask": Allowance("the mask is added to the scores in bfloat16", {"scores": 2.0**-8}),
}


def precision(dtype: str) -> Precision:
    """Of a key of DTYPES, and what is declared beside it: "float32+tf32". ValueError for others."""
    base, *declared = dtype.split("+")
    if base not in DTYPES:
        raise ValueError(f"dtype {base!r} has no budget; known: {', '.join(DTYPES)}")
    u = DTYPES[base]
    for name in declared:
        if name not in DEVIATIONS:
            known = ", ".join(DEVIATIONS)
            raise ValueError(f"deviation {name!r} of dtype {dtype!r} is unknown; known: {known}")
        allowed = DEVIATIONS[name].allows.items()
        u = replace(u, **{field: max(x, getattr(u, field)) for field, x in allowed})
    return u


def base_of(dtype: str) -> str:
    """A dtype without what is declared beside it."""
    return dtype.partition("+")[0]


def noisy(p: Pass, dtype: str, seed: int, fed: bool = False) -> Pass:
    """A legitimate evaluation of `p` in `dtype`; equal arguments give equal numbers.

    fed: its steps will be replaced by a dump's, those too that a fused port has on the side only.
    Raises ValueError for a dtype that `precision` does not know.
    """
    noise = _Noise(p.ops, precision(dtype), seed, fed)
    stored = replace(p, params={name: noise.stored(x) for name, x in p.params.items()})
    mask = p.inputs.get("attention_mask")
    return stored.with_ops(
        linear=noise.linear,
        layer_norm=noise.layer_norm,
        activate=noise.activate,
        glu=noise.glu,
        rope_table=noise.rope_table,
        rope=noise.rope,
        attention=noise.attention,
        attention_packed=noise.attention_packed,
    ).with_edit(lambda name, x: noise.between(name, x, mask))


def unrounded(
    given: Mapping[str, Array], dtype: str, seed: int, v: float | None = None
) -> dict[str, Array]:
    """`given` as the port may have had it before it was rounded for the dump.

    dtype: what the port computes in, whose roundoff is the most that is undone; v: the dump's unit
    roundoff, None for what the values of each step say. Equal arguments give equal numbers.
    """
    rng = np.random.Generator(np.random.PCG64([seed, len(given)]))
    most = precision(dtype).store
    out = {}
    for name, x in given.items():
        u = min(most, 2.0 ** -significant_bits(x) if v is None else v)
        out[name] = x * (1.0 - u / math.sqrt(3.0) * _signs(rng, x.shape))
    return out


def significant_bits(x: Array) -> int:
    """The smallest significand, leading bit included, that holds every finite value of x."""
    mantissa, _ = np.frexp(x[np.isfinite(x)].astype(np.float64))
    whole = np.abs(mantissa * 2.0**53).astype(np.int64)
    together = int(np.bitwise_or.reduce(whole, initial=0))
    return 53 - ((together & -together).bit_length() - 1) if together else 0


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """+1 or -1 by chance."""
    n = math.prod(shape)
    bits = np.frombuffer(rng.bytes(-(-n // 8)), np.uint8)
    return SIGNS.take(bits, axis=0).reshape(-1)[:n].reshape(shape)


def sum_growth(n: int) -> float:
    """RMS error of a sum of n numbers of one sign, one after the other, in units of u * sum.

    Partial sums grow linearly, each addition errs by u s_k / sqrt(3): sqrt(sum_k (k/n)^2 / 3) is
    sqrt(n) / 3. Sums of mixed sign stay below u * sum |terms| (partial sums grow as sqrt(k)).
    """
    return max(1.0, math.sqrt(n) / 3.0)


class _Noise:
    """The operations of `ops` with errors. One random stream per pass."""

    def __init__(self, ops: Any, u: Precision, seed: int, fed: bool) -> None:
        self.ops, self.u, self.fed = ops, u, fed
        self.product_size: Array | float = 0.0
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.mean_magnitude: Array | None = None

    def xi(self, shape: tuple[int, ...]) -> Array:
        return _signs(self.rng, shape)

    def per_row(self, shape: tuple[int, ...]) -> Array:
        """Errors of sums that are most of what a row errs by: a sum of n roundings is normal, and
        no other channel evens it out, so that the worst row of many is 3 sigma off, not one."""
        return self.rng.standard_normal(shape) if self.u.reductions else self.xi(shape)

    def stored(self, x: Array, u: float = 0.0) -> Array:
        """x rounded to the storage dtype, or to a coarser u: relative error u / sqrt(3), the RMS of
        a uniform one."""
        return x * (1.0 + max(u, self.u.store) / math.sqrt(3.0) * self.xi(x.shape))

    def operand(self, x: Array) -> Array:
        """x as it goes into a product, where a deviation is declared for that."""
        return self.stored(x, self.u.operands) if self.u.operands else x

    def integers(self, x: Array, u: float) -> Array:
        """x as rows of integers: each number errs by up to u max |x of its row|."""
        if not u:
            return x
        largest = np.abs(x).max(axis=-1, keepdims=True)
        return x + u / math.sqrt(3.0) * largest * self.xi(x.shape)

    def linear(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        """M = |x| |W|^T (+ |b|): sums of mixed sign in any order."""
        row = self.integers(self.operand(x), self.u.tokens)
        y = self.ops.linear(row, self.integers(self.operand(weight), self.u.weights), bias)
        size = exact.linear(np.abs(x), np.abs(weight), None if bias is None else np.abs(bias))
        self.product_size = size
        return self.stored(y + self.u.compute * size * self.xi(y.shape))

    def layer_norm(self, x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
        """Mean: sum_growth(n) mean|x| per row; variance: sum_growth(n) relative, which the root
        halves; then four roundings (centre, divide, weigh, add). Numbers that are small for the
        sums' dtype lose a spacing each: sqrt(n) of them in all."""
        n, row = x.shape[-1], (*x.shape[:-1], 1)
        u, sums = self.u.compute, max(self.u.compute, self.u.reductions)
        grow, lost = sums * sum_growth(n), self.u.spacing * math.sqrt(n)
        shift = (grow * np.abs(x).mean(axis=-1, keepdims=True) + lost) * self.per_row(row)
        y = self.ops.layer_norm(x, weight, None, eps)
        variance = x.var(axis=-1, keepdims=True) + eps
        y = y - shift / np.sqrt(variance) * weight
        wrong = 0.5 * (grow + lost / variance) * self.per_row(row)
        y = y * (1.0 + wrong + 2.0 * u * self.xi(x.shape))
        return self.stored(y if bias is None else y + bias)

    def activate(self, x: Array, name: str) -> Array:
        """M = |x| + |y|: one rounding of the argument's scale, a few of the result."""
        y = self.ops.activate(x, name)
        return self.stored(y + self.u.compute * (np.abs(x) + np.abs(y)) * self.xi(x.shape))

    def glu(self, u: Array, activation: str) -> Array:
        a, g = np.split(u, 2, axis=-1)
        exact_glu = self.ops.glu(u, activation)
        error = self.activate(a, activation) - self.ops.activate(a, activation)
        return self.stored(exact_glu + error * g)

    def rope_table(self, positions: Array, head_dim: int, theta: float, dtype: np.dtype) -> Any:
        """Phase: the angle's own roundoff, and that of inv_freq (a power: about 2 u) which all
        positions share; then the tables are stored."""
        cos, sin = self.ops.rope_table(positions, head_dim, theta, dtype)
        half = head_dim // 2
        inv_freq = theta ** (-np.arange(half) * 2.0 / head_dim)
        angle = np.asarray(positions, np.float64)[..., None] * inv_freq
        relative = 2.0 * self.xi((half,)) + self.xi(angle.shape)
        phase = np.concatenate([angle * relative] * 2, axis=-1) * self.u.angle
        u = self.u.tables
        return self.stored(cos - sin * phase, u), self.stored(sin + cos * phase, u)

    def rope(self, x: Array, cos: Array, sin: Array) -> Array:
        """M = |x cos| + |rotate_half(x) sin|."""
        y = self.ops.rope(x, cos, sin)
        size = np.abs(x) * np.abs(cos[..., None, :])
        size = size + np.abs(exact.rotate_half(x)) * np.abs(sin[..., None, :])
        return self.stored(y + self.u.compute * size * self.xi(y.shape))

    def attention(self, q: Array, k: Array, v: Array, key_mask: Array, window: int | None) -> Array:
        """Scores: M = scale |q| |k|, and stored once; weights: exp's own 2 u, the sum's growth, and
        stored; the mean of v: M = sum_j p_j |v_j|, and stored."""
        batch, seq, heads, head_dim = q.shape
        v = np.where(key_mask[..., None, None], v, 0.0)
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
        u, scale = self.u.compute, head_dim**-0.5
        out = np.empty_like(v)
        for start, stop, first, last in exact.query_blocks(seq, heads, window):
            rows, keys = slice(start, stop), slice(first, last)
            mask = exact.visible(np.arange(start, stop), np.arange(first, last), window)
            mask = (mask & key_mask[:, None, keys])[:, None]
            qb, kb, vb = map(self.operand, (q[:, :, rows], k[:, :, keys], v[:, :, keys]))
            scores = qb @ kb.swapaxes(-1, -2) * scale
            size = np.abs(qb) @ np.abs(kb).swapaxes(-1, -2) * scale
            scores = self.stored(scores + u * size * self.xi(scores.shape), self.u.scores)
            p = exact.softmax(scores, mask)
            sums = max(u, self.u.reductions) * sum_growth(last - first)
            grow = sums * self.per_row((*p.shape[:-1], 1))
            p = self.stored(p * (1.0 + 2.0 * u * self.xi(p.shape) + grow))
            y = self.operand(p) @ vb
            out[:, :, rows] = y + u * (p @ np.abs(vb)) * self.xi(y.shape)
        return self.stored(out.swapaxes(1, 2).reshape(batch, seq, heads * head_dim))

    def attention_packed(
        self, q: Array, k: Array, v: Array, cu_seqlens: Array, window: int | None
    ) -> Array:
        out = np.empty((q.shape[0], q.shape[1] * q.shape[2]), v.dtype)
        for start, stop in zip(cu_seqlens[:-1], cu_seqlens[1:], strict=True):
            q1, k1, v1 = (x[None, start:stop] for x in (q, k, v))
            every_key = np.ones((1, stop - start), bool)
            out[start:stop] = self.attention(q1, k1, v1, every_key, window)[0]
        return out

    def between(self, name: str, x: Array, mask: Array | None) -> Array:
        """Steps that are no operation of `ops`: residual sums are stored (fed: M = |W| |a| of the
        product before); pooling is a mean, a length the root of a sum."""
        if ".residual_" in name:
            fused = self.u.compute * self.product_size * self.xi(x.shape) if self.fed else 0.0
            return self.stored(x + fused)
        if name == "final_norm" and x.ndim == 3:
            weights = np.ones(x.shape[:2]) if mask is None else (mask != 0).astype(np.float64)
            total = np.maximum(weights.sum(axis=1, keepdims=True), 1.0)
            kept = np.where(weights[..., None] != 0, np.abs(x), 0.0)
            self.mean_magnitude = sum_growth(x.shape[1]) * kept.sum(axis=1) / total
        if name in ("pooled", "mean_pooled") and self.mean_magnitude is not None:
            return self.stored(x + self.u.compute * self.mean_magnitude * self.xi(x.shape))
        if name.endswith("_normalised"):
            grow = 0.5 * sum_growth(x.shape[-1]) * self.xi((len(x), 1))
            return self.stored(x * (1.0 + self.u.compute * (grow + 2.0 * self.xi(x.shape))))
        return x
