"""Hypothesis strategies: small models, lengths that straddle every boundary, masks, positions.

Bounded: at most MAX_SEQ tokens, MAX_LAYERS layers and 48 channels, so that an example costs
milliseconds. Draws are `cases.Case` objects, whose weights follow from their name.
"""

from __future__ import annotations

from hypothesis import strategies as st

from .cases import Batch, Case, Row

MAX_SEQ, MAX_LAYERS = 150, 4
WINDOWS = (1, 2, 3, 6, 7, 16, 33, 128)
THETAS = (10.0, 500.0, 10000.0, 160000.0)
ACTIVATIONS = ("gelu", "silu", "gelu_pytorch_tanh", "relu")


@st.composite
def models(draw: st.DrawFn, pattern: str | None = None) -> Case:
    """A case of any pattern, window, pair of thetas, activation and set of biases."""
    head_dim, heads = draw(st.sampled_from([8, 16])), draw(st.integers(1, 3))
    pattern = pattern or draw(st.text("fs", min_size=1, max_size=MAX_LAYERS))
    full, sliding = draw(st.permutations(THETAS))[:2]
    bias = "".join(letter for letter in "namcd" if draw(st.booleans()))
    return Case(
        name=f"drawn-{draw(st.integers(0, 2**16))}",
        spelling="v5",
        pattern=pattern,
        hidden=head_dim * heads,
        heads=heads,
        inter=draw(st.integers(8, 40)),
        vocab=draw(st.integers(11, 60)),
        window=draw(st.sampled_from(WINDOWS)),
        theta_full=full,
        theta_sliding=sliding,
        activation=draw(st.sampled_from(ACTIVATIONS)),
        bias=bias,
        tied=draw(st.booleans()),
        pooling=draw(st.sampled_from(["mean", "cls"])),
        labels=draw(st.integers(1, 5)),
    )


def lengths(half_window: int, most: int = MAX_SEQ) -> st.SearchStrategy[int]:
    """1, 2, the window's edges, the blocks' edges (16 rows, or the window), and any other."""
    edges = {1, 2, 15, 16, 17, 31, 32, 33, 64, 65, 66}
    edges |= {half_window + d for d in (0, 1, 2)} | {2 * half_window + d for d in (0, 1, 2)}
    return st.sampled_from(sorted(n for n in edges if 1 <= n <= most)) | st.integers(1, most)


@st.composite
def batches(draw: st.DrawFn, half_window: int, most: int = MAX_SEQ) -> Batch:
    """One to four rows, one of full width, the others padded in any way; some may be empty."""
    seq = draw(lengths(half_window, most))
    rows = [Row(seq)]
    for _ in range(draw(st.integers(0, 3))):
        padding = draw(st.sampled_from(["none", "right", "left", "inside", "empty"]))
        least = {"none": seq, "empty": 0, "inside": 2}.get(padding, 1)
        if padding == "inside" and seq < 3:
            padding, least = "right", 1
        most_tokens = {"none": seq, "empty": 0}.get(padding, seq)
        rows.append(Row(draw(st.integers(least, most_tokens)), padding))
    order = draw(st.permutations(rows))
    return Batch(seq, tuple(order))
