# %% [markdown]
# # 8. A backward pass by hand
#
# *14 minutes to read, 2 seconds to run. MODEL.md: the primed equations, (18') to (28'), (48).*
#
# Training asks of every number in the model: if it were a little larger, how would the loss change?
# The answers come from one walk through the equations in reverse. No new mathematics is needed for
# it: each equation has an *adjoint*, a few lines long, and they are chained in the opposite order.

# %%
import numpy as np

import refimpl
from refimpl.reference import ops
from refimpl.teach.questions import check
from refimpl.train import adjoints, gradients

rng = np.random.default_rng(0)

# %% [markdown]
# ## What an adjoint is
#
# Write dx for the gradient of the loss by x: an array of x's shape. If y = f(x), then a small step
# u of x moves y by J u, and the loss by dy . (J u) = (J^T dy) . u. So
#
# ```
# dx = J^T dy
# ```
#
# and whatever u and dy are, both sides of dy . (J u) = dx . u must be the same number. That is the
# test of an adjoint, and it needs no training and no torch.
#
# ## A linear map
#
# ```
# (18)  y = x W^T
# (18') dx = dy W,  dW = sum over tokens of dy^T x
# ```
#
# **8.1** Write dx and dW for x `[tokens, in]`, W `[out, in]`, dy `[tokens, out]`.


# %% question 8.1
def linear_back(dy, x, W):
    return ...  # yours


x, W, dy = (rng.standard_normal(s) for s in ((5, 3), (4, 3), (5, 4)))
truth = np.concatenate([part.ravel() for part in adjoints.linear(dy, x, W)[:2]])
mine = linear_back(dy, x, W)
check("8.1", mine if mine is ... else np.concatenate([part.ravel() for part in mine]), truth)

# %% [markdown]
# The two-sided test, on the reference's own:

# %%
u = rng.standard_normal(x.shape)
dx = adjoints.linear(dy, x, W)[0]
print(f"dy . J u = {(dy * ops.linear(u, W)).sum():.12f}")
print(f"dx . u   = {(dx * u).sum():.12f}")

# %% [markdown]
# ## LayerNorm
#
# x moves its own mean and its own spread, so each entry of a row has a say in all of them:
#
# ```
# (19') s = sqrt(s2 + eps),  n = (x - m) / s,  g = dy * weight
#       dx = (g - mean(g) - n * mean(g * n)) / s
# ```
#
# **8.2** Write it, for x `[tokens, hidden]`. Means are over the last axis.


# %% question 8.2
def layer_norm_back(dy, x, weight, eps):
    return ...  # yours


x, dy, weight = rng.standard_normal((5, 8)), rng.standard_normal((5, 8)), rng.standard_normal(8)
check("8.2", layer_norm_back(dy, x, weight, 1e-5), adjoints.layer_norm(dy, x, weight, 1e-5)[0])

# %% [markdown]
# The two terms behind g are what is forgotten most (in the exercises they are a bug each). They
# have a meaning: a constant added to x changes nothing (lesson 2), so dx must be orthogonal to
# constants; and neither does a longer x, so dx is orthogonal to n, but for eps.
#
# **8.3** What is the sum of each row of dx, to 6 digits?

# %% question 8.3
answer = ...  # yours
check("8.3", answer, sealed="84e42e3a", digits=6)

# %% [markdown]
# ## Softmax
#
# ```
# (27') dscores = probs * (dprobs - sum_j dprobs probs)
# ```
#
# The weights of a row add up to 1 whatever the scores do: what one gains the others lose.
#
# **8.4** Write it for one row or many.


# %% question 8.4
def softmax_back(dprobs, probs):
    return ...  # yours


scores, dprobs = rng.standard_normal((4, 6)), rng.standard_normal((4, 6))
probs = ops.softmax(scores, np.ones((4, 6), bool))
jacobians = np.array([np.diag(p) - np.outer(p, p) for p in probs])
check("8.4", softmax_back(dprobs, probs), np.einsum("tij,tj->ti", jacobians, dprobs))

# %% [markdown]
# ## Turning back
#
# The adjoint of a rotation is the rotation by the opposite angle (24'). A trainer that turns
# forwards once more runs, and learns something.
#
# ## Along the stream
#
# ```
# (11)  residual_1 = h + attn_out
# (11') d attn_out = d residual_1,  and  dh = d residual_1 + what comes back through attention
# ```
#
# What is used twice gets the sum of its gradients. That is all there is to a residual stream, and
# to a tied table, and to an embedding row that stands in a text three times.
#
# **8.5** Rows of E are looked up by ids; d is the gradient of E[ids]. Write dE `[vocab, hidden]`.


# %% question 8.5
def rows_back(d, ids, vocab):
    return ...  # yours


ids = np.array([3, 1, 3, 3, 0])
d = rng.standard_normal((5, 4))
check("8.5", rows_back(d, ids, 6), adjoints.take(d[None], ids[None], 6))

# %% [markdown]
# (`dE[ids] += d` is wrong: numpy adds only the last of the three 3s. `np.add.at` is meant for
# this.)
#
# ## The loss
#
# ```
# (48) loss = -log p_y,  p = softmax(logits)        d logits = p - [c = y]
# ```
#
# The simplest gradient of all: what was guessed, less what is right.
#
# ## All of it
#
# `refimpl.train.gradients` is the whole walk, and gives the gradient of every parameter. Does it
# agree with the plain definition, the loss's change by a small step?

# %%
encoder = refimpl.ModernBERT.from_variant("tiny", pretrained=True, dtype="float64")
model = refimpl.load(encoder.folder, dtype="float64")
tokenizer = refimpl.Tokenizer.from_folder(encoder.folder)
text = tokenizer.encode("the cat [MASK] on the mat")
ids = np.array([text.ids])
place = text.ids.index(tokenizer.mask_token_id)
labels = np.full_like(ids, -100)
labels[0, place] = tokenizer.encode("the cat sat on the mat").ids[place]
loss, grads = gradients(model, ids, labels, task="mask")
print(f"loss {loss:.6f}")

name, at = "layers.1.attn.Wqkv.weight", (3, 5)
params = {key: np.array(value, np.float64) for key, value in model.params.items()}


def loss_with(step):
    moved = {**params, name: params[name].copy()}
    moved[name][at] += step
    other = refimpl.ModernBERTForTask(model.config, moved, model.head, backend="numpy")
    return gradients(other, ids, labels, task="mask")[0]


step = 1e-5
print(f"gradient {grads[name][at]:.9e}, by differences "
      f"{(loss_with(step) - loss_with(-step)) / (2 * step):.9e}")  # fmt: skip

# %% [markdown]
# **8.6** A step against the gradient should make the loss smaller. Move *every* parameter by -0.01
# times its gradient (`params[key] - 0.01 * grads[key]`), and give the new loss: build the model as
# `loss_with` does.

# %% question 8.6
answer = ...  # yours
moved = {key: value - 0.01 * grads[key] for key, value in params.items()}
other = refimpl.ModernBERTForTask(model.config, moved, model.head, backend="numpy")
after = gradients(other, ids, labels, task="mask")[0]
check("8.6", answer, after)
print(f"it was {loss:.4f}")

# %% [markdown]
# To practise, by `modernbert exercise start ID`: eq-linear-back, eq-layer-norm-back, eq-glu-back,
# eq-attention-back; step-01 to -12. The whole trainer in one file, with a mistake in it, is what
# each step gives you.
