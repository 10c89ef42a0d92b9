"""The trainer: steps, evaluations, checkpoints, and going on after any interruption.

    Trainer(model, Supervised(examples), evaluation, settings, folder).run()

The folder holds the model (best by evaluation, else the last), `metrics.jsonl`, their picture
`run.svg`, and `training.safetensors`: weights, moments, counters and where the data stand, in one
file, replaced whole or not at all. With adapters the model is the merged one, and `adapter/` is
PEFT's folder. Promise: a run that was stopped anywhere, also by SIGKILL, and resumed ends with the
same bits as one that was not, on the same machine and settings; a number that is not finite stops
the run with its step named and the last checkpoint as it was. numpy computes, or the CPU engine
(native.py). Long because a run and its checkpoints are one story.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.backend import resolve
from ..files.adapter import write_adapter
from ..models.model import Folder
from ..models.task_model import ModernBERTForTask
from .native import NativeStep, why_not
from .native_updates import NativeUpdates
from .optimisers import AdamW, Optimiser, StableAdamW
from .plot import PLOT, read_metrics, write_plot
from .run_state import METRICS, STATE, append, cut, read_state, told, write_state
from .schedules import Schedule
from .settings import Settings
from .stopping import stops_asked_for
from .trainable import Trainable
from .work import Work

Array = np.ndarray
Tell = Callable[[str], None]
ADAPTER = "adapter"


@dataclass
class Progress:
    """Counters of a run, kept with its weights. best: the lowest evaluation loss, None before."""

    step: int = 0
    best: float | None = None
    since_best: int = 0
    ended: bool = False
    tokens: int = 0


class Trainer:
    """Trains a model in its dtype.

    model: with a head that serves the task of `train`; its parameters are copied. evaluation: what
    is measured, None for nothing. folder: of the run, None to keep nothing but `model`. tell: takes
    a line of news. optimiser: in the place of the one that settings name.
    backend: "numpy"; "native" for the CPU engine's passes, its evaluation and its updates; "auto"
    for native where it is there and trains this model. dtype: of native's products, float32 or
    bfloat16 (parameters, moments and sums stay float32). num_threads, recompute: of native, see
    TrainingEngine; they change no bit, so that a run may go on with others. Raises ValueError.
    """

    def __init__(
        self,
        model: ModernBERTForTask,
        train: Work,
        evaluation: Work | None,
        settings: Settings,
        folder: Folder | None,
        tell: Tell = lambda line: None,
        *,
        optimiser: Optimiser | None = None,
        backend: str = "numpy",
        dtype: str = "float32",
        num_threads: int | None = None,
        recompute: bool | None = None,
    ) -> None:
        self.params = dict(model.params)
        self.trainable = Trainable(model, self.params, settings)  # copies what it changes
        self.model = ModernBERTForTask(
            model.config, self.params, model.head, backend="numpy", source=model.source
        )
        self.train, self.evaluation, self.tell = train, evaluation, tell
        self.folder = None if folder is None else Path(folder)
        train.begin(self.model, settings)
        self.steps = train.steps(settings)
        self.peak = settings.peak(model.config.hidden_size)
        self.settings = s = replace(settings, steps=self.steps, learning_rate=self.peak)
        self.optimiser = optimiser or named(s, self.peak)
        # With the gradients of one layer at a time, each tensor is updated as soon as it can be.
        at_once = s.accumulate == 1 and train.one_pass
        self.engine = chosen_engine(
            self.model, self.trainable.wanted, backend, dtype, num_threads, recompute, tell,
            self._update if at_once else None,
        )  # fmt: skip
        rule = self.optimiser
        if self.engine is not None and (type(rule) is AdamW or type(rule) is StableAdamW):
            self.optimiser = NativeUpdates(rule, self.engine.engine)  # subclasses have their own
        warmup, decay = round(s.warmup * self.steps), round(s.decay * self.steps)
        self.schedule = Schedule(
            s.schedule, warmup, self.steps, min(decay, self.steps - warmup), s.floor
        )
        self.every = s.evaluate_every or min(train.steps_per_epoch(s), self.steps)
        self._digests = train.digest(), None if evaluation is None else evaluation.digest()
        self.progress = Progress()
        self.history: list[dict[str, Any]] = []

    # -- a run ------------------------------------------------------------------------------------

    def run(self, *, resume: bool = False) -> dict[str, Any]:
        """All steps that are left. Returns the last figures.

        resume: go on from the folder's checkpoint, where there is one; without it a folder that
        holds a run is refused. Raises ValueError, OSError, FloatingPointError; KeyboardInterrupt
        after Ctrl-C, once the step is done and saved.
        """
        self._start(resume)
        start, first, tokens = time.monotonic(), self.progress.step, self.progress.tokens
        figures: dict[str, Any] = {}
        with stops_asked_for() as stop:
            while self.progress.step < self.steps and not self.progress.ended:
                figures = self._step()
                done = self.progress.step
                elapsed = max(time.monotonic() - start, 1e-9)
                left = elapsed / (done - first) * (self.steps - done)
                self._note(figures)
                self.tell(
                    f"step {done}/{self.steps}  loss {figures['loss']:.4f}  "
                    f"{(self.progress.tokens - tokens) / elapsed:,.0f} tokens/s  "
                    f"{left:.0f} s left"
                )
                if done % self.every == 0 or done == self.steps:
                    figures |= self._evaluate()
                    self._save()
                    self._draw()
                elif self.settings.save_every and done % self.settings.save_every == 0:
                    self._save()
                if stop.asked:
                    self._save()
                    raise KeyboardInterrupt
        if self.evaluation is None:
            self._save_model()
        self._save()
        self._draw()
        return {"steps": self.progress.step, "best": self.progress.best, **figures}

    def _start(self, resume: bool) -> None:
        if self.folder is None:
            return
        state = self.folder / STATE
        if state.exists() and not resume:
            raise ValueError(
                f"{self.folder} holds a run already; resume it, or take another folder"
            )
        if state.exists():
            self._restore(state)
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._save()
        cut(self.folder / METRICS, self.progress.step)

    def _step(self) -> dict[str, Any]:
        """One update -> loss, learning rate and tokens."""
        p, s = self.progress, self.settings
        lr = self.peak * self.schedule(p.step)
        if self.engine is not None and self.engine.sink is not None:
            self.optimiser.check(self.trainable.tensors, self.trainable.tensors, lr)
            self.optimiser.steps += 1
            found = self.train.step(self.model, p.step, s, self.trainable.wanted, self.engine)
            self.trainable.apply()
        else:
            found = self.train.step(self.model, p.step, s, self.trainable.wanted, self.engine)
            grads = self.trainable.gradients(found.gradients)
            self.optimiser.update(self.trainable.tensors, grads, lr, self.trainable.rates)
            self.trainable.apply()
        p.step, p.tokens = p.step + 1, p.tokens + found.tokens
        return {"loss": found.loss, "learning_rate": lr, "tokens": found.tokens}

    def _update(self, grads: dict[str, Array]) -> None:
        """The part of a step's update whose gradients are complete."""
        lr = self.peak * self.schedule(self.progress.step)
        own = self.trainable.gradients(grads)
        self.optimiser.apply(self.trainable.tensors, own, lr, self.trainable.rates)

    def _evaluate(self) -> dict[str, Any]:
        """Figures of the evaluation set; the model is written where its loss is the lowest yet."""
        if self.evaluation is None:
            return {}
        p = self.progress
        found = self.evaluation.evaluate(self._evaluated())
        if not np.isfinite(found["loss"]):
            raise FloatingPointError(f"step {p.step}: the loss of the evaluation is not finite")
        figures = {f"eval_{name}": value for name, value in found.items()}
        self._note(figures)
        self.tell("  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
        if p.best is None or found["loss"] < p.best:
            p.best, p.since_best = found["loss"], 0
            self._save_model()
        else:
            p.since_best += 1
            p.ended = 0 < self.settings.patience <= p.since_best
        return figures

    def _evaluated(self) -> ModernBERTForTask:
        """The model as it is now, on the backend that trains it."""
        if self.engine is None:
            return self.model
        e = self.engine.engine
        where: dict[str, Any] = dict(dtype=e.dtype, num_threads=e.num_threads)
        model = self.model
        return ModernBERTForTask(model.config, self.params, model.head, backend="native", **where)

    def _note(self, figures: dict[str, Any]) -> None:
        """A line of metrics."""
        self.history.append({"step": self.progress.step, **figures})
        if self.folder is not None:
            path = self.folder / METRICS
            with told("the line", path, self.progress.step):
                append(path, self.history[-1])

    # -- checkpoints ------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """What a checkpoint belongs to; a run with another is not the same run."""
        return {
            **asdict(self.settings),
            "train": self._digests[0],
            "evaluation": self._digests[1],
            "rule": self.optimiser.in_words(),
            "backend": in_words(self.engine),
            "config": self.model.config.to_dict(),
        }

    def _save_model(self) -> None:
        if self.folder is None:
            return
        with told("the model", self.folder, self.progress.step):
            self.model.save_pretrained(self.folder)
            adapter = self.trainable.adapter
            if adapter is not None:
                base, where = str(self.model.folder or ""), self.folder / ADAPTER
                write_adapter(where, adapter, self.params, self.model.config, self.model.head, base)

    def _save(self) -> None:
        if self.folder is None:
            return
        step = self.progress.step
        for name, x in self.trainable.tensors.items():
            if not np.isfinite(x).all():
                raise FloatingPointError(f"step {step}: {name} is not finite after the update")
        arrays, where = self.train.state()
        parts = {
            "params": self.trainable.tensors, "optimiser": self.optimiser.state(), "data": arrays,
        }  # fmt: skip
        facts = {"identity": self.identity(), "progress": asdict(self.progress), "data": where}
        with told("the state", self.folder / STATE, step):
            write_state(self.folder / STATE, parts, facts)

    def _draw(self) -> None:
        """The picture of metrics.jsonl."""
        if self.folder is not None and (self.folder / METRICS).exists():
            with told("the picture", self.folder / PLOT, self.progress.step):
                write_plot(self.folder / PLOT, read_metrics(self.folder / METRICS))

    def _restore(self, path: Path) -> None:
        parts, facts = read_state(path)
        now = json.loads(json.dumps(self.identity()))
        for name, value in now.items():
            if facts["identity"].get(name) != value:
                raise ValueError(
                    f"{path} belongs to another run: its {name} is "
                    f"{facts['identity'].get(name)!r}, here it is {value!r}"
                )
        for name, x in self.trainable.tensors.items():
            x[...] = parts["params"][name]
        self.trainable.apply()
        self.optimiser.restore(parts["optimiser"])
        self.train.restore(parts["data"], facts["data"])
        self.progress = Progress(**facts["progress"])


def chosen_engine(
    model: ModernBERTForTask,
    wanted: Collection[str],
    backend: str,
    dtype: str,
    num_threads: int | None,
    recompute: bool | None,
    tell: Tell,
    sink: Callable[[dict[str, Array]], None] | None,
) -> NativeStep | None:
    """The engine that a backend's name means, None for numpy. Raises ValueError."""
    if backend == "auto" and (why := why_not(model)) is not None:
        if dtype == "bfloat16":
            raise ValueError(f"dtype is 'bfloat16', which numpy does not compute in: {why}")
        tell(f"numpy computes: {why}")
        return None
    if backend == "numpy" and dtype == "float32":  # what the parameters are
        return None
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype is {dtype!r}; products of training are float32 or bfloat16")
    if resolve(backend, dtype, num_threads)[0] == "numpy":
        return None
    return NativeStep(
        model, wanted, dtype=dtype, num_threads=num_threads, recompute=recompute, sink=sink
    )


def in_words(engine: NativeStep | None) -> str:
    """What of a backend decides bits: a run with another is not the same run."""
    return "numpy" if engine is None else f"native {engine.engine.tier} {engine.engine.dtype}"


def named(settings: Settings, peak: float) -> Optimiser:
    """What settings.optimiser names; betas and eps are ModernBERT's own."""
    if settings.optimiser == "adamw":
        return AdamW((0.9, 0.98), 1e-6, settings.weight_decay)
    return StableAdamW(peak, (0.9, 0.98), 1e-6, settings.weight_decay)
