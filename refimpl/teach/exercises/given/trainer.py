"""A training step of ModernBERT in one file of numpy: both passes, the loss, two optimisers.

    python trainer.py CASE OUT      reads a training case of the kit, writes its values to OUT

Numbers in brackets are the equations of MODEL.md; a primed one is the way back through it. `dx` is
the gradient of the loss by x, of x's shape. Arrays are [batch, seq, ..]; packed input is a batch of
one row. Masked-LM, token and text classification; other tasks are refused. Long because both passes
stand here, side by side.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

TABLE = "embeddings.tok_embeddings.weight"
IGNORED = -100

# -- equations, there and back --------------------------------------------------------------------


def over_tokens(x):
    """The sum over all axes but the last."""
    return x.reshape(-1, x.shape[-1]).sum(axis=0, dtype=np.float64).astype(x.dtype)


def linear(x, weight, bias):
    """(18)."""
    y = x @ weight.T
    return y if bias is None else y + bias


def linear_back(dy, x, weight):
    """(18'): dx, dW, db."""
    flat_dy, flat_x = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
    return dy @ weight, flat_dy.T @ flat_x, over_tokens(dy)


def layer_norm(x, weight, bias, eps):
    """(19)."""
    centred = x - x.mean(-1, keepdims=True)
    s = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(eps))
    y = centred / s * weight
    return y if bias is None else y + bias


def layer_norm_back(dy, x, weight, eps):
    """(19'): dx, dweight, dbias."""
    centred = x - x.mean(-1, keepdims=True)
    s = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(eps))
    n, g = centred / s, dy * weight
    dx = (g - g.mean(-1, keepdims=True) - n * (g * n).mean(-1, keepdims=True)) / s
    return dx, over_tokens(dy * n), over_tokens(dy)


erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x):
    """(20)."""
    return (x * 0.5 * (1.0 + erf(x / math.sqrt(2.0)))).astype(np.float32)


def gelu_slope(x):
    """The derivative of (20): Phi(x) + x phi(x)."""
    big_phi = 0.5 * (1.0 + erf(x / math.sqrt(2.0)))
    phi = np.exp(-0.5 * x.astype(np.float64) ** 2) / math.sqrt(2.0 * math.pi)
    return (big_phi + x * phi).astype(np.float32)


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, np.float32(1), e) / (np.float32(1) + e)


def silu(x):
    """x sigmoid(x)."""
    return x * sigmoid(x)


def silu_slope(x):
    """The derivative of silu."""
    s = sigmoid(x)
    return s + x * s * sigmoid(-x)


ACTIVATIONS = {"gelu": (gelu, gelu_slope), "silu": (silu, silu_slope)}


def glu(u, act):
    """(21). act: a function and its slope."""
    a, g = np.split(u, 2, axis=-1)
    return act[0](a) * g


def glu_back(dy, u, act):
    """(21')."""
    a, g = np.split(u, 2, axis=-1)
    da = dy * g * act[1](a)
    dg = dy * act[0](a)
    return np.concatenate([da, dg], axis=-1)


def rope_table(positions, head_dim, theta):
    """(22), (23)."""
    inv_freq = float(theta) ** (-np.arange(0, head_dim, 2) / head_dim)
    angle = positions[..., None] * inv_freq
    angle = np.concatenate([angle, angle], axis=-1)[:, :, None]
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rotate_half(x):
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([-second, first], axis=-1)


def rope(x, cos, sin):
    """(24)."""
    return x * cos + rotate_half(x) * sin


def rope_back(dy, cos, sin):
    """(24')."""
    return dy * cos - rotate_half(dy * sin)


def visible(mask, sequence, window):
    """(25). bool [batch, 1, query, key]."""
    place = np.arange(mask.shape[1])
    ahead = place[None, :] - place[:, None]
    near = True if window is None else np.abs(ahead) <= window
    same = sequence[:, :, None] == sequence[:, None, :]
    return (near & same & mask[:, None, :])[:, None]


def attention_probs(q, k, seen):
    """(26), (27). q, k [batch, heads, seq, head_dim]."""
    scores = q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(q.shape[-1]))
    scores = np.where(seen, scores, np.float32(-np.inf))
    top = scores.max(-1, keepdims=True)
    e = np.exp(scores - np.where(np.isfinite(top), top, np.float32(0)))
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, np.float32(1), total)


def attention(q, k, v, seen):
    """(28). q, k, v [batch, seq, heads, head_dim] -> [batch, seq, hidden]."""
    q, k, v = q.swapaxes(1, 2), k.swapaxes(1, 2), v.swapaxes(1, 2)
    out = (attention_probs(q, k, seen) @ v).swapaxes(1, 2)
    return out.reshape(*out.shape[:2], -1)


def attention_back(dy, q, k, v, seen):
    """(28'), (27'), (26'): dq, dk, dv."""
    dy = dy.reshape(q.shape).swapaxes(1, 2)
    q, k, v = q.swapaxes(1, 2), k.swapaxes(1, 2), v.swapaxes(1, 2)
    probs = attention_probs(q, k, seen)
    dv = probs.swapaxes(-1, -2) @ dy
    dprobs = dy @ v.swapaxes(-1, -2)
    dscores = probs * (dprobs - (dprobs * probs).sum(-1, keepdims=True))
    scale = np.float32(1.0 / math.sqrt(q.shape[-1]))
    dq = dscores @ k * scale
    dk = dscores.swapaxes(-1, -2) @ q * scale
    return dq.swapaxes(1, 2), dk.swapaxes(1, 2), dv.swapaxes(1, 2)


# -- the forward pass: every step is kept ---------------------------------------------------------


def plan(config):
    """(2) to (4): kind, window and theta of each layer."""
    every, half = config["global_attn_every_n_layers"], config["local_attention"] // 2
    full = ("full", None, config["global_rope_theta"])
    sliding = ("sliding", half, config["local_rope_theta"])
    return [full if i % every == 0 else sliding for i in range(config["num_hidden_layers"])]


def project(w, name, x):
    return linear(x, w[name + ".weight"], w.get(name + ".bias"))


def norm(w, name, x, eps):
    return layer_norm(x, w[name + ".weight"], w.get(name + ".bias"), eps)


def forward(w, config, batch):
    """(5) to (17), then (29) and the classifier: every step by its name."""
    eps, heads = config["norm_eps"], config["num_attention_heads"]
    act = ACTIVATIONS[config["hidden_activation"]]
    s = {}
    h = s["embedding"] = norm(w, "embeddings.norm", w[TABLE][batch["ids"]], eps)
    for i, (_, window, theta) in enumerate(plan(config)):
        at = f"layers.{i}."
        x = s[at + "attn_norm"] = h if i == 0 else norm(w, at + "attn_norm", h, eps)
        qkv = project(w, at + "attn.Wqkv", x).reshape(*h.shape[:2], 3, heads, -1)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        table = rope_table(batch["positions"], q.shape[-1], theta)
        seen = visible(batch["mask"], batch["sequence"], window)
        s[at + "q"], s[at + "k"], s[at + "v"] = q, k, v
        q, k = s[at + "q_rot"], s[at + "k_rot"] = rope(q, *table), rope(k, *table)
        a = s[at + "attention"] = attention(q, k, v, seen)
        a = s[at + "attn_out"] = project(w, at + "attn.Wo", a)
        h = s[at + "residual_1"] = h + a
        x = s[at + "mlp_norm"] = norm(w, at + "mlp_norm", h, eps)
        u = s[at + "wi"] = project(w, at + "mlp.Wi", x)
        m = s[at + "glu"] = glu(u, act)
        m = s[at + "mlp_out"] = project(w, at + "mlp.Wo", m)
        h = s[at + "residual_2"] = h + m
    h = s["final_norm"] = norm(w, "final_norm", h, eps)

    if "pooled" in batch["steps"]:
        real = batch["mask"].astype(np.float32)[:, :, None]
        h = s["pooled"] = (h * real).sum(axis=1) / real.sum(axis=1)
    x = s["head.dense"] = project(w, "head.dense", h)
    x = s["head.act"] = ACTIVATIONS[config["classifier_activation"]][0](x)
    x = s["head.norm"] = norm(w, "head.norm", x, eps)
    last = "decoder" if batch["head"] == "masked_lm" else "classifier"
    weight = w[TABLE] if last + ".weight" not in w else w[last + ".weight"]
    s["logits"] = linear(x, weight, w.get(last + ".bias"))
    return s


# -- the backward pass: the last row first --------------------------------------------------------


def backward(w, config, batch, s, d_logits):
    """From the gradient of the logits to that of every tensor, and of every step."""
    eps = config["norm_eps"]
    grads = {name: np.zeros_like(x) for name, x in w.items()}
    d = {"logits": d_logits}

    def linear_into(name, dy, x, weight=None):
        dx, dw, db = linear_back(dy, x, w[name + ".weight"] if weight is None else w[weight])
        grads[weight or name + ".weight"] += dw
        if name + ".bias" in grads:
            grads[name + ".bias"] += db
        return dx

    def norm_into(name, dy, x):
        dx, dweight, dbias = layer_norm_back(dy, x, w[name + ".weight"], eps)
        grads[name + ".weight"] += dweight
        if name + ".bias" in grads:
            grads[name + ".bias"] += dbias
        return dx

    last = "decoder" if batch["head"] == "masked_lm" else "classifier"
    tied = TABLE if last + ".weight" not in w else None
    dx = d["head.norm"] = linear_into(last, d_logits, s["head.norm"], tied)
    dx = d["head.act"] = norm_into("head.norm", dx, s["head.act"])
    dx = d["head.dense"] = dx * ACTIVATIONS[config["classifier_activation"]][1](s["head.dense"])
    if "pooled" in s:
        dx = d["pooled"] = linear_into("head.dense", dx, s["pooled"])
        real = batch["mask"].astype(np.float32)[:, :, None]
        dx = d["final_norm"] = dx[:, None] * real / real.sum(axis=1, keepdims=True)
    else:
        dx = d["final_norm"] = linear_into("head.dense", dx, s["final_norm"])

    layers = plan(config)
    dh = norm_into("final_norm", dx, s[f"layers.{len(layers) - 1}.residual_2"])
    for i in reversed(range(len(layers))):
        at, (_, window, theta) = f"layers.{i}.", layers[i]
        d[at + "residual_2"] = d[at + "mlp_out"] = dh
        dx = d[at + "glu"] = linear_into(at + "mlp.Wo", dh, s[at + "glu"])
        dx = d[at + "wi"] = glu_back(dx, s[at + "wi"], ACTIVATIONS[config["hidden_activation"]])
        dx = d[at + "mlp_norm"] = linear_into(at + "mlp.Wi", dx, s[at + "mlp_norm"])
        dh = dh + norm_into(at + "mlp_norm", dx, s[at + "residual_1"])

        d[at + "residual_1"] = d[at + "attn_out"] = dh
        dx = d[at + "attention"] = linear_into(at + "attn.Wo", dh, s[at + "attention"])
        q, k, v = s[at + "q_rot"], s[at + "k_rot"], s[at + "v"]
        table = rope_table(batch["positions"], q.shape[-1], theta)
        seen = visible(batch["mask"], batch["sequence"], window)
        dq, dk, dv = attention_back(dx, q, k, v, seen)
        d[at + "q_rot"], d[at + "k_rot"], d[at + "v"] = dq, dk, dv
        dq, dk = d[at + "q"], d[at + "k"] = rope_back(dq, *table), rope_back(dk, *table)
        dqkv = np.stack([dq, dk, dv], axis=2).reshape(*dh.shape[:2], -1)
        dx = d[at + "attn_norm"] = linear_into(at + "attn.Wqkv", dqkv, s[at + "attn_norm"])
        before = f"layers.{i - 1}.residual_2" if i else "embedding"
        dh = dh + (norm_into(at + "attn_norm", dx, s[before]) if i else dx)

    d["embedding"] = dh
    rows = norm_into("embeddings.norm", dh, w[TABLE][batch["ids"]])
    np.add.at(grads[TABLE], batch["ids"].reshape(-1), rows.reshape(-1, rows.shape[-1]))
    return grads, d


# -- loss and optimisers --------------------------------------------------------------------------


def cross_entropy(logits, labels):
    """(48): its sum, how many labels count, and the gradient of the sum."""
    x, y = logits.reshape(-1, logits.shape[-1]).astype(np.float64), labels.reshape(-1)
    counted = np.flatnonzero(y != IGNORED)
    x = x - x.max(axis=-1, keepdims=True)
    log_probs = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    total = -log_probs[counted, y[counted]].sum()
    d = np.exp(log_probs)
    d[counted, y[counted]] -= 1.0
    d[y == IGNORED] = 0.0
    return total, len(counted), d.reshape(logits.shape).astype(np.float32)


def adamw(p, g, m, v, t, lr, rule, decay):
    """(53). p, m and v change in place."""
    b1, b2 = rule["betas"]
    p *= 1.0 - lr * decay
    m += (1.0 - b1) * (g - m)
    v += (1.0 - b2) * (g * g - v)
    first, second = 1.0 - b1**t, 1.0 - b2**t
    p -= lr / first * m / (np.sqrt(v) / math.sqrt(second) + rule["eps"])


def stable_adamw(p, g, m, v, t, lr, rule, decay):
    """(54), (55)."""
    b1, b2 = (b * (1.0 - b ** (t - 1)) / (1.0 - b**t) for b in rule["betas"])
    m += (1.0 - b1) * (g - m)
    v += (1.0 - b2) * (g * g - v)
    ratio = g * g / np.maximum(v, rule["eps"] ** 2)
    lr = lr / max(1.0, math.sqrt(ratio.mean(dtype=np.float64)))
    p *= 1.0 - lr / rule["peak"] * decay
    p -= lr * m / (np.sqrt(v) + rule["eps"])


OPTIMISERS = {"adamw": adamw, "stable_adamw": stable_adamw}

# -- a training case of the kit -------------------------------------------------------------------


def read(folder):
    """Name -> array of every .npy file of a folder."""
    return {f.stem.removeprefix("model."): np.load(f) for f in folder.glob("*.npy")}


def micro_batch(about, given, step, micro):
    """Ids, mask, positions and labels of one micro-batch, [batch, seq]."""
    one = {name: x[step, micro] for name, x in given.items()}
    ids, labels = one["input_ids"], one["labels"]
    sequence = np.zeros(ids.shape, int)
    positions = np.broadcast_to(np.arange(ids.shape[-1]), ids.shape)
    if "cu_seqlens" in one:
        ends = one["cu_seqlens"]
        lengths = np.diff(ends)
        sequence = np.repeat(np.arange(len(lengths)), lengths)[None]
        positions = positions[None] - np.repeat(ends[:-1], lengths)[None]
        ids = ids[None]
    mask = one.get("attention_mask", np.ones(ids.shape)) != 0
    steps = {"pooled"} if about["task"] == "classify" else set()
    return {"ids": ids, "labels": labels, "mask": mask, "sequence": sequence, "steps": steps,
            "positions": positions, "head": about["head"]}  # fmt: skip


def one_step(w, config, about, given, step):
    """Loss and gradients of a step: the sum over its micro-batches, divided by all their labels."""
    total, count, grads, inside = 0.0, 0, {}, []
    for micro in range(about["micro_batches"][step]):
        batch = micro_batch(about, given, step, micro)
        s = forward(w, config, batch)
        loss, labels, d_logits = cross_entropy(s["logits"], batch["labels"])
        own, d = backward(w, config, batch, s, d_logits)
        total, count = total + loss, count + labels
        for name, g in own.items():
            grads[name] = grads.get(name, 0) + g
        inside.append((s, d))
    grads = {name: g / np.float32(count) for name, g in grads.items()}
    return total / count, grads, inside, count


def refusal(about, config):
    """Why this trainer does not run a case, or None."""
    if about["problem"] != "single_label_classification" or about["choices"]:
        return f"no loss for {about['task']} of {about['problem']}"
    if about["label_smoothing"] or about["class_weights"]:
        return "no label smoothing, no class weights"
    if config.get("type_vocab_size"):
        return "no token types"
    return None


def train(case):
    """Every value of a case by its name, or why it is refused."""
    about = json.loads((case / "case.json").read_text())
    config = json.loads((case / about["model"] / "config.json").read_text())
    why = refusal(about, config)
    if why:
        return why
    w, given = read(case / about["model"] / "weights"), read(case / "batch")
    rule = about["optimiser"]
    moments = {name: (np.zeros_like(x), np.zeros_like(x)) for name, x in w.items()}
    values = {}
    for step in range(about["steps"]):
        loss, grads, inside, count = one_step(w, config, about, given, step)
        if step == 0:
            values["loss"] = np.array(loss)
            values |= {f"grad.{name}": g for name, g in grads.items()}
            for name in inside[0][0]:
                values[name] = np.stack([s[name] for s, _ in inside])
            for name in inside[0][1]:
                values[f"d.{name}"] = np.stack([d[name] for _, d in inside]) / np.float32(count)
        else:
            values |= {f"grad_{step + 1}.{name}": g for name, g in grads.items()}
        for name, g in grads.items():
            decay = rule["weight_decay"] if w[name].ndim > 1 else 0.0
            m, v = moments[name]
            OPTIMISERS[rule["name"]](w[name], g, m, v, step + 1, rule["lr"][step], rule, decay)
        if step + 1 in (1, about["steps"]):
            values |= {f"after_{step + 1}.{name}": x.copy() for name, x in w.items()}
    return values


def main(case, out):
    values = train(Path(case))
    Path(out).mkdir(parents=True, exist_ok=True)
    if isinstance(values, str):
        (Path(out) / "port.json").write_text(json.dumps({"refused": values}))
        return
    for name, x in values.items():
        np.save(Path(out) / f"{name}.npy", x)


if __name__ == "__main__":
    main(*sys.argv[1:])
