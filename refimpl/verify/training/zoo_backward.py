"""Mistakes of backward passes written by hand. Long because each is written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from ...reference import ops as equations
from ...train import adjoints as exact
from ..zoo.mistake import round_bits
from .mistake import Mistake, rewired, with_grads
from .step import Arrays, Training, by_sequence

Array = np.ndarray
TABLE = "embeddings.tok_embeddings.weight"
TYPES = "embeddings.token_type_embeddings.weight"


# -- norms ----------------------------------------------------------------------------------------


def norms(mean: bool = True, variance: bool = True, weigh: bool = True, raw: bool = False) -> Any:
    """LayerNorm's adjoint with a term left out; raw: the gradient of its weight from x itself."""

    def layer_norm(dy: Array, x: Array, weight: Array, eps: float) -> tuple[Array, Array, Array]:
        centred = x - x.mean(axis=-1, keepdims=True)
        s = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
        n, g = centred / s, dy * weight if weigh else dy
        dx = g
        if mean:
            dx = dx - g.mean(axis=-1, keepdims=True)
        if variance:
            dx = dx - n * (g * n).mean(axis=-1, keepdims=True)
        return dx / s, exact.over_tokens(dy * (x if raw else n)), exact.over_tokens(dy)

    return lambda t: t.with_adjoints(layer_norm=layer_norm)


def without_norm(after: str, before: Callable[[Training], str]) -> Callable[[Training], Training]:
    """The gradient behind a norm is that in front of it."""
    return lambda t: rewired(
        t, lambda name, d, seen, steps: seen[after] if name == before(t) else d
    )


def last_residual(t: Training) -> str:
    return f"layers.{t.config.num_hidden_layers - 1}.residual_2"


def bare_embedding(t: Training) -> Training:
    """Rows of the tables get the gradient of the norm's result."""

    def back(
        params: Any, config: Any, steps: Any, d: Array, grads: Any, inputs: Any, **more: Any
    ) -> Array:
        own: dict[str, Array] = {}
        before = grads.get(TABLE)
        tap = more.pop("tap")

        def seen(name: str, x: Array) -> Array:
            own[name] = tap(name, x)
            return own[name]

        out = t.encoder_back(params, config, steps, d, grads, inputs, tap=seen, **more)
        rows = exact.take(own["embedding"], inputs["input_ids"], len(params[TABLE]))
        grads[TABLE] = rows if before is None else before + rows
        return out

    return replace(t, encoder_back=back)


def first_norm(name: str, d: Array, seen: Mapping[str, Array], steps: Mapping[str, Array]) -> Array:
    """Layer 0's attention has no norm; here it has one without weights."""
    if name != "layers.0.attn_norm":
        return d
    x = steps["embedding"]
    return exact.layer_norm(d, x, np.ones(x.shape[-1], x.dtype), 1e-5)[0]


# -- rotary positions, attention ------------------------------------------------------------------


def attending(
    *,
    row_sum: bool = True,
    to_q: float = 1.0,
    to_k: float = 1.0,
    masked: bool = True,
    window: Callable[[int | None], int | None] = lambda w: w,
    undefined: bool = False,
    crossing: bool = False,
    low: bool = False,
) -> Callable[[Training], Training]:
    """Attention's adjoint, written out densely, with something else: row_sum: of softmax; to_q,
    to_k: powers of the scale on dq and dk; masked: whether P, taken anew, has the padding masked;
    window: another one; undefined: rows without a key are 0 / 0; crossing: sequences that are
    packed see each other; low: P kept in bfloat16."""

    def attention(
        dy: Array, q: Array, k: Array, v: Array, key_mask: Array, w: int | None, keep: Any = None
    ) -> tuple[Array, Array, Array]:
        scale, axis = q.shape[-1] ** -0.5, np.arange(q.shape[1])
        d, q, k, v = (x.swapaxes(1, 2) for x in (dy.reshape(q.shape), q, k, v))
        mask = equations.visible(axis, axis, window(w))[None, None]
        if masked:
            mask = mask & key_mask[:, None, None, :]
        p = equations.attention_probs(q, k, mask)
        if undefined:
            p = np.where(mask.any(axis=-1, keepdims=True), p, np.nan).astype(p.dtype)
        if low:
            p = round_bits(p, 8)
        dp = d @ v.swapaxes(-1, -2)
        ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) if row_sum else p * dp
        dq = ds @ k * q.dtype.type(scale**to_q)
        dk = ds.swapaxes(-1, -2) @ q * q.dtype.type(scale**to_k)
        dv = p.swapaxes(-1, -2) @ d
        return dq.swapaxes(1, 2), dk.swapaxes(1, 2), dv.swapaxes(1, 2)

    packed = by_sequence(attention, crossing)
    return lambda t: t.with_adjoints(attention=attention, attention_packed=packed)


def other_table(t: Training) -> Training:
    """Turned back by the angles of the other kind of layer."""

    def back(params: Any, config: Any, steps: Any, *rest: Any, **more: Any) -> Array:
        swapped = dict(steps)
        for function in ("cos", "sin"):
            names = f"rope.full.{function}", f"rope.sliding.{function}"
            if all(name in steps for name in names):
                swapped |= dict(zip(names, (steps[names[1]], steps[names[0]]), strict=True))
        return t.encoder_back(params, config, swapped, *rest, **more)

    return replace(t, encoder_back=back)


def split(order: Callable[[Array, Array, Array], Array]) -> Callable[[Training], Training]:
    return lambda t: t.with_adjoints(split_qkv=order)


# -- activations ----------------------------------------------------------------------------------


def glued(
    change: Callable[[Array, Array, Array, Array], tuple[Array, Array]],
) -> Callable[..., Training]:
    """GLU's adjoint: change(da, dg, dy, u) -> the two halves."""

    def apply(t: Training) -> Training:
        def glu(dy: Array, u: Array, activation: str) -> Array:
            da, dg = np.split(t.adjoints.glu(dy, u, activation), 2, axis=-1)
            return np.concatenate(change(da, dg, dy, u), axis=-1)

        return t.with_adjoints(glu=glu)

    return apply


def sloped(slope: Callable[[Array, str], Array]) -> Callable[[Training], Training]:
    """Another act'(x), in the MLP and in the head."""

    def activate(dy: Array, x: Array, name: str) -> Array:
        return (dy * slope(x, name)).astype(x.dtype)

    def glu(dy: Array, u: Array, activation: str) -> Array:
        a, g = np.split(u, 2, axis=-1)
        da = activate(dy * g, a, activation)
        return np.concatenate([da, dy * equations.activate(a, activation)], axis=-1)

    return lambda t: t.with_adjoints(activate=activate, glu=glu)


def tanh_slope(x: Array, name: str) -> Array:
    return exact.gelu_tanh(x) if name == "gelu" else exact.SLOPES[name](x)


def first_term(x: Array, name: str) -> Array:
    """Phi(x) and sigmoid(x): what x does through the gate is left out."""
    if name == "gelu":
        return np.asarray(0.5 * (1.0 + equations.erf(x * math.sqrt(0.5))))
    return equations.sigmoid(x) if name == "silu" else exact.SLOPES[name](x)


# -- linear maps, residual sums, tables -----------------------------------------------------------


def linear(change: Callable[[Array, Array, Array], tuple[Array, Array]]) -> Callable[..., Training]:
    """change(dW, db, dy) -> dW, db of every linear map."""

    def apply(t: Training) -> Training:
        def adjoint(dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
            dx, dw, db = t.adjoints.linear(dy, x, weight)
            return dx, *change(dw, db, dy)

        return t.with_adjoints(linear=adjoint)

    return apply


def turned(dw: Array, db: Array, dy: Array) -> tuple[Array, Array]:
    return (dw.T.copy() if dw.shape[0] == dw.shape[1] else dw), db


def averaged(dw: Array, db: Array, dy: Array) -> tuple[Array, Array]:
    return dw, db / dy.dtype.type(dy[..., 0].size)


def mlp_alone(name: str, d: Array, seen: Mapping[str, Array], steps: Mapping[str, Array]) -> Array:
    if fnmatchcase(name, "layers.*.residual_1"):
        return d - seen[name.replace("residual_1", "residual_2")]
    return d


def attention_alone(
    name: str, d: Array, seen: Mapping[str, Array], steps: Mapping[str, Array]
) -> Array:
    if name == "embedding":
        return d - seen["layers.0.residual_1"]
    if fnmatchcase(name, "layers.*.residual_2"):
        i = int(name.split(".")[1])
        above = f"layers.{i + 1}.residual_1"
        return d - seen[above] if above in seen else d
    return d


def overwritten(dy: Array, ids: Array, rows: int) -> Array:
    out = np.zeros((rows, dy.shape[-1]), dy.dtype)
    out[ids.reshape(-1)] = dy.reshape(-1, dy.shape[-1])
    return out


def zeroed(*endings: str) -> Callable[[Training], Training]:
    """Parameters whose gradient is never filled in."""
    return lambda t: with_grads(
        t, lambda name, x: np.zeros_like(x) if name.endswith(endings) else x
    )


def tied_part(keep: str) -> Callable[[Training], Training]:
    """Of a tied table, the gradient of the lookups alone, or that of the decoder alone."""

    def apply(t: Training) -> Training:
        if t.head != "masked_lm" or "decoder.weight" in t.params:
            return t

        def back(
            params: Any, config: Any, steps: Any, d: Array, grads: Any, inputs: Any, **more: Any
        ) -> Array:
            decoder = grads.pop(TABLE)
            out = t.encoder_back(params, config, steps, d, grads, inputs, **more)
            if keep == "decoder":
                grads[TABLE] = decoder
            elif keep == "twice":
                grads[TABLE] = 2 * decoder + grads[TABLE]
            return out

        return replace(t, encoder_back=back)

    return apply


def pooled(masked: bool) -> Callable[[Training], Training]:
    """Mean pooling's adjoint divides by the width: at real tokens, or at padding, too."""

    def apply(t: Training) -> Training:
        if t.head != "sequence_classification" or t.config.classifier_pooling != "mean":
            return t

        def change(name: str, d: Array, seen: Arrays, steps: Arrays) -> Array:
            if name != "final_norm":
                return d
            live = (np.abs(d).sum(axis=-1, keepdims=True) > 0).astype(d.dtype)
            per_row = d.sum(axis=1, keepdims=True) / d.dtype.type(d.shape[1])
            return per_row * live if masked else per_row * np.ones_like(live)

        return rewired(t, change)

    return apply


def low_total(t: Training) -> Training:
    """Micro-batches are added up in bfloat16."""

    def total(parts: Any, own: Training) -> dict[str, Array]:
        out = {name: round_bits(x, 8) for name, x in parts[0].items()}
        for part in parts[1:]:
            out = {name: round_bits(x + part[name], 8) for name, x in out.items()}
        return out

    return replace(t, total=total)


MISTAKES = (
    Mistake("B1", "LayerNorm's mean(g) left out", "x moves its own mean, which the backward pass "
            "takes for a constant", norms(mean=False), "gradient"),
    Mistake("B2", "LayerNorm's mean(g n) left out", "x moves its own variance, which the backward "
            "pass takes for a constant", norms(variance=False), "gradient"),
    Mistake("B3", "mean and variance as constants", "both terms of LayerNorm are left out",
            norms(False, False), "gradient"),
    Mistake("B4", "norm's weight left out", "the gradient passes a LayerNorm without its weight",
            norms(weigh=False), "gradient"),
    Mistake("B5", "norm's weight learns from x", "dw = sum dy x, x not normalised",
            norms(raw=True), "gradient"),
    Mistake("B6", "final norm skipped", "the gradient goes around the last LayerNorm",
            without_norm("final_norm", last_residual), "gradient"),
    Mistake("B7", "norm of the embeddings skipped", "rows of the table get the gradient of the "
            "normed embedding", bare_embedding, "gradient"),
    Mistake("B8", "a norm in layer 0", "the backward pass has an attn_norm in layer 0, where the "
            "forward pass has none", lambda t: rewired(t, first_norm), "gradient"),
    Mistake("B9", "RoPE turned forwards", "the gradient is rotated as q and k were, not back",
            lambda t: t.with_adjoints(rope=equations.rope), "gradient"),
    Mistake("B10", "RoPE skipped", "the gradient of the rotated q and k is taken for that of q and "
            "k", lambda t: t.with_adjoints(rope=lambda dy, cos, sin: dy), "gradient"),
    Mistake("B11", "turned back by the other theta", "full layers are turned back with the angles "
            "of sliding ones and the other way round", other_table, "gradient"),
    Mistake("B12", "softmax's row sum left out", "ds = p dp", attending(row_sum=False), "gradient"),
    Mistake("B13", "no scale in the backward pass", "1 / sqrt(head_dim) is on neither dq nor dk",
            attending(to_q=0.0, to_k=0.0), "gradient"),
    Mistake("B14", "scale once instead of twice", "1 / sqrt(head_dim) is on dq and not on dk",
            attending(to_k=0.0), "gradient"),
    Mistake("B15", "scale squared", "1 / sqrt(head_dim) is on the scores' gradient, and again on "
            "dq and dk", attending(to_q=2.0, to_k=2.0), "gradient"),
    Mistake("B16", "no window in the backward pass", "P is taken anew over all keys",
            attending(window=lambda w: None), "gradient"),
    Mistake("B17", "window one wider in the backward pass", "the half width is one more",
            attending(window=lambda w: None if w is None else w + 1), "gradient"),
    Mistake("B18", "the whole window per side in the backward pass", "the half width is doubled",
            attending(window=lambda w: None if w is None else 2 * w), "gradient"),
    Mistake("B19", "padding not masked in the backward pass", "P is taken anew with the padded "
            "keys", attending(masked=False), "gradient"),
    Mistake("B20", "NaN from padding", "queries without any key are 0 / 0 in the backward pass, "
            "and their NaN spreads", attending(undefined=True), "gradient",
            ("A#163", "A#227", "A#209")),
    Mistake("B21", "packed sequences see each other backwards", "P is taken anew over the whole "
            "row", attending(crossing=True), "gradient"),
    Mistake("B22", "P kept in 16 bits", "the attention weights of a float32 run are stored in "
            "bfloat16 for the backward pass", attending(low=True), "gradient"),
    Mistake("B23", "thirds of Wqkv in another order", "dk, dq, dv are joined",
            split(lambda dq, dk, dv: exact.split_qkv(dk, dq, dv)), "gradient"),
    Mistake("B24", "thirds joined head by head", "the gradient of Wqkv's result has q, k and v of "
            "head 0 first", split(lambda dq, dk, dv: np.stack([dq, dk, dv], axis=-2).reshape(
                *dq.shape[:-2], -1)), "gradient"),
    Mistake("B25", "GLU's halves swapped", "du = [dg, da]",
            glued(lambda da, dg, dy, u: (dg, da)), "gradient"),
    Mistake("B26", "slope of the activation left out", "da = dy g",
            glued(lambda da, dg, dy, u: (dy * np.split(u, 2, axis=-1)[1], dg)), "gradient"),
    Mistake("B27", "activation left out of the gate's gradient", "dg = dy a",
            glued(lambda da, dg, dy, u: (da, dy * np.split(u, 2, axis=-1)[0])), "gradient"),
    Mistake("B28", "slope of tanh GELU", "the forward pass has the exact one", sloped(tanh_slope),
            "gradient"),
    Mistake("B29", "half of the activation's slope", "Phi(x), or sigmoid(x): x's way through the "
            "gate is left out", sloped(first_term), "gradient"),
    Mistake("B30", "gradient of square matrices transposed", "x^T dy in place of dy^T x, where the "
            "shape does not tell", linear(turned), "gradient"),
    Mistake("B31", "biases averaged", "their gradient is the mean over tokens, not the sum",
            linear(averaged), "gradient"),
    Mistake("B32", "biases forgotten", "no gradient reaches a bias", zeroed(".bias"), "gradient"),
    Mistake("B33", "residual path around the MLP lost", "only what passes the MLP goes on",
            lambda t: rewired(t, mlp_alone), "gradient"),
    Mistake("B34", "residual path around attention lost", "only what passes attention goes on",
            lambda t: rewired(t, attention_alone), "gradient"),
    Mistake("B35", "embedding rows overwritten", "where an id repeats, the last token's gradient "
            "stays", lambda t: t.with_adjoints(take=overwritten), "gradient"),
    Mistake("B36", "token types forgotten", "their table gets no gradient", zeroed(TYPES),
            "gradient"),
    Mistake("B37", "tied decoder forgotten", "the table gets the gradient of the lookups alone",
            tied_part("lookups"), "gradient"),
    Mistake("B38", "lookups of a tied table forgotten", "the table gets the decoder's gradient "
            "alone", tied_part("decoder"), "gradient"),
    Mistake("B39", "tied decoder counted twice", "its gradient is added to the table's twice",
            tied_part("twice"), "gradient"),
    Mistake("B40", "embeddings frozen", "the token table gets no gradient", zeroed(TABLE),
            "gradient"),
    Mistake("B41", "mean pooling divided by the width", "each real token gets 1 / seq of the "
            "gradient", pooled(masked=True), "gradient"),
    Mistake("B42", "padding counted in mean pooling", "each token, padded ones too, gets 1 / seq "
            "of the gradient", pooled(masked=False), "gradient"),
    Mistake("B43", "gradients added in 16 bits", "micro-batches are added up in bfloat16",
            low_total, "gradient"),
)  # fmt: skip
