"""The trainer: steps, evaluations, checkpoints, and going on after any interruption.

    Trainer(model, examples, evaluation, settings, folder).run()

Each step adds up the gradients of its chunks, divides by what is counted in the whole step, and
updates. The folder holds the model (best by evaluation, else the last), `metrics.jsonl`, and
`training.safetensors`: weights, moments and counters in one file, replaced whole or not at all.
Promise: a run that was stopped anywhere, also by SIGKILL, and resumed ends with the same bits as
one that was not, on the same machine and settings; a number that is not finite stops the run with
its step named and the last checkpoint as it was. numpy computes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..models.model import Folder
from ..models.task_model import ModernBERTForTask
from ..reference.heads import Head
from .evaluation import evaluate
from .examples import Examples
from .loss_gradients import Draws, gradients
from .optimisers import AdamW
from .order import batch_at, chunks, steps_per_epoch
from .run_state import METRICS, STATE, append, cut, digest, read_state, write_state
from .schedules import Schedule
from .settings import Settings
from .stopping import stops_asked_for

Array = np.ndarray
Tell = Callable[[str], None]


@dataclass
class Progress:
    """Counters of a run, kept with its weights. best: the lowest evaluation loss, None before."""

    step: int = 0
    best: float | None = None
    since_best: int = 0
    ended: bool = False


class Trainer:
    """Fine-tunes a sequence classifier (single, several labels, regression) in its dtype.

    model: ModernBERTForTask with a sequence_classification head of a checkpoint; its parameters are
    copied. folder: of the run. tell: takes a line of news. Raises ValueError.
    """

    def __init__(
        self,
        model: ModernBERTForTask,
        train: Examples,
        evaluation: Examples | None,
        settings: Settings,
        folder: Folder,
        tell: Tell = lambda line: None,
    ) -> None:
        if not isinstance(model.head, Head) or model.head.kind != "sequence_classification":
            raise ValueError(f"model has a {model.head.kind} head; this trains classifiers")
        self.params = {name: np.array(x) for name, x in model.params.items()}
        self.model = ModernBERTForTask(
            model.config, self.params, model.head, backend="numpy", source=model.source
        )
        self.train, self.evaluation, self.settings = train, evaluation, settings
        self.folder, self.tell = Path(folder), tell
        self.optimiser = AdamW((0.9, 0.98), 1e-6, settings.weight_decay)
        self.steps = settings.epochs * steps_per_epoch(len(train), settings.batch_size)
        warmup = round(settings.warmup * self.steps)
        self.schedule = Schedule(settings.schedule, warmup, self.steps)
        self.every = settings.evaluate_every or steps_per_epoch(len(train), settings.batch_size)
        self.progress = Progress()

    # -- a run ------------------------------------------------------------------------------------

    def run(self, *, resume: bool = False) -> dict[str, Any]:
        """All steps that are left. Returns the last figures.

        resume: go on from the folder's checkpoint, where there is one; without it a folder that
        holds a run is refused. Raises ValueError, OSError, FloatingPointError; KeyboardInterrupt
        after Ctrl-C, once the step is done and saved.
        """
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
        start, first, tokens, figures = time.monotonic(), self.progress.step, 0, {}
        with stops_asked_for() as stop:
            while self.progress.step < self.steps and not self.progress.ended:
                figures = self._step()
                tokens += figures["tokens"]
                done = self.progress.step
                elapsed = max(time.monotonic() - start, 1e-9)
                left = elapsed / (done - first) * (self.steps - done)
                append(self.folder / METRICS, {"step": done, **figures})
                self.tell(
                    f"step {done}/{self.steps}  loss {figures['loss']:.4f}  "
                    f"{tokens / elapsed:,.0f} tokens/s  {left:.0f} s left"
                )
                if done % self.every == 0 or done == self.steps:
                    figures |= self._evaluate()
                    self._save()
                if stop.asked:
                    self._save()
                    raise KeyboardInterrupt
        if self.evaluation is None:
            self.model.save_pretrained(self.folder)
        self._save()
        return {"steps": self.progress.step, "best": self.progress.best, **figures}

    def _step(self) -> dict[str, Any]:
        """One update -> loss, learning rate and tokens."""
        step, s = self.progress.step, self.settings
        rows = batch_at(step, len(self.train), s.batch_size, s.seed)
        lengths = np.array([len(self.train.ids[i]) for i in rows])
        labels = self.train.labels[rows]
        loss, total = 0.0, {name: np.zeros_like(x) for name, x in self.params.items()}
        for some in chunks(lengths, s.chunk_tokens):
            packed = {
                "input_ids": np.concatenate([self.train.ids[i] for i in rows[some]]),
                "cu_seqlens": np.cumsum([0, *lengths[some]]),
            }
            try:
                own, grads = gradients(
                    self.model, packed, labels[some], task="classify",
                    normaliser=float(labels.size), draws=Draws(s.seed, step, some.start),
                )  # fmt: skip
            except FloatingPointError as error:
                where = ", ".join(self.train.where[i] for i in rows[some][:3])
                raise FloatingPointError(f"step {step + 1} ({where}, ..): {error}") from None
            loss += own
            for name, g in grads.items():
                total[name] += g
        lr = s.learning_rate * self.schedule(step)
        self.optimiser.update(self.params, total, lr)
        self.progress.step += 1
        return {"loss": loss, "learning_rate": lr, "tokens": int(lengths.sum())}

    def _evaluate(self) -> dict[str, Any]:
        """Figures of the evaluation set; the model is written where its loss is the lowest yet."""
        if self.evaluation is None:
            return {}
        p = self.progress
        found = evaluate(self.model, self.evaluation, self.settings.chunk_tokens)
        figures = {f"eval_{name}": value for name, value in found.items()}
        append(self.folder / METRICS, {"step": p.step, **figures})
        self.tell("  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
        if p.best is None or found["loss"] < p.best:
            p.best, p.since_best = found["loss"], 0
            self.model.save_pretrained(self.folder)
        else:
            p.since_best += 1
            p.ended = 0 < self.settings.patience <= p.since_best
        return figures

    # -- checkpoints ------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """What a checkpoint belongs to; a run with another is not the same run."""
        own = {"train": digest(self.train), "evaluation": digest(self.evaluation)}
        return {**asdict(self.settings), **own, "config": self.model.config.to_dict()}

    def _save(self) -> None:
        write_state(
            self.folder / STATE,
            self.params,
            self.optimiser.state(),
            {"identity": self.identity(), "progress": asdict(self.progress)},
        )

    def _restore(self, path: Path) -> None:
        params, moments, facts = read_state(path)
        now = json.loads(json.dumps(self.identity()))
        for name, value in now.items():
            if facts["identity"].get(name) != value:
                raise ValueError(
                    f"{path} belongs to another run: its {name} is "
                    f"{facts['identity'].get(name)!r}, here it is {value!r}"
                )
        for name, x in self.params.items():
            x[...] = params[name]
        self.optimiser.restore(moments)
        self.progress = Progress(**facts["progress"])
