# %% [markdown]
# # 5. RoPE: a place as an angle
#
# *13 minutes to read, 2 seconds to run. MODEL.md: (4), (8), (22) to (24).*
#
# Attention sees a set (lesson 3). To make a sequence of it, ModernBERT turns each query and each
# key by angles that grow with the position. A scalar product of two turned vectors then depends on
# how far apart they stand, and on nothing else about their places.

# %%
import numpy as np

import refimpl
from refimpl.reference import ops
from refimpl.teach.questions import check

model = refimpl.ModernBERT.from_variant("tiny", pretrained=True, dtype="float64")
config = model.config
tokenizer = refimpl.Tokenizer.from_folder(model.folder)
steps = {}
model([tokenizer.encode("for i in range(10):").ids], tap=refimpl.record(steps))

# %% [markdown]
# ## Two numbers, one angle
#
# Take a pair of numbers as a point in the plane. Turned by an angle a it is
#
# ```
# (x, y)  ->  (x cos a - y sin a,  x sin a + y cos a)
# ```
#
# **5.1** Where does (1, 0) go when it is turned by a quarter of a full turn? (A list of two whole
# numbers.)

# %% question 5.1
answer = ...  # yours
check("5.1", answer, sealed="ff99f741")

# %% [markdown]
# ## A head has many pairs
#
# ```
# (22) inv_freq[k] = theta^(-2 k / head_dim)        k = 0 .. head_dim/2 - 1
# (23) angle = position * inv_freq
# ```
#
# Pair k turns by inv_freq[k] with every token: pair 0 by one radian, the last one hardly at all.
# Like hands of a clock: the fast ones tell neighbours apart, the slow ones say roughly where.

# %%
head_dim = config.head_dim
inv_freq = {
    kind: theta ** (-2 * np.arange(head_dim // 2) / head_dim)
    for kind, theta in {"full": 160000.0, "sliding": 10000.0}.items()
}
for kind, f in inv_freq.items():
    turns = 2 * np.pi / f
    print(f"{kind:8s} a full turn takes from {turns[0]:.2f} to {turns[-1]:,.0f} tokens")

# %% [markdown]
# **5.2** In a sliding layer two tokens that see each other are at most 64 apart (base). By how
# many radians has the slowest pair of a head of 64 turned over these, with theta = 10000? (Three
# digits behind the point.)

# %% question 5.2
answer = ...  # yours
check("5.2", answer, sealed="62c28968", digits=3)

# %% [markdown]
# So the slow pairs of a local layer carry hardly any position, and are free for content. Full
# layers have to tell 8,192 places apart: their theta is larger, (4). A port with one theta for
# both, or with the two swapped, is right for a single token, nearly right for two, and wrong for
# a page.
#
# **5.3** Write the table of angles, `[seq, head_dim / 2]`, for positions 0, 1, 2, ..


# %% question 5.3
def angles(seq, head_dim, theta):
    return ...  # yours


sine = ops.rope_table(np.arange(9), head_dim, 160000.0, np.float64)[1]
mine = angles(9, head_dim, 160000.0)
check("5.3", mine if mine is ... else np.sin(mine), sine[:, : head_dim // 2])

# %% [markdown]
# ## Which pairs?
#
# ```
# (24) rotate_half(x) = [-x[head_dim/2:], x[:head_dim/2]]
#      rope(x) = x * cos + rotate_half(x) * sin
# ```
#
# Entry k goes with entry k + head_dim / 2: the two *halves* of a head turn against each other. The
# paper that invented this turns neighbours, entries 2 k and 2 k + 1. Both are fine, if the weights
# were trained so. Mixed up, everything looks well: lengths are right, position 0 is right.
#
# **5.4** Write rope for x `[seq, heads, head_dim]`, with cos and sin `[seq, head_dim]`.


# %% question 5.4
def rope(x, cos, sin):
    return ...  # yours


table = steps["rope.full.cos"][0], steps["rope.full.sin"][0]
check("5.4", rope(steps["layers.0.q"][0], *table), steps["layers.0.q_rot"][0])

# %% [markdown]
# ## Only the distance counts
#
# Turning both by the same angle changes no scalar product. So q at position m and k at position n
# have a score that depends on m - n alone. One head, all pairs of places up to 200 with a distance
# of 5:

# %%
q, k = steps["layers.0.q"][0, 3:4, :1], steps["layers.0.k"][0, 6:7, :1]


def score(m, n):
    turned = [
        ops.rope(x, *ops.rope_table(np.array([at]), head_dim, 160000.0, np.float64))
        for x, at in ((q, m), (k, n))
    ]
    return float((turned[0] * turned[1]).sum())


same = [score(m, m + 5) for m in range(0, 200, 20)]
print(f"distance  5: from {min(same):.12f} to {max(same):.12f}")
print(f"distance 50: {score(0, 50):.12f}")

# %% [markdown]
# **5.5** What if only q is turned, and k goes into the scores as it is: does the score of two
# tokens still depend on their distance alone? True or False.

# %% question 5.5
answer = ...  # yours
check("5.5", answer, sealed="bedc82b9")


# %%
def one_sided(m):
    turned = ops.rope(q, *ops.rope_table(np.array([m]), head_dim, 160000.0, np.float64))
    return float((turned * k).sum())


print(f"only q turned: {one_sided(0):.6f} at 0, {one_sided(100):.6f} at 100")

# %% [markdown]
# ## What positions do not do
#
# Positions turn q and k, and that is all. Windows and masks go by the index (25), whatever
# positions a caller gives. v is never turned: what is handed on does not depend on where it was.
#
# Moving a whole text by 1,000 positions changes nothing, to rounding:

# %%
ids = np.array([tokenizer.encode("for i in range(10):").ids])
here = model({"input_ids": ids})["last_hidden_state"]
there = model({"input_ids": ids, "position_ids": 1000 + np.arange(ids.shape[1])[None]})
off = np.abs(there["last_hidden_state"] - here).max()
print(f"largest difference {off:.1e}")

# %% [markdown]
# **5.6** Tables in half precision have 11 significant bits. The angle of pair 0 at position 4,095
# is 4,095 radians. If the *angle* is rounded to 11 bits, by how much is it off at most? (Radians,
# a whole number: numbers between 2,048 and 4,096 are then 2 apart.)

# %% question 5.6
answer = ...  # yours
check("5.6", answer, sealed="dd2fd123")

# %% [markdown]
# A radian is a sixth of a turn: such a table is noise there, and right at position 3. This is why
# the reference computes angle, cos and sin in float64 and rounds once.
#
# To practise, by `modernbert exercise start ID`: eq-rope-table, eq-rope; bug-07, -08, -16, -17,
# -20, -33 to -36, -44, -45.
