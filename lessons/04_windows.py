# %% [markdown]
# # 4. Windows, masks, and what a layer cannot see
#
# *12 minutes to read, 2 seconds to run. MODEL.md: (2), (3), (25), section 6.*
#
# In two of three layers a token sees its neighbourhood only. That is what makes long texts cheap,
# and it is where most ports of the model go wrong: on short texts a wrong window is right. This
# lesson says who sees whom, and then measures how far news travels.

# %%
import numpy as np

import refimpl
from refimpl.reference import ops
from refimpl.teach.questions import check

model = refimpl.ModernBERT.from_variant("tiny", pretrained=True, dtype="float64")
tokenizer = refimpl.Tokenizer.from_folder(model.folder)

# %% [markdown]
# ## The rule
#
# ```
# (2)  full(i)       = i mod 3 == 0 by default: layers 0, 3, 6, ..
# (3)  window(i)     = none in a full layer, else floor(local_attention / 2)
# (25) visible(i, j) = mask[j] != 0  and  (window is none  or  |i - j| <= window)
# ```
#
# `local_attention` is the *whole* window, 128 in base and large: 64 tokens to each side, and with
# the token itself 129 keys. (Is it 128 to each side? Is it `<`? Ports have had both.)

# %%
print([model.config.window(i) for i in range(model.config.num_hidden_layers)])

# %% [markdown]
# **4.1** With a window of 3 to either side and 24 tokens, 0 to 23: how many keys do the tokens 0,
# 2, 10 and 22 see? (A list.)

# %% question 4.1
answer = ...  # yours
check("4.1", answer, sealed="cd1c2d40")

# %% [markdown]
# **4.2** Write the rule for one text: bool `[seq, seq]`, row i asks. mask is `[seq]`, nonzero for
# a real token, window a number or None.


# %% question 4.2
def visible(mask, window):
    return ...  # yours


axis, mask = np.arange(24), np.array([1] * 17 + [0] * 7)
truth = ops.visible(axis, axis, 3) & (mask != 0)
check("4.2", visible(mask, 3), truth)

# %% [markdown]
# Padding hides *keys*: column j is empty where mask[j] is 0. Padded rows still ask, and what they
# get is nobody's business, as long as it is a number: a padded query far from every real token sees
# no key at all. A softmax over nothing is 0 / 0. The reference gives zeros there (28).
#
# **4.3** In `truth`, how many queries see no key at all?

# %% question 4.3
answer = ...  # yours
check("4.3", answer, sealed="fc277ec8")

# %% [markdown]
# ## The window does not show in short texts
#
# Here is the classical mistake, a model without any window, against the right one. `ops` puts
# another equation in its place. The text grows.

# %%


def everything(queries, keys, window):
    return np.ones((len(queries), len(keys)), bool)


line = "for i in range(10):\n    print(i)\n"
for times in (1, 2, 3, 6, 12):
    ids = [tokenizer.encode(line * times).ids]
    right = model(ids)["last_hidden_state"]
    wrong = model(ids, ops={"visible": everything})["last_hidden_state"]
    off = np.linalg.norm(wrong - right) / np.linalg.norm(right)
    a, b = right.mean(axis=1)[0], wrong.mean(axis=1)[0]
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    print(f"{len(ids[0]):4d} tokens: off by {off:.2e}, cosine of the mean vectors {cosine:.4f}")

# %% [markdown]
# **4.4** `tiny` has a window of 32 to each side. What is the largest number of tokens for which the
# two must agree to the last digit?

# %% question 4.4
answer = ...  # yours
check("4.4", answer, sealed="a4131825")

# %% [markdown]
# And look at the cosines: a model without its window has vectors that a test with a threshold of
# 0.95 would pass. That is how such ports were shipped.
#
# ## How far news travels
#
# One sliding layer carries news over `window` tokens. The next one carries it on. To see it, a
# model of four sliding layers with a window of 3 to either side, random weights, and one token
# changed in the middle. Which tokens notice, layer by layer?

# %%
local = refimpl.ModernBERT.from_variant(
    "tiny", dtype="float64", local_attention=6, layer_types=("sliding_attention",) * 4
)
ids = np.arange(100, 141)[None]
changed = ids.copy()
changed[0, 20] = 7


def traces(model, ids, changed):
    a, b = {}, {}
    model(ids, tap=refimpl.record(a))
    model(changed, tap=refimpl.record(b))
    return {
        name: np.flatnonzero((a[name] != b[name]).any(axis=-1)[0])
        for name in ("embedding", *(f"layers.{i}.residual_2" for i in range(4)))
    }


for name, noticed in traces(local, ids, changed).items():
    row = "".join("#" if i in noticed else "." for i in range(ids.shape[1]))
    print(f"{name:20s} {row}")

# %% [markdown]
# **4.5** After three such layers, how many tokens have noticed (the changed one included)?

# %% question 4.5
answer = ...  # yours
check("4.5", answer, sealed="1f1d74e0")

# %% [markdown]
# Without full layers, 22 layers with 64 tokens to a side would carry news over 1,408 tokens, and
# 8,192 would be out of reach. Every third layer being full, any token hears of any other within
# three layers:

# %%
mixed = refimpl.ModernBERT.from_variant(
    "tiny",
    dtype="float64",
    local_attention=6,
    layer_types=("sliding_attention", "sliding_attention", "full_attention", "sliding_attention"),
)
for name, noticed in traces(mixed, ids, changed).items():
    row = "".join("#" if i in noticed else "." for i in range(ids.shape[1]))
    print(f"{name:20s} {row}")

# %% [markdown]
# ## What it saves
#
# A full layer has seq x seq scores, a sliding one seq x (2 window + 1).
#
# **4.6** At 8,192 tokens and a window of 64 to a side: which share of a full layer's scores does a
# sliding layer need? (Three digits behind the point; ends of the text do not matter.)

# %% question 4.6
answer = ...  # yours
check("4.6", answer, sealed="07ec5987", digits=3)

# %% [markdown]
# The share is what `ops.attention` really computes: it goes through blocks of queries and reads the
# keys that a block can reach, and no array `[seq, seq]` is ever held (lesson 10).
#
# To practise, by `modernbert exercise start ID`: eq-visible, eq-plan; bug-09, -10, -13, -14, -15,
# -30, -31, -32, -42, -43, -46.
