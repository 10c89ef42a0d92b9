"""ModernBERT in one file of numpy, as a port is written: float32, nothing but numpy.

    python port.py CASE OUT       reads a case of the kit, writes its steps as OUT/STEP.npy

Numbers in brackets are the equations of MODEL.md, and the steps have its names. Arrays are
[batch, seq, ..]; packed input is a batch of one row, in which a token sees its own sequence alone.
`w` holds the tensors of the file, under their names without "model.". Long because the whole model
stands here, heads included.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

# -- what config.json says ------------------------------------------------------------------------


def plan(config):
    """(2) to (4): kind, window to either side (None: no window) and theta of each layer."""
    if "layer_types" in config:
        full = [kind == "full_attention" for kind in config["layer_types"]]
    else:
        every = config["global_attn_every_n_layers"]
        full = [i % every == 0 for i in range(config["num_hidden_layers"])]
    if "rope_parameters" in config:
        rope_of = config["rope_parameters"]
        theta_full = rope_of["full_attention"]["rope_theta"]
        theta_sliding = rope_of["sliding_attention"]["rope_theta"]
    else:
        theta_full = config["global_rope_theta"]
        theta_sliding = config["local_rope_theta"]
    window = config["local_attention"] // 2
    kinds = {True: ("full", None, theta_full), False: ("sliding", window, theta_sliding)}
    return [kinds[is_full] for is_full in full]


# -- equations ------------------------------------------------------------------------------------


def linear(x, weight, bias):
    """(18). weight [out, in]; bias [out] or None."""
    y = x @ weight.T
    return y if bias is None else y + bias


def layer_norm(x, weight, bias, eps):
    """(19) over the last axis. weight [hidden]; bias [hidden] or None."""
    mean = x.mean(-1, keepdims=True)
    centred = x - mean
    variance = (centred * centred).mean(-1, keepdims=True)
    y = centred / np.sqrt(variance + np.float32(eps)) * weight
    return y if bias is None else y + bias


erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x):
    """(20)."""
    phi = 0.5 * (1.0 + erf(x / math.sqrt(2.0)))
    return (x * phi).astype(np.float32)


def silu(x):
    """x sigmoid(x)."""
    return x / (1.0 + np.exp(-x))


ACTIVATIONS = {"gelu": gelu, "silu": silu}


def glu(u, act):
    """(21). u [.., 2 inter] -> [.., inter]."""
    a, g = np.split(u, 2, axis=-1)
    return act(a) * g


def split_qkv(qkv, heads):
    """(7). [batch, seq, 3 hidden] -> q, k, v, each [batch, seq, heads, head_dim]."""
    parts = qkv.reshape(*qkv.shape[:2], 3, heads, -1)
    q, k, v = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]
    return q, k, v


def rope_table(positions, head_dim, theta):
    """(22), (23). positions [batch, seq] -> cos, sin [batch, seq, head_dim]."""
    inv_freq = float(theta) ** (-np.arange(0, head_dim, 2) / head_dim)
    angle = positions[..., None] * inv_freq
    angle = np.concatenate([angle, angle], axis=-1)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rope(x, cos, sin):
    """(24). x [batch, seq, heads, head_dim]; cos, sin [batch, seq, head_dim]."""
    first, second = np.split(x, 2, axis=-1)
    turned = np.concatenate([-second, first], axis=-1)
    return x * cos[:, :, None] + turned * sin[:, :, None]


def visible(mask, sequence, window):
    """(25). mask, sequence [batch, seq] -> bool [batch, 1, query, key]."""
    place = np.arange(mask.shape[1])
    ahead = place[None, :] - place[:, None]
    near = True if window is None else np.abs(ahead) <= window
    same = sequence[:, :, None] == sequence[:, None, :]
    return (near & same & mask[:, None, :])[:, None]


def attention(q, k, v, seen):
    """(26) to (28). q, k, v [batch, seq, heads, head_dim] -> [batch, seq, hidden]."""
    q, k, v = q.swapaxes(1, 2), k.swapaxes(1, 2), v.swapaxes(1, 2)
    scores = q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(q.shape[-1]))
    scores = np.where(seen, scores, np.float32(-np.inf))
    top = scores.max(-1, keepdims=True)
    e = np.exp(scores - np.where(np.isfinite(top), top, np.float32(0)))
    total = e.sum(-1, keepdims=True)
    probs = e / np.where(total == 0, np.float32(1), total)
    out = (probs @ v).swapaxes(1, 2)
    return out.reshape(*out.shape[:2], -1)


def pool(h, mask, how):
    """(35), cls or mean. h [batch, seq, hidden] -> [batch, hidden]."""
    if how == "cls":
        return h[:, 0] * mask.any(axis=1, keepdims=True)
    real = mask.astype(np.float32)
    count = np.maximum(real.sum(axis=1, keepdims=True), np.float32(1))
    return (h * real[:, :, None]).sum(axis=1) / count


# -- the forward pass -----------------------------------------------------------------------------


def project(w, name, x):
    """A linear map of the file."""
    return linear(x, w[name + ".weight"], w.get(name + ".bias"))


def norm(w, name, x, eps):
    """A layer norm of the file."""
    return layer_norm(x, w[name + ".weight"], w.get(name + ".bias"), eps)


def encode(w, config, ids, mask, positions, sequence, tap):
    """(5) to (17). ids, mask, positions, sequence [batch, seq] -> [batch, seq, hidden]."""
    eps, heads = config["norm_eps"], config["num_attention_heads"]
    head_dim = config["hidden_size"] // heads
    act = ACTIVATIONS[config["hidden_activation"]]

    rows = w["embeddings.tok_embeddings.weight"][ids]
    h = tap("embedding", norm(w, "embeddings.norm", rows, eps))
    tables = {}
    for kind, _, theta in plan(config):
        if kind not in tables:
            cos, sin = rope_table(positions, head_dim, theta)
            tables[kind] = tap(f"rope.{kind}.cos", cos), tap(f"rope.{kind}.sin", sin)

    for i, (kind, window, _) in enumerate(plan(config)):
        at = f"layers.{i}."
        x = h if i == 0 else norm(w, at + "attn_norm", h, eps)
        x = tap(at + "attn_norm", x)
        q, k, v = split_qkv(project(w, at + "attn.Wqkv", x), heads)
        q, k, v = tap(at + "q", q), tap(at + "k", k), tap(at + "v", v)
        q_rot = tap(at + "q_rot", rope(q, *tables[kind]))
        k_rot = tap(at + "k_rot", rope(k, *tables[kind]))
        a = tap(at + "attention", attention(q_rot, k_rot, v, visible(mask, sequence, window)))
        a = tap(at + "attn_out", project(w, at + "attn.Wo", a))
        h = tap(at + "residual_1", h + a)

        x = tap(at + "mlp_norm", norm(w, at + "mlp_norm", h, eps))
        u = tap(at + "wi", project(w, at + "mlp.Wi", x))
        m = tap(at + "glu", glu(u, act))
        m = tap(at + "mlp_out", project(w, at + "mlp.Wo", m))
        h = tap(at + "residual_2", h + m)

    return tap("final_norm", norm(w, "final_norm", h, eps))


def head(kind, w, config, h, mask, tap):
    """(29) to (33): the scores of a head, from the last hidden state."""
    act = ACTIVATIONS[config["classifier_activation"]]
    if kind == "sequence_classification":
        h = tap("pooled", pool(h, mask, config["classifier_pooling"]))
    x = tap("head.dense", project(w, "head.dense", h))
    x = tap("head.act", act(x))
    x = tap("head.norm", norm(w, "head.norm", x, config["norm_eps"]))
    if kind == "masked_lm":
        tied = "decoder.weight" not in w
        decoder = w["embeddings.tok_embeddings.weight"] if tied else w["decoder.weight"]
        scores = linear(x, decoder, w.get("decoder.bias"))
    else:
        scores = project(w, "classifier", x)
    if kind == "question_answering":
        tap("start_logits", scores[..., 0])
        tap("end_logits", scores[..., 1])
    else:
        tap("logits", scores)


def vectors(h, mask, tap):
    """One vector a sequence: (35) by mean and by cls, and (36) of each."""
    for how in ("mean", "cls"):
        x = tap(f"{how}_pooled", pool(h, mask, how))
        length = np.sqrt((x * x).sum(axis=-1, keepdims=True))
        tap(f"{how}_normalised", x / np.where(length == 0, np.float32(1), length))


# -- a case of the kit ----------------------------------------------------------------------------


def read(folder):
    """Name -> array of every .npy file of a folder."""
    return {f.stem.removeprefix("model."): np.load(f) for f in folder.glob("*.npy")}


def run(case):
    """Every step of a case, by its name."""
    about = json.loads((case / "case.json").read_text())
    model = case / about["model"]
    config = json.loads((model / "config.json").read_text())
    w, given = read(model / "weights"), read(case / "inputs")

    ids, packed = given["input_ids"], "cu_seqlens" in given
    if packed:
        ids, ends = ids[None], given["cu_seqlens"]
        lengths = np.diff(ends)
        sequence = np.repeat(np.arange(len(lengths)), lengths)[None]
        positions = np.arange(ids.shape[1])[None] - np.repeat(ends[:-1], lengths)[None]
    else:
        sequence = np.zeros(ids.shape, int)
        positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    positions = given.get("position_ids", positions)
    mask = given.get("attention_mask", np.ones(ids.shape)) != 0

    steps, wanted = {}, {step["tap"] for step in about["steps"]}

    def tap(name, x):
        if name in wanted:
            steps[name] = x[0] if packed else x
        return x

    h = encode(w, config, ids, mask, positions, sequence, tap)
    if about["head"]:
        head(about["head"], w, config, h, mask, tap)
    vectors(h, mask, tap)
    return steps


def main(case, out):
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, x in run(Path(case)).items():
        np.save(Path(out) / f"{name}.npy", x)


if __name__ == "__main__":
    main(*sys.argv[1:])
