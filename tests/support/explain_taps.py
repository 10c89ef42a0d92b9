"""What each array of a page of `modernbert explain` must hold, from a run of the model of its own:
`refimpl.record`, `output_attentions`, and the equations of MODEL.md written down again."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

import refimpl
from refimpl.reference.heads import HEADS

Array = np.ndarray
NORMS = {"embedding": "embeddings.norm"}
LINEAR = {"q": "attn.Wqkv", "k": "attn.Wqkv", "v": "attn.Wqkv", "attn_out": "attn.Wo",
          "wi": "mlp.Wi", "mlp_out": "mlp.Wo"}  # fmt: skip


class Taps:
    """`taps(name)` is what the page's array of that name must be, before it is rounded."""

    def __init__(self, folder: Any, about: dict) -> None:
        self.model = refimpl.load(folder, backend="numpy", dtype="float64")
        self.config, self.about = self.model.config, about
        self.rows, self.seq = np.array(about["rows"]), len(about["ids"])
        self.steps: dict[str, Array] = {}
        ids = [about["ids"]]
        encoder = getattr(self.model, "encoder", self.model)
        out = encoder(ids, tap=refimpl.record(self.steps), output_attentions=True)
        self.maps = out["attentions"]
        if about["answers"]["kind"]:  # the head's steps, and the answer at the end
            self.logits = self.model(ids, tap=refimpl.record(self.steps))["logits"]

    def __call__(self, name: str) -> Array:
        layer, step = self.parts(name)
        if name in self.steps:
            x = self.steps[name]
            if name.startswith("head.") and self.about["answers"]["of_the_text"]:
                return x
            if name.startswith("rope."):
                return x[0, self.rows, : x.shape[-1] // 2]
            return x[0, self.rows]
        if name.startswith("answers."):
            return self.answers(name.removeprefix("answers."))
        if name.startswith("lengths."):
            return self.lengths(name.removeprefix("lengths."))
        if name.startswith("rope."):
            return self.rotary(*name.split(".")[1:])
        if name == "E":
            return self.embedded()
        if name == "activation":
            x = np.linspace(-4, 4, 81)
            gelu = np.array([v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in x])
            return {"gelu": gelu, "silu": x / (1 + np.exp(-x))}[self.config.hidden_activation]
        if step in ("probs", "overview", "scores", "sums"):
            return getattr(self, step)(layer)
        what, part = name.rsplit(".", 1)
        if part in ("mean", "variance"):
            x = self.normed(what)
            return x.mean(-1) if part == "mean" else x.var(-1)
        return self.parameter(what, part)

    @staticmethod
    def parts(name: str) -> tuple[int | None, str]:
        first, _, rest = name.partition(".")
        return (int(rest.split(".")[0]), rest.split(".", 1)[1]) if first == "layers" else (None, "")

    def embedded(self) -> Array:
        x = self.model.params["embeddings.tok_embeddings.weight"][np.array(self.about["ids"])]
        if self.config.type_vocab_size:
            x = x + self.model.params["embeddings.token_type_embeddings.weight"][0]
        return x[self.rows]

    def normed(self, tap: str) -> Array:
        """What a norm is given."""
        last = self.config.num_hidden_layers - 1
        if tap == "embedding":
            return self.embedded()
        if tap == "head.norm":
            x = self.steps["head.act"]
            return x if self.about["answers"]["of_the_text"] else x[0, self.rows]
        if tap == "final_norm":
            return self.steps[f"layers.{last}.residual_2"][0, self.rows]
        layer, step = self.parts(tap)
        source = f"layers.{layer}.residual_1"
        if step == "attn_norm":
            source = f"layers.{layer - 1}.residual_2"
        return self.steps[source][0, self.rows]

    def parameter(self, what: str, part: str) -> Array:
        layer, step = self.parts(what)
        if step not in LINEAR:
            return self.model.params[f"{NORMS.get(what, what)}.{part}"]
        whole = self.model.params[f"layers.{layer}.{LINEAR[step]}.{part}"]
        columns, width = np.array(self.about["columns"]), len(whole)
        if step == "wi":
            columns = columns[columns < width // 2]
            return np.stack([whole[columns], whole[columns + width // 2]])
        return whole[columns + {"q": 0, "k": width // 3, "v": 2 * (width // 3)}.get(step, 0)]

    def banded(self, full: Array, rows: Array, layer: int) -> Array:
        window = self.config.window(layer)
        if window is None or 2 * window + 1 >= self.seq:
            return full
        out = np.zeros((full.shape[0], len(rows), 2 * window + 1))
        for a, i in enumerate(rows):
            for j in range(max(0, i - window), min(self.seq, i + window + 1)):
                out[:, a, j - i + window] = full[:, a, j]
        return out

    def probs(self, layer: int) -> Array:
        rows = np.arange(self.seq) if self.about["whole"] else self.rows
        return self.banded(self.maps[layer][0][:, rows], rows, layer)

    def overview(self, layer: int) -> Array:
        size = -(-self.seq // 64)
        n = -(-self.seq // size)
        padded = np.zeros((self.config.num_attention_heads, n * size, n * size))
        padded[:, : self.seq, : self.seq] = self.maps[layer][0]
        return padded.reshape(-1, n, size, n, size).max((2, 4))

    def seen_scores(self, layer: int) -> Array:
        """[heads, rows, seq], -inf where a key is not seen."""
        q, k = (self.steps[f"layers.{layer}.{x}_rot"][0] for x in "qk")
        scores = np.einsum("ihd,jhd->hij", q[self.rows], k) / math.sqrt(self.config.head_dim)
        window = self.config.window(layer)
        far = np.abs(self.rows[:, None] - np.arange(self.seq)) > (
            self.seq if window is None else window
        )
        return np.where(far, -np.inf, scores)

    def scores(self, layer: int) -> Array:
        scores = self.seen_scores(layer)
        return self.banded(np.where(np.isinf(scores), 0.0, scores), self.rows, layer)

    def sums(self, layer: int) -> Array:
        scores = self.seen_scores(layer)
        return np.exp(scores - scores.max(-1, keepdims=True)).sum(-1)

    def rotary(self, kind: str, what: str) -> Array:
        theta = self.config.global_rope_theta if kind == "full" else self.config.local_rope_theta
        half = self.config.head_dim // 2
        inv_freq = np.array([theta ** (-2 * k / self.config.head_dim) for k in range(half)])
        return inv_freq if what == "inv_freq" else np.outer(self.rows, inv_freq)

    def lengths(self, what: str) -> Array:
        every = range(self.config.num_hidden_layers)
        if what == "residual":
            names = ["embedding", *(f"layers.{i}.residual_2" for i in every)]
        else:
            names = [f"layers.{i}.{what}" for i in every]
        return np.array([np.linalg.norm(self.steps[name][0], axis=-1) for name in names])

    @cached_property
    def asked(self) -> list[Array]:
        """Logits of the head, asked at each layer by putting that layer's result in the place of
        the last one's; so after the last one it is the model's own answer."""
        last = f"layers.{self.config.num_hidden_layers - 1}.residual_2"
        every = range(self.config.num_hidden_layers)
        out = []
        for name in ["embedding", *(f"layers.{i}.residual_2" for i in every)]:
            there = self.steps[name]

            def tap(step: str, value: Array, there: Array = there) -> Array:
                return there if step == last else value

            logits = self.model([self.about["ids"]], tap=tap)["logits"]
            out.append(logits if self.about["answers"]["of_the_text"] else logits[0][self.rows])
        return out

    def answers(self, what: str) -> Array:
        if what in ("weight", "bias"):
            return self.last_matrix(what)[self.asked[-1].argmax(-1)]
        out = []
        for logits in self.asked:
            best = np.argsort(-logits, axis=-1, kind="stable")[:, :5]
            e = np.exp(logits - logits.max(-1, keepdims=True))
            probs = e / e.sum(-1, keepdims=True)
            if what == "sums":
                out.append(e.sum(-1))
                continue
            found = {"ids": None, "logits": logits, "probs": probs}[what]
            out.append(best if found is None else np.take_along_axis(found, best, -1))
        return np.array(out)

    def last_matrix(self, part: str) -> Array:
        name = "decoder" if self.about["answers"]["kind"] == "masked_lm" else "classifier"
        if f"{name}.{part}" in self.model.params:
            return self.model.params[f"{name}.{part}"]
        return self.model.params["embeddings.tok_embeddings.weight"]


def expected_names(about: dict, config: Any, steps: set[str], params: set[str]) -> set[str]:
    """Every array that a page must hold: all steps, and what its equations need beside them."""
    every = range(config.num_hidden_layers)
    names = {name for name in steps if name.split(".")[-1] != "logits" and name != "pooled"}
    norms = [name for name in names if name == "embedding" or name.endswith("norm")]
    norms.remove("layers.0.attn_norm")
    for norm in norms:
        names |= {f"{norm}.mean", f"{norm}.variance", f"{norm}.weight"}
        if f"{NORMS.get(norm, norm)}.bias" in params:
            names.add(f"{norm}.bias")
    for i in every:
        names |= {f"layers.{i}.{x}" for x in ("scores", "probs", "sums")}
        names |= set() if about["whole"] else {f"layers.{i}.overview"}
        for step, matrix in LINEAR.items():
            names.add(f"layers.{i}.{step}.weight")
            if f"layers.{i}.{matrix}.bias" in params:
                names.add(f"layers.{i}.{step}.bias")
    names |= {f"rope.{kind}.{x}" for kind in ("full", "sliding") for x in ("inv_freq", "angle")}
    names |= {f"lengths.{x}" for x in ("residual", "attn_out", "mlp_out")} | {"E", "activation"}
    if about["answers"]["kind"] in HEADS:
        names |= {f"answers.{x}" for x in ("ids", "probs", "logits", "sums", "weight")}
        names |= {"answers.bias"} if {"decoder.bias", "classifier.bias"} & params else set()
    return names
