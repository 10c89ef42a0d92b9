"""Which tensors a model has, their shapes, and random initialisation (MODEL.md sections 7 and 8).

Parameters are one flat dict, name -> array, under the names of Hugging Face checkpoints without the
`model.` prefix. Linear weights are [out, in]. A tensor that the config switches off is not there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .config import ModernBertConfig

Shapes = dict[str, tuple[int, ...]]


def encoder_shapes(config: ModernBertConfig) -> Shapes:
    """Name -> shape of every tensor of the encoder, in the order of the forward pass."""
    c, hidden = config, config.hidden_size
    out: Shapes = {"embeddings.tok_embeddings.weight": (c.vocab_size, hidden)}
    if c.type_vocab_size:
        out["embeddings.token_type_embeddings.weight"] = (c.type_vocab_size, hidden)
    out |= norm_shapes("embeddings.norm", c)
    for i in range(c.num_hidden_layers):
        at = f"layers.{i}."
        if i > 0:
            out |= norm_shapes(at + "attn_norm", c)
        out |= linear_shapes(at + "attn.Wqkv", 3 * hidden, hidden, c.attention_bias)
        out |= linear_shapes(at + "attn.Wo", hidden, hidden, c.attention_bias)
        out |= norm_shapes(at + "mlp_norm", c)
        out |= linear_shapes(at + "mlp.Wi", 2 * c.intermediate_size, hidden, c.mlp_bias)
        out |= linear_shapes(at + "mlp.Wo", hidden, c.intermediate_size, c.mlp_bias)
    return out | norm_shapes("final_norm", c)


def linear_shapes(name: str, n_out: int, n_in: int, bias: bool) -> Shapes:
    """Weight [out, in], and bias [out] when there is one."""
    return {f"{name}.weight": (n_out, n_in)} | ({f"{name}.bias": (n_out,)} if bias else {})


def norm_shapes(name: str, config: ModernBertConfig) -> Shapes:
    """Weight [hidden], and bias [hidden] with `norm_bias`."""
    one: tuple[int, ...] = (config.hidden_size,)
    return {f"{name}.weight": one} | ({f"{name}.bias": one} if config.norm_bias else {})


def count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Number of parameters."""
    return sum(int(np.prod(shape)) for shape in shapes.values())


# -- initialisation -------------------------------------------------------------------------------


def initialise(
    shapes: Mapping[str, tuple[int, ...]],
    config: ModernBertConfig,
    seed: int = 0,
    dtype: np.dtype | type = np.float32,
    first_place: int = 0,
) -> dict[str, np.ndarray]:
    """Random parameters: truncated normal matrices, norms 1, biases 0 (MODEL.md section 8).

    The cut is at +- `initializer_cutoff_factor` standard deviations. Every tensor draws from its
    own stream (seed, its place in `shapes`), so the same seed gives the same model in every dtype.
    A head's tensors alone come out as within a whole model when first_place counts those before.
    Raises ValueError for a seed that is no int of at least 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed is {seed!r}; it must be an int of at least 0")
    out: dict[str, np.ndarray] = {}
    for place, (name, shape) in enumerate(shapes.items(), first_place):
        if len(shape) == 1:
            is_norm = name.endswith("norm.weight")
            out[name] = np.full(shape, 1.0 if is_norm else 0.0, dtype)
        else:
            rng = np.random.default_rng([seed, place])
            cutoff = config.initializer_cutoff_factor
            out[name] = _truncated_normal(rng, shape, init_std(name, config), cutoff, dtype)
    return out


def init_std(name: str, config: ModernBertConfig) -> float:
    """Standard deviation, before truncation, of the matrix of that name."""
    out = ("attn.Wo.weight", "mlp.Wo.weight", "head.dense.weight", "decoder.weight")
    if name.endswith(out):
        return config.initializer_range / (2.0 * config.num_hidden_layers) ** 0.5
    if name.endswith("classifier.weight"):
        return config.hidden_size**-0.5
    return config.initializer_range


def _truncated_normal(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    std: float,
    cutoff: float,
    dtype: np.dtype | type,
) -> np.ndarray:
    """Normal draws, those beyond the cut drawn again."""
    x = rng.standard_normal(shape, dtype=np.float32)
    outside = np.nonzero(np.abs(x) > cutoff)
    while outside[0].size:
        again = rng.standard_normal(outside[0].size, dtype=np.float32)
        x[outside] = again
        still = np.abs(again) > cutoff
        outside = tuple(axis[still] for axis in outside)
    return (x * np.float32(std)).astype(dtype, copy=False)
