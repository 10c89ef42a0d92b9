# %% [markdown]
# # 1. Tokens and their embedding
#
# *8 minutes to read, 2 seconds to run. MODEL.md: (5), section 2.*
#
# A model of text computes with numbers, so text becomes numbers twice: it is cut into pieces, each
# with a number of its own (its *id*), and each id is looked up in a table, whose row is a vector.
# Nothing in between knows about words, grammar or meaning. Whatever the model knows about a token
# before it has seen the others stands in that one row.
#
# Cells run from top to bottom, here or as a notebook. Where there is `...  # yours` an answer is
# missing. Write it, and run the cell again: `check` says whether it is right.

# %%
import numpy as np

import refimpl
from refimpl.reference import ops
from refimpl.teach.questions import check

model = refimpl.ModernBERT.from_variant("tiny", pretrained=True, dtype="float64")
config, params = model.config, model.params
tokenizer = refimpl.Tokenizer.from_folder(model.folder)

# %% [markdown]
# ## Pieces
#
# `Ġ` stands for a space before the piece: `in` and `Ġin` are two tokens with two ids. The text is
# framed by `[CLS]` and `[SEP]`, which are ordinary rows of the table, too.

# %%
text = tokenizer.encode("for i in range(10):")
for token, id in zip(text.tokens, text.ids, strict=True):
    print(f"{id:5d}  {token}")

# %% [markdown]
# **1.1** How many tokens has this text, with those at its ends?

# %% question 1.1
answer = ...  # yours
check("1.1", answer, sealed="dbf52ea4")

# %% [markdown]
# ## Rows
#
# The table E is `embeddings.tok_embeddings.weight`, `[vocab, hidden]`. Looking up is indexing:
# `E[ids]` has the shape `[batch, seq, hidden]`. We keep a batch of one text.

# %%
E = np.asarray(params["embeddings.tok_embeddings.weight"], np.float64)
ids = np.array([text.ids])
rows = E[ids]
print("E", E.shape, " E[ids]", rows.shape)

# %% [markdown]
# **1.2** Which share of the model's parameters stands in this table? (Two digits behind the point;
# `model.num_parameters` has all of them.)

# %% question 1.2
answer = ...  # yours
check("1.2", answer, sealed="743c2e3e", digits=2)

# %% [markdown]
# In `base`, with its 50,368 tokens, the share is a quarter; the table is the largest tensor there
# is, and one that is only ever read a few rows at a time.
#
# ## The first step: `embedding`
#
# MODEL.md says
#
# ```
# (5) h = layer_norm(E[ids])
# ```
#
# and calls the result `embedding`. Every step has such a name, and `record` keeps the steps of a
# pass. (What a layer norm is comes in lesson 2; `ops.layer_norm` is the reference's.)

# %%
steps = {}
model(ids, tap=refimpl.record(steps))
print(list(steps)[:4], "..", list(steps)[-1])
print(ops.layer_norm.__doc__)

# %% [markdown]
# **1.3** Compute `embedding` from `rows` with `ops.layer_norm(x, weight, bias, eps)`. The weight
# is `embeddings.norm.weight`, there is no bias, and eps is `config.norm_eps`.

# %% question 1.3
answer = ...  # yours
check("1.3", answer, steps["embedding"])

# %% [markdown]
# ## What a row does not know
#
# No position is added here. BERT adds a vector for the place, ModernBERT adds none: it turns
# queries and keys instead (lesson 5). So the same token has the same vector wherever it stands, and
# a text with its tokens in another order has the same vectors in that order.

# %%
shuffled = ids[:, ::-1]
other = {}
model(shuffled, tap=refimpl.record(other))
print(np.array_equal(other["embedding"], steps["embedding"][:, ::-1]))

# %% [markdown]
# **1.4** The text below has tokens that repeat. How many different vectors are there in its
# `embedding`?

# %%
repeated = tokenizer.encode("a cat and a dog and a cat")
print(repeated.tokens)

# %% question 1.4
answer = ...  # yours
check("1.4", answer, sealed="ecc0332a")

# %% [markdown]
# Nor does a row know its neighbours: `i` in `for i in` and in `i am` starts from the same vector.
# That it does not stay so is the work of the layers. Two occurrences of one token, before and after
# them:

# %%
both = {}
two = tokenizer.encode("for i in range(10): print(i)")
model([two.ids], tap=refimpl.record(both))
first, second = [k for k, token in enumerate(two.tokens) if token.strip("Ġ") == "i"][:2]
for step in ("embedding", "layers.0.residual_2", "layers.3.residual_2"):
    a, b = both[step][0, first], both[step][0, second]
    print(f"{step:20s} cosine {a @ b / np.linalg.norm(a) / np.linalg.norm(b):.3f}")

# %% [markdown]
# (`Ġi` and `i` are two tokens: their cosine is not 1 at the start. Try a text in which the very
# same token repeats.)
#
# **1.5** Can the model tell `a cat and a dog` from `a dog and a cat` by `embedding` alone, if it
# may only look at the *set* of vectors? True or False.

# %% question 1.5
answer = ...  # yours
check("1.5", answer, sealed="6666717c")

# %% [markdown]
# ## Padding
#
# In a batch all rows are equally long, so short texts are filled up with the id of `[PAD]`. Its row
# of E is an ordinary row. What keeps padding from being text is the mask, and that takes part in
# attention only (lesson 4): the `embedding` of a padded token is computed like any other.
#
# On: lesson 2, what that norm is for. To practise, by `modernbert exercise start ID`: bug-37.
