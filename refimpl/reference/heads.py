"""Task heads of Hugging Face checkpoints: pool or not, prediction head, classifier (MODEL.md 9).

Each head is a row of HEADS: its architecture name, its tensors, and a pure function from the last
hidden state to a dict of outputs. Steps are tapped as in the encoder: `pooled`, `head.dense`,
`head.act`, `head.norm`, `logits`. Configurable heads stand in nlp.py, sentence embeddings in
sentence.py, poolings in pooling.py. No losses here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import ops as equations
from .config import ModernBertConfig
from .encoder import Params, Tap, linear, no_tap, norm
from .params import Shapes, linear_shapes, norm_shapes
from .pooling import pool

Array = np.ndarray
Outputs = dict[str, Array]


def prediction_head(
    params: Params, config: ModernBertConfig, x: Array, ops: Any, tap: Tap
) -> Array:
    """LN(act(x W^T)). x [..., hidden] -> the same shape."""
    x = tap("head.dense", linear(params, "head.dense", x, ops))
    x = tap("head.act", ops.activate(x, config.classifier_activation))
    return tap("head.norm", norm(params, "head.norm", x, config, ops))


def masked_lm(
    params: Params,
    config: ModernBertConfig,
    hidden: Array,
    attention_mask: Array | None = None,
    ops: Any = equations,
    tap: Tap = no_tap,
) -> Outputs:
    """Scores of every vocabulary entry at every row. hidden [..., hidden] -> logits [..., vocab].

    The decoder is the token embedding unless the checkpoint has `decoder.weight`. The mask is not
    used: rows are independent, so a caller may pass the rows that it wants.
    """
    x = prediction_head(params, config, hidden, ops, tap)
    tied = "decoder.weight" not in params
    decoder = "embeddings.tok_embeddings.weight" if tied else "decoder.weight"
    logits = ops.linear(x, params[decoder], params.get("decoder.bias"))
    return {"logits": tap("logits", logits)}


def sequence_classification(
    params: Params,
    config: ModernBertConfig,
    hidden: Array,
    attention_mask: Array | None = None,
    ops: Any = equations,
    tap: Tap = no_tap,
) -> Outputs:
    """Pool (cls = column 0, or mean over real tokens), head, classifier.

    hidden [batch, seq, hidden], attention_mask [batch, seq] or None -> logits [batch, labels].
    """
    pooled = tap("pooled", pool(hidden, attention_mask, config.classifier_pooling))
    x = prediction_head(params, config, pooled, ops, tap)
    return {"logits": tap("logits", linear(params, "classifier", x, ops))}


def token_classification(
    params: Params,
    config: ModernBertConfig,
    hidden: Array,
    attention_mask: Array | None = None,
    ops: Any = equations,
    tap: Tap = no_tap,
) -> Outputs:
    """Head and classifier at each token: [batch, seq, hidden] -> logits [batch, seq, labels]."""
    x = prediction_head(params, config, hidden, ops, tap)
    return {"logits": tap("logits", linear(params, "classifier", x, ops))}


def question_answering(
    params: Params,
    config: ModernBertConfig,
    hidden: Array,
    attention_mask: Array | None = None,
    ops: Any = equations,
    tap: Tap = no_tap,
) -> Outputs:
    """Each token as the answer's first or last one: start_logits, end_logits [batch, seq]."""
    x = prediction_head(params, config, hidden, ops, tap)
    both = linear(params, "classifier", x, ops)
    return {
        "start_logits": tap("start_logits", both[..., 0]),
        "end_logits": tap("end_logits", both[..., 1]),
    }


def multiple_choice(
    params: Params,
    config: ModernBertConfig,
    hidden: Array,
    attention_mask: Array | None = None,
    ops: Any = equations,
    tap: Tap = no_tap,
) -> Outputs:
    """One score per choice: pool (cls = first real token, or mean), head, classifier(1).

    hidden [batch, choices, seq, hidden], attention_mask [batch, choices, seq] or None
    -> logits [batch, choices].
    """
    batch, choices, seq, width = hidden.shape
    how = "first_token" if config.classifier_pooling == "cls" else config.classifier_pooling
    mask = None if attention_mask is None else attention_mask.reshape(-1, seq)
    pooled = tap("pooled", pool(hidden.reshape(-1, seq, width), mask, how))
    x = prediction_head(params, config, pooled, ops, tap)
    logits = linear(params, "classifier", x, ops).reshape(batch, choices)
    return {"logits": tap("logits", logits)}


# -- the table of heads ---------------------------------------------------------------------------


def _prediction_shapes(config: ModernBertConfig) -> Shapes:
    hidden = config.hidden_size
    dense = linear_shapes("head.dense", hidden, hidden, config.classifier_bias)
    return dense | norm_shapes("head.norm", config)


def masked_lm_shapes(config: ModernBertConfig) -> Shapes:
    """The decoder's weight only when the config unties it."""
    tied, vocab = config.tie_word_embeddings, config.vocab_size
    weight = {} if tied else {"decoder.weight": (vocab, config.hidden_size)}
    bias = {"decoder.bias": (vocab,)} if config.decoder_bias else {}
    return _prediction_shapes(config) | weight | bias


def classifier_shapes(config: ModernBertConfig) -> Shapes:
    """A classifier of num_labels, always biased."""
    classifier = linear_shapes("classifier", config.num_labels, config.hidden_size, True)
    return _prediction_shapes(config) | classifier


def span_shapes(config: ModernBertConfig) -> Shapes:
    """Two labels: start and end."""
    if config.num_labels != 2:
        raise ValueError(f"num_labels is {config.num_labels}; question answering needs 2")
    return classifier_shapes(config)


def choice_shapes(config: ModernBertConfig) -> Shapes:
    """One score, whatever num_labels says."""
    return _prediction_shapes(config) | linear_shapes("classifier", 1, config.hidden_size, True)


@dataclass(frozen=True)
class Head:
    """A head: `shapes(config)` are its tensors, `forward` its function (as those above)."""

    kind: str
    architecture: str
    shapes: Callable[[ModernBertConfig], Shapes]
    forward: Callable[..., Outputs]


HEADS: Mapping[str, Head] = {
    head.kind: head
    for head in (
        Head("masked_lm", "ModernBertForMaskedLM", masked_lm_shapes, masked_lm),
        Head(
            "sequence_classification",
            "ModernBertForSequenceClassification",
            classifier_shapes,
            sequence_classification,
        ),
        Head(
            "token_classification",
            "ModernBertForTokenClassification",
            classifier_shapes,
            token_classification,
        ),
        Head(
            "question_answering",
            "ModernBertForQuestionAnswering",
            span_shapes,
            question_answering,
        ),
        Head("multiple_choice", "ModernBertForMultipleChoice", choice_shapes, multiple_choice),
    )
}
