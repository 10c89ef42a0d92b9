"""Large from base: the centre tiling, entry by entry, and which layer comes from which."""

import numpy as np
import pytest

from refimpl.reference.config import ModernBertConfig
from refimpl.reference.heads import HEADS
from refimpl.reference.params import encoder_shapes, initialise
from refimpl.reference.tiling import layer_map, tile_from

SMALL = dict(vocab_size=7, hidden_size=8, intermediate_size=5, num_heads=2, num_layers=3)
LARGE = dict(vocab_size=7, hidden_size=12, intermediate_size=9, num_heads=3, num_layers=5)
BIASES = dict(norm_bias=True, attention_bias=True, mlp_bias=True)


def variant(**values):
    return ModernBertConfig.from_variant("base", **values)


def numbered(config, kind=None):
    """Parameters whose every entry is another number."""
    shapes = encoder_shapes(config) | (HEADS[kind].shapes(config) if kind else {})
    out, start = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        out[name] = np.arange(start, start + size, dtype=np.float64).reshape(shape)
        start += size
    return out


def old_index(j, n, size):
    """Where new entry j of `size` comes from among n old ones."""
    return (j - (size - n) // 2) % n


def test_tiling_layer_map_rounds_half_to_even():
    got = layer_map(22, 28)
    # i * 22 / 28 is half-way at i = 7 (5.5 -> 6) and i = 21 (16.5 -> 16)
    assert got == [
        0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 12, 13, 13, 14, 15, 16, 16, 17, 18, 19, 20,
        20, 21,
    ]  # fmt: skip
    assert layer_map(2, 4) == [0, 0, 1, 1]  # 1.5 rounds to 2, and there are only two


def test_tiling_centre_is_the_base():
    base, large = variant(**SMALL), variant(**LARGE)
    old, new = numbered(base), tile_from(numbered(base), base, large)
    assert {name: x.shape for name, x in new.items()} == encoder_shapes(large)
    name = "embeddings.tok_embeddings.weight"
    assert np.array_equal(new[name][:, 2:10], old[name])
    assert np.array_equal(new[name][:, [0, 1, 10, 11]], old[name][:, [6, 7, 0, 1]])


@pytest.mark.parametrize("extra", [{}, BIASES], ids=["plain", "biases"])
def test_tiling_takes_every_entry_from_where_the_equation_says(extra):
    base, large = variant(**SMALL, **extra), variant(**LARGE, **extra)
    old = numbered(base, "masked_lm")
    new = tile_from(old, base, large)
    source = [0, 1, 1, 2, 2]  # round(i * 3 / 5)
    stacked = {"attn.Wqkv": 3, "mlp.Wi": 2}
    for name, x in new.items():
        at = name
        if name.startswith("layers."):
            i = int(name.split(".")[1])
            at = name.replace(f"layers.{i}.", f"layers.{source[i]}.", 1)
        parts = next((n for part, n in stacked.items() if part in name), 1)
        rows, old_rows = x.shape[0] // parts, old[at].shape[0] // parts
        for row in range(x.shape[0]):
            part, j = divmod(row, rows)
            from_row = old[at][part * old_rows + old_index(j, old_rows, rows)]
            if x.ndim == 1:
                assert x[row] == from_row, name
                continue
            for column in range(x.shape[1]):
                assert x[row, column] == from_row[old_index(column, len(from_row), x.shape[1])], (
                    name
                )
    assert {"head.dense.weight", "decoder.bias"} < set(new)


def test_tiling_gives_a_norm_that_the_base_lacks_ones():
    base = variant(**{**SMALL, "num_layers": 1}, norm_bias=True)
    large = variant(**LARGE, norm_bias=True)
    new = tile_from(numbered(base), base, large)
    for i in range(1, 5):
        assert np.array_equal(new[f"layers.{i}.attn_norm.weight"], np.ones(12))
        assert np.array_equal(new[f"layers.{i}.attn_norm.bias"], np.zeros(12))
        assert (new[f"layers.{i}.mlp_norm.weight"] > 1).all()


def test_tiling_keeps_the_dtype():
    base, large = variant(**SMALL), variant(**LARGE)
    params = initialise(encoder_shapes(base), base, 0, np.float32)
    assert {x.dtype for x in tile_from(params, base, large).values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(vocab_size=9), "vocab_size is 9 in large_config; it must be the base's 7"),
        (dict(type_vocab_size=2), "type_vocab_size is 2 in large_config"),
        (dict(norm_bias=True), "base_params has no 'embeddings.norm.bias'"),
    ],
    ids=str,
)
def test_tiling_refuses_by_name(changes, message):
    base, large = variant(**SMALL), variant(**LARGE).replace(**changes)
    with pytest.raises(ValueError, match=message):
        tile_from(numbered(base), base, large)
