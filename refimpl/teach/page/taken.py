"""The tap of a page: keeps the steps of the chosen tokens, and maps, while the model runs.

    taken = Taken(config, seq, chosen, look);  model(ids, tap=taken);  taken.arrays

`arrays` holds every step of MODEL.md under its name for the rows of `chosen`, [rows, ..], and
beside it what an equation needs whose result is a step: `..mean` and `..variance` of what a norm is
given, scores (26), the sums of (27), the rotary angles. Nothing else of the pass is held on to, so
a long text costs its chosen rows. Numbers are those of the model's dtype, by reference/ops.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...reference import ops
from ...reference.config import FULL, SLIDING, ModernBertConfig
from ...reference.numerics import underflow_is_zero
from .chosen import Chosen

Array = np.ndarray

# An overview has at most so many blocks to a side; queries computed at a time for it.
OVERVIEW, QUERIES = 64, 128


class Taken:
    """A tap; see above. look: called with the residual stream [seq, hidden] after the embedding and
    after each layer."""

    def __init__(
        self, config: ModernBertConfig, seq: int, chosen: Chosen, look: Callable[[Array], None]
    ) -> None:
        self.config, self.seq, self.chosen, self._look = config, seq, chosen, look
        self.rows = np.array(chosen.rows)
        self.arrays: dict[str, Array] = {}
        # Of every token: how long the residual stream is, and what is added to it.
        self._lengths: dict[str, list[Array]] = {"residual": [], "attn_out": [], "mlp_out": []}
        self._residual = self._queries = np.empty(0)

    def __call__(self, name: str, value: Array) -> Array:
        """Keep what the page needs of a step. value [1, seq, ..]."""
        x, step = value[0], name.rpartition(".")[2]
        if name.startswith("rope."):
            self.arrays[name] = x[self.rows, : self.config.head_dim // 2]
            return value
        self.arrays[name] = x[self.rows]
        if step in ("attn_norm", "mlp_norm", "final_norm") and name != "layers.0.attn_norm":
            self.moments(name, self._residual[self.rows])
        if step == "q_rot":
            self._queries = x
        elif step == "k_rot":
            self.maps(int(name.split(".")[1]), self._queries, x)
        elif step in ("attn_out", "mlp_out"):
            self._lengths[step].append(length(x))
        elif step in ("embedding", "residual_1", "residual_2"):
            self._residual = x
            if step != "residual_1":
                self._lengths["residual"].append(length(x))
                self._look(x)
        if name == "final_norm":
            for what, rows in self._lengths.items():
                self.arrays[f"lengths.{what}"] = np.array(rows)
        return value

    def moments(self, name: str, x: Array) -> None:
        """Mean and biased variance of each row of a norm's input, as (19) has them."""
        mean = x.mean(axis=-1, keepdims=True)
        self.arrays[f"{name}.mean"] = mean[:, 0]
        self.arrays[f"{name}.variance"] = ((x - mean) ** 2).mean(axis=-1)

    @underflow_is_zero
    def maps(self, layer: int, queries: Array, keys: Array) -> None:
        """Scores and sums of the rows, and probs of every token or of the rows.

        queries, keys: q_rot and k_rot [seq, heads, head_dim].
        """
        config, window, at = self.config, self.config.window(layer), f"layers.{layer}."
        q, k = (np.ascontiguousarray(x.swapaxes(0, 1))[None] for x in (queries, keys))
        axis = np.arange(self.seq)
        seen = ops.visible(self.rows, axis, window)
        scores = (q[0, :, self.rows].swapaxes(0, 1) @ k[0].swapaxes(-1, -2)) * config.head_dim**-0.5
        highest = np.where(seen, scores, -np.inf).max(axis=-1, keepdims=True)
        sums = np.where(seen, np.exp(np.where(seen, scores - highest, -np.inf)), 0.0).sum(axis=-1)
        self.arrays[at + "scores"] = banded(np.where(seen, scores, 0.0), self.rows, window)
        self.arrays[at + "sums"] = sums
        if self.chosen.whole:
            mask = ops.visible(axis, axis, window)[None, None]
            self.arrays[at + "probs"] = banded(ops.attention_probs(q, k, mask)[0], axis, window)
            return
        probs = ops.attention_probs(q[:, :, self.rows], k, seen[None, None])[0]
        self.arrays[at + "probs"] = banded(probs, self.rows, window)
        self.arrays[at + "overview"] = overview(q, k, window)


def length(x: Array) -> Array:
    """The Euclidean length of each token's vector. x [seq, hidden] -> [seq]."""
    found: Array = np.sqrt((x * x).sum(axis=-1))
    return found


def span(seq: int, window: int | None) -> int:
    """Keys that a row of a map has room for: a window's where it is smaller than the text."""
    return seq if window is None else min(2 * window + 1, seq)


def banded(maps: Array, rows: Array, window: int | None) -> Array:
    """[heads, rows, seq] -> [heads, rows, span]: of row i the keys from i - window on, 0 where the
    text has none; unchanged where the window is no smaller than the text."""
    seq = maps.shape[-1]
    if span(seq, window) == seq or window is None:
        return maps
    keys = rows[:, None] + np.arange(-window, window + 1)
    there = (keys >= 0) & (keys < seq)
    taken = np.take_along_axis(maps, np.clip(keys, 0, seq - 1)[None], axis=-1)
    return np.where(there, taken, 0.0)


def overview(q: Array, k: Array, window: int | None) -> Array:
    """The largest prob of each block of a map. q, k [1, heads, seq, head_dim] -> [heads, blocks,
    blocks], a block so many tokens to a side that there are at most OVERVIEW of them."""
    seq = q.shape[2]
    size = -(-seq // OVERVIEW)
    starts, axis = np.arange(0, seq, size), np.arange(seq)
    out = np.zeros((q.shape[1], len(starts), len(starts)), q.dtype)
    for first in range(0, seq, QUERIES):
        some = axis[first : first + QUERIES]
        mask = ops.visible(some, axis, window)[None, None]
        probs = ops.attention_probs(q[:, :, some], k, mask)[0]
        wide = np.maximum.reduceat(probs, starts, axis=-1)
        for place, row in zip(some // size, wide.swapaxes(0, 1), strict=True):
            out[:, place] = np.maximum(out[:, place], row)
    return out


def rotary(config: ModernBertConfig, rows: Array) -> dict[str, Array]:
    """(22) and the angles of (23) for both kinds of layer. -> `rope.{kind}.inv_freq` [head_dim/2],
    `rope.{kind}.angle` [rows, head_dim/2], float64."""
    out = {}
    for kind, theta in (FULL, config.global_rope_theta), (SLIDING, config.local_rope_theta):
        at = f"rope.{kind.removesuffix('_attention')}."
        exponents = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
        out[at + "inv_freq"] = theta**-exponents
        out[at + "angle"] = rows[:, None] * out[at + "inv_freq"]
    return out
