# %% [markdown]
# # 6. GeGLU: a gate for every channel
#
# *9 minutes to read, 2 seconds to run. MODEL.md: (12) to (16), (20), (21).*
#
# After a token has heard the others it thinks for itself. The MLP holds the larger half of a
# layer's parameters, and it looks at one token at a time. ModernBERT's has a gate: half of what
# the first matrix computes decides how much of the other half passes.

# %%
import numpy as np

import refimpl
from refimpl.reference import ops
from refimpl.reference.erf import erf
from refimpl.teach.questions import check

model = refimpl.ModernBERT.from_variant("tiny", pretrained=True, dtype="float64")
config = model.config
params = {name: np.asarray(x, np.float64) for name, x in model.params.items()}
tokenizer = refimpl.Tokenizer.from_folder(model.folder)
steps = {}
model([tokenizer.encode("for i in range(10):").ids], tap=refimpl.record(steps))

# %% [markdown]
# ## GELU
#
# ```
# (20) gelu(x) = x / 2 * (1 + erf(x / sqrt(2)))
# ```
#
# The factor behind x is Phi(x), the share of a normal distribution below x: a switch that goes from
# 0 to 1 gently. Large x pass, very negative ones do not, and around 0 it bends.
#
# **6.1** Write it with `erf`, which takes arrays.


# %% question 6.1
def gelu(x):
    return ...  # yours


x = np.linspace(-4, 4, 81)
check("6.1", gelu(x), ops.gelu(x))

# %% [markdown]
# There is a famous approximation by tanh, from times when erf was slow. It is *not* the same
# function, and `hidden_activation: "gelu"` means the exact one.
#
# **6.2** By how much do the two differ at most? (Four digits behind the point.)

# %% question 6.2
answer = ...  # yours
check("6.2", answer, sealed="120b85a8", digits=4)

# %% [markdown]
# Too little for any test with a tolerance of 1e-3, and some thousand times what float32 rounds. The
# kit calls a port that has it a *declared deviation*: right, but for a known and named departure.
#
# ## The gate
#
# ```
# (13) wi  = linear(mlp_norm, Wi)                   [.., 2 inter]
# (21) glu = act(wi[:inter]) * wi[inter:]           [.., inter]
# (15) mlp_out = linear(glu, Wo)                    [.., hidden]
# ```
#
# The *first* half is activated, the second half multiplies. A port that has it the other way round
# runs, and gives numbers of the right size.
#
# **6.3** Compute `glu` of layer 2 from its `wi`.

# %% question 6.3
wi = steps["layers.2.wi"]
answer = ...  # yours
check("6.3", answer, steps["layers.2.glu"])

# %% [markdown]
# How many gates are open? Phi of the first half, over all channels and tokens of a layer:

# %%
for i in range(config.num_hidden_layers):
    a = steps[f"layers.{i}.wi"][..., : config.intermediate_size]
    gate = 0.5 * (1 + erf(a / np.sqrt(2)))
    closed, wide = 100 * (gate < 0.1).mean(), 100 * (gate > 0.9).mean()
    print(f"layer {i}: {closed:3.0f} % of the gates are shut, {wide:3.0f} % wide open")

# %% [markdown]
# ## A token by itself
#
# Attention mixes tokens, the MLP does not: change one token's `mlp_norm`, and `mlp_out` changes for
# that token alone.
#
# **6.4** Compute `mlp_out` of layer 2 for token 4 alone, from its row of `mlp_norm`: two matrices,
# `layers.2.mlp.Wi.weight` and `layers.2.mlp.Wo.weight`, and what you have written above.

# %% question 6.4
row = steps["layers.2.mlp_norm"][0, 4]
answer = ...  # yours
check("6.4", answer, steps["layers.2.mlp_out"][0, 4])

# %% [markdown]
# ## Sizes
#
# A plain MLP has two matrices, of hidden x 4 hidden in BERT. With a gate there are three of
# hidden x inter, two of them in Wi. `base` has inter = 1.5 hidden, and 22 layers of it where BERT
# has 12: more steps, each a smaller one.
#
# **6.5** Which share of the parameters of layer 1 of `tiny` stands in its MLP (Wi and Wo, not the
# norm)? (Two digits behind the point; `params` by name.)

# %% question 6.5
answer = ...  # yours
check("6.5", answer, sealed="762df850", digits=2)

# %% [markdown]
# ## What if a gate is shut for good?
#
# A tap may put another value in a step's place. Here the MLP of layer 1 is switched off: the stream
# goes on, since the MLP only adds to it (16).

# %%


def without_mlp(name, value):
    return np.zeros_like(value) if name == "layers.1.mlp_out" else value


ids = [tokenizer.encode("for i in range(10):").ids]
truth = model(ids)["last_hidden_state"]
crippled = model(ids, tap=without_mlp)["last_hidden_state"]
print(f"off by {np.linalg.norm(crippled - truth) / np.linalg.norm(truth):.2f} of its length")

# %% [markdown]
# To practise, by `modernbert exercise start ID`: eq-gelu, eq-glu; bug-04, -12, -21, -22, -23,
# -26.
