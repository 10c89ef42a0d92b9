# %% [markdown]
# # 3. Attention
#
# *14 minutes to read, 2 seconds to run. MODEL.md: (7), (26) to (28), (10), (11).*
#
# Everything else in the model looks at one token at a time. Attention is the only step in which a
# token's vector gets something from the others, and it is a weighted mean: each token asks (q),
# each token offers (k) and gives (v). This lesson computes it, for one head and then for all.

# %%
import numpy as np

import refimpl
from refimpl.reference import ops
from refimpl.teach.questions import check

model = refimpl.ModernBERT.from_variant("tiny", pretrained=True, dtype="float64")
config = model.config
params = {name: np.asarray(x, np.float64) for name, x in model.params.items()}
tokenizer = refimpl.Tokenizer.from_folder(model.folder)
text = tokenizer.encode("for i in range(10):")
steps = {}
out = model([text.ids], output_attentions=True, tap=refimpl.record(steps))
seq, heads, head_dim = len(text.ids), config.num_attention_heads, config.head_dim
print("seq", seq, "heads", heads, "head_dim", head_dim)

# %% [markdown]
# ## Three vectors from one
#
# ```
# (7) q, k, v = thirds of linear(attn_norm, Wqkv), head after head
# ```
#
# One matrix makes all three at once, for all heads. The hidden axis of 256 is cut into 4 heads of
# 64, and each head works alone from here until (10).
#
# **3.1** Which shape has `layers.0.attn.Wqkv.weight`? (A list of two numbers. Weights are
# `[out, in]`.)

# %% question 3.1
answer = ...  # yours
check("3.1", answer, sealed="fd55d1a2")

# %% [markdown]
# ## Scores
#
# ```
# (26) scores[i, j] = q[i] . k[j] / sqrt(head_dim)
# ```
#
# A scalar product says how well what i asks fits to what j offers. q and k have been turned by
# their positions before (`q_rot`, `k_rot`, lesson 5). Here is head 0 of layer 0, `[seq, head_dim]`:

# %%
q = steps["layers.0.q_rot"][0, :, 0]
k = steps["layers.0.k_rot"][0, :, 0]
v = steps["layers.0.v"][0, :, 0]

# %% [markdown]
# **3.2** Compute the scores `[seq, seq]`: row i asks, column j answers.

# %% question 3.2
answer = ...  # yours
scores = ops.linear(q, k) * head_dim**-0.5
check("3.2", answer, scores)

# %% [markdown]
# Why the square root? A sum of n products of independent numbers of size 1 has the size sqrt(n).
# Without the division scores of 64-dimensional heads are 8 times as large, and what follows takes
# their exponential.
#
# ## Softmax
#
# ```
# (27) probs[i, j] = exp(scores[i, j] - max_j scores[i, j]) / sum_j exp(..)
# ```
#
# Scores become weights: positive, and 1 in sum for each row. The maximum is taken off first, which
# changes nothing in exact arithmetic and keeps exp from overflowing.
#
# **3.3** Compute `probs` from `scores`, row by row.

# %% question 3.3
answer = ...  # yours
probs = ops.softmax(scores, np.ones((seq, seq), bool))
check("3.3", answer, probs)

# %% [markdown]
# The map of a head, in words: where each token looks most.

# %%
for i, token in enumerate(text.tokens):
    j = int(probs[i].argmax())
    print(f"{token:8s} looks at {text.tokens[j]:8s} with {probs[i, j]:.2f}")

# %% [markdown]
# **3.4** If q were all zeros, what would each of the weights be? (Two digits behind the point.)

# %% question 3.4
answer = ...  # yours
check("3.4", answer, sealed="54bda93c", digits=2)

# %% [markdown]
# That is what a model with small random weights does: it takes the mean of everything. A mistake in
# mask or angle changes such a mean hardly at all, and ports that were tested on random weights of
# std 0.02 passed with any of them. The conformance kit draws larger ones for that reason.
#
# ## The weighted mean
#
# ```
# (28) attention[i] = sum_j probs[i, j] v[j]
# ```
#
# **3.5** Compute it for head 0. The step `attention` has the heads side by side: head 0 are its
# first `head_dim` columns.

# %% question 3.5
answer = ...  # yours
check("3.5", answer, steps["layers.0.attention"][0, :, :head_dim])

# %% [markdown]
# Values of a row of the result lie between the smallest and the largest of v: a mean can only mix.
# The sum of what all heads found goes through one more matrix, (10), and is *added* to the stream,
# (11): a head that has nothing to say may say nothing.

# %%
mixed = steps["layers.0.attention"][0, :, :head_dim]
print(bool((mixed <= v.max(axis=0)).all() and (mixed >= v.min(axis=0)).all()))

# %% [markdown]
# ## All heads at once
#
# Put the axis of heads before that of tokens, and numpy's `@` does all of them: q is then
# `[heads, seq, head_dim]`. At the end heads go back behind tokens, and are joined.
#
# **3.6** Write the whole of it. q, k, v are `[seq, heads, head_dim]`, the result is `[seq,
# hidden]`.


# %% question 3.6
def attention(q, k, v):
    return ...  # yours


given = [steps[f"layers.0.{name}"][0] for name in ("q_rot", "k_rot", "v")]
check("3.6", attention(*given), steps["layers.0.attention"][0])

# %% [markdown]
# What happens if you forget the swap before the reshape? The shape is right, no error is raised,
# and the numbers stand in other places. It is bug 19 of the exercises.
#
# ## Order does not matter
#
# Nothing in (26) to (28) knows where a token stands. Shuffle the keys, and their values with them:

# %%
order = np.random.default_rng(0).permutation(seq)
again = ops.softmax(ops.linear(q, k[order]) * head_dim**-0.5, np.ones((seq, seq), bool)) @ v[order]
print(f"largest difference {np.abs(again - mixed).max():.1e}")

# %% [markdown]
# So attention sees a set, not a sequence. What makes a sequence of it is the turning of q and k,
# lesson 5; who may be seen at all is lesson 4.
#
# To practise, by `modernbert exercise start ID`: eq-split-qkv, eq-attention; bug-01, -02, -03,
# -18, -19.
