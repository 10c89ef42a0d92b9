# %% [markdown]
# # 7. Heads and pooling
#
# *11 minutes to read, 2 seconds to run. MODEL.md: (17), (29) to (36).*
#
# The encoder gives a vector for every token, and no answer. What makes one of it is a head:
# scores over the vocabulary for a token that is hidden, scores over labels for a text, or simply
# one vector a text, to be compared with others.

# %%
import numpy as np

import refimpl
from refimpl.reference import ops
from refimpl.reference.pooling import pool
from refimpl.teach.questions import check

encoder = refimpl.ModernBERT.from_variant("tiny", pretrained=True, dtype="float64")
model = refimpl.load(encoder.folder, dtype="float64")  # the same file, with its head
config = model.config
params = {name: np.asarray(x, np.float64) for name, x in model.params.items()}
tokenizer = refimpl.Tokenizer.from_folder(encoder.folder)

# %% [markdown]
# ## The prediction head
#
# ```
# (29) head.dense = linear(x, head.dense)
#      head.act   = act(head.dense)
#      head.norm  = layer_norm(head.act)
# ```
#
# It stands before every classifier of the family. The order matters: a port with the norm before
# the activation uses every tensor of the file, and is wrong.

# %%
text = tokenizer.encode("for i in [MASK](10):")
place = text.ids.index(tokenizer.mask_token_id)
steps = {}
out = model([text.ids], tap=refimpl.record(steps))
print([name for name in steps if name.startswith("head") or name == "logits"])

# %% [markdown]
# **7.1** Compute `head.norm` from `final_norm`. `ops.linear(x, weight)`, `ops.gelu(x)` and
# `ops.layer_norm(x, weight, None, eps)` are there; tensors: `head.dense.weight`,
# `head.norm.weight`.

# %% question 7.1
x = steps["final_norm"]
answer = ...  # yours
check("7.1", answer, steps["head.norm"])

# %% [markdown]
# ## Scores over the vocabulary
#
# ```
# (30) logits = linear(head.norm, decoder); tied: decoder.weight is E of (5)
# ```
#
# The decoder compares what came out with every row of a table, and takes the embedding table for
# it: the token whose row fits best is the guess. Tied weights are one tensor with two uses.
#
# **7.2** Compute the scores of the hidden token, `[vocab]`: row `place` of `head.norm`, the table
# `embeddings.tok_embeddings.weight`, and `decoder.bias`.

# %% question 7.2
answer = ...  # yours
check("7.2", answer, out["logits"][0, place])

# %%
scores = out["logits"][0, place]
probabilities = ops.softmax(scores[None], np.ones((1, len(scores)), bool))[0]
for id in np.argsort(-scores)[:5]:
    print(f"{probabilities[id]:.3f}  {tokenizer.decode([int(id)])!r}")

# %% [markdown]
# Scores, not probabilities, are what a head gives out. Softmax is the caller's business; a port
# that applies it already makes the caller do it twice.
#
# **7.3** If softmax is applied to these `probabilities` once more, what is the largest entry then?
# (Four digits behind the point; there are 8,192 entries.)

# %% question 7.3
answer = ...  # yours
check("7.3", answer, sealed="e9fd61e4", digits=4)

# %% [markdown]
# ## One vector a text
#
# ```
# (35) mean: the sum over real tokens / their number n        cls: x[0]
# (36) x / |x|
# ```
#
# Texts of a batch are padded to one length, and padded tokens have hidden states, too. They must
# not count.

# %%
texts = ["for i in range(10):", "import numpy as np\nx = np.zeros(3)\nprint(x)", "the cat sat"]
rows = [tokenizer.encode(t).ids for t in texts]
seq = max(map(len, rows))
ids = np.full((len(rows), seq), config.pad_token_id)
mask = np.zeros((len(rows), seq), int)
for b, row in enumerate(rows):
    ids[b, : len(row)], mask[b, : len(row)] = row, 1
hidden = encoder({"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
print("real tokens", mask.sum(axis=1), "of", seq)

# %% [markdown]
# **7.4** Write mean pooling. hidden `[batch, seq, hidden]`, mask `[batch, seq]` of 0 and 1.


# %% question 7.4
def mean(hidden, mask):
    return ...  # yours


check("7.4", mean(hidden, mask), pool(hidden, mask, "mean"))

# %% [markdown]
# What does the mistake cost? The mean over all columns, against the right one:

# %%
right, wrong = pool(hidden, mask, "mean"), hidden.mean(axis=1)
for b, t in enumerate(texts):
    cosine = right[b] @ wrong[b] / np.linalg.norm(right[b]) / np.linalg.norm(wrong[b])
    print(f"{mask[b].sum():3d} of {seq} tokens real: cosine {cosine:.3f}   {t[:30]!r}")

# %% [markdown]
# ## Comparing
#
# Of vectors of length 1 the scalar product is the cosine. But what is a large cosine? Vectors of
# unrelated texts are not orthogonal: they all share what every text has in common.
#
# **7.5** Compute the cosines of the three texts with each other, `[3, 3]`, from `right`.

# %% question 7.5
answer = ...  # yours
unit = right / np.sqrt((right * right).sum(axis=-1, keepdims=True))
check("7.5", answer, unit @ unit.T)

# %%
print(np.round(unit @ unit.T, 2))
first = pool(hidden, mask, "cls")
first = first / np.linalg.norm(first, axis=-1, keepdims=True)
print("by cls:\n", np.round(first @ first.T, 2))

# %% [markdown]
# Two things to take along. The encoder here was trained to fill gaps, not to compare texts: its
# cosines are a start. And a port whose vectors have a cosine of 0.95 with the right ones may be off
# by as much as two different texts are.
#
# To practise, by `modernbert exercise start ID`: eq-pool; bug-11, -27, -28, -29, -41.
