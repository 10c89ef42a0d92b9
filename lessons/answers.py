"""Answers to the questions of the lessons, for teachers, and for the tests that run them.

    ANSWERS["3.2"]      what stands in the place of `...  # yours`
    WRONG["3.2"]        something that the question's check must refuse

Long because every question has its two lines here.
"""

ANSWERS = {
    "1.1": "len(text.ids)",
    "1.2": "E.size / model.num_parameters",
    "1.3": 'ops.layer_norm(rows, params["embeddings.norm.weight"], None, config.norm_eps)',
    "1.4": "len(set(repeated.tokens))",
    "1.5": (
        'set(tokenizer.encode("a cat and a dog").ids)'
        ' != set(tokenizer.encode("a dog and a cat").ids)'
    ),
    "2.1": ("(x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight"),
    "2.2": "np.linalg.norm(plain[0, 0])",
    "2.3": "0.001 / np.sqrt(0.001**2 + 1e-5)",
    "2.4": "max(share, key=lambda name: abs(share[name]))",
    "2.5": 'sum(name.endswith("norm.weight") for name in params)',
    "3.1": 'list(params["layers.0.attn.Wqkv.weight"].shape)',
    "3.2": "q @ k.T / 8",
    "3.3": "np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)",
    "3.4": "1 / seq",
    "3.5": "probs @ v",
    "3.6": (
        "np.concatenate([np.exp(s := q[:, h] @ k[:, h].T / 8) / np.exp(s).sum(1, keepdims=True)"
        " @ v[:, h] for h in range(q.shape[1])], axis=1)"
    ),
    "4.1": "[int(ops.visible(np.array([i]), np.arange(24), 3).sum()) for i in (0, 2, 10, 22)]",
    "4.2": (
        "(abs(np.arange(len(mask))[:, None] - np.arange(len(mask))) <= "
        "(len(mask) if window is None else window)) & (mask != 0)"
    ),
    "4.3": "int((~truth.any(axis=1)).sum())",
    "4.4": "max(n for n in range(1, 99) if ops.visible(np.arange(n), np.arange(n), 32).all())",
    "4.5": 'len(traces(local, ids, changed)["layers.2.residual_2"])',
    "4.6": "129 / 8192",
    "5.1": "[0, 1]",
    "5.2": "64 * 10000 ** (-62 / 64)",
    "5.3": ("np.arange(seq)[:, None] * theta ** (-np.arange(0, head_dim, 2) / head_dim)"),
    "5.4": (
        "x * cos[:, None] + np.concatenate([-x[..., x.shape[-1] // 2 :], "
        "x[..., : x.shape[-1] // 2]], axis=-1) * sin[:, None]"
    ),
    "5.5": "False",
    "5.6": "np.spacing(np.float16(4094)) / 2",
    "6.1": "x / 2 * (1 + erf(x / np.sqrt(2)))",
    "6.2": "abs(ops.gelu(x) - ops.gelu_tanh(x)).max()",
    "6.3": "gelu(wi[..., :384]) * wi[..., 384:]",
    "6.4": (
        '(gelu((u := params["layers.2.mlp.Wi.weight"] @ row)[:384]) * u[384:])'
        ' @ params["layers.2.mlp.Wo.weight"].T'
    ),
    "6.5": (
        'sum(x.size for name, x in params.items() if name.startswith("layers.1.mlp."))'
        ' / sum(x.size for name, x in params.items() if name.startswith("layers.1."))'
    ),
    "7.1": (
        'ops.layer_norm(ops.gelu(ops.linear(x, params["head.dense.weight"])), '
        'params["head.norm.weight"], None, config.norm_eps)'
    ),
    "7.2": (
        'steps["head.norm"][0, place] @ params["embeddings.tok_embeddings.weight"].T'
        ' + params["decoder.bias"]'
    ),
    "7.3": "np.exp(probabilities.max()) / np.exp(probabilities).sum()",
    "7.4": "(hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)",
    "7.5": ("(n := right / np.linalg.norm(right, axis=-1, keepdims=True)) @ n.T"),
    "8.1": "(dy @ W, dy.T @ x)",
    "8.2": (
        "((g := dy * weight) - g.mean(-1, keepdims=True)"
        " - (n := (x - x.mean(-1, keepdims=True))"
        " / (s := np.sqrt(x.var(-1, keepdims=True) + eps)))"
        " * (g * n).mean(-1, keepdims=True)) / s"
    ),
    "8.3": "adjoints.layer_norm(dy, x, weight, 1e-5)[0].sum(axis=-1)[0]",
    "8.4": "probs * (dprobs - (dprobs * probs).sum(-1, keepdims=True))",
    "8.5": "np.eye(vocab)[ids].T @ d",
    "8.6": (
        "gradients(refimpl.ModernBERTForTask(model.config, "
        "{key: value - 0.01 * grads[key] for key, value in params.items()}, model.head, "
        'backend="numpy"), ids, labels, task="mask")[0]'
    ),
    "9.1": "np.spacing(np.float32(1))",
    "9.2": "next(n for n in range(1, 999) if bfloat16(np.float32(n)) != n)",
    "9.3": "int(np.round(np.log10(abs(((row * row).mean() - row.mean() ** 2) - good) / good)))",
    "9.4": (
        "int(np.round(np.log10(off(*(s['final_norm'] for s in "
        "(steps['float32'], steps['float64']))) * 2**24)))"
    ),
    "9.5": (
        'off(cases["tanh GELU"]["last_hidden_state"], truth)'
        ' < off(cases["activations in bfloat16"]["last_hidden_state"], truth)'
    ),
    "10.1": (
        "22 * sum(layer_cost(8192, 768, 1152, 8192).values())"
        " / (8 * sum(layer_cost(8192, 768, 1152, 8192).values())"
        " + 14 * sum(layer_cost(8192, 768, 1152, 129).values()))"
    ),
    "10.2": "max(start - window, 0), min(stop + window, seq)",
    "10.3": "8192**2",
    "10.4": "(mask == 0).mean()",
    "11.1": "np.log(2)",
    "11.2": "1e-3 * 0.003 / np.sqrt(0.003**2)",
    "11.3": (
        'sum(gradients(start, some, own, task="classify", normaliser=8)[1][name]'
        " for some, own in halves)"
    ),
    "11.4": (
        'sum((one[0] if isinstance(one := classify(row["text"]), list) else one)["label"]'
        ' == row["label"] for row in held_out)'
    ),
}
WRONG = {
    "1.1": "7",
    "1.2": "0.25",
    "1.3": "rows",
    "1.4": "9",
    "1.5": "True",
    "2.1": "x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight",
    "2.2": "1.0",
    "2.3": "1.0",
    "2.4": '"after"',
    "2.5": "8",
    "3.1": "[256, 768]",
    "3.2": "q @ k.T",
    "3.3": "np.exp(scores) / np.exp(scores).sum(axis=0)",
    "3.4": "1.0",
    "3.5": "probs.T @ v",
    "3.6": "(q @ k.swapaxes(1, 2) @ v).reshape(len(q), -1)",
    "4.1": "[3, 5, 6, 4]",
    "4.2": "abs(np.arange(len(mask))[:, None] - np.arange(len(mask))) <= window",
    "4.3": "7",
    "4.4": "65",
    "4.5": "13",
    "4.6": "0.008",
    "5.1": "[0, -1]",
    "5.2": "64.0",
    "5.3": "np.arange(seq)[:, None] * theta ** (-np.arange(head_dim // 2) / head_dim)",
    "5.4": "x * cos[:, None] - np.roll(x, 1, axis=-1) * sin[:, None]",
    "5.5": "True",
    "5.6": "2",
    "6.1": "x / 2 * (1 + erf(x))",
    "6.2": "0.0",
    "6.3": "wi[..., :384] * gelu(wi[..., 384:])",
    "6.4": 'params["layers.2.mlp.Wo.weight"] @ params["layers.2.mlp.Wi.weight"][:384] @ row',
    "6.5": "0.67",
    "7.1": "x",
    "7.2": 'steps["head.norm"][0, place] @ params["embeddings.tok_embeddings.weight"].T',
    "7.3": "probabilities.max()",
    "7.4": "hidden.mean(axis=1)",
    "7.5": "right @ right.T",
    "8.1": "(dy @ W, x.T @ dy)",
    "8.2": "dy * weight / np.sqrt(x.var(-1, keepdims=True) + eps)",
    "8.3": "1.0",
    "8.4": "probs * dprobs",
    "8.5": "np.concatenate([d, d[:1]])",
    "8.6": "loss",
    "9.1": "2.0**-24",
    "9.2": "256",
    "9.3": "-7",
    "9.4": "-7",
    "9.5": "False",
    "10.1": "1.0",
    "10.2": "start - window, stop + window",
    "10.3": "8192 * 129",
    "10.4": "0.5",
    "11.1": "0.5",
    "11.2": "0.003",
    "11.3": 'gradients(start, *halves[0], task="classify")[1][name]',
    "11.4": "-1",
}
