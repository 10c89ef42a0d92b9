# %% [markdown]
# # 11. A fine-tuned classifier
#
# *10 minutes to read, 5 seconds to run. MODEL.md: (31), (48), (53), (56).*
#
# Everything comes together: an encoder that was trained to fill gaps gets a head that tells two
# kinds of text apart, and both learn from a few dozen rows. First one step by hand, then the
# trainer.

# %%
import json
import tempfile
from pathlib import Path

import numpy as np

import refimpl
from refimpl.teach.questions import check
from refimpl.train import AdamW, Settings, finetune, gradients

# %% [markdown]
# ## The data
#
# Lines of Python, and sentences. A toy, but one whose answer can be seen.

# %%
names, things = ["i", "n", "x", "row", "key"], ["cat", "dog", "house", "tree", "river", "road"]
code = [f"for {n} in range({k}): print({n} + {k})" for n in names for k in (1, 2, 5, 10)]
prose = [f"The {a} is near the {b}." for a in things for b in things if a != b][: len(code)]
rows = [{"text": t, "label": "code"} for t in code] + [{"text": t, "label": "prose"} for t in prose]
order = np.random.default_rng(0).permutation(len(rows))
train, held_out = [rows[i] for i in order[:28]], [rows[i] for i in order[28:]]
print(len(train), "to learn from,", len(held_out), "held out")

# %% [markdown]
# ## The head
#
# ```
# (31) logits = linear(head(pooled), classifier)           [batch, labels]
# (48) loss = -log p_y, p = softmax(logits)
# ```
#
# The classifier's rows are drawn at random, so before any training it knows nothing: p is near 1/2.

# %%
task = refimpl.NLPTaskConfig("kind", "sentiment_analysis", num_classes=2)
model = refimpl.create_modern_bert_with_head("tiny", task, pretrained=True, dtype="float64")
tokenizer = refimpl.Tokenizer.from_folder(refimpl.ModernBERT.from_variant("tiny", True).folder)


def batch_of(rows):
    ids = [tokenizer.encode(row["text"]).ids for row in rows]
    seq = max(map(len, ids))
    out = np.full((len(ids), seq), model.config.pad_token_id)
    mask = np.zeros((len(ids), seq), int)
    for b, one in enumerate(ids):
        out[b, : len(one)], mask[b, : len(one)] = one, 1
    labels = np.array([row["label"] == "prose" for row in rows], int)
    return {"input_ids": out, "attention_mask": mask}, labels


inputs, labels = batch_of(train[:8])
loss, grads = gradients(model, inputs, labels, task="classify")
print(f"loss before training: {loss:.4f}")

# %% [markdown]
# **11.1** Which loss has a classifier that gives each of two classes the probability 1/2? (Four
# digits behind the point.)

# %% question 11.1
answer = ...  # yours
check("11.1", answer, sealed="710ea3eb", digits=4)

# %% [markdown]
# ## One step
#
# ```
# (53) AdamW: m and v are running means of g and of g^2;  p = p - lr m' / (sqrt(v') + eps)
# ```
#
# m' and v' are corrected for having started at 0. In the first step m' = g and v' = g^2.
#
# **11.2** By how much does an entry with a gradient of 0.003 move in the first step, with a
# learning rate of 1e-3, no decay and an eps of 0? (Absolute value; three digits behind the point.)

# %% question 11.2
answer = ...  # yours
check("11.2", answer, sealed="fef22f51", digits=3)

# %% [markdown]
# An entry with a gradient of 3 moves as far. That is what makes one learning rate do for tensors of
# every size, and why the first steps are warmed up: the sign of one batch's gradient decides all.

# %%
params = {name: np.array(x, np.float64) for name, x in model.params.items()}
optimiser = AdamW(weight_decay=0.0)
for step in range(3):
    current = type(model)(model.config, params, model.head, backend="numpy")
    loss, grads = gradients(current, inputs, labels, task="classify")
    optimiser.update(params, grads, 3e-4)
    print(f"step {step}: loss {loss:.4f}")

# %% [markdown]
# ## Micro-batches
#
# A step of 8 texts can be computed as two of 4 each, if their sums are divided by 8 in the end, and
# not each by its own count: (48) is a sum over the whole step, divided by what was counted.
#
# **11.3** Compute the gradient of `head.norm.weight` for the 8 texts out of two calls with 4 texts
# each: `gradients(.., normaliser=8)` divides by 8, whatever is in the call. (`start` are the
# parameters as they are now.)

# %% question 11.3
start = type(model)(model.config, params, model.head, backend="numpy")
name = next(n for n in grads if n.endswith("norm.weight") and "layers" not in n and "head" in n)
halves = [({k: x[part] for k, x in inputs.items()}, labels[part])
          for part in (slice(0, 4), slice(4, 8))]  # fmt: skip
answer = ...  # yours
check("11.3", answer, gradients(start, inputs, labels, task="classify")[1][name])

# %% [markdown]
# ## The trainer
#
# `finetune` does all that from files: shuffling, schedule, evaluation, and a folder in the end that
# every other tool loads, transformers included. (`modernbert finetune classify train.jsonl --eval
# held-out.jsonl --out my-classifier` is the same.)

# %%
folder = Path(tempfile.mkdtemp())
for file, some in (("train.jsonl", train), ("held-out.jsonl", held_out)):
    (folder / file).write_text("".join(json.dumps(row) + "\n" for row in some))
figures = finetune(
    "classify",
    [folder / "train.jsonl"],
    folder / "my-classifier",
    evaluation=[folder / "held-out.jsonl"],
    settings=Settings(epochs=2, batch_size=7, learning_rate=3e-4),
)
print({key: value for key, value in figures.items() if isinstance(value, float)})

# %%
classify = refimpl.pipeline("text-classification", folder / "my-classifier")
for text in ("The road is near the sea.", "while x > 0: x = x - 1"):
    print(text, "->", classify(text))

# %% [markdown]
# **11.4** How many of the held-out texts does it get right? (Count them with `classify`, whose
# answers have a "label".)

# %% question 11.4
answer = ...  # yours
found = [classify(row["text"]) for row in held_out]
best = [one[0] if isinstance(one, list) else one for one in found]
right = sum(one["label"] == row["label"] for one, row in zip(best, held_out, strict=True))
check("11.4", answer, right)

# %% [markdown]
# From ids to a model of your own, without a line that you have not seen the inside of. What a
# trainer can get wrong on this way is in the exercises, `step-01` to `step-21`, and whether another
# one is right, `modernbert verify --training` says.
#
# To practise, by `modernbert exercise start ID`: eq-adamw; step-13 to -21.
