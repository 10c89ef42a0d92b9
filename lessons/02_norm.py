# %% [markdown]
# # 2. LayerNorm, and why it stands before
#
# *12 minutes to read, 2 seconds to run. MODEL.md: (19), (6), (12), (17).*
#
# Between any two things that a layer does, numbers are brought to the same size. ModernBERT does so
# *before* attention and *before* the MLP, and what goes from layer to layer stays as it is: a
# stream to which each part adds. This lesson computes the norm, shows what it forgets, and
# measures what its place does to a deep model.

# %%
import numpy as np

import refimpl
from refimpl.reference import ops
from refimpl.teach.questions import check

model = refimpl.ModernBERT.from_variant("tiny", pretrained=True, dtype="float64")
config = model.config
params = {name: np.asarray(x, np.float64) for name, x in model.params.items()}
tokenizer = refimpl.Tokenizer.from_folder(model.folder)
ids = [tokenizer.encode("for i in range(10):").ids]
steps = {}
model(ids, tap=refimpl.record(steps))

# %% [markdown]
# ## The equation
#
# ```
# (19)  m = mean(x),  s2 = mean((x - m)^2)
#       layer_norm(x) = (x - m) / sqrt(s2 + norm_eps) * weight + bias
# ```
#
# Mean and variance are those of one token's row: no other token, no other text of the batch has a
# say. (A batch norm takes them over the batch, and a token's result then depends on its company.)
#
# **2.1** Write it. x is `[.., hidden]`, means keep their axis (`keepdims=True`), there is no bias.


# %% question 2.1
def layer_norm(x, weight, eps):
    return ...  # yours


x = steps["layers.0.residual_1"]
answer = layer_norm(x, params["layers.0.mlp_norm.weight"], config.norm_eps)
check("2.1", answer, steps["layers.0.mlp_norm"])

# %% [markdown]
# ## What it forgets
#
# Add a constant to a row, or multiply it by one: the result stays (but for eps).

# %%
ones = np.ones(config.hidden_size)
plain = ops.layer_norm(x, ones, None, 1e-5)
moved = ops.layer_norm(3.0 * x + 100.0, ones, None, 1e-5)
print(f"largest difference {np.abs(plain - moved).max():.1e}")
print(f"mean {plain.mean():.1e}, mean square {(plain**2).mean():.4f}")

# %% [markdown]
# A row of 256 numbers goes in, and what comes out has 254 degrees of freedom: a point on a sphere
# of radius sqrt(hidden), in the plane of rows whose sum is 0.
#
# **2.2** How long is a row of `plain`, to a tenth? (`np.linalg.norm`, or think.)

# %% question 2.2
answer = ...  # yours
check("2.2", answer, sealed="cf105cb4", digits=1)

# %% [markdown]
# ## eps
#
# eps keeps a constant row from being 0 / 0. It also decides what happens to rows that are *nearly*
# constant: where the variance is far above eps, the result has spread 1; where it is far below, the
# row is only multiplied by 1 / sqrt(eps).
#
# **2.3** With eps = 1e-5, a row with mean 0 and standard deviation 0.001 goes in. What is the
# standard deviation of the result? (Two digits behind the point.)

# %% question 2.3
answer = ...  # yours
check("2.3", answer, sealed="fac7f417", digits=2)

# %% [markdown]
# A port that takes eps = 1e-12 gives 1.00 there. On ordinary rows nobody notices; that is one of
# the bugs of the exercises, and public ports have had it.
#
# ## Before or after
#
# ```
# before (ModernBERT)    h = h + part(layer_norm(h))
# after (BERT)           h = layer_norm(h + part(h))
# ```
#
# Both keep numbers in bounds. In the first, h itself is never normed: there is one path from the
# first step to the last on which nothing is done but adding. In the second, every layer's norm
# divides what came before by something like sqrt(2), and so does the gradient on its way back.
#
# To see it, a stack of random layers, each a matrix and tanh. `after` and `before` give what comes
# out; a small push at the start is followed to the end.

# %%
rng = np.random.default_rng(0)
depth, width = 40, 64
matrices = rng.standard_normal((depth, width, width)) / np.sqrt(width)
one = np.ones(width)


def normed(h):
    return ops.layer_norm(h, one, None, 1e-5)


def before(h):
    for W in matrices:
        h = h + np.tanh(ops.linear(normed(h), W))
    return h


def after(h):
    for W in matrices:
        h = normed(h + np.tanh(ops.linear(h, W)))
    return h


start = normed(rng.standard_normal(width))
push = 1e-6 * rng.standard_normal(width)
print(f"before: |h| grows from {np.linalg.norm(start):.0f} to {np.linalg.norm(before(start)):.0f}")
print(f"after:  |h| stays at {np.linalg.norm(after(start)):.0f}")

# %% [markdown]
# How much of the start is left in the end? In `before` the start stands in the sum, with factor 1.
# In `after` it has been divided by every norm on the way. We take the cosine of what goes in with
# what comes out.

# %%


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


share = {"before": cosine(start, before(start)), "after": cosine(start, after(start))}
print({name: round(value, 3) for name, value in share.items()})

# %% [markdown]
# **2.4** In which of the two does the first step reach the last layer: "before" or "after"?

# %% question 2.4
answer = ...  # yours
check("2.4", answer, sealed="e7b12199")

# %% [markdown]
# The price is that h grows, since everybody adds. In the model, the length of the residual stream,
# layer by layer:

# %%
for name in ("embedding", *(f"layers.{i}.residual_2" for i in range(4)), "final_norm"):
    print(f"{name:20s} {np.linalg.norm(steps[name][0], axis=-1).mean():8.1f}")

# %% [markdown]
# So one more norm is needed at the very end, (17): whoever reads the last hidden state wants it at
# a known size.
#
# ## The norm that is not there
#
# Layer 0 has no norm before its attention (6): its input is `embedding`, which has just come out of
# one. The file has no `layers.0.attn_norm.weight`.
#
# **2.5** How many layer norms does an encoder of 4 layers have, all together?

# %% question 2.5
answer = ...  # yours
check("2.5", answer, sealed="842f5441")

# %% [markdown]
# On: lesson 3. To practise, by `modernbert exercise start ID`: eq-layer-norm; bug-05, -06, -24,
# -25, -38, -39, -40.
