"""Whose numbers a page keeps: every token's, where they fit, else those around the chosen one.

    chosen = choose(config, seq, budget, first)

`rows`: tokens whose vectors are kept, ascending; `whole`: whether the attention maps have a row for
every token, or for `rows` alone; `columns`: columns of a head whose weights are kept, for the sums
of (18) to be shown. Sizes are estimated from what numbers take when packed; what a page really
takes is checked by pages.py, which asks again with less.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...reference.config import ModernBertConfig

# Bytes that a number of a vector, or of a map, takes in the page: measured on random models with
# unit gain, which pack worst (2.2 and 1.1; with initial weights 1.7 and 0.8). In texts over 256
# tokens maps have a decimal more, and smaller numbers.
BYTES_OF_A_NUMBER, BYTES_OF_A_PROB = 2.3, 1.15
# Parts of the budget: maps of all tokens where they fit into it, and weights.
FOR_MAPS, FOR_WEIGHTS = 0.7, 0.05
# What the page itself takes: equations, style, script, names of tokens.
PAGE_ITSELF = 200_000


@dataclass(frozen=True)
class Chosen:
    """What is kept of a text; see above."""

    rows: tuple[int, ...]
    whole: bool
    columns: tuple[int, ...]


def choose(
    config: ModernBertConfig, seq: int, budget: float, wanted: tuple[int, ...], centre: int
) -> Chosen:
    """wanted: tokens that are kept whatever it costs; the others follow by their distance from the
    centre, as many as fit into `budget` bytes."""
    room = budget - PAGE_ITSELF
    maps = BYTES_OF_A_PROB * pairs(config, seq) * config.num_attention_heads
    whole = maps <= FOR_MAPS * budget
    keys_of_a_row = config.num_attention_heads * pairs(config, seq) / seq
    of_a_row = BYTES_OF_A_NUMBER * (numbers_of_a_row(config) + keys_of_a_row)  # with its scores
    if not whole:  # its probs too, and overviews in place of maps
        of_a_row += BYTES_OF_A_PROB * keys_of_a_row
        maps = BYTES_OF_A_PROB * config.num_hidden_layers * config.num_attention_heads * 64**2
    weights = BYTES_OF_A_NUMBER * weights_of_a_column(config)
    columns = max(1, min(config.num_attention_heads, int(FOR_WEIGHTS * budget / weights)))
    fit = int((room - maps - columns * weights) / of_a_row)
    order = sorted(range(seq), key=lambda i: (i not in wanted, abs(i - centre), i))
    rows = order[: max(fit, len(set(wanted)), 1)]
    heads = range(0, config.num_attention_heads * config.head_dim, config.head_dim)
    return Chosen(tuple(sorted(rows)), whole, tuple(heads[:columns]))


def pairs(config: ModernBertConfig, seq: int) -> int:
    """Pairs of tokens of which one sees the other, over all layers."""
    total = 0
    for i in range(config.num_hidden_layers):
        window = config.window(i)
        side = seq if window is None else min(2 * window + 1, seq)
        total += seq * side
    return total


def numbers_of_a_row(config: ModernBertConfig) -> int:
    """Numbers of one token's vectors, over all steps."""
    of_a_layer = 12 * config.hidden_size + 3 * config.intermediate_size
    return config.num_hidden_layers * of_a_layer + 7 * config.hidden_size


def weights_of_a_column(config: ModernBertConfig) -> int:
    """Weights that one column of every linear map of every layer takes."""
    return config.num_hidden_layers * (6 * config.hidden_size + config.intermediate_size)
