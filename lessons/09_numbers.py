# %% [markdown]
# # 9. Numbers: float32, bfloat16, and why a port differs
#
# *13 minutes to read, 2 seconds to run. MODEL.md: its first page; refimpl/verify/README.md.*
#
# Two correct programs do not give the same numbers. Is a difference of 1e-6 a bug, and one of 1e-3
# rounding? Neither can be said without knowing how numbers are rounded and what a computation does
# with it. This lesson finds out how far an honest port may stray.

# %%
import numpy as np

import refimpl
from refimpl.reference import ops
from refimpl.teach.questions import check

rng = np.random.default_rng(0)

# %% [markdown]
# ## How many digits
#
# A floating-point number has a fixed number of *significant* bits p, however large it is. Rounding
# to nearest errs by at most u = 2^-p, relative.
#
# | dtype | bits of the significand p | u | largest |
# | --- | ---: | ---: | ---: |
# | float64 | 53 | 1.1e-16 | 1.8e308 |
# | float32 | 24 | 6.0e-8 | 3.4e38 |
# | float16 | 11 | 4.9e-4 | 65504 |
# | bfloat16 | 8 | 3.9e-3 | 3.4e38 |
#
# **9.1** What is the next float32 after 1, less 1? (As a number; 2.0**-n.)

# %% question 9.1
answer = ...  # yours
check("9.1", answer, sealed="964e4251")

# %% [markdown]
# numpy has no bfloat16. It is a float32 whose last 16 bits are gone, after rounding to nearest, and
# to even where both are equally near:


# %%
def bfloat16(x):
    bits = np.asarray(x, np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded & 0xFFFF0000).astype(np.uint32).view(np.float32)


print(bfloat16(np.float32([1.0, 1.001, 3.14159, 257.0, 1000.5])))

# %% [markdown]
# **9.2** Which is the smallest whole number above 0 that bfloat16 cannot hold?

# %% question 9.2
answer = ...  # yours
check("9.2", answer, sealed="9140650b")

# %% [markdown]
# (Positions in bfloat16, therefore: token 257 stands where 256 does. Ports have had that.)
#
# ## Sums
#
# Rounding happens after every addition, so the order counts. Both of these are right:

# %%
x = rng.standard_normal(4096).astype(np.float32)
forward = np.float32(0)
for value in x:
    forward = forward + value
print(f"one after the other {forward:.9f}\nnumpy's (pairwise)  {x.sum():.9f}")
print(f"in float64          {x.astype(np.float64).sum():.9f}")

# %% [markdown]
# An error relative to the *sum* can be large when terms cancel; relative to the sum of absolute
# values it is small, and that is what can be promised: at most about n u sum |x|, and sqrt(n) u in
# practice.
#
# ## Where digits get lost
#
# The variance has two forms that are equal on paper: mean((x - m)^2) and mean(x^2) - m^2.
#
# **9.3** Take the row below in float32. Compute its variance by the second form, all in float32,
# and say how many of its digits are right: give the relative error's order of magnitude as a
# whole number, log10 rounded (0 means nothing is right).

# %%
row = (1000.0 + rng.standard_normal(256)).astype(np.float32)
good = float(row.astype(np.float64).var())

# %% question 9.3
answer = ...  # yours
one_pass = float((row * row).mean() - row.mean() * row.mean())
check("9.3", answer, int(np.round(np.log10(abs(one_pass - good) / good))))

# %%
centred = row - row.mean()
print(f"two passes: {abs(float((centred * centred).mean()) - good) / good:.1e}")
print(f"one pass:   {abs(one_pass - good) / good:.1e}")

# %% [markdown]
# The squares are near 10^6, their difference is 1, and float32 has seven digits: one is left. In
# ordinary rows the mean is near 0 and nobody notices.
#
# ## A model in float32
#
# The same model, the same text, float64 against float32. How the error goes through the layers:

# %%
models = {
    dtype: refimpl.ModernBERT.from_variant("tiny", pretrained=True, dtype=dtype, backend="numpy")
    for dtype in ("float64", "float32")
}
tokenizer = refimpl.Tokenizer.from_folder(models["float64"].folder)
ids = [tokenizer.encode("for i in range(10):\n    print(i)\n" * 8).ids]
steps = {dtype: {} for dtype in models}
for dtype, model in models.items():
    model(ids, tap=refimpl.record(steps[dtype]))


def off(a, b):
    """The largest relative error of a token."""
    apart = np.linalg.norm(np.asarray(a, np.float64) - b, axis=-1)
    return float((apart / np.linalg.norm(b, axis=-1)).max())


for name in ("embedding", *(f"layers.{i}.residual_2" for i in range(4)), "final_norm"):
    print(f"{name:20s} {off(steps['float32'][name], steps['float64'][name]):.1e}")

# %% [markdown]
# **9.4** How many units of roundoff (u = 2^-24) is `final_norm` off, as a power of ten? (log10,
# rounded to a whole number.)

# %% question 9.4
answer = ...  # yours
final = off(steps["float32"]["final_norm"], steps["float64"]["final_norm"])
check("9.4", answer, int(np.round(np.log10(final * 2**24))))

# %% [markdown]
# ## A mistake has another size
#
# Now two wrong models in float64, and a right one that keeps every step in bfloat16: which is
# worse?


# %%
def rounded(name, value):
    return bfloat16(value).astype(value.dtype)


def narrow(queries, keys, window):
    """|i - j| < window, where <= is right."""
    return ops.visible(queries, keys, None if window is None else window - 1)


exact = models["float64"]
truth = exact(ids)["last_hidden_state"]
cases = {
    "activations in bfloat16": exact(ids, tap=rounded),
    "tanh GELU": exact(ids, ops={"gelu": ops.gelu_tanh}),
    "window one key too narrow": exact(ids, ops={"visible": narrow}),
}
for what, out in cases.items():
    a, b = out["last_hidden_state"].mean(axis=1)[0], truth.mean(axis=1)[0]
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    print(f"{what:28s} off by {off(out['last_hidden_state'], truth):.1e}, cosine {cosine:.6f}")

# %% [markdown]
# **9.5** One threshold on the error cannot tell a mistake from honest rounding to bfloat16. Is the
# error of tanh GELU *smaller* than that of rounding to bfloat16 here? True or False.

# %% question 9.5
answer = ...  # yours
check("9.5", answer, sealed="35cbaac4")

# %% [markdown]
# So a tolerance must come from the dtype that a port *says* it computes in. And it should be
# asked step by step: compute each step anew from the port's own input to it. An honest step is
# then off by a few u times its own condition, and the first step that is off by more is the
# culprit, however small its error is. That is all the conformance kit does:
#
# ```
# modernbert verify --break F2 --case plain-short --no-runtime
# ```
#
# To practise, by `modernbert exercise start ID`: bug-21, -38, -39, -40, -43, -44.
