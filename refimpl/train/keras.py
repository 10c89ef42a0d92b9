"""`compile`, `fit` and `evaluate` of a model: the calls of Keras, a thin face over the trainer.

    model.compile(optimizer="adamw", learning_rate=8e-5, metrics=["accuracy"])
    model.fit(x, y, batch_size=32, epochs=3, validation_data=(x2, y2)).history["val_accuracy"]

x: ids, a dict as the model takes it, or texts; y: labels as `refimpl.train.gradients` takes them
for the head's task. The loss is the head's own (MODEL.md section 14). Dropout acts as configured.
The model has the trained parameters afterwards. Not here: callbacks, losses of one's own: Trainer,
or steps of one's own with `gradients`. Long because arrays of every task become work here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..models.inputs import check_inputs
from ..models.model import ModernBERT
from ..models.task_model import ModernBERTForTask
from ..nlp.head import NLPHead
from ..nlp.multi_task import MultiTaskHead
from ..progress import progress
from ..text.tokenizer import Tokenizer
from .examples import Examples, Unit
from .loss_gradients import Draws, gradients
from .native import NativeStep
from .optimisers import AdamW, Optimiser, StableAdamW
from .order import batch_at, steps_per_epoch
from .settings import Settings
from .task_loss import loss_of
from .tasks import TASKS, problem
from .trainer import Trainer
from .work import Stepped, Sum, Supervised, Work, checked_shape

Array = np.ndarray

NAMES = {"adamw": AdamW, "stable_adamw": StableAdamW}


@dataclass
class Compiled:
    """What `compile` was given. fits: how often `fit` ran: each has an order of its own."""

    optimiser: Optimiser
    settings: Settings
    metrics: Sequence[str]
    fits: int = 0


@dataclass(frozen=True)
class History:
    """history: figure -> one value an epoch; those of validation_data begin with val_."""

    history: dict[str, list[float]] = field(default_factory=dict)


def compiled(
    model: ModernBERT,
    optimizer: Any = "adamw",
    learning_rate: float | None = None,
    *,
    loss: None = None,
    metrics: Sequence[str] = (),
    weight_decay: float = 0.0,
    **settings: Any,
) -> Compiled:
    """optimizer: adamw or stable_adamw, or one of refimpl.train, whose moments go on from fit to
    fit. loss: None, the head's own. metrics: which figures are told, all unless any is named.
    settings: further fields of refimpl.train.Settings: schedule, warmup, freeze, layer_decay..
    Raises ValueError, TypeError."""
    trained(model)
    if loss is not None:
        raise ValueError(f"loss is {loss!r}; a head has its own, so it can only be None")
    options = {"schedule": "constant", "warmup": 0.0, **settings}
    made = Settings(learning_rate=learning_rate, weight_decay=weight_decay, **options)
    if isinstance(optimizer, str):
        if optimizer not in NAMES:
            adam = "; adamw is Adam where weight_decay is 0, as it is by default"
            raise ValueError(
                f"optimizer is {optimizer!r}; known: {', '.join(NAMES)}"
                f"{adam * (optimizer.lower() == 'adam')}"
            )
        own: Optimiser = (
            AdamW(weight_decay=weight_decay)
            if optimizer == "adamw"
            else StableAdamW(made.peak(model.config.hidden_size), weight_decay=weight_decay)
        )
    elif isinstance(optimizer, Optimiser):
        own = optimizer
    else:
        raise TypeError(
            f"optimizer is {optimizer!r}; it must be a name ({', '.join(NAMES)}), or AdamW or "
            "StableAdamW of refimpl.train"
        )
    if isinstance(metrics, str):
        raise TypeError(f"metrics is {metrics!r}; it must be a list of names")
    return Compiled(own, made, tuple(metrics))


def fit(
    model: ModernBERT,
    x: Any,
    y: Any,
    how: Compiled | None,
    *,
    batch_size: int = 32,
    epochs: int = 1,
    validation_data: tuple[Any, Any] | None = None,
    verbose: bool | None = None,
    seed: int = 0,
) -> History:
    """Train `model` in place. verbose: a line an epoch; None for a bar on a terminal.

    Raises ValueError (before anything changes), FloatingPointError, and KeyboardInterrupt, after
    which the model is as it was.
    """
    mine = trained(model)
    if how is None:
        raise ValueError("model is not compiled; model.compile(learning_rate=..) says how to train")
    work = work_of(mine, x, y)
    checked = None if validation_data is None else work_of(mine, *validation_data)
    settings = Settings(
        **{**vars(how.settings), "epochs": epochs, "batch_size": batch_size, "accumulate": 1,
           "seed": seed + how.fits}
    )  # fmt: skip
    lines = iter(progress(range(settings.epochs * work.steps_per_epoch(settings)), "fit", verbose))

    def tell(line: str) -> None:
        if line.startswith("step "):
            next(lines, None)

    trainer = Trainer(mine, work, checked, settings, None, tell, optimiser=how.optimiser)
    trainer.run()
    how.fits += 1
    take(mine, trainer.params)
    return History(by_epoch(trainer.history, trainer.every, how.metrics))


def evaluate(
    model: ModernBERT, x: Any, y: Any, how: Compiled | None, *, batch_size: int = 32
) -> dict[str, float]:
    """`loss` and the figures of the head's task, those that `compile` named if it named any."""
    Settings(batch_size=batch_size)
    found = work_of(trained(model), x, y).evaluate(trained(model))
    return chosen(found, () if how is None else how.metrics)


def trained(model: ModernBERT) -> ModernBERTForTask:
    """The model, if it has a head with a loss. Raises ValueError."""
    if isinstance(model, ModernBERTForTask) and model.head.kind in TASKS.values():
        return model
    kind = model.head.kind if isinstance(model, ModernBERTForTask) else "no"
    raise ValueError(
        f"model has {kind} head, which has no loss here; create_modern_bert_with_head puts one on "
        "an encoder, and modernbert finetune embed trains sentence modules"
    )


def take(model: ModernBERTForTask, params: Mapping[str, Array]) -> None:
    """The model with these parameters; its engine is packed anew when it is next asked for."""
    engine = model._engine
    model.__init__(  # type: ignore[misc]
        model.config, params, model.head, backend=model.backend, dtype=model.compute_dtype,
        num_threads=None if engine is None else engine._arguments[2], source=model.source,
    )  # fmt: skip


def by_epoch(
    lines: Sequence[Mapping[str, Any]], steps: int, metrics: Sequence[str]
) -> dict[str, list[float]]:
    """A trainer's lines -> figure -> values, the loss a mean over the steps of an epoch."""
    losses = [line["loss"] for line in lines if "loss" in line]
    out = {"loss": [float(np.mean(losses[i : i + steps])) for i in range(0, len(losses), steps)]}
    for line in lines:
        found = {n.removeprefix("eval_"): v for n, v in line.items() if n.startswith("eval_")}
        for name, value in chosen(found, metrics).items() if found else ():
            out.setdefault("val_" + name, []).append(value)
    return out


def chosen(found: Mapping[str, float], metrics: Sequence[str]) -> dict[str, float]:
    """The loss and the figures that are named; ValueError for one that the task has not."""
    for name in metrics:
        if name not in found:
            raise ValueError(f"metrics has {name!r}; this task has {', '.join(found)}")
    return {n: v for n, v in found.items() if n == "loss" or not metrics or n in metrics}


# -- arrays and texts as work ---------------------------------------------------------------------


def work_of(model: ModernBERTForTask, x: Any, y: Any) -> Work:
    """x and y as rows to train on. Raises ValueError that names the argument."""
    if y is None:
        raise ValueError("y is missing; it holds the labels")
    inputs = x
    if isinstance(x, Sequence) and len(x) and isinstance(x[0], (str, tuple)):
        if model.source is None:
            raise ValueError("x holds texts, but the model came from no folder with a tokenizer")
        tokenizer = Tokenizer.from_folder(model.source)
        inputs = tokenizer.pad(tokenizer.encode_batch(list(x)))
    checked = check_inputs(model.config, inputs, dtype=model.dtype, axes=model.axes)
    if checked.input_ids is None or checked.position_ids is not None:
        raise ValueError("x must hold input_ids, and no position_ids or inputs_embeds, to be fit")
    mask = checked.attention_mask != 0
    if (mask[..., 1:] & ~mask[..., :-1]).any() or not mask[..., 0].all():
        raise ValueError("attention_mask must have its ones first: padding stands on the right")
    ids = np.asarray(checked.input_ids)
    if isinstance(model.head, MultiTaskHead):
        return Several(ids, mask, y)
    task = next(task for task, kind in TASKS.items() if kind == model.head.kind)
    labels = np.asarray(y)
    if len(labels) != len(ids):
        raise ValueError(f"y has {len(labels)} rows, x has {len(ids)}")
    units = []
    for i, row in enumerate(ids):
        rows, real = (row, mask[i]) if row.ndim == 2 else (row[None], mask[i][None])
        sequences = [one[seen].astype(np.int64) for one, seen in zip(rows, real, strict=True)]
        mine = labels[i][mask[i]] if task in ("mask", "tokens") else labels[i : i + 1]
        units.append(Unit(sequences, mine, f"row {i}"))
    check_labels(model, units[0], task)
    return Supervised(Examples(task, units, 0))


def check_labels(model: ModernBERTForTask, unit: Unit, task: str) -> None:
    """ValueError where the first row's labels do not fit the head."""
    packed = {
        "input_ids": np.concatenate(unit.sequences),
        "cu_seqlens": np.cumsum([0, *(len(x) for x in unit.sequences)]),
    }
    gradients(model, packed, unit.labels, task=task, normaliser=1.0)


class Several(Work):
    """Rows for a multi-task head: each task is counted for itself, so a step is one unit."""

    task = "several"

    def __init__(self, ids: Array, mask: Array, labels: Any) -> None:
        if not isinstance(labels, Mapping):
            raise ValueError(f"y is {labels!r}; it must map each task to its labels")
        self.ids, self.mask = ids, mask.astype(np.int64)
        self.labels = {name: np.asarray(x) for name, x in labels.items()}

    def steps_per_epoch(self, settings: Settings) -> int:
        return steps_per_epoch(len(self.ids), settings.texts_a_step)

    def step(
        self,
        model: ModernBERTForTask,
        step: int,
        settings: Settings,
        wanted: Collection[str],
        engine: NativeStep | None = None,  # which trains no several heads
    ) -> Stepped:
        rows = batch_at(step, len(self.ids), settings.texts_a_step, settings.seed)
        inputs = {"input_ids": self.ids[rows], "attention_mask": self.mask[rows]}
        labels = {name: x[rows] for name, x in self.labels.items()}
        draws = Draws(settings.seed, step, 0)
        loss, grads = gradients(model, inputs, labels, task="several", draws=draws)
        total = Sum(wanted)
        total.add(grads)
        return Stepped(loss, total.gradients, int(self.mask[rows].sum()))

    def evaluate(self, model: ModernBERTForTask) -> dict[str, float]:
        outputs = model.predict({"input_ids": self.ids, "attention_mask": self.mask}, verbose=False)
        assert isinstance(model.head, MultiTaskHead)
        found, loss = {}, 0.0
        for head in model.head.heads:
            assert isinstance(head, NLPHead)
            name, labels = head.task.name, self.labels[head.task.name]
            kind = problem(head, model.config, labels)
            out = dict(outputs[name])
            if "values" in out:
                out["logits"] = out["values"]
            scored = loss_of(kind, out, checked_shape(kind, out, labels))
            found[f"{name}_loss"] = scored.total / (scored.count or 1.0)
            loss += head.task.loss_weight * found[f"{name}_loss"]
        return {"loss": loss, **found}

    def digest(self) -> str:
        return ""
