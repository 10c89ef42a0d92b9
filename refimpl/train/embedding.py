"""Embeddings of single sequences as a training step sees them, and the way back to the parameters.

    vector = embedding(model, ids, draws)              [width], dropout included
    grads = embedding_gradients(model, ids, d, draws)  from d of that vector, to every parameter

Each sequence is computed alone, and again for its way back, so that a loss over a whole batch holds
one sequence's steps at a time (the cached losses of sentence-transformers): dropout's draws depend
on their place alone, so the second pass is the first.
"""

from __future__ import annotations

import numpy as np

from ..models.task_model import ModernBERTForTask
from ..reference import ops
from ..reference.encoder import encode, no_tap
from ..reference.sentence import SentenceHead
from . import encoder, sentence
from .batch import Batch, batch_of
from .dropout import Dropout
from .loss_gradients import Draws, Grads, check_finite, dropout, taps

Array = np.ndarray


def head_of(model: ModernBERTForTask) -> SentenceHead:
    """The model's modules. ValueError where it has others, or gives scores."""
    head = model.head
    if not isinstance(head, SentenceHead) or head.makes_scores:
        raise ValueError(f"model has a {head.kind} head; embeddings need sentence modules")
    return head


def embedding(model: ModernBERTForTask, ids: Array, draws: Draws | None) -> Array:
    """int [length] -> [width]."""
    hidden, batch, _, _ = run(model, ids, draws)
    head = head_of(model)
    out = head.forward(dict(model.params), model.config, batch.sequences(hidden), batch.mask)
    return out["embeddings"][0]


def embedding_gradients(
    model: ModernBERTForTask, ids: Array, d: Array, draws: Draws | None
) -> Grads:
    """d [width] of the embedding -> gradients of every parameter, zeros where it has no part.

    FloatingPointError that names the tensor where one is not finite.
    """
    params, grads = dict(model.params), Grads()
    hidden, batch, steps, drop = run(model, ids, draws)
    whole = batch.sequences(hidden)
    dhidden = sentence.backward(head_of(model), params, d[None], whole, batch.mask, grads)
    _, back = taps(drop, {}, no_tap)
    keep = (lambda i: None) if drop is None else (lambda i: drop.keep(i, hidden.dtype))
    encoder.backward(
        params, model.config, steps, batch.tokens(dhidden), grads, batch.inputs, keep=keep, tap=back
    )
    out = {name: grads.get(name, np.zeros_like(x)) for name, x in params.items()}
    check_finite(0.0, out)
    return out


def run(
    model: ModernBERTForTask, ids: Array, draws: Draws | None
) -> tuple[Array, Batch, dict[str, Array], Dropout | None]:
    """The encoder's forward pass of one sequence: hidden [length, hidden], and what led there."""
    packed = {"input_ids": ids, "cu_seqlens": np.array([0, len(ids)])}
    batch, steps = batch_of(model, packed, False, 1), dict[str, Array]()
    drop = None if draws is None else dropout(model, batch, draws)
    forward, _ = taps(drop, steps, no_tap)
    equations = ops if drop is None else drop.ops()
    hidden = encode(dict(model.params), model.config, **batch.inputs, ops=equations, tap=forward)
    return hidden, batch, steps, drop
