"""ModernBERT a second time, as plainly as it can be written: the family of legitimate evaluations.

    run(case, inputs, arithmetic) -> {"hidden": [layers + 2, batch, seq, hidden], <head>: logits}

Written from the equations, with dense [seq, seq] masks, and sharing no line with `refimpl`: it says
how much rounding a legitimate float32 evaluation shows (budget.py), in several orders of summation.
`hidden` holds the embedding output, every layer's output, and last the final norm's.
Not here: packing, explicit positions, token types; and it is slow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import erf

from .cases import HEAD_KINDS, Case, Inputs, choices


@dataclass(frozen=True)
class Arithmetic:
    """How one member computes.

    dtype: of every array. chunks: the terms of a sum are shuffled, split into so many chunks, and
    the chunks' sums added one after the other (1: the terms as they stand). rotary: dtype of
    frequencies, angles, cos and sin and of the rotated q and k; ulps: each frequency moves by
    -ulps .. ulps units in the last place.
    """

    dtype: type = np.float64
    chunks: int = 1
    seed: int = 0
    rotary: type = np.float64
    ulps: int = 0

    def matmul(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """a [..., n, k] @ b [..., k, m]."""
        if self.chunks == 1:
            return a @ b
        total = np.zeros((*a.shape[:-1], b.shape[-1]), self.dtype)
        for part in parts(a.shape[-1], self.chunks, self.seed):
            total = total + a[..., part] @ b[..., part, :]
        return total

    def sum(self, x: np.ndarray) -> np.ndarray:
        """Over the last axis, which is kept."""
        if self.chunks == 1:
            return x.sum(axis=-1, keepdims=True)
        total = np.zeros((*x.shape[:-1], 1), self.dtype)
        for part in parts(x.shape[-1], self.chunks, self.seed):
            total = total + x[..., part].sum(axis=-1, keepdims=True)
        return total


@cache
def parts(n: int, chunks: int, seed: int) -> list[np.ndarray]:
    """0 .. n - 1, shuffled, in so many chunks."""
    return np.array_split(np.random.default_rng(seed).permutation(n), min(chunks, n))


def act(name: str, x: np.ndarray) -> np.ndarray:
    one: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "gelu": lambda x: x * (1 + erf(x / np.sqrt(x.dtype.type(2)))) / 2,
        "gelu_pytorch_tanh": lambda x: (
            x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
        ),
        "silu": lambda x: x / (1 + np.exp(-x)),
        "relu": lambda x: np.maximum(x, 0),
        "tanh": np.tanh,
    }
    return one[name](x).astype(x.dtype, copy=False)


def run(
    case: Case, inputs: Inputs, how: Arithmetic, kinds: tuple[str, ...] = HEAD_KINDS
) -> dict[str, np.ndarray]:
    p = case.params(dtype=how.dtype)
    ids, mask = inputs.input_ids, inputs.mask.astype(bool)
    batch, seq = ids.shape

    def linear(x: np.ndarray, name: str, p: dict[str, np.ndarray] = p) -> np.ndarray:
        y = how.matmul(x, p[name + ".weight"].T)
        return y + p[name + ".bias"] if name + ".bias" in p else y

    def norm(x: np.ndarray, name: str, p: dict[str, np.ndarray] = p) -> np.ndarray:
        d = x - how.sum(x) / how.dtype(case.hidden)
        y = d / np.sqrt(how.sum(d**2) / how.dtype(case.hidden) + how.dtype(case.eps))
        y = y * p[name + ".weight"]
        return y + p[name + ".bias"] if name + ".bias" in p else y

    x = norm(p["embeddings.tok_embeddings.weight"][ids], "embeddings.norm")
    states = [x]
    near = np.abs(np.subtract.outer(np.arange(seq), np.arange(seq))) <= case.half_window
    for i, kind in enumerate(case.pattern):
        at = f"layers.{i}."
        qkv = linear(x if i == 0 else norm(x, at + "attn_norm"), at + "attn.Wqkv")
        q, k, v = qkv.reshape(batch, seq, 3, case.heads, case.head_dim).transpose(2, 0, 3, 1, 4)
        theta = case.theta_full if kind == "f" else case.theta_sliding
        cos, sin = rotary_table(theta, case, seq, how)
        q, k = rotate(q, cos, sin, how), rotate(k, cos, sin, how)
        scores = how.matmul(q, k.swapaxes(-1, -2)) / how.dtype(case.head_dim**0.5)
        probs = softmax(scores, mask[:, None, None, :] & (near if kind == "s" else True), how)
        mixed = how.matmul(probs, v).swapaxes(1, 2).reshape(batch, seq, case.hidden)
        x = x + linear(mixed, at + "attn.Wo")
        a, g = np.split(linear(norm(x, at + "mlp_norm"), at + "mlp.Wi"), 2, axis=-1)
        x = x + linear(act(case.activation, a) * g, at + "mlp.Wo")
        states.append(x)
    last = norm(x, "final_norm")
    out = {"hidden": np.stack([*states, last])}
    for kind in kinds:
        hp = case.params(kind, how.dtype)
        hp["decoder.weight"] = hp.get("decoder.weight", hp["embeddings.tok_embeddings.weight"])
        h = last if kind in PER_TOKEN else pooled(case, kind, last, mask, how)
        h = norm(act(case.head_activation, linear(h, "head.dense", hp)), "head.norm", hp)
        y = linear(h, "decoder" if kind == "masked_lm" else "classifier", hp)
        out[kind] = y.reshape(-1, choices(batch)) if kind == "multiple_choice" else y
    return out


PER_TOKEN = ("masked_lm", "token_classification", "question_answering")


def pooled(
    case: Case, kind: str, last: np.ndarray, mask: np.ndarray, how: Arithmetic
) -> np.ndarray:
    if case.pooling == "mean":
        weight = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
        return how.matmul(weight[:, None, :].astype(how.dtype), last)[:, 0]
    column = mask.argmax(axis=1) if kind == "multiple_choice" else np.zeros(len(mask), int)
    return last[np.arange(len(mask)), column]


def softmax(scores: np.ndarray, seen: np.ndarray, how: Arithmetic) -> np.ndarray:
    """Over the seen entries of the last axis; zeros where none is."""
    some = seen.any(axis=-1, keepdims=True)
    top = np.where(seen, scores, -np.inf).max(axis=-1, keepdims=True)
    e = np.where(seen, np.exp(np.minimum(scores - np.where(some, top, 0), 0)), 0)
    return (e / np.where(some, how.sum(e), 1)).astype(how.dtype)


def rotary_table(
    theta: float, case: Case, seq: int, how: Arithmetic
) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin [seq, head_dim / 2]."""
    exponent = np.arange(0, case.head_dim, 2).astype(how.rotary) / how.rotary(case.head_dim)
    freq = 1 / how.rotary(theta) ** exponent
    if how.ulps:
        step = np.random.default_rng(how.seed).integers(-how.ulps, how.ulps + 1, freq.shape)
        freq = freq + step.astype(freq.dtype) * np.spacing(freq)
    angle = np.arange(seq).astype(how.rotary)[:, None] * freq
    return np.cos(angle).astype(how.dtype), np.sin(angle).astype(how.dtype)


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray, how: Arithmetic) -> np.ndarray:
    """Pairs (k, k + head_dim / 2) as complex numbers times cos + i sin."""
    x = x.astype(np.promote_types(how.rotary, np.float32)) if how.rotary != np.float64 else x
    a, b = np.split(x, 2, axis=-1)
    out = np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
    return out.astype(how.dtype, copy=False)
