"""Bugs in a training step: one line of the trainer made wrong, as public trainers have had it.

Each row has the id that the training kit's zoo has for the mistake. Long because every bug stands
here with its edit, its symptom and its hint.
"""

from __future__ import annotations

from functools import partial

from .table import TRAINING, Exercise, planted_bug

TIED, SILU, PLAIN = "mask-tied", "mask-silu", "classes-plain"
bug = partial(planted_bug, TRAINING, "step")


TRAINING_BUGS: tuple[Exercise, ...] = (
    # -- degree 1 ---------------------------------------------------------------------------------
    bug(
        1, 1, "B9", "turned on where it should be turned back",
        "The loss is right. Every gradient behind attention is, too, but those of Wqkv are not, "
        "nor any of the layers before.",
        "The inverse of a rotation is its transpose. What does the transpose do to the angle?",
        (PLAIN, SILU),
        ("return dy * cos - rotate_half(dy * sin)", "return dy * cos + rotate_half(dy) * sin"),
    ),
    bug(
        2, 1, "B12", "what a softmax takes from one it gives to another",
        "The loss is right, and so are the gradients of the last layer's Wo and of all behind it. "
        "Those of q and k are too large, and all of one sign in places.",
        "The probabilities of a row add up to 1 whatever the scores do. What follows for the sum "
        "of dscores over a row?",
        (PLAIN, SILU),
        ("dscores = probs * (dprobs - (dprobs * probs).sum(-1, keepdims=True))",
         "dscores = probs * dprobs"),
    ),
    bug(
        3, 1, "B25", "two gradients in each other's place",
        "The gradient of mlp.Wi is wrong in every layer, that of mlp.Wo right.",
        "Which half of u was activated on the way there?",
        (PLAIN, SILU),
        ("return np.concatenate([da, dg], axis=-1)", "return np.concatenate([dg, da], axis=-1)"),
    ),
    bug(
        4, 1, "B6", "around the last norm",
        "The gradient of final_norm.weight is right, that of everything before it is not.",
        "norm_into returns something.",
        (PLAIN, SILU),
        ("    dh = norm_into(\"final_norm\", dx, s[f\"layers.{len(layers) - 1}.residual_2\"])\n",
         "    norm_into(\"final_norm\", dx, s[f\"layers.{len(layers) - 1}.residual_2\"])\n"
         "    dh = dx\n"),
    ),
    bug(
        5, 1, "B4", "a gain that works one way only",
        "Gradients of the norms' weights are right. What goes on behind a norm is not.",
        "y = n * weight + bias. What is dn?",
        (PLAIN, SILU),
        ("n, g = centred / s, dy * weight", "n, g = centred / s, dy"),
    ),
    # -- degree 2 ---------------------------------------------------------------------------------
    bug(
        6, 2, "B2", "x moves more than itself",
        "It trains, a little worse than torch's does. Gradients agree to one digit.",
        "Move one entry of x. What else in the row moves with it?",
        (PLAIN, SILU),
        ("dx = (g - g.mean(-1, keepdims=True) - n * (g * n).mean(-1, keepdims=True)) / s",
         "dx = (g - g.mean(-1, keepdims=True)) / s"),
    ),
    bug(
        7, 2, "B14", "the same factor on both",
        "The gradients of v are right and those of q and k are not alike: one of them is too large "
        "by a constant factor.",
        "Scores are q . k times something. Of which of the two is it a factor?",
        (PLAIN, SILU),
        ("dk = dscores.swapaxes(-1, -2) @ q * scale", "dk = dscores.swapaxes(-1, -2) @ q"),
    ),
    bug(
        8, 2, "B29", "the gate opens, and nobody sees it",
        "The gradients of mlp.Wi are off by up to a third, more in rows whose activation is near "
        "its bend.",
        "x Phi(x) is a product. How many terms has its derivative?",
        (PLAIN, SILU),
        ("return (big_phi + x * phi).astype(np.float32)", "return big_phi.astype(np.float32)"),
        ("return s + x * s * sigmoid(-x)", "return s"),
    ),
    bug(
        9, 2, "B35", "only the last one is remembered",
        "All gradients are right but that of the embedding table, in which a few rows are wrong: "
        "those of frequent tokens.",
        "What does numpy's a[ids] += b do where an id stands twice?",
        (PLAIN, TIED),
        ("    np.add.at(grads[TABLE], batch[\"ids\"].reshape(-1), rows.reshape(-1, "
         "rows.shape[-1]))",
         "    rows_of = np.zeros_like(w[TABLE])\n"
         "    rows_of[batch[\"ids\"].reshape(-1)] = rows.reshape(-1, rows.shape[-1])\n"
         "    grads[TABLE] += rows_of"),
    ),
    bug(
        10, 2, "B37", "one table, two uses",
        "Of two masked-language models one trains as it should. The other, whose file has fewer "
        "tensors, has a wrong gradient in a single one.",
        "What is used twice gets the sum of its gradients.",
        (TIED, SILU),
        ("        grads[weight or name + \".weight\"] += dw\n",
         "        if weight is None:\n            grads[name + \".weight\"] += dw\n"),
    ),
    bug(
        11, 2, "B33", "the short way home",
        "The last layer's MLP learns as it should. The further down a layer is, the smaller are "
        "its gradients, compared with what they should be.",
        "h goes two ways through a layer's second half. How many ways back are there?",
        (PLAIN, SILU),
        ("dh = dh + norm_into(at + \"mlp_norm\", dx, s[at + \"residual_1\"])",
         "dh = norm_into(at + \"mlp_norm\", dx, s[at + \"residual_1\"])"),
    ),
    bug(
        12, 2, "L2", "means of means",
        "With one batch a step all is right. With two micro-batches a step the loss is off by a "
        "little, now up, now down.",
        "Two classes of 10 and 30 pupils have marks of 1 and 3 on average. What is the average of "
        "all pupils?",
        (PLAIN, TIED),
        ("        total, count = total + loss, count + labels\n",
         "        total, count = total + loss / labels, count + 1\n"
         "        own = {name: g / np.float32(labels) for name, g in own.items()}\n"
         "        d = {name: x / np.float32(labels) for name, x in d.items()}\n"),
    ),
    bug(
        13, 2, "O5", "what should not shrink",
        "Loss and gradients are right. After the first step most tensors are right, too; the "
        "others are closer to zero than they should be.",
        "Which tensors does weight decay spare? Count their dimensions.",
        (PLAIN, SILU),
        ("decay = rule[\"weight_decay\"] if w[name].ndim > 1 else 0.0",
         "decay = rule[\"weight_decay\"]"),
    ),
    bug(
        14, 2, "O1", "a slow start",
        "Gradients are right. The first steps are far too small, or too large; after some "
        "hundreds nobody can tell.",
        "m and v start at 0. What are they after one step, compared with g and g^2?",
        (PLAIN, TIED),
        ("    first, second = 1.0 - b1**t, 1.0 - b2**t\n", "    first, second = 1.0, 1.0\n"),
        ("(b * (1.0 - b ** (t - 1)) / (1.0 - b**t) for b in rule[\"betas\"])",
         "rule[\"betas\"]"),
    ),
    # -- degree 3 ---------------------------------------------------------------------------------
    bug(
        15, 3, "L4", "it learns, but slower than theirs",
        "\"Same data, same learning rate, and our loss is a third of theirs from the first step "
        "on. It goes down, too.\"",
        "Which tokens have a label, and which are divided by?",
        (PLAIN, SILU),
        ("    return total, len(counted), d.reshape(logits.shape).astype(np.float32)",
         "    return total, labels.size, d.reshape(logits.shape).astype(np.float32)"),
    ),
    bug(
        16, 3, "B19", "the padding learns with the text",
        "\"With texts of one length the gradients are torch's. With padding they are close, and "
        "the loss is the same to the last digit.\"",
        "The way back needs the probabilities once more. Of which keys?",
        (PLAIN, SILU),
        ("seen = visible(batch[\"mask\"], batch[\"sequence\"], window)\n        dq, dk, dv",
         "seen = visible(np.ones_like(batch[\"mask\"]), batch[\"sequence\"], window)\n"
         "        dq, dk, dv"),
    ),
    bug(
        17, 3, "B41", "long texts learn less",
        "\"Our classifier trains well as long as the texts of a batch have one length. Otherwise "
        "short texts count for less than they should.\"",
        "What was the sum divided by on the way there?",
        (TIED, PLAIN),
        ("dx = d[\"final_norm\"] = dx[:, None] * real / real.sum(axis=1, keepdims=True)",
         "dx = d[\"final_norm\"] = dx[:, None] * real / np.float32(real.shape[1])"),
    ),
    bug(
        18, 3, "O11", "quiet tensors move too little",
        "\"Large gradients are treated as torch does it. Tensors with small ones hardly move.\"",
        "Compare 1 / (sqrt(v) + eps) and 1 / sqrt(v + eps) for v = 0.",
        (TIED, SILU),
        ("(np.sqrt(v) / math.sqrt(second) + rule[\"eps\"])", "np.sqrt(v / second + rule[\"eps\"])"),
        ("    p -= lr * m / (np.sqrt(v) + rule[\"eps\"])",
         "    p -= lr * m / np.sqrt(v + rule[\"eps\"])"),
    ),
    bug(
        19, 3, "O28", "each step remembers all those before",
        "\"The first step is torch's to seven digits. After ten the parameters are far from "
        "theirs, and the loss goes up again.\"",
        "What stands in the gradients when a step begins?",
        (TIED, PLAIN),
        ("{f\"grad_{step + 1}.{name}\": g for name, g in grads.items()}\n        for name",
         "{f\"grad_{step + 1}.{name}\": g for name, g in grads.items()}\n"
         "            grads = {name: g + kept[name] for name, g in grads.items()}\n"
         "        kept = grads\n        for name"),
    ),
    bug(
        20, 3, "O20", "the first step does nothing",
        "\"After one step not a single parameter has moved, and we are one step behind ever "
        "since.\"",
        "Steps and learning rates are both counted. From where?",
        (TIED, PLAIN),
        ("step + 1, rule[\"lr\"][step], rule, decay",
         "step + 1, rule[\"lr\"][step - 1] if step else 0.0, rule, decay"),
    ),
    bug(
        21, 3, "B16", "the way back sees more than the way there",
        "\"Gradients are exact for short texts, and for full layers always. For long texts those "
        "of sliding layers are slightly off, the loss never is.\"",
        "Which keys did the query see when the loss was computed?",
        (PLAIN, SILU),
        ("seen = visible(batch[\"mask\"], batch[\"sequence\"], window)\n        dq, dk, dv",
         "seen = visible(batch[\"mask\"], batch[\"sequence\"], None)\n        dq, dk, dv"),
    ),
)  # fmt: skip
