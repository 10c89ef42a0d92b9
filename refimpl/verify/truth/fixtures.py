"""Small generated models on which a port is judged.

Each differs from ModernBERT's defaults wherever a default could hide a mistake: window, thetas,
eps, activation, schedule, labels. Matrices have unit gain (1 / sqrt(fan_in)) and norms random
gains, so that a wrong mask, angle or half moves the result far more than rounding does; weights of
std 0.02 would give uniform attention and hide all of it. Everything is drawn from the raw 64-bit
stream of numpy's Philox generator, which is stable for good: the same bytes on every platform and
version. Parameters are float32 numbers held in float64. No checkpoint of anybody's is in here.

Long because the models stand here, a few lines each.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...reference.config import FULL, SLIDING
from ...reference.heads import HEADS
from ...reference.params import encoder_shapes
from .passes import config_of
from .texts import CLS_ID, PAD_ID, SEP_ID

Array = np.ndarray

# Rows of the embedding table that are hard on a LayerNorm, in the fixture that asks for them:
# variance below eps; mean far above the spread; one entry that carries the whole norm.
LOW_VARIANCE_ID, OFFSET_ID, OUTLIER_ID = 5, 6, 7
LOW_VARIANCE, OFFSET, OUTLIER = 2.0**-8, 1000.0, 2.5e4
ORDINARY_IDS = 8
"""Ids from here on are ordinary words."""
# The channel of the residual stream that swells to thousands after this layer, as trained models'
# do in their late layers.
SWOLLEN_LAYER, SWOLLEN_CHANNEL, SWELLING = 2, 1, 2.0**13


def uniform(shape: tuple[int, ...], seed: int, name: str) -> Array:
    """float64 in [0, 1), 53 random bits each; the stream depends on (seed, name) alone."""
    bits = np.random.Philox(key=[seed, zlib.crc32(name.encode())])
    raw = np.asarray(bits.random_raw(math.prod(shape)), np.uint64).reshape(shape)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def unit(shape: tuple[int, ...], seed: int, name: str) -> Array:
    """Mean 0 and variance 1, uniform."""
    return (2.0 * uniform(shape, seed, name) - 1.0) * math.sqrt(3.0)


def integers(shape: tuple[int, ...], low: int, high: int, seed: int, name: str) -> Array:
    """int64 in low .. high - 1."""
    return low + (uniform(shape, seed, name) * (high - low)).astype(np.int64)


@dataclass(frozen=True)
class Fixture:
    """One model: config.json with the keys that files on the hub have, and drawn parameters.

    spelling: how the config says schedule and thetas: "old" (the keys of transformers 4, as the
    published checkpoints), "new" (of transformers 5), "both" (as files saved anew hold), or
    "contradicting" (both, and the old ones say other things: the new ones win); pattern: a letter
    per layer, f(ull) or s(liding); biases: letters of the biases switched on, n(orm) a(ttention)
    m(lp) c(lassifier) d(ecoder); hard_rows: the embedding table holds the three hard rows and the
    residual stream swells; stream: under which name the numbers are drawn, where it is not the
    model's own (twins share one, and models that the first kit had under it keep theirs).
    """

    name: str
    spelling: str
    head: str | None
    pattern: str = "fssf"
    hidden: int = 32
    head_dim: int = 16
    inter: int = 24
    vocab: int = 97
    window: int = 6
    theta_full: float = 160000.0
    theta_sliding: float = 10.0
    activation: str = "gelu"
    head_activation: str = "gelu"
    eps: float = 1e-5
    biases: str = ""
    tied: bool = True
    pooling: str = "mean"
    labels: tuple[str, ...] = ()
    hard_rows: bool = False
    stream: str = ""

    @property
    def seed(self) -> int:
        return zlib.crc32((self.stream or self.name).encode())

    def config(self) -> dict[str, Any]:
        """The content of config.json: keys that change numbers, then those that the files hold,
        too."""
        architecture = HEADS[self.head].architecture if self.head else "ModernBertModel"
        c: dict[str, Any] = {
            "model_type": "modernbert",
            "architectures": [architecture],
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.inter,
            "num_hidden_layers": len(self.pattern),
            "num_attention_heads": self.hidden // self.head_dim,
            "hidden_activation": self.activation,
            "max_position_embeddings": 8192,
            "norm_eps": self.eps,
            "layer_norm_eps": self.eps,
            "norm_bias": "n" in self.biases,
            "attention_bias": "a" in self.biases,
            "mlp_bias": "m" in self.biases,
            "classifier_bias": "c" in self.biases,
            "decoder_bias": "d" in self.biases,
            "classifier_pooling": self.pooling,
            "classifier_activation": self.head_activation,
            "tie_word_embeddings": self.tied,
            "local_attention": self.window,
            "bos_token_id": CLS_ID,
            "cls_token_id": CLS_ID,
            "eos_token_id": SEP_ID,
            "sep_token_id": SEP_ID,
            "pad_token_id": PAD_ID,
        }
        if self.labels:
            c["id2label"] = {str(i): label for i, label in enumerate(self.labels)}
            c["label2id"] = {label: i for i, label in enumerate(self.labels)}
        if self.spelling == "contradicting":
            c["global_attn_every_n_layers"] = 2
            c["global_rope_theta"], c["local_rope_theta"] = 20000.0, 500.0
        elif self.spelling != "new":
            every = self.pattern.find("f", 1)
            c["global_attn_every_n_layers"] = every if every > 0 else len(self.pattern)
            c["global_rope_theta"], c["local_rope_theta"] = self.theta_full, self.theta_sliding
        if self.spelling != "old":
            c["layer_types"] = [FULL if kind == "f" else SLIDING for kind in self.pattern]
            c["rope_parameters"] = {
                FULL: {"rope_type": "default", "rope_theta": self.theta_full},
                SLIDING: {"rope_type": "default", "rope_theta": self.theta_sliding},
            }
        return c | IDLE_KEYS | (IDLE_OLD if self.spelling == "old" else IDLE_NEW)

    def params(self) -> dict[str, Array]:
        """Encoder and head, float64 arrays of float32 numbers, under the reference's names."""
        config = config_of(self.config())
        shapes = encoder_shapes(config)
        if self.head is not None:
            shapes = shapes | HEADS[self.head].shapes(config)
        out = {name: self._draw(name, shape) for name, shape in shapes.items()}
        if self.hard_rows:
            table = out["embeddings.tok_embeddings.weight"]
            table[LOW_VARIANCE_ID] *= LOW_VARIANCE
            table[OFFSET_ID] += OFFSET
            table[OUTLIER_ID, SWOLLEN_CHANNEL] = OUTLIER
            out[f"layers.{SWOLLEN_LAYER}.mlp.Wo.weight"][SWOLLEN_CHANNEL] *= SWELLING
        return {name: x.astype(np.float32).astype(np.float64) for name, x in out.items()}

    def _draw(self, name: str, shape: tuple[int, ...]) -> Array:
        x = unit(shape, self.seed, name)
        if name == "embeddings.tok_embeddings.weight" and not self.tied:
            return x
        if len(shape) == 2:  # the tied table is the decoder too: its rows need unit gain there
            return x / math.sqrt(shape[1])
        return 1.0 + 0.4 * x if name.endswith("norm.weight") else 0.3 * x


def hf_names(params: Mapping[str, Array], head: str | None) -> dict[str, Array]:
    """The same tensors under the names of Hugging Face files: `model.` before the encoder's.

    A bare encoder has no prefix.
    """
    encoder = ("embeddings.", "layers.", "final_norm.")
    return {
        f"model.{name}" if head is not None and name.startswith(encoder) else name: x
        for name, x in params.items()
    }


# Keys that files on the hub hold and inference never reads, with the values that they have there.
IDLE_KEYS: dict[str, Any] = {
    "attention_dropout": 0.0, "classifier_dropout": 0.0, "embedding_dropout": 0.0,
    "mlp_dropout": 0.0, "deterministic_flash_attn": False, "gradient_checkpointing": False,
    "initializer_cutoff_factor": 2.0, "initializer_range": 0.02, "sparse_prediction": False,
    "sparse_pred_ignore_index": -100,
}  # fmt: skip
IDLE_OLD: dict[str, Any] = {
    "position_embedding_type": "absolute", "torch_dtype": "float32",
    "transformers_version": "4.48.0",
}  # fmt: skip
IDLE_NEW: dict[str, Any] = {"dtype": "float32", "transformers_version": "5.0.0"}
THREE = ("negative", "neutral", "positive")
FIXTURES: dict[str, Fixture] = {
    f.name: f
    for f in (
        Fixture("plain", "old", None),
        Fixture("plain-silu", "old", None, activation="silu", stream="plain"),
        Fixture("plain-biases", "old", None, biases="nam", stream="plain"),
        Fixture(
            "plain-new-keys", "new", None, "fsfs", theta_full=40000.0, theta_sliding=25.0,
            stream="plain",
        ),
        Fixture("plain-contradicting", "contradicting", None, stream="plain"),
        Fixture(
            "usual-size", "both", None, "fs", hidden=256, head_dim=64, inter=384, window=32,
            theta_sliding=100.0,
        ),
        Fixture("tied", "both", "masked_lm", biases="d", stream="tied-v4"),
        Fixture(
            "silu", "both", "masked_lm", "fsfs", window=5, activation="silu", eps=1e-3,
            head_activation="silu", tied=False, theta_full=40000.0, theta_sliding=25.0,
            stream="silu-v5",
        ),
        Fixture(
            "biased", "both", "masked_lm", eps=1e-6, biases="namcd", tied=False,
            stream="biased-v5",
        ),
        Fixture("hard", "both", None, eps=1e-4, tied=False, hard_rows=True, stream="hard-v4"),
        Fixture(
            "mean", "both", "sequence_classification", "fsfs", labels=THREE, tied=False,
            stream="mean-v4",
        ),
        Fixture(
            "cls", "new", "sequence_classification", "sfss", hidden=48, inter=20, window=7,
            eps=1e-12, biases="c", pooling="cls", labels=THREE, tied=False, stream="cls-v5",
        ),
        Fixture(
            "tokens", "new", "token_classification", "ffss", window=9, tied=False,
            labels=("O", "B-PER", "I-PER", "B-LOC", "I-LOC"), stream="tokens-v5",
        ),
        Fixture(
            "spans", "both", "question_answering", tied=False, labels=("start", "end"),
            stream="spans-v4",
        ),
    )
}  # fmt: skip
