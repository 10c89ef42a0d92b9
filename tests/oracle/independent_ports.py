"""ModernBERT a third time, in torch, from the spec alone: ports that the ranking is scored on.

    steps(config, params, inputs, head, dtype, wrong) -> {step: float64 array}

Shares no line and no structure with `refimpl`: masks are additive tensors of the whole model,
rotation is a product of complex numbers, attention is one einsum, weights are looked up by layer.
`wrong` maps a knob to a value; each knob is a mistake of public ports, written down here a second
time and with values that the zoo does not have. `PORTS` and `PAIRS` list what is scored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Tensor = torch.Tensor
NEGATIVE = -1e30  # exp of it is zero in float32 and float64 alike


@dataclass(frozen=True)
class Wrong:
    """A mistake: its id in the list (letters name variants), and the knob that makes it."""

    id: str
    knobs: dict[str, Any]

    def __str__(self) -> str:
        return self.id + ":" + ",".join(f"{k}={v}" for k, v in self.knobs.items())


def w(id: str, **knobs: Any) -> Wrong:
    return Wrong(id, knobs)


PORTS: tuple[Wrong, ...] = (
    w("C1", theta_sliding="full"),
    w("C2", layer0_sliding=True),
    w("C2", layer0_theta=True),
    w("C3", pattern_shift=1),
    w("C4", theta_full=20000.0),
    w("C4", theta_full=123456.0),
    w("C4", theta_sliding=14.0),
    w("C4", theta_sliding=500.0),
    w("C6", activation="relu"),
    w("C7", eps=3e-3),
    w("W1", half=10**6),
    w("W3", half_plus=-1),
    w("W3", half_plus=1),
    w("W4", half=5),
    w("W4", half=9),
    w("W4", half=1),
    w("W5", past_only=True),
    w("W6", window_everywhere=True),
    w("W7", no_padding=True),
    w("W8", uniform=True),
    w("W9", true_infinity=True),
    w("R1", interleaved=True),
    w("R2", half_tables=True),
    w("R3", clamp=11),
    w("R3", wrap=16),
    w("R4", ignore_positions=True),
    w("R5", count_real=True),
    w("R8", conjugate=True),
    w("R8", rotate_q_only=True),
    w("R9", swap_thetas=True),
    w("A1", scale_power=-1.0),
    w("A1", scale_power=-0.75),
    w("A2", order="kqv"),
    w("A2", order="vqk"),
    w("A2", heads_first=True),
    w("A3", row0=True),
    w("A4", no_permute=True),
    w("A5", attn_residual_normed=True),
    w("A5", mlp_residual_normed=True),
    w("F1", second_half=True),
    w("F2", gelu="tanh"),
    w("F3", gelu="erf"),
    w("F4", interleaved_glu=True),
    w("F4", both_activated=True),
    w("N1", norm0=True),
    w("N2", skip="attn_norm"),
    w("N2", skip="mlp_norm"),
    w("N3", rms=True),
    w("N4", skip="final_norm"),
    w("N4", skip="embeddings.norm"),
    w("N5", one_pass=True),
    w("H1", pooling="max"),
    w("H2", mean_all=True),
    w("H3", no_head=True),
    w("H3", norm_first=True),
    w("H4", softmax=True),
    w("H6", no_decoder_bias=True),
    w("H6", tied=True),
    w("H8", from_layer=(2, 1)),
    w("H8", transpose="layers.1.attn.Wo.weight"),
    w("T5", keep=40),
    w("X1", bits=11),
    w("X5", weak=-5.0),
)
PAIRS: tuple[tuple[Wrong, Wrong], ...] = (
    (w("C1", theta_sliding="full"), w("W1", half=10**6)),
    (w("F1", second_half=True), w("R1", interleaved=True)),
    (w("F2", gelu="tanh"), w("W4", half=5)),
    (w("C4", theta_full=20000.0), w("N1", norm0=True)),
    (w("A1", scale_power=-1.0), w("R8", rotate_q_only=True)),
    (w("W7", no_padding=True), w("F3", gelu="erf")),
    (w("N3", rms=True), w("W3", half_plus=1)),
    (w("A2", order="kqv"), w("F4", interleaved_glu=True)),
    (w("C7", eps=3e-3), w("W6", window_everywhere=True)),
    (w("C2", layer0_sliding=True), w("F4", both_activated=True)),
    (w("C3", pattern_shift=1), w("A5", mlp_residual_normed=True)),
    (w("R9", swap_thetas=True), w("N2", skip="mlp_norm")),
    (w("W5", past_only=True), w("F2", gelu="tanh")),
    (w("R8", conjugate=True), w("N4", skip="final_norm")),
    (w("A4", no_permute=True), w("C4", theta_sliding=500.0)),
    (w("W1", half=10**6), w("A1", scale_power=-0.75)),
    (w("W3", half_plus=-1), w("W7", no_padding=True)),
    (w("R3", clamp=11), w("F1", second_half=True)),
    (w("H8", from_layer=(2, 1)), w("W4", half=9)),
    (w("N4", skip="embeddings.norm"), w("C1", theta_sliding="full")),
    (w("A2", heads_first=True), w("N2", skip="attn_norm")),
    (w("F3", gelu="erf"), w("C4", theta_full=123456.0)),
)


class Model:
    """One forward pass of one (possibly wrong) port."""

    def __init__(
        self,
        config: dict[str, Any],
        params: dict[str, np.ndarray],
        dtype: torch.dtype,
        wrong: dict[str, Any],
    ) -> None:
        self.c, self.wrong, self.dtype = config, wrong, dtype
        self.weights = {k: torch.tensor(x).to(dtype) for k, x in params.items()}
        self.steps: dict[str, np.ndarray] = {}
        self.heads = config["num_attention_heads"]
        self.width = config["hidden_size"] // self.heads
        n = config["num_hidden_layers"]
        if "layer_types" in config:
            full = [kind == "full_attention" for kind in config["layer_types"]]
            ropes = config["rope_parameters"]
            self.thetas = [ropes[k]["rope_theta"] for k in ("sliding_attention", "full_attention")]
        else:
            full = [i % config["global_attn_every_n_layers"] == 0 for i in range(n)]
            self.thetas = [config["local_rope_theta"], config["global_rope_theta"]]
        shift = wrong.get("pattern_shift", 0)
        if shift:
            period = full.index(True, 1) if True in full[1:] else n
            full = [(i + shift) % period == 0 for i in range(n)]
        if wrong.get("layer0_sliding"):
            full[0] = False
        self.full = full
        self.thetas[1] = wrong.get("theta_full", self.thetas[1])
        sliding = wrong.get("theta_sliding", self.thetas[0])
        self.thetas[0] = self.thetas[1] if sliding == "full" else sliding
        if wrong.get("swap_thetas"):
            self.thetas.reverse()
        self.half = wrong.get("half", config["local_attention"] // 2 + wrong.get("half_plus", 0))

    def keep(self, name: str, x: Tensor) -> Tensor:
        self.steps[name] = x.to(torch.float64).numpy()
        return x

    def matrix(self, name: str) -> Tensor:
        own = self.weights[name]
        i, j = self.wrong.get("from_layer", (-1, -1))
        if name.startswith(f"layers.{i}."):
            own = self.weights[name.replace(f"layers.{i}.", f"layers.{j}.", 1)]
        return own.T if self.wrong.get("transpose") == name else own

    def cut(self, x: Tensor) -> Tensor:
        bits = self.wrong.get("bits")
        if bits is None:
            return x
        mantissa, exponent = torch.frexp(x)
        return torch.ldexp(torch.round(mantissa * 2**bits) / 2**bits, exponent)

    def affine(self, name: str, x: Tensor) -> Tensor:
        y = torch.einsum("...i,oi->...o", self.cut(x), self.cut(self.matrix(name + ".weight")))
        bias = self.weights.get(name + ".bias")
        return y if bias is None else y + bias

    def wide(self, x: Tensor) -> Tensor:
        """float32 for what a careful port does not leave to bfloat16."""
        return x.to(torch.float32) if x.dtype == torch.bfloat16 else x

    def norm(self, name: str, x: Tensor) -> Tensor:
        if name.endswith(self.wrong.get("skip", "-")):
            return x
        eps = self.wrong.get("eps", self.c["norm_eps"])
        v = self.wide(x)
        if self.wrong.get("rms"):
            y = v * torch.rsqrt(v.square().mean(-1, keepdim=True) + eps)
        elif self.wrong.get("one_pass"):
            n = v.shape[-1]
            first, second = v.sum(-1, keepdim=True) / n, (v * v).sum(-1, keepdim=True) / n
            y = (v - first) * torch.rsqrt((second - first * first).clamp(min=0) + eps)
        else:
            y = torch.nn.functional.layer_norm(v, v.shape[-1:], eps=eps)
        y = y * self.wide(self.weights[name + ".weight"])
        bias = self.weights.get(name + ".bias")
        return (y if bias is None else y + self.wide(bias)).to(self.dtype)

    def act(self, x: Tensor, name: str) -> Tensor:
        v = self.wide(x)
        how = self.wrong.get("gelu")
        if name == "silu":
            y = v * torch.sigmoid(v)
        elif name == "relu":
            y = v.clamp(min=0)
        elif how == "tanh":
            y = torch.nn.functional.gelu(v, approximate="tanh")
        else:
            y = v / 2 * (1 + torch.erf(v if how == "erf" else v / math.sqrt(2.0)))
        return y.to(self.dtype)

    # -- positions and masks ----------------------------------------------------------------------

    def rotation(self, positions: Tensor, full: bool) -> Tensor:
        """e^(i angle), complex [batch, seq, 1, head_dim / 2]."""
        if "clamp" in self.wrong and not full:
            positions = positions.clamp(max=self.wrong["clamp"] - 1)
        if "wrap" in self.wrong and not full:
            positions = positions % self.wrong["wrap"]
        kind = torch.float64 if self.dtype == torch.float64 else torch.float32
        steps = torch.arange(0, self.width, 2, dtype=kind) / self.width
        speed = torch.exp(-math.log(self.thetas[int(full)]) * steps.to(torch.float64)).to(kind)
        angle = positions.to(kind)[..., None] * speed
        cos, sin = angle.cos(), angle.sin()
        if self.wrong.get("half_tables"):
            cos, sin = cos.half().to(kind), sin.half().to(kind)
        turn = torch.complex(cos, -sin if self.wrong.get("conjugate") else sin)
        return turn[..., None, :]

    def turned(self, x: Tensor, turn: Tensor) -> Tensor:
        v = self.wide(x)
        if self.wrong.get("interleaved"):
            z = torch.complex(v[..., 0::2].contiguous(), v[..., 1::2].contiguous()) * turn
            return torch.stack([z.real, z.imag], -1).flatten(-2).to(self.dtype)
        a, b = v.chunk(2, -1)
        z = torch.complex(a.contiguous(), b.contiguous()) * turn
        return torch.cat([z.real, z.imag], -1).to(self.dtype)

    def added(self, real: Tensor, full: bool, kind: torch.dtype) -> Tensor:
        """What is added to the scores, [batch, 1, seq, seq]."""
        batch, seq = real.shape
        nothing = float("-inf") if self.wrong.get("true_infinity") else NEGATIVE
        out = torch.zeros(batch, 1, seq, seq, dtype=kind)
        if self.wrong.get("uniform"):
            return out
        if not self.wrong.get("no_padding"):
            weak = self.wrong.get("weak", nothing)
            out = out.masked_fill(~real[:, None, None, :], weak)
        if not full or self.wrong.get("window_everywhere"):
            apart = torch.arange(seq)[None, :] - torch.arange(seq)[:, None]
            far = apart.abs() > self.half
            if self.wrong.get("past_only"):
                far = far | (apart > 0)
            out = out.masked_fill(far, nothing)
        return out

    # -- the pass ---------------------------------------------------------------------------------

    def forward(self, inputs: dict[str, np.ndarray], head: str | None) -> dict[str, np.ndarray]:
        ids = torch.tensor(np.array(inputs["input_ids"]))
        mask = inputs.get("attention_mask")
        real = torch.ones(ids.shape, dtype=torch.bool) if mask is None else torch.tensor(mask != 0)
        given = real
        if "keep" in self.wrong:
            real = real & (torch.arange(ids.shape[1]) < self.wrong["keep"])
        positions = torch.arange(ids.shape[1]).expand(ids.shape)
        if self.wrong.get("count_real"):
            positions = (real.cumsum(1) - 1).clamp(min=0)
        if "position_ids" in inputs and not self.wrong.get("ignore_positions"):
            positions = torch.tensor(np.array(inputs["position_ids"]))
        x = self.norm("embeddings.norm", self.weights["embeddings.tok_embeddings.weight"][ids])
        self.keep("embedding", x)
        for i in range(self.c["num_hidden_layers"]):
            x = self.block(i, x, real, positions)
        x = self.keep("final_norm", self.norm("final_norm", x))
        if head is not None:
            self.head(head, x, given)
        return self.steps

    def block(self, i: int, x: Tensor, real: Tensor, positions: Tensor) -> Tensor:
        at, full = f"layers.{i}.", self.full[i]
        batch, seq, hidden = x.shape
        y = x if i == 0 else self.norm(at + "attn_norm", x)
        if i == 0 and self.wrong.get("norm0"):
            y = torch.nn.functional.layer_norm(self.wide(x), (hidden,), eps=self.c["norm_eps"])
            y = y.to(self.dtype)
        self.keep(at + "attn_norm", y)
        third = self.affine(at + "attn.Wqkv", y)
        if self.wrong.get("heads_first"):
            parts = list(third.unflatten(-1, (self.heads, 3, self.width)).unbind(-2))
        else:
            parts = [p.unflatten(-1, (self.heads, self.width)) for p in third.chunk(3, -1)]
        order = self.wrong.get("order", "qkv")
        q, k, v = (parts[order.index(name)] for name in "qkv")
        for name, part in zip("qkv", (q, k, v), strict=True):
            self.keep(at + name, part)
        local = self.wrong.get("layer0_theta") and i == 0
        turn = self.rotation(positions, full and not local)
        q = self.keep(at + "q_rot", self.turned(q, turn))
        k = self.keep(at + "k_rot", k if self.wrong.get("rotate_q_only") else self.turned(k, turn))
        scores = torch.einsum("bihd,bjhd->bhij", self.cut(q), self.cut(k))
        scores = self.wide(scores) * self.width ** self.wrong.get("scale_power", -0.5)
        if self.wrong.get("uniform"):
            scores = scores * 0
        weights = torch.softmax(scores + self.added(real, full, scores.dtype), -1).to(self.dtype)
        mixed = torch.einsum("bhij,bjhd->bhid", self.cut(weights), self.cut(v))
        if self.wrong.get("row0"):
            mixed = mixed[:1].expand_as(mixed)
        mixed = mixed if self.wrong.get("no_permute") else mixed.permute(0, 2, 1, 3)
        joined = self.keep(at + "attention", mixed.reshape(batch, seq, hidden))
        out = self.keep(at + "attn_out", self.affine(at + "attn.Wo", joined))
        x = self.keep(at + "residual_1", (y if self.wrong.get("attn_residual_normed") else x) + out)
        y = self.keep(at + "mlp_norm", self.norm(at + "mlp_norm", x))
        u = self.keep(at + "wi", self.affine(at + "mlp.Wi", y))
        a, g = u.chunk(2, -1)
        if self.wrong.get("interleaved_glu"):
            a, g = u[..., 0::2], u[..., 1::2]
        if self.wrong.get("second_half"):
            a, g = g, a
        name = self.wrong.get("activation", self.c["hidden_activation"])
        g = self.act(g, name) if self.wrong.get("both_activated") else g
        u = self.keep(at + "glu", self.act(a, name) * g)
        out = self.keep(at + "mlp_out", self.affine(at + "mlp.Wo", u))
        return self.keep(
            at + "residual_2", (y if self.wrong.get("mlp_residual_normed") else x) + out
        )

    def head(self, head: str, x: Tensor, real: Tensor) -> None:
        if head == "sequence_classification":
            x = self.keep("pooled", self.pooled(x, real))
        if not self.wrong.get("no_head"):
            y = self.keep("head.dense", self.affine("head.dense", x))
            name = self.c["classifier_activation"]
            if self.wrong.get("norm_first"):
                x = self.keep("head.norm", self.act(self.norm("head.norm", y), name))
            else:
                y = self.keep("head.act", self.act(y, name))
                x = self.keep("head.norm", self.norm("head.norm", y))
        if head == "masked_lm":
            table = self.weights["embeddings.tok_embeddings.weight"]
            decoder = table if self.wrong.get("tied") else self.weights.get("decoder.weight", table)
            logits = torch.einsum("...i,oi->...o", self.cut(x), self.cut(decoder))
            if "decoder.bias" in self.weights and not self.wrong.get("no_decoder_bias"):
                logits = logits + self.weights["decoder.bias"]
        else:
            logits = self.affine("classifier", x)
        if head == "question_answering":
            self.keep("start_logits", logits[..., 0])
            self.keep("end_logits", logits[..., 1])
        else:
            self.keep("logits", logits.softmax(-1) if self.wrong.get("softmax") else logits)

    def pooled(self, x: Tensor, real: Tensor) -> Tensor:
        how = self.wrong.get("pooling", self.c["classifier_pooling"])
        if how == "cls":
            return x[:, 0]
        if how == "max":
            return x.masked_fill(~real[..., None], float("-inf")).amax(1)
        weight = (real | bool(self.wrong.get("mean_all"))).to(torch.float32)
        share = weight / weight.sum(1, keepdim=True)
        return torch.einsum("bs,bsd->bd", share, self.wide(x)).to(self.dtype)


def steps(
    config: dict[str, Any],
    params: dict[str, np.ndarray],
    inputs: dict[str, np.ndarray],
    head: str | None,
    dtype: torch.dtype,
    wrong: dict[str, Any],
) -> dict[str, np.ndarray]:
    """Every step that the port has. Padded input only: no cu_seqlens."""
    with torch.no_grad():
        return Model(config, params, dtype, wrong).forward(inputs, head)
