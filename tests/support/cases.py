"""Generated models and inputs on which every number of the reference is compared with others.

Each `Case` differs from ModernBERT's defaults in (nearly) every field that changes numbers; its
weights are unit-gain (1 / sqrt(fan_in)), with random norm gains and biases, so that a wrong mask,
theta or activation moves the result by far more than rounding does. Weights and inputs are drawn
from the raw 64-bit stream of numpy's Philox generator, which numpy keeps stable for good (unlike
Generator.normal): nothing needs to be stored. Weights are float32 numbers, whatever their dtype.
Tensor names and shapes are written out here a second time, from the checkpoint format and not from
params.py, so that the two can be held against each other. Imports numpy and nothing of ours.
Long because the table of cases and all that draws them stand together.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

FULL, SLIDING = "full_attention", "sliding_attention"
HEAD_KINDS = (
    "masked_lm",
    "sequence_classification",
    "token_classification",
    "question_answering",
    "multiple_choice",
)
# Rows of the embedding table that are hard on a LayerNorm, where the case asks for them.
LOW_VARIANCE_ID, OFFSET_ID, OUTLIER_ID = 5, 6, 7
OFFSET, OUTLIER, LOW_SCALE = 1000.0, 2.5e4, 2.0**-10


# -- drawing --------------------------------------------------------------------------------------


def uniform(shape: tuple[int, ...], seed: int, name: str) -> np.ndarray:
    """float64 in [0, 1) with 53 random bits; the stream depends on (seed, name) alone."""
    bits = np.random.Philox(key=[seed, zlib.crc32(name.encode())])
    raw = np.asarray(bits.random_raw(int(np.prod(shape))), np.uint64).reshape(shape)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def unit(shape: tuple[int, ...], seed: int, name: str) -> np.ndarray:
    """Mean 0, variance 1, uniform."""
    return (2.0 * uniform(shape, seed, name) - 1.0) * 3.0**0.5


def integers(shape: tuple[int, ...], high: int, seed: int, name: str) -> np.ndarray:
    """int64 in 0 .. high - 1."""
    return (uniform(shape, seed, name) * high).astype(np.int64)


# -- inputs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One sequence of a batch: its number of real tokens and where its padding stands.

    padding: none | right | left | inside (holes, first and last column visible) | empty.
    """

    length: int
    padding: str = "none"


@dataclass(frozen=True)
class Batch:
    """Rows of one padded width `seq`."""

    seq: int
    rows: tuple[Row, ...]

    @property
    def masked(self) -> bool:
        return any(row.padding != "none" for row in self.rows)


@dataclass(frozen=True)
class Inputs:
    """input_ids and mask int64 [batch, seq]; `given_mask` is None without padding."""

    input_ids: np.ndarray
    mask: np.ndarray
    given_mask: np.ndarray | None


def single(length: int) -> Batch:
    return Batch(length, (Row(length),))


def mixed(seq: int, *rows: tuple[int, str]) -> Batch:
    return Batch(seq, tuple(Row(*row) for row in rows))


def mask_row(row: Row, seq: int, seed: int, name: str) -> np.ndarray:
    mask = np.zeros(seq, np.int64)
    if row.padding in ("none", "right"):
        mask[: row.length] = 1
    elif row.padding == "left":
        mask[seq - row.length :] = 1
    elif row.padding == "inside":
        mask[[0, seq - 1]] = 1
        order = np.argsort(uniform((seq - 2,), seed, name), kind="stable") + 1
        mask[order[: row.length - 2]] = 1
    return mask


# -- cases ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One model, written in one spelling of config.json, and the batches it is run on.

    pattern: one letter per layer, f(ull) or s(liding). bias: letters of the switched-on biases,
    n(orm) a(ttention) m(lp) c(lassifier) d(ecoder).
    """

    name: str
    spelling: str
    pattern: str
    hidden: int
    heads: int
    inter: int
    vocab: int
    window: int
    theta_full: float
    theta_sliding: float
    activation: str = "gelu"
    head_activation: str = "gelu"
    eps: float = 1e-5
    bias: str = "d"
    tied: bool = True
    pooling: str = "mean"
    labels: int = 3
    hard_rows: bool = False
    batches: tuple[Batch, ...] = field(default=())

    @property
    def seed(self) -> int:
        return zlib.crc32(self.name.encode())

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def layers(self) -> int:
        return len(self.pattern)

    @property
    def half_window(self) -> int:
        return self.window // 2

    def config(self) -> dict[str, Any]:
        """The content of config.json in the case's spelling."""
        c: dict[str, Any] = {
            "model_type": "modernbert",
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.inter,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "hidden_activation": self.activation,
            "max_position_embeddings": 1024,
            "norm_eps": self.eps,
            "norm_bias": "n" in self.bias,
            "attention_bias": "a" in self.bias,
            "mlp_bias": "m" in self.bias,
            "classifier_bias": "c" in self.bias,
            "decoder_bias": "d" in self.bias,
            "classifier_pooling": self.pooling,
            "classifier_activation": self.head_activation,
            "tie_word_embeddings": self.tied,
            "local_attention": self.window,
            "bos_token_id": 1,
            "cls_token_id": 1,
            "eos_token_id": 2,
            "sep_token_id": 2,
            "pad_token_id": 3,
            "id2label": {str(i): f"kind-{i}" for i in range(self.labels)},
            "label2id": {f"kind-{i}": i for i in range(self.labels)},
        }
        if self.spelling == "v4":
            every = self.pattern.find("f", 1)
            c["global_attn_every_n_layers"] = every if every > 0 else self.layers
            c["global_rope_theta"] = self.theta_full
            c["local_rope_theta"] = self.theta_sliding
            c["position_embedding_type"] = "absolute"
        else:
            c["layer_types"] = [FULL if kind == "f" else SLIDING for kind in self.pattern]
            c["rope_parameters"] = {
                FULL: {"rope_type": "default", "rope_theta": self.theta_full},
                SLIDING: {"rope_type": "default", "rope_theta": self.theta_sliding},
            }
        return c

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Encoder tensors, names as in a bare-encoder checkpoint."""
        d, inter, bias = self.hidden, self.inter, self.bias
        out: dict[str, tuple[int, ...]] = {"embeddings.tok_embeddings.weight": (self.vocab, d)}
        norms = ["embeddings.norm", "final_norm"]
        for i in range(self.layers):
            norms += [f"layers.{i}.attn_norm"] * (i > 0) + [f"layers.{i}.mlp_norm"]
            for name, letter, shape in (
                ("attn.Wqkv", "a", (3 * d, d)),
                ("attn.Wo", "a", (d, d)),
                ("mlp.Wi", "m", (2 * inter, d)),
                ("mlp.Wo", "m", (d, inter)),
            ):
                out[f"layers.{i}.{name}.weight"] = shape
                if letter in bias:
                    out[f"layers.{i}.{name}.bias"] = shape[:1]
        return out | _norm_shapes(norms, d, bias)

    def head_shapes(self, kind: str) -> dict[str, tuple[int, ...]]:
        """Tensors of one head; `decoder.weight` only when it is not tied."""
        d = self.hidden
        out: dict[str, tuple[int, ...]] = {"head.dense.weight": (d, d)}
        if "c" in self.bias:
            out["head.dense.bias"] = (d,)
        out |= _norm_shapes(["head.norm"], d, self.bias)
        if kind == "masked_lm":
            if not self.tied:
                out["decoder.weight"] = (self.vocab, d)
            if "d" in self.bias:
                out["decoder.bias"] = (self.vocab,)
            return out
        n = {"question_answering": 2, "multiple_choice": 1}.get(kind, self.labels)
        return out | {"classifier.weight": (n, d), "classifier.bias": (n,)}

    def params(self, kind: str | None = None, dtype: type = np.float64) -> dict[str, np.ndarray]:
        """Encoder weights, with those of one head added when `kind` is given."""
        out = dict(encoder_weights(self))
        if kind is not None:
            for name, shape in self.head_shapes(kind).items():
                out[name] = self.draw(name, shape, stream=f"{kind}:{name}")
        return {name: x.astype(dtype) for name, x in out.items()}

    def draw(self, name: str, shape: tuple[int, ...], stream: str = "") -> np.ndarray:
        """One float32 tensor."""
        x = unit(shape, self.seed, stream or name)
        if name == "embeddings.tok_embeddings.weight":
            # Tied, the table is the decoder too: its rows must have unit gain there.
            x = x / shape[1] ** 0.5 if self.tied else x
        elif len(shape) == 2:
            x = x / shape[1] ** 0.5
        else:
            x = 1.0 + 0.4 * x if name.endswith("norm.weight") else 0.3 * x
        return x.astype(np.float32)

    def inputs(self, batch: Batch) -> Inputs:
        """Ids and mask of one batch. Real tokens may have any id, that of padding too."""
        name = repr(batch)
        ids = integers((len(batch.rows), batch.seq), self.vocab, self.seed, name)
        if self.hard_rows:
            hard = np.array([LOW_VARIANCE_ID, OFFSET_ID, OUTLIER_ID])
            ids[:, 1::7] = hard[ids[:, 1::7] % 3]
        mask = np.stack(
            [mask_row(row, batch.seq, self.seed, f"{name}:{b}") for b, row in enumerate(batch.rows)]
        )
        ids[mask == 0] = 3
        return Inputs(ids, mask, mask if batch.masked else None)

    def digest(self) -> str:
        """Of config, weights and inputs: what a golden file must have been made from."""
        h = hashlib.sha256(json.dumps(self.config(), sort_keys=True).encode())
        for kind in HEAD_KINDS:
            for name, x in sorted(self.params(kind, np.float32).items()):
                h.update(name.encode() + x.astype("<f4").tobytes())
        for batch in self.batches:
            inputs = self.inputs(batch)
            h.update(inputs.input_ids.astype("<i8").tobytes() + inputs.mask.astype("<i8").tobytes())
        return h.hexdigest()


@lru_cache(maxsize=1)
def encoder_weights(case: Case) -> Mapping[str, np.ndarray]:
    """float32; the last case's are kept, because drawing is slow where shapes are large."""
    out = {name: case.draw(name, shape) for name, shape in case.shapes().items()}
    if case.hard_rows:
        table = out["embeddings.tok_embeddings.weight"]
        table[LOW_VARIANCE_ID] *= LOW_SCALE
        table[OFFSET_ID] += OFFSET
        table[OUTLIER_ID, 1] = OUTLIER
    for x in out.values():
        x.flags.writeable = False
    return out


def _norm_shapes(names: list[str], hidden: int, bias: str) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias") if "n" in bias else ("weight",)
    return {f"{name}.{part}": (hidden,) for name in names for part in parts}


def choices(rows: int) -> int:
    """How many rows of a batch are the choices of one multiple-choice question."""
    return 2 if rows % 2 == 0 else rows


SHORT = mixed(
    12, (12, "none"), (8, "right"), (5, "left"), (9, "inside"), (2, "right"), (0, "empty")
)

CASES: tuple[Case, ...] = (
    Case("v4-window6-tied", "v4", "fssf", 64, 4, 48, 97, 6, 160000.0, 10.0,
         "gelu", "silu", 1e-6, "", batches=(
             single(1), SHORT,
             mixed(90, (64, "left"), (20, "right"), (90, "none"), (70, "inside")))),
    Case("v5-window128-silu", "v5", "sfsfs", 64, 4, 40, 89, 128, 80000.0, 500.0,
         "silu", "gelu", 1e-3, "amd", False, "cls", 5, True, batches=(
             single(257),
             mixed(200, (200, "none"), (65, "right"), (129, "left"), (150, "inside")))),
    Case("v5-window7-all-biases", "v5", "fsssf", 48, 3, 41, 83, 7, 160000.0, 10.0,
         "gelu", "tanh", 1e-4, "namcd", False, "mean", 4, True, batches=(
             single(66), SHORT,
             mixed(130, (130, "none"), (8, "right"), (66, "left"), (101, "inside")))),
    Case("v4-window5-tanh-gelu", "v4", "fsfsf", 64, 2, 56, 101, 5, 5000.0, 20.0,
         "gelu_pytorch_tanh", "relu", 1e-5, "nm", True, "cls", 1, batches=(
             single(8), SHORT, mixed(127, (127, "none"), (40, "left"), (64, "inside")))),
    Case("v5-head128-local-first", "v5", "ssf", 256, 2, 96, 61, 16, 1000000.0, 100.0,
         "silu", "silu", 1e-5, "ac", False, "mean", 2, True, batches=(
             single(130), SHORT)),
    Case("v4-head64-odd-heads", "v4", "fsss", 192, 3, 100, 67, 64, 40000.0, 300.0,
         "gelu", "gelu_pytorch_tanh", 1e-7, "nc", True, "cls", 7, batches=(
             mixed(128, (128, "none"), (65, "right")), SHORT)),
    Case("v5-one-head", "v5", "fsfssf", 32, 1, 64, 71, 10, 10.0, 160000.0,
         "gelu", "gelu", 1e-5, "nd", False, "mean", 1, batches=(
             single(2), mixed(256, (256, "none"), (255, "right"), (130, "left")))),
    Case("v5-window1-self-only", "v5", "sfss", 64, 4, 33, 79, 1, 90000.0, 30.0,
         "relu", "silu", 1e-5, "am", False, "cls", 6, True, batches=(
             single(65), SHORT)),
    Case("v5-window2-full-last", "v5", "sssf", 80, 5, 60, 73, 2, 12345.0, 67.0,
         "gelu", "gelu", 1e-2, "namc", False, "mean", 3, batches=(
             single(64), SHORT, mixed(129, (129, "none"), (127, "inside")))),
    Case("v4-window128-long", "v4", "fssfs", 32, 2, 24, 59, 128, 160000.0, 10000.0,
         "silu", "gelu", 1e-5, "", True, "mean", 2, batches=(
             single(600), mixed(512, (512, "none"), (300, "left")))),
    Case("v5-window65-long", "v5", "fssf", 48, 3, 36, 53, 65, 160000.0, 10.0,
         "gelu_pytorch_tanh", "tanh", 1e-5, "nam", False, "cls", 2, True, batches=(
             single(512),
             mixed(255, (255, "none"), (180, "right"), (64, "left"), (200, "inside")))),
    Case("v4-every-2nd-swapped-thetas", "v4", "fsfs", 64, 4, 50, 83, 12, 10.0, 160000.0,
         "gelu", "silu", 3e-5, "acd", False, "mean", 3, batches=(
             single(129), SHORT, mixed(80, (80, "none"), (1, "right"), (3, "left")))),
    Case("v5-head32-wide-glu", "v5", "sf" * 3, 64, 2, 160, 97, 20, 20000.0, 10000.0,
         "silu", "relu", 1e-5, "mcd", False, "cls", 9, batches=(
             single(128), SHORT, mixed(257, (257, "none"), (256, "left")))),
    Case("v4-window9-many-layers", "v4", "fsssfsssf", 48, 3, 32, 61, 9, 160000.0, 10.0,
         "gelu", "gelu", 1e-5, "a", False, "mean", 4, True, batches=(
             single(127), SHORT, mixed(100, (100, "none"), (30, "right"), (80, "inside")))),
    Case("v5-window40-deep", "v5", "fss" * 4, 64, 4, 40, 61, 40, 160000.0, 10000.0,
         "gelu", "gelu", 1e-5, "nd", True, "mean", 2, batches=(
             single(600), SHORT)),
    Case("v5-head16-window128-deep", "v5", "sffs", 64, 4, 44, 77, 130, 700.0, 160000.0,
         "gelu", "silu", 1e-6, "ncd", False, "cls", 8, batches=(
             single(256),
             mixed(300, (300, "none"), (200, "right"), (140, "left"), (220, "inside")))),
)  # fmt: skip
BY_NAME = {case.name: case for case in CASES}


def watched(case: Case, batch: Batch, mask: np.ndarray) -> np.ndarray:
    """Real tokens whose hidden states a golden file holds: int [n, 2] of (row, column).

    Both ends of each row, its middle, and the columns where the window of the first token ends.
    """
    out = []
    for b in range(len(batch.rows)):
        real = np.flatnonzero(mask[b])
        if real.size:
            edge = [case.half_window, case.half_window + 1, 2 * case.half_window + 1]
            near = [i for i in (0, 1, real.size // 2, *edge, real.size - 1) if i < real.size]
            out += [(b, real[i]) for i in sorted(set(near))]
    return np.array(out, np.int64)


# The real shapes and the full context, with random weights: for the oracle tests alone.
_REAL = dict(spelling="v4", vocab=50368, window=128, theta_full=160000.0, theta_sliding=10000.0)
REAL: tuple[Case, ...] = (
    Case("base", pattern=("fss" * 8)[:22], hidden=768, heads=12, inter=1152, **_REAL,
         batches=(single(300),)),
    Case("large", pattern=("fss" * 10)[:28], hidden=1024, heads=16, inter=2624, **_REAL,
         batches=(single(200),)),
    Case("tokens-8192", "v5", "fsf", 64, 2, 48, 61, 128, 160000.0, 10000.0,
         batches=(single(8192),)),
)  # fmt: skip
