"""The gradient of a step by the CPU engine: the encoder there and back, heads under numpy's losses.

    step = NativeStep(model, wanted)
    loss, grads = step.of_units("classify", units, count, batch_size=8)

Promise: the gradient is the sum over the step's units in their order, so that no bit depends on the
number of threads, on the micro-batches that share the passes, or on recomputation; dtype bfloat16
rounds the matrices of products, and nothing else. numpy's passes are the truth (loss_gradients.py).
Not here: dropout inside the encoder, configurable heads, float64. Long because units, batches and
embeddings share their passes and sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..backends.training import TrainingEngine
from ..models.model import ModernBERT
from ..models.task_model import ModernBERTForTask
from ..nlp.head import NLPHead
from ..nlp.multi_task import MultiTaskHead
from ..reference import ops as equations
from ..reference.params import encoder_shapes
from ..reference.sentence import SentenceHead
from . import adjoints, sentence
from .batch import Batch, batch_of
from .dropout import rates
from .embedding import head_of
from .examples import Unit
from .loss_gradients import Draws, Grads, dropout, logits_of, rows_of, through_heads
from .losses import IGNORED
from .tasks import head_for, targets
from .trainable import LAYER

Array = np.ndarray
DECODER, EMBEDDING = "decoder.weight", "embeddings.tok_embeddings.weight"
TYPES = "embeddings.token_type_embeddings.weight"


class NotFinite(Exception):
    """The name of a tensor whose gradient is not finite."""


def why_not(model: ModernBERT) -> str | None:
    """Why the CPU engine does not train this model; None where it does."""
    head = getattr(model, "head", None)
    if model.dtype != np.float32:
        return f"parameters are {model.dtype}; the CPU engine trains float32"
    if head is None or isinstance(head, (NLPHead, MultiTaskHead)):
        return "the CPU engine trains heads of checkpoints alone"
    if isinstance(head, SentenceHead) and head.makes_scores:
        return "the CPU engine trains no reranker of sentence modules"
    inside = [name for name in rates(model.config, head) if not name.startswith("head.")]
    if inside:
        return f"config drops {', '.join(inside)} out, which the CPU engine does not"
    return None


class NativeStep:
    """Passes and sums of one model, whose parameters may change in place between steps.

    wanted: parameters whose gradients are computed. sink: takes the gradients of one layer after
    the other, and may change their parameters at once; all units of a step then share one pass,
    and no more than one layer's gradients exist. dtype, num_threads, recompute: see
    TrainingEngine. Raises ValueError for a model that it does not train.
    """

    def __init__(
        self,
        model: ModernBERTForTask,
        wanted: Collection[str],
        *,
        dtype: str = "float32",
        num_threads: int | None = None,
        tier: str | None = None,
        recompute: bool | None = None,
        sink: Callable[[Grads], None] | None = None,
    ) -> None:
        why = why_not(model)
        if why is not None:
            raise ValueError(f"backend 'native' cannot train this model: {why}")
        self.model, self.params = model, dict(model.params)
        self.sink = sink
        self.gradients: Grads = room_of(self.params, wanted, shared=sink is not None)
        self.engine = TrainingEngine(
            model.config, self.params, self.gradients, dtype=dtype, num_threads=num_threads,
            tier=tier, recompute=recompute,
        )  # fmt: skip
        self.equations = SimpleNamespace(**{**vars(equations), "linear": self.engine.linear})
        self.adjoints = SimpleNamespace(**{**vars(adjoints), "linear": self._linear})
        self._in_head = [n for n in self.gradients if n not in encoder_shapes(model.config)]

    def of_units(
        self,
        task: str,
        units: Sequence[Unit],
        count: float,
        *,
        batch_size: int,
        seed: int = 0,
        step: int = 0,
        label_smoothing: float | None = None,
        class_weights: Any = None,
    ) -> tuple[float, Grads]:
        """Loss and gradients of a step's units, divided by `count`; arrays that the next call takes
        again, and that are used up where there is a sink. batch_size: units that share a pass.
        FloatingPointError names unit and tensor."""
        head_for(self.model, task)
        options = label_smoothing, class_weights
        self.begin()
        losses, first = list[float](), 0
        try:
            for some in parts(units, batch_size if self.sink is None else max(len(units), 1)):
                packed = packed_inputs([x for unit in some for x in unit.sequences])
                hidden = self.engine.forward(**packed)
                if task == "mask":
                    own, d = self._masked(some, hidden, count, label_smoothing or 0.0)
                else:
                    draws = Draws(seed, step, first)
                    own, d = self._heads(task, some, hidden, count, draws, options)
                losses += own
                self._back(d, math.fsum(losses))
                first += len(packed["cu_seqlens"]) - 1
            self._finish()
        except NotFinite as error:
            if len(units) > 1:  # whose it is
                alone = self._without_sink()
                for unit in units:
                    alone.of_units(
                        task, [unit], count, batch_size=1, seed=seed, step=step,
                        label_smoothing=label_smoothing, class_weights=class_weights,
                    )  # fmt: skip
            where = f"step {step + 1}, {units[0].where}"
            raise FloatingPointError(f"{where}: {error} is not finite") from None
        return math.fsum(losses), self.gradients

    # -- a step batch by batch ---------------------------------------------------------------------

    def begin(self) -> None:
        """Gradients of zero; rows that an unfinished step left are dropped."""
        self.engine.finish()
        for x in {id(x): x for x in self.gradients.values()}.values():
            self.engine.clear(x)

    def add_batch(
        self,
        inputs: Any,
        labels: Any,
        *,
        task: str,
        normaliser: float,
        label_smoothing: float | None = None,
        class_weights: Any = None,
    ) -> float:
        """The loss of one batch, padded or packed, as `gradients` takes it, without dropout; its
        gradients are added to those that are there."""
        model, head = self.model, head_for(self.model, task)
        batch = batch_of(model, inputs, head.kind == "multiple_choice", rows_of(labels))
        wanted = targets(head, model.config, batch, labels, label_smoothing, class_weights, task)
        hidden = self.engine.forward(**flat(batch)).reshape(*batch.axes, -1)
        grads: Grads = {}
        loss, d = through_heads(
            self.params, model.config, batch, wanted, hidden, {}, grads, None, normaliser,
            equations=self.equations, own_adjoints=self.adjoints,
        )  # fmt: skip
        self._add(grads)
        self._back(d.reshape(-1, d.shape[-1]), 0.0)
        return loss

    def end(self) -> Grads:
        """The step's gradients."""
        self.engine.finish()
        return self.gradients

    # -- embeddings -------------------------------------------------------------------------------

    def embeddings(self, texts: Sequence[Array], batch_size: int) -> Array:
        """Ids of texts -> [texts, width]."""
        found = []
        for some in parts(texts, batch_size):
            hidden = self.engine.forward(**packed_inputs(some))
            for ids, own in zip(some, split(hidden, some), strict=True):
                batch = self._alone(ids)
                out = head_of(self.model).forward(
                    self.params, self.model.config, batch.sequences(own), batch.mask
                )
                found.append(out["embeddings"][0])
        return np.stack(found)

    def of_embeddings(
        self, texts: Sequence[Array], d: Array, where: Sequence[str], step: int, batch_size: int
    ) -> Grads:
        """Gradients from d [texts, width] of the embeddings; passes are run again."""
        self.begin()
        head, rows = head_of(self.model), iter(d)
        for some in parts(texts, batch_size):
            hidden = self.engine.forward(**packed_inputs(some))
            back = []
            for ids, own in zip(some, split(hidden, some), strict=True):
                batch, grads = self._alone(ids), Grads()
                dhidden = sentence.backward(
                    head, self.params, next(rows)[None], batch.sequences(own), batch.mask, grads,
                    self.adjoints,
                )  # fmt: skip
                self._add(grads)
                back.append(batch.tokens(dhidden))
            self._back(np.concatenate(back), 0.0)
        try:
            self._finish()
        except NotFinite as error:
            raise FloatingPointError(
                f"step {step + 1}, {where[0]}, ..: {error} is not finite"
            ) from None
        return self.gradients

    def scores(self, texts: Sequence[Array], batch_size: int, draws: Sequence[Draws]) -> Array:
        """Ids of texts -> logits [texts, labels] of a sequence classifier."""
        found, left = [], iter(draws)
        for some in parts(texts, batch_size):
            hidden = self.engine.forward(**packed_inputs(some))
            for ids, own in zip(some, split(hidden, some), strict=True):
                found.append(
                    logits_of(self.model, self._alone(ids), own, next(left), self.equations)
                )
        return np.stack(found)

    # -- what a step is made of -------------------------------------------------------------------

    def _heads(
        self,
        task: str,
        units: Sequence[Unit],
        hidden: Array,
        count: float,
        draws: Draws,
        options: Any,
    ) -> tuple[list[float], Array]:
        """Losses of the units, one after the other, and d of their hidden states."""
        model, losses, back, first = self.model, list[float](), list[Array](), draws.first_sequence
        head = head_for(model, task)
        for unit, own in zip(units, split(hidden, units), strict=True):
            packed = packed_inputs(unit.sequences)
            choices = head.kind == "multiple_choice"
            batch = batch_of(model, packed, choices, rows_of(unit.labels))
            drop = None
            if rates(model.config, head):
                drop = dropout(model, batch, Draws(draws.seed, draws.step, first))
            smoothing, weights = options
            wanted = targets(head, model.config, batch, unit.labels, smoothing, weights, task)
            grads: Grads = {}
            loss, d = through_heads(
                self.params, model.config, batch, wanted, own, {}, grads, drop, count,
                equations=self.equations, own_adjoints=self.adjoints,
            )  # fmt: skip
            self._add(grads)
            losses.append(loss)
            back.append(d)
            first += len(unit.sequences)
        return losses, np.concatenate(back)

    def _masked(
        self, units: Sequence[Unit], hidden: Array, count: float, smoothing: float
    ) -> tuple[list[float], Array]:
        """The same of a masked-LM, whose logits never stand whole."""
        p, config, engine = self.params, self.model.config, self.engine
        labels = np.concatenate([np.asarray(unit.labels) for unit in units])
        ends = np.cumsum([(np.asarray(unit.labels) != IGNORED).sum() for unit in units])
        rows, d = np.flatnonzero(labels != IGNORED), np.zeros_like(hidden)
        if not len(rows):
            return [], d
        x = hidden[rows]
        dense = engine.linear(x, p["head.dense.weight"], p.get("head.dense.bias"))
        act = equations.activate(dense, config.classifier_activation)
        norm, eps = p["head.norm.weight"], config.norm_eps
        normed = equations.layer_norm(act, norm, p.get("head.norm.bias"), eps)
        decoder = DECODER if DECODER in p else EMBEDDING
        g = self.gradients.get
        losses, dx = engine.cross_entropy(
            normed, p[decoder], p.get("decoder.bias"), labels[rows], ends, smoothing=smoothing,
            share=1.0 / count, dw=g(decoder), db=g("decoder.bias"),
        )  # fmt: skip
        unused = np.zeros_like(norm)
        dx = engine.layer_norm_adjoint(
            dx, act, norm, eps, ends, g("head.norm.weight", unused), g("head.norm.bias")
        )
        dx = adjoints.activate(dx, dense, config.classifier_activation)
        d[rows] = engine.linear_adjoint(
            dx, x, p["head.dense.weight"], ends, g("head.dense.weight"), g("head.dense.bias")
        )
        return list(losses / count), d

    def _linear(self, dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
        """`adjoints.linear` of one unit."""
        rows, dw = dy.reshape(-1, dy.shape[-1]), np.zeros_like(weight)
        ends = np.array([len(rows)])
        dx = self.engine.linear_adjoint(rows, x.reshape(-1, x.shape[-1]), weight, ends, dw)
        return dx.reshape(x.shape), dw, adjoints.over_tokens(rows)

    def _add(self, grads: Grads) -> None:
        for name, x in grads.items():
            if name in self.gradients:
                self.gradients[name] += x

    def _alone(self, ids: Array) -> Batch:
        return batch_of(self.model, packed_inputs([ids]), False, 1)

    def _back(self, d: Array, loss: float) -> None:
        """The way back of one pass; each part's gradients go to the sink, where there is one."""
        if not math.isfinite(loss):
            raise NotFinite("the loss")
        if self.sink is not None:
            self._give(self._in_head)
        for start in self.engine.backward(d):
            if self.sink is not None:
                self._give([n for n in self.gradients if n.startswith(start)])

    def _finish(self) -> None:
        """The last gradients of a step, all of them checked."""
        self.engine.finish()
        if self.sink is not None:
            return self._give([EMBEDDING, TYPES])
        self._check(self.gradients)

    def _give(self, names: Collection[str]) -> None:
        """Complete gradients to the sink; their memory is used for other layers' after that."""
        some = {name: self.gradients[name] for name in names if name in self.gradients}
        self._check(some)
        assert self.sink is not None
        self.sink(some)
        for x in some.values():
            self.engine.clear(x)

    def _check(self, grads: Grads) -> None:
        """NotFinite with the first tensor whose gradient is not."""
        for name, x in grads.items():
            if not self.engine.all_finite(x):
                raise NotFinite(name)

    def _without_sink(self) -> NativeStep:
        e = self.engine
        return NativeStep(
            self.model, list(self.gradients), dtype=e.dtype, num_threads=e.num_threads, tier=e.tier
        )


def room_of(
    params: Mapping[str, Array], wanted: Collection[str], *, shared: bool
) -> dict[str, Array]:
    """Zeros for each gradient; shared: those of all layers in one layer's memory."""
    out: dict[str, Array] = {}
    of_layers: dict[str, Array] = {}
    for name in wanted:
        layer = LAYER.match(name)
        if layer is None or not shared:
            out[name] = on_lines(params[name].shape)
            continue
        inner = name[layer.end() :]
        if inner not in of_layers:
            of_layers[inner] = on_lines(params[name].shape)
        out[name] = of_layers[inner]
    return out


def on_lines(shape: tuple[int, ...]) -> Array:
    """float32 zeros that begin at a cache line, as products want what they add to."""
    count, line = math.prod(shape), 64
    room = np.zeros(count + line // 4, np.float32)
    first = -room.ctypes.data % line // 4
    return room[first : first + count].reshape(shape)


def parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def packed_inputs(sequences: Sequence[Array]) -> dict[str, Array]:
    """Sequences end to end."""
    return {
        "input_ids": np.concatenate(sequences),
        "cu_seqlens": np.cumsum([0, *(len(x) for x in sequences)]),
    }


def flat(batch: Batch) -> dict[str, Any]:
    """A batch as the engine takes it; padding is computed, and seen by nobody."""
    given = batch.inputs
    if batch.places is not None:
        return {"input_ids": given["input_ids"], "cu_seqlens": given["cu_seqlens"]}
    n, seq = batch.axes
    names = ("input_ids", "token_type_ids", "position_ids")
    out: dict[str, Any] = {x: None if given.get(x) is None else given[x].reshape(-1) for x in names}  # type: ignore[union-attr]
    mask = given["attention_mask"]
    key_mask = None if mask is None else mask.reshape(-1) != 0
    return {**out, "cu_seqlens": np.arange(n + 1) * seq, "key_mask": key_mask}


def split(hidden: Array, items: Sequence[Any]) -> list[Array]:
    """The rows of each item: a unit, or ids."""
    lengths = [x.tokens if isinstance(x, Unit) else len(x) for x in items]
    return np.split(hidden, np.cumsum(lengths)[:-1])
