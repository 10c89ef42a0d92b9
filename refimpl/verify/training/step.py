"""One short training run as a value, so that it can be run, forced, broken and run again.

A `Training` holds everything that the numbers depend on: config, parameters, the micro-batches of
each step, loss, normaliser, the equations of both passes, the optimiser with its learning rates. A
mistake is a function Training -> Training, and so is a legitimate evaluation in another dtype.
`gradient` gives one step's loss, its gradients, and every step of both passes; with a port's own
arrays for `given` each is computed from what the port had (teacher forcing). `trained` gives the
parameters after further steps. The equations are refimpl.train's and refimpl.reference's.
Long because a run's parts and the ways to force them stand together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...reference import ops as equations
from ...reference.config import ModernBertConfig
from ...reference.encoder import Tap, encode, no_tap
from ...reference.heads import HEADS
from ...train import adjoints, encoder, heads
from ...train.losses import IGNORED
from ...train.optimisers import AdamW, Optimiser, StableAdamW
from ...train.task_loss import Scored, loss_of

Array = np.ndarray
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Rule:
    """How parameters are updated. optimiser: a key of OPTIMISERS; peak: the largest learning rate;
    lr: that of each step."""

    optimiser: str
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    peak: float
    lr: tuple[float, ...]


def optimiser_of(rule: Rule) -> Optimiser:
    """refimpl.train's own."""
    if rule.optimiser == "adamw":
        return AdamW(rule.betas, rule.eps, rule.weight_decay)
    return StableAdamW(rule.peak, rule.betas, rule.eps, rule.weight_decay)


OPTIMISERS = ("adamw", "stable_adamw")


@dataclass(frozen=True)
class Micro:
    """One micro-batch. inputs: of `encode`; labels as `loss_of` takes them."""

    inputs: Mapping[str, Array | None]
    labels: Array

    @property
    def mask(self) -> Array | None:
        return self.inputs.get("attention_mask")

    @property
    def labelled(self) -> int:
        """Labels that are counted."""
        return int((self.labels != IGNORED).sum())


Window = Sequence[Micro]


def whole_step(counts: Sequence[float], window: Window, t: Training) -> list[float]:
    """What each micro-batch's sum is multiplied with: 1 / what is counted in the whole step."""
    return [1.0 / sum(counts)] * len(counts)


def added(parts: Sequence[Arrays], t: Training) -> dict[str, Array]:
    """The gradient of a step is the sum of those of its micro-batches."""
    out = dict(parts[0])
    for part in parts[1:]:
        out = {name: x + part[name] for name, x in out.items()}
    return out


@dataclass(frozen=True)
class Training:
    """A run. windows: step -> its micro-batches; accumulate: micro-batches of a full step;
    stop_after: the step after which the run is saved, ended and resumed, or None.

    What a mistake may replace: ops and adjoints (the equations of the passes), forward_edit and
    backward_edit (taps between their steps), score (loss of one micro-batch), share (what its sum
    is multiplied with), encoder_back and head_back (the backward passes), total (of gradients over
    micro-batches), window (which one a step takes), optimiser, rate (step -> learning rate),
    resumed (the optimiser after a stop), seen (parameters as the passes read them), clean (the
    gradients of a step from those of this and earlier ones).
    """

    config: ModernBertConfig
    params: Arrays
    head: str
    problem: str
    windows: Sequence[Window]
    accumulate: int
    rule: Rule
    label_smoothing: float = 0.0
    class_weights: Array | None = None
    stop_after: int | None = None
    ops: Any = equations
    adjoints: Any = adjoints
    forward_edit: Tap = no_tap
    backward_edit: Tap = no_tap
    score: Callable[[Arrays, Micro, Training], Scored] = field(
        default=lambda outputs, micro, t: loss_of(
            t.problem, outputs, micro.labels, label_smoothing=t.label_smoothing,
            class_weights=t.class_weights,
        )
    )  # fmt: skip
    share: Callable[[Sequence[float], Window, Training], list[float]] = whole_step
    encoder_back: Callable[..., Array] = encoder.backward
    head_back: Callable[..., Array] | None = None
    total: Callable[[Sequence[Arrays], Training], dict[str, Array]] = added
    clean: Callable[[Sequence[Arrays]], Arrays] = lambda seen: seen[-1]
    window: Callable[[Training, int], Window] = field(default=lambda t, k: t.windows[k])
    optimiser: Callable[[Rule], Optimiser] = optimiser_of
    rate: Callable[[Training, int], float] = field(default=lambda t, k: t.rule.lr[k])
    resumed: Callable[[Optimiser, Training], Optimiser] = field(
        default=lambda optimiser, t: optimiser
    )
    seen: Callable[[Arrays], Arrays] = field(default=lambda params: params)

    def with_ops(self, **own: Callable[..., Any]) -> Training:
        """The same with some equations of the forward pass replaced."""
        return replace(self, ops=SimpleNamespace(**{**vars(self.ops), **own}))

    def with_adjoints(self, **own: Callable[..., Any]) -> Training:
        """The same with some equations of the backward pass replaced."""
        return replace(self, adjoints=SimpleNamespace(**{**vars(self.adjoints), **own}))

    def astype(self, dtype: np.dtype | type) -> Training:
        """The same with parameters in another float dtype."""
        return replace(self, params={name: x.astype(dtype) for name, x in self.params.items()})


# -- one step -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What one step gave. values: name -> array, in the order of the computation: the steps of the
    forward pass [micro, ..], `loss` [], then, as the backward pass completes them, `d.STEP`
    [micro, ..] and `grad.NAME`. grads: name of the parameter -> gradient."""

    values: dict[str, Array]
    grads: dict[str, Array]


def gradient(
    t: Training, window: Window, params: Arrays | None = None, given: Arrays | None = None
) -> Step:
    """Loss and gradients of one step, `params` in place of t's own.

    given: `STEP` and `d.STEP` [micro, ..], which go on in place of the run's own; the result holds
    what each of them would have been.
    """
    given = {} if given is None else given
    params = t.seen(t.params if params is None else params)
    forward = HEADS[t.head].forward
    records: list[dict[str, Array]] = []
    scores: list[Scored] = []
    values: dict[str, list[Array]] = {}
    for m, micro in enumerate(window):
        kept: dict[str, Array] = {}
        tap = _forced(t.forward_edit, values, kept, given, "", m)
        hidden = encode(params, t.config, **micro.inputs, ops=t.ops, tap=tap)
        outputs = forward(
            params, t.config, shaped(t, micro, hidden), _head_mask(t, micro), t.ops, tap
        )
        kept["hidden"] = hidden
        records.append(kept)
        scores.append(t.score(outputs, micro, t))
    shares = t.share([s.count for s in scores], window, t)
    loss = sum(s.total * share for s, share in zip(scores, shares, strict=True))

    parts: list[Arrays] = []
    order: dict[str, None] = {}
    backward: dict[str, list[Array]] = {}
    back_head = t.head_back or heads.BACKWARD[t.head]
    for m, (micro, kept, scored, share) in enumerate(
        zip(window, records, scores, shares, strict=True)
    ):
        grads = _Ordered(order)
        tap = _forced(t.backward_edit, backward, {}, given, "d.", m, order)
        hidden = kept.pop("hidden")
        d = {name: x * share for name, x in scored.gradients.items()}
        dhidden = back_head(
            params, t.config, kept, d, shaped(t, micro, hidden), _head_mask(t, micro), grads,
            t.adjoints, tap,
        ).reshape(hidden.shape)  # fmt: skip
        t.encoder_back(
            params, t.config, kept, dhidden, grads, micro.inputs, ops=t.adjoints, tap=tap
        )
        parts.append({name: grads.get(name, np.zeros_like(x)) for name, x in params.items()})
    grads_of_step = t.total(parts, t)
    out = {name: np.stack(x) for name, x in values.items() if not name.startswith("rope.")}
    out["loss"] = np.asarray(loss)
    for name in (*order, *(f"grad.{name}" for name in grads_of_step)):
        if name.startswith("d."):
            out[name] = np.stack(backward[name])
        elif name not in out:
            out[name] = grads_of_step[name.removeprefix("grad.")]
    return Step(out, grads_of_step)


def shaped(t: Training, micro: Micro, hidden: Array) -> Array:
    """Hidden states as the head takes them: [batch, choices, seq, hidden] for multiple choice."""
    if t.head != "multiple_choice":
        return hidden
    return hidden.reshape(len(micro.labels), -1, *hidden.shape[1:])


def _head_mask(t: Training, micro: Micro) -> Array | None:
    if micro.mask is None or t.head != "multiple_choice":
        return micro.mask
    return micro.mask.reshape(len(micro.labels), -1, micro.mask.shape[-1])


class _Ordered(dict[str, Array]):
    """Gradients as the backward pass fills them in; `order` has each where it was completed."""

    def __init__(self, order: dict[str, None]) -> None:
        self.order = order

    def __setitem__(self, name: str, value: Array) -> None:
        super().__setitem__(name, value)
        _to_end(self.order, f"grad.{name}")


def _to_end(order: dict[str, None], name: str) -> None:
    order.pop(name, None)
    order[name] = None


def _forced(
    edit: Tap,
    values: dict[str, list[Array]],
    kept: dict[str, Array],
    given: Arrays,
    prefix: str,
    m: int,
    order: dict[str, None] | None = None,
) -> Tap:
    """A tap that records each step as it was made and hands on what `given` has for it."""

    def tap(name: str, x: Array) -> Array:
        x = edit(name, x)
        values.setdefault(prefix + name, []).append(x)
        if order is not None:
            _to_end(order, prefix + name)
        if prefix + name in given:
            x = given[prefix + name][m].reshape(x.shape).astype(x.dtype)
        kept[name] = x
        return x

    return tap


def by_sequence(attention: Callable[..., Any], crossing: bool = False) -> Callable[..., Any]:
    """attention's adjoint [batch, seq, ..] for sequences packed end to end; crossing: as if they
    were one."""

    def packed(
        dy: Array, q: Array, k: Array, v: Array, cu_seqlens: Array, window: int | None,
        keep: Any = None,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        ends = [0, len(q)] if crossing else [int(x) for x in cu_seqlens]
        out = np.empty_like(q), np.empty_like(k), np.empty_like(v)
        for start, stop in zip(ends[:-1], ends[1:], strict=True):
            one, every_key = slice(start, stop), np.ones((1, stop - start), bool)
            parts = attention(dy[None, one], q[None, one], k[None, one], v[None, one], every_key,
                              window)  # fmt: skip
            for whole, part in zip(out, parts, strict=True):
                whole[one] = part[0]
        return out

    return packed


# -- several steps --------------------------------------------------------------------------------


def trained(
    t: Training, steps: Sequence[int], grads: Sequence[Arrays] = ()
) -> dict[int, dict[str, Array]]:
    """The parameters after each of `steps`. grads: those of the first steps, where somebody else
    has computed them."""
    params = {name: np.array(x) for name, x in t.params.items()}
    optimiser, out = t.optimiser(t.rule), {}
    seen: list[Arrays] = []
    for k in range(max(steps)):
        if t.stop_after == k:
            optimiser = t.resumed(optimiser, t)
        own = grads[k] if k < len(grads) else gradient(t, t.window(t, k), params).grads
        seen.append(own)
        used = {name: x.astype(params[name].dtype) for name, x in t.clean(seen).items()}
        with np.errstate(all="ignore"):
            optimiser.update(params, used, t.rate(t, k))
        if k + 1 in steps:
            out[k + 1] = {name: np.array(x) for name, x in params.items()}
    return out
