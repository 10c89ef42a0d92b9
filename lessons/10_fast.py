# %% [markdown]
# # 10. Making it fast
#
# *12 minutes to read, 5 seconds to run. MODEL.md: section 6; csrc/README.md.*
#
# An encoder does the same arithmetic whoever writes it; what differs is how much of it is for
# nothing, and how often numbers travel. This lesson counts both, and makes a slow attention fast
# without changing a digit. Timings are this machine's, and say little about another.

# %%
import time

import numpy as np

import refimpl
from refimpl.reference import ops
from refimpl.teach.questions import check

rng = np.random.default_rng(0)

# %% [markdown]
# ## Counting
#
# A product of `[n, a]` and `[a, b]` costs 2 n a b operations. A layer has four of them, and two
# more in attention.


# %%
def layer_cost(seq, hidden, inter, keys):
    """Operations of one layer by part. keys: how many a query looks at."""
    return {
        "Wqkv": 2 * seq * hidden * 3 * hidden,
        "scores and mean": 2 * 2 * seq * keys * hidden,
        "attn.Wo": 2 * seq * hidden * hidden,
        "mlp.Wi": 2 * seq * hidden * 2 * inter,
        "mlp.Wo": 2 * seq * inter * hidden,
    }


def share_of_attention(seq, keys):
    cost = layer_cost(seq, 768, 1152, keys)
    return f"{100 * cost['scores and mean'] / sum(cost.values()):3.0f} %"


for seq in (128, 1024, 8192):
    full, sliding = share_of_attention(seq, seq), share_of_attention(seq, min(seq, 129))
    print(f"{seq:5d} tokens, base: attention is {full} of a full layer, {sliding} of a sliding one")

# %% [markdown]
# **10.1** `base` has 8 full and 14 sliding layers. At 8,192 tokens, how many times as much would 22
# full layers cost? (One digit behind the point; `layer_cost` with hidden 768 and inter 1152.)

# %% question 10.1
answer = ...  # yours
check("10.1", answer, sealed="8c9c36c8", digits=1)

# %% [markdown]
# ## Loops in Python are the slow part
#
# The definition (26) to (28), token by token, and the same as products of matrices:


# %%
def attention_by_loops(q, k, v, window):
    seq, head_dim = q.shape
    out = np.zeros_like(v)
    for i in range(seq):
        keys = [j for j in range(seq) if abs(i - j) <= window]
        scores = np.array([q[i] @ k[j] for j in keys]) / np.sqrt(head_dim)
        e = np.exp(scores - scores.max())
        for j, weight in zip(keys, e / e.sum(), strict=True):
            out[i] += weight * v[j]
    return out


def attention_dense(q, k, v, window):
    scores = q @ k.T / np.sqrt(q.shape[-1])
    seen = ops.visible(np.arange(len(q)), np.arange(len(q)), window)
    return ops.softmax(scores, seen) @ v


def timed(function, *given):
    function(*given)
    start = time.perf_counter()
    out = function(*given)
    return out, time.perf_counter() - start


q, k, v = rng.standard_normal((3, 512, 64))
slow, slow_time = timed(attention_by_loops, q, k, v, 64)
dense, dense_time = timed(attention_dense, q, k, v, 64)
print(f"loops {1e3 * slow_time:.0f} ms, products {1e3 * dense_time:.1f} ms")
print(
    f"{slow_time / dense_time:.0f} times as fast; they differ by {np.abs(slow - dense).max():.0e}"
)

# %% [markdown]
# ## Doing less
#
# The dense form computes every score and throws away what the window hides. At 512 tokens and a
# window of 64 that is three quarters of them, at 8,192 it is 98 %.
#
# Go through blocks of queries instead. The queries start .. stop - 1 can see the keys
# start - window .. stop - 1 + window, cut at the ends of the text.
#
# **10.2** Write the two ends: `first` and `last` (one past the last key).


# %% question 10.2
def keys_of(start, stop, window, seq):
    return ...  # yours


blocks = ops.query_blocks(512, 1, 64)
mine = [keys_of(start, stop, 64, 512) for start, stop, _, _ in blocks]
unanswered = any(x is ... for x in mine)
check("10.2", ... if unanswered else [tuple(x) for x in mine], [b[2:] for b in blocks])


# %%
def attention_in_blocks(q, k, v, window):
    out = np.empty_like(v)
    for start, stop, first, last in ops.query_blocks(len(q), 1, window):
        scores = q[start:stop] @ k[first:last].T / np.sqrt(q.shape[-1])
        seen = ops.visible(np.arange(start, stop), np.arange(first, last), window)
        out[start:stop] = ops.softmax(scores, seen) @ v[first:last]
    return out


for seq in (512, 2048, 4096):
    q, k, v = rng.standard_normal((3, seq, 64))
    a, dense_time = timed(attention_dense, q, k, v, 64)
    b, block_time = timed(attention_in_blocks, q, k, v, 64)
    print(f"{seq:5d} tokens: dense {1e3 * dense_time:6.1f} ms, blocks {1e3 * block_time:5.1f} ms")
    print(f"{'':14s}they differ by {np.abs(a - b).max():.0e}")

# %% [markdown]
# It needs less memory, too.
#
# **10.3** How many numbers does the dense form hold as scores of one head at 8,192 tokens?

# %% question 10.3
answer = ...  # yours
check("10.3", answer, sealed="8c677026")

# %% [markdown]
# ## Not computing padding
#
# A batch of texts of unequal length is mostly padding, and its rows are computed for nothing.
# Packed, all texts stand in one row, end to end, and attention stops at their ends (section 2 of
# MODEL.md).

# %%
model = refimpl.ModernBERT.from_variant("tiny", pretrained=True, dtype="float64")
lengths = [3, 5, 8, 9, 12, 20, 31, 128]
texts = [rng.integers(10, 8000, n) for n in lengths]
ids = np.full((len(texts), max(lengths)), model.config.pad_token_id)
mask = np.zeros(ids.shape, int)
for b, text in enumerate(texts):
    ids[b, : len(text)], mask[b, : len(text)] = text, 1

# %% [markdown]
# **10.4** Which share of the tokens of this padded batch is padding? (Two digits behind the point.)

# %% question 10.4
answer = ...  # yours
check("10.4", answer, sealed="b04e90be", digits=2)

# %%
padded, padded_time = timed(model, {"input_ids": ids, "attention_mask": mask})
ends = np.cumsum([0, *lengths])
packed, packed_time = timed(model.encode_packed, np.concatenate(texts), ends)
same = np.abs(padded["last_hidden_state"][mask != 0] - packed).max()
print(f"padded {1e3 * padded_time:.0f} ms, packed {1e3 * packed_time:.0f} ms")
print(f"they differ by {same:.0e}")

# %% [markdown]
# ## What is left
#
# Here is where the engine in C++ begins. The products are what costs; a processor is fast at them
# if numbers are reused while they are near. So weights are packed once into the order in which
# they are read, one pass does product and activation, and half as many bits a number (bfloat16)
# is half the traffic. Each such step changes the last digits, and none may change more: every
# kernel has a bound (lesson 9) that a test holds it to.

# %%
info = refimpl.info()
print("backend:", info["backend"] if "backend" in info else info)

# %% [markdown]
# To practise, by `modernbert exercise start ID`: bug-32, -33. `modernbert bench` measures what
# all of it gains here.
