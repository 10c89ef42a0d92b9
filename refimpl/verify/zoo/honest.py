"""Honest ports: other evaluations of the same formulas, none of which may be called wrong.

    dump = HONEST["fused"].dump(p)          float64 pass of a case -> its steps, as dumped

The mistakes of this room must be caught; these must not. Each does what ports do for speed or by
accident of their libraries - computes wider than it keeps, adds a residual before it rounds, sums
in another order, folds a norm's weights into the next product, drops padding - in float32, but for
the one whose dtype says otherwise. A step that the variant does not have is not in its dump.
Long because each variant is written out, none as a case of another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from ...reference import ops as equations
from ..truth.errors import real_rows
from ..truth.passes import Pass, per_token, trace
from .mistake import axes, before, layer_input, positions, rewired, round_bits, with_attention

Array = np.ndarray
Dump = dict[str, Array]
BLOCK = 8
"""Terms of a sum, or keys, that are taken together."""


@dataclass(frozen=True)
class Honest:
    """A variant. dump: Pass in float64 -> steps, float64 arrays of numbers of `dtype`."""

    id: str
    text: str
    dump: Callable[[Pass], Dump]
    dtype: str = "float32"


def kept(steps: Mapping[str, Array], bits: int = 24) -> Dump:
    """The steps as they lie in a dump: rounded once, widened again."""
    wide = {name: x.astype(np.float64) for name, x in steps.items()}
    return {name: round_bits(x, bits) for name, x in wide.items()}


def single(p: Pass) -> Pass:
    return p.astype(np.float32)


def wider(p: Pass) -> Dump:
    return kept(trace(p))


def fused(p: Pass) -> Dump:
    """residual = round(x + W a + b): the product is not rounded before the sum."""
    products = {"residual_1": ("attention", "attn.Wo"), "residual_2": ("glu", "mlp.Wo")}
    p = single(p)

    def epilogue(name: str, value: Array, seen: Mapping[str, Array]) -> Array:
        step = name.rpartition(".")[2]
        if step not in products:
            return value
        given, weights = products[step]
        first = layer_input(name) if step == "residual_1" else before(name, "residual_1")
        weight, bias = (p.params.get(before(name, f"{weights}.{kind}")) for kind in
                        ("weight", "bias"))  # fmt: skip
        assert weight is not None
        wide = [x if x is None else x.astype(np.float64) for x in (weight, bias)]
        y = equations.linear(seen[before(name, given)].astype(np.float64), wide[0], wide[1])  # type: ignore[arg-type]
        return (seen[first] + y).astype(value.dtype)

    return kept(trace(rewired(p, epilogue)))


def summed(order: Callable[[int], list[Array]]) -> Callable[[Pass], Dump]:
    """Products whose sums are taken part by part, order(n) -> the terms of each part."""

    def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
        y = np.zeros((*x.shape[:-1], len(weight)), x.dtype)
        for part in order(x.shape[-1]):
            y = y + x[..., part] @ weight[:, part].T
        return y if bias is None else y + bias

    return lambda p: kept(trace(single(p).with_ops(linear=linear)))


def in_blocks(n: int) -> list[Array]:
    return np.split(np.arange(n), range(BLOCK, n, BLOCK))


def backwards(n: int) -> list[Array]:
    return [np.array([i]) for i in reversed(range(n))]


def flash(p: Pass) -> Dump:
    """Softmax without a second pass: the running maximum rescales what was summed so far."""

    def attention(q: Array, k: Array, v: Array, key_mask: Array, window: int | None) -> Array:
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
        seq, keys = q.shape[2], np.arange(k.shape[2])
        v = np.where(key_mask[:, None, :, None], v, 0).astype(v.dtype)
        top = np.full((*q.shape[:3], 1), -np.inf, q.dtype)
        total, out = np.zeros_like(top), np.zeros_like(q)
        for part in in_blocks(len(keys)):
            seen = equations.visible(np.arange(seq), part, window) & key_mask[:, None, part]
            scores = q @ k[:, :, part].swapaxes(-1, -2) * np.float32(q.shape[-1] ** -0.5)
            scores = np.where(seen[:, None], scores, np.float32(-np.inf))
            new = np.maximum(top, scores.max(axis=-1, keepdims=True))
            shift = np.where(np.isfinite(new), new, np.float32(0))
            old, e = np.exp(top - shift), np.exp(scores - shift)
            total = total * old + e.sum(axis=-1, keepdims=True)
            out, top = out * old + e @ v[:, :, part], new
        out = out / np.where(total > 0, total, np.float32(1))
        return out.swapaxes(1, 2).reshape(len(out), seq, -1)

    return kept(trace(with_attention(single(p), attention)))


def wide_norms(p: Pass) -> Dump:
    """Norms in float64, rounded once; all else in float32."""

    def layer_norm(x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
        wide = (None if y is None else y.astype(np.float64) for y in (x, weight, bias))
        x64, w64, b64 = wide
        return equations.layer_norm(x64, w64, b64, eps).astype(x.dtype)  # type: ignore[arg-type]

    return kept(trace(single(p).with_ops(layer_norm=layer_norm)))


def low_weights(p: Pass) -> Dump:
    """Matrices and vectors in bfloat16, all else in float32: declared as bfloat16."""
    small = {name: round_bits(x, 8) for name, x in p.params.items()}
    return kept(trace(single(replace(p, params=small))))


FOLDED = {"attn_norm": "attn.Wqkv", "mlp_norm": "mlp.Wi"}


def folded(p: Pass) -> Dump:
    """W (g x^ + b) = (W g) x^ + W b: the norms of the layers have no weights any more."""
    params = dict(single(p).params)
    for name in [name for name in params if name.rpartition(".")[0].endswith(tuple(FOLDED))]:
        layer, norm, kind = name.rsplit(".", 2)
        if kind == "weight":
            g, to = params[name], f"{layer}.{FOLDED[norm]}"
            bias = params.get(f"{layer}.{norm}.bias")
            if bias is not None:
                params[f"{to}.bias"] = params[f"{to}.bias"] + params[f"{to}.weight"] @ bias
                params[f"{layer}.{norm}.bias"] = np.zeros_like(bias)
            params[f"{to}.weight"] = params[f"{to}.weight"] * g
            params[name] = np.ones_like(g)
    steps = kept(trace(replace(p, params=params)))
    # Layer 0 has no norm to fold, and its step is the embedding.
    gone = [name for name in steps if name.endswith(tuple(FOLDED)) and name != "layers.0.attn_norm"]
    return {name: x for name, x in steps.items() if name not in gone}


def unpadded(p: Pass) -> Dump:
    """Rows laid end to end without their padding; what padding would hold is NaN. Rows with holes
    are left as they are: there the window counts padding, too."""
    real, shape = real_rows(p), axes(p)
    ends = [np.flatnonzero(row) for row in real] if len(shape) == 2 else []
    if not ends or any(len(at) and at[-1] - at[0] + 1 != len(at) for at in ends):
        return kept(trace(single(p)))
    ids, lengths = p.inputs["input_ids"], [len(at) for at in ends if len(at)]
    assert ids is not None
    encoder = replace(
        single(p), head=None, vectors=None,
        inputs={"input_ids": ids[real], "position_ids": np.asarray(positions(p))[real],
                "cu_seqlens": np.cumsum([0, *lengths])},
    )  # fmt: skip
    padded, packed = trace(single(p)), trace(encoder)
    out: Dump = {}
    for name, x in padded.items():
        if name in packed and per_token(name, x, real):
            out[name] = np.full(x.shape, np.nan)
            out[name][real] = packed[name]
    return kept(out)


def few(*endings: str) -> Callable[[Pass], Dump]:
    """A plain float32 port that gives some steps only."""
    return lambda p: {
        name: x for name, x in kept(trace(single(p))).items() if name.endswith(endings)
    }


HONEST: Mapping[str, Honest] = MappingProxyType(
    {
        variant.id: variant
        for variant in (
            Honest("wider", "computes in float64 and keeps float32", wider),
            Honest("fused", "adds a residual in its product's epilogue and rounds once", fused),
            Honest("blocked", f"sums {BLOCK} terms at a time", summed(in_blocks)),
            Honest("reversed", "sums term by term from the last", summed(backwards)),
            Honest("flash", "softmax in one pass over blocks of keys", flash),
            Honest("wide-norms", "norms in float64, all else in float32", wide_norms),
            Honest("low-weights", "weights in bfloat16, activations in float32", low_weights,
                   "bfloat16"),
            Honest("folded", "weights of norms folded into the products behind them", folded),
            Honest("unpadded", "rows end to end without padding", unpadded),
            Honest("one-a-layer", "gives one step a layer", few(".residual_2", "final_norm")),
            Honest("last-only", "gives the last hidden state alone", few("final_norm")),
        )
    }
)  # fmt: skip
