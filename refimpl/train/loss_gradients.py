"""The gradients of a model's loss: forward, loss, backward, in the model's dtype.

    loss, grads = gradients(model, inputs, labels, task="classify")
    grads["layers.0.attn.Wqkv.weight"]      as in model.params: same names, shapes and dtype

numpy computes, whatever the model's backend, from `model.params` as they are. The steps of the
forward pass are kept for the backward one. Micro-batches of one step add up to its gradient when
each is divided by the `normaliser` of the whole step. Long because the loss goes through the heads
for numpy's passes and the engine's (native.py) alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..models.model import ModernBERT
from ..nlp.head import NLPHead
from ..reference import ops
from ..reference.config import ModernBertConfig
from ..reference.encoder import Params, Tap, encode, no_tap
from ..reference.heads import Head
from ..reference.taps import record
from . import adjoints, encoder, heads, nlp_heads
from . import labels as check
from .batch import Batch, batch_of
from .dropout import Dropout, rates
from .task_loss import GIVEN, loss_of
from .tasks import Target, head_for, targets, view_of

Array = np.ndarray
Grads = dict[str, Array]


@dataclass(frozen=True)
class Draws:
    """What the random numbers of a pass are keyed by: the run's seed, the step of the run, and the
    number of the first sequence within the step, where this is one of its micro-batches."""

    seed: int = 0
    step: int = 0
    first_sequence: int = 0


def gradients(
    model: ModernBERT,
    inputs: Mapping[str, Any] | Any,
    labels: Any,
    *,
    task: str,
    normaliser: float | None = None,
    label_smoothing: float | None = None,
    class_weights: Any = None,
    draws: Draws | None = None,
    tap: Tap = no_tap,
) -> tuple[float, Grads]:
    """The loss, and its gradient with respect to every parameter.

    model: one with a head that serves the task. inputs: as the model takes them, or packed:
    {"input_ids": [total], "cu_seqlens": [batch + 1]}.
    labels, by task; -100 is not counted, and is what padded tokens have:
      mask, tokens   int [batch, seq], or [total]
      classify       int [batch]; several labels a text: [batch, labels] in 0 .. 1; regression:
                     float [batch] or [batch, labels]
      answer         int [batch, 2], first and last token of the answer, counted in its sequence
      choice         int [batch]
      several        {task of the multi-task head: its labels}
      scores         float [batch, labels], d of a classifier's logits for a loss of one's own: the
                     loss is the sum of label x logit, divided by the normaliser
    normaliser: what the sum is divided by; default what is counted in this batch (MODEL.md 14).
    label_smoothing: default what the head's task says (0 for heads of checkpoints). class_weights
    [classes]: of the cross-entropy. draws: with them, dropout acts as configured; None: without.
    tap(name, d) sees the gradient of every step, last step first; its result is used instead.

    Returns (loss, {name: gradient}): zeros for a parameter that the loss does not depend on.
    Raises ValueError; FloatingPointError naming the tensor where a gradient is not finite.
    """
    head = head_for(model, task)
    batch = batch_of(model, inputs, head.kind == "multiple_choice", rows_of(labels))
    params, config = dict(model.params), model.config
    steps: dict[str, Array] = {}
    grads: Grads = {}
    drop = None if draws is None else dropout(model, batch, draws)
    wanted = targets(head, config, batch, labels, label_smoothing, class_weights, task)

    equations = ops if drop is None else drop.ops()
    forward, back = taps(drop, steps, tap)
    hidden = encode(params, config, **batch.inputs, ops=equations, tap=forward)
    loss, d = through_heads(
        params, config, batch, wanted, hidden, steps, grads, drop, normaliser, tap
    )
    keep = (lambda i: None) if drop is None else (lambda i: drop.keep(i, hidden.dtype))
    encoder.backward(params, config, steps, d, grads, batch.inputs, keep=keep, tap=back)
    out = {name: grads.get(name, np.zeros_like(x)) for name, x in params.items()}
    check_finite(loss, out)
    return loss, out


def through_heads(
    params: Params,
    config: ModernBertConfig,
    batch: Batch,
    wanted: Sequence[Target],
    hidden: Array,
    steps: dict[str, Array],
    grads: Grads,
    drop: Dropout | None,
    normaliser: float | None,
    tap: Tap = no_tap,
    equations: Any = ops,
    own_adjoints: Any = adjoints,
) -> tuple[float, Array]:
    """From the last hidden state, through the heads and their losses, to the loss and d of it.

    hidden, d [*axes, hidden]. The heads' steps go into `steps`, their gradients into `grads`.
    """
    loss, d = 0.0, np.zeros_like(hidden)
    real = None if batch.places is None else batch.mask != 0
    for target in wanted:
        one, view = target.head, view_of(target, batch, hidden)
        own = None if drop is None else drop.at(view.sequence, view.position)
        forward, back_head = taps(own, steps, tap)
        outputs = one.forward(params, config, view.hidden, view.mask, equations, forward)
        scored = loss_of(
            target.problem,
            outputs,
            view.labels,
            label_smoothing=target.label_smoothing,
            class_weights=target.class_weights,
            real=real,
        )
        share = target.weight / divisor(scored.count, normaliser)
        loss += scored.total * share
        douts = {name: x * share for name, x in scored.gradients.items()}
        dview = head_backward(
            one, params, config, steps, douts, view.hidden, view.mask, grads, back_head,
            own_adjoints,
        )  # fmt: skip
        d += view.back(dview)
    return loss, d


def logits_of(
    model: ModernBERT, batch: Batch, hidden: Array, draws: Draws | None, equations: Any = ops
) -> Array:
    """Logits [labels] of the one sequence of a batch, as a step with these draws has them."""
    head = head_for(model, "scores")
    assert isinstance(head, (Head, NLPHead))
    target = Target(head, np.zeros(0), GIVEN, 1.0, 0.0, None)
    view = view_of(target, batch, hidden)
    drop = None if draws is None else dropout(model, batch, draws).at(view.sequence, view.position)
    forward, _ = taps(drop, {}, no_tap)
    out = head.forward(dict(model.params), model.config, view.hidden, view.mask, equations, forward)
    return out["logits"][0]


def dropout(model: ModernBERT, batch: Batch, draws: Draws) -> Dropout:
    """What the model's config and head drop out of this batch."""
    return Dropout(
        rates(model.config, getattr(model, "head", None)),
        check.whole("draws.seed", draws.seed),
        check.whole("draws.step", draws.step),
        check.whole("draws.first_sequence", draws.first_sequence),
        model.config.num_attention_heads,
        batch.sequence,
        batch.position,
    )


def taps(drop: Dropout | None, steps: dict[str, Array], tap: Tap) -> tuple[Tap, Tap]:
    """The forward pass drops a step out, then records it; the backward pass shows its gradient to
    `tap`, then drops that out."""
    kept = record(steps)
    if drop is None:
        return kept, tap
    return lambda name, x: kept(name, drop(name, x)), lambda name, d: drop(name, tap(name, d))


def head_backward(
    head: Head | NLPHead,
    params: Params,
    config: ModernBertConfig,
    steps: Params,
    douts: Mapping[str, Array],
    hidden: Array,
    mask: Array | None,
    grads: Grads,
    tap: Tap,
    ops: Any = adjoints,
) -> Array:
    """d of the head's outputs -> d of the hidden states that it was given."""
    if isinstance(head, NLPHead):
        return nlp_heads.backward(head, params, steps, douts, hidden, mask, grads, ops, tap)
    back = heads.BACKWARD[head.kind]
    return back(params, config, steps, douts, hidden, mask, grads, ops, tap)


def rows_of(labels: Any) -> int:
    """How many questions the labels are for, where that is their length."""
    return len(labels) if hasattr(labels, "__len__") else 0


def divisor(count: float, normaliser: float | None) -> float:
    """What the sum is divided by. ValueError where that is nothing."""
    if normaliser is None:
        if count == 0:
            raise ValueError("labels holds nothing to learn from: every label is -100")
        return count
    if not (np.isfinite(normaliser) and normaliser > 0):
        raise ValueError(f"normaliser is {normaliser!r}; it must be positive and finite")
    return float(normaliser)


def check_finite(loss: float, grads: Grads) -> None:
    """FloatingPointError that names the first tensor, in the order of the model's."""
    for name, x in (("the loss", np.asarray(loss)), *grads.items()):
        if not np.isfinite(x).all():
            raise FloatingPointError(f"{name} is not finite")
