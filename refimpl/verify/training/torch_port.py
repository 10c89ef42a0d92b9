"""Training with torch: any module, and transformers' ModernBERT under its own Trainer.

    TorchPort(build)              build(case) -> a module that takes the batch and labels, and gives
                                  `.loss`; torch's AdamW, one batch a step
    TransformersTrainer(..)       the models of transformers; accumulate: the micro-batches of a
                                  step one by one through Trainer's gradient_accumulation_steps, or
                                  joined into one batch (False)

Loss, the gradients that the optimiser sees at each step, parameters after the first and the last.
StableAdamW is not torch's: of those cases loss and gradients alone. Trainer is called once a step,
so that a step may have fewer micro-batches; its own resuming is not shown. Dropout is 0. Long
because what both ways share stands beside them.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import MissingExtraError
from ...reference.heads import HEADS
from ...train.losses import IGNORED
from ...train.task_loss import ANSWER
from ..truth.fixtures import hf_names
from .cases import STEPS, TrainingCase
from .compare import AFTER
from .port import Answer, failed, from_arrays, refused

Array = np.ndarray
Arrays = Mapping[str, Array]


class Unsupported(Exception):
    """What the port does not do, in words."""


class TorchPort:
    """A module under torch's AdamW.

    build(case): the module, holding the case's parameters under Hugging Face's names (a tied
    decoder is the embedding). It is called with input_ids and, where the case has them,
    attention_mask, token_type_ids, and with labels (start_positions and end_positions of an
    answer), and returns an object, dict or tuple with the loss. dtype: what it computes in.
    """

    def __init__(
        self, build: Callable[[TrainingCase], Any], name: str = "torch", dtype: str = "float32"
    ) -> None:
        try:
            import torch
        except ImportError:
            raise MissingExtraError("torch", "oracle", "running torch") from None
        self.torch: Any = torch
        self.build, self.name, self.dtype = build, name, dtype

    def run(self, case: TrainingCase, shapes: Mapping[str, tuple[int, ...]]) -> Answer:
        try:
            self.check(case)
            return from_arrays(case, shapes, self.trained(case), self.dtype)
        except Unsupported as error:
            return refused(case, str(error))
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            return failed(case, f"{self.name} raises {type(error).__name__}: {error}")

    def check(self, case: TrainingCase) -> None:
        """Unsupported for what transformers' models do not take."""
        if case.packed is not None:
            raise Unsupported("packed input needs flash attention there")
        if case.class_weights is not None or case.label_smoothing:
            raise Unsupported("its loss has no class weights, and no label smoothing")

    def trained(self, case: TrainingCase) -> dict[str, Array]:
        """Everything that is told of a case."""
        model = self.build(case)
        model.train()
        named = {n.removeprefix("model."): p for n, p in model.named_parameters()}
        decays = [p for p in named.values() if p.ndim > 1]
        others = [p for p in named.values() if p.ndim <= 1]
        rule, known = case.rule, case.rule.optimiser == "adamw"
        optimiser = self.torch.optim.AdamW(
            [{"params": decays, "weight_decay": rule.weight_decay},
             {"params": others, "weight_decay": 0.0}],
            lr=rule.lr[0], betas=rule.betas, eps=rule.eps,
        )  # fmt: skip
        batch = case.batch()
        steps = STEPS if known and case.stop_after is None else 1
        out: dict[str, Array] = {}
        for k in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] = rule.lr[k]
            window = [{n: x[k, m] for n, x in batch.items()} for m in range(case.windows[k])]
            optimiser.zero_grad()
            loss, grads = self.step(case, model, named, optimiser, window)
            out |= {f"grad_{k + 1}.{name}": x for name, x in grads.items()}
            if k == 0:
                out["loss"] = np.asarray(loss)
            if known and k + 1 in AFTER:
                out |= {f"after_{k + 1}.{n}": self.array(p) for n, p in named.items()}
        return out

    def step(
        self, case: TrainingCase, model: Any, named: Mapping[str, Any], optimiser: Any,
        window: Sequence[Arrays],
    ) -> tuple[float, dict[str, Array]]:  # fmt: skip
        """One update -> loss, and the gradients that it was made from."""
        out = model(**self.tensors(case, joined(window)))
        loss = (
            out.loss if hasattr(out, "loss") else out["loss"] if isinstance(out, dict) else out[0]
        )
        loss.backward()
        grads = self.grads(named)
        optimiser.step()
        return float(loss.detach()), grads

    def grads(self, named: Mapping[str, Any]) -> dict[str, Array]:
        return {
            n: np.zeros(tuple(p.shape), np.float32) if p.grad is None else self.array(p.grad)
            for n, p in named.items()
        }

    def array(self, x: Any) -> Array:
        return np.array(
            x.detach().to(self.torch.promote_types(x.dtype, self.torch.float32)).numpy()
        )

    def tensors(self, case: TrainingCase, arrays: Arrays) -> dict[str, Any]:
        """What the model is called with."""
        given = {n: self.torch.from_numpy(np.array(x)) for n, x in arrays.items() if n != "labels"}
        if case.choices:
            given = {n: x.reshape(-1, case.choices, x.shape[-1]) for n, x in given.items()}
        labels = np.array(arrays["labels"])
        if case.problem == ANSWER:
            # transformers clamps positions to 0 .. seq and ignores seq.
            labels = np.where(labels == IGNORED, arrays["input_ids"].shape[-1], labels)
            for i, name in enumerate(("start_positions", "end_positions")):
                given[name] = self.torch.from_numpy(labels[:, i].copy())
        elif labels.dtype.kind == "f":
            given["labels"] = self.torch.from_numpy(labels).to(getattr(self.torch, self.dtype))
        else:
            given["labels"] = self.torch.from_numpy(labels)
        return given


def joined(window: Sequence[Arrays]) -> dict[str, Array]:
    """The micro-batches of a step as one batch."""
    return {name: np.concatenate([one[name] for one in window]) for name in window[0]}


class TransformersTrainer(TorchPort):
    """transformers' ModernBERT under transformers' Trainer (needs accelerate).

    accumulate: see the file. attention: eager or sdpa; dtype: float32, bfloat16, float64. Raises
    MissingExtraError.
    """

    def __init__(
        self, accumulate: bool = False, attention: str = "sdpa", dtype: str = "float32"
    ) -> None:
        try:
            import transformers
            from transformers.models.modernbert import modeling_modernbert
        except ImportError:
            raise MissingExtraError("transformers", "oracle", "running transformers") from None
        self.transformers: Any = transformers
        self.hf: Any = modeling_modernbert
        self.accumulate, self.attention = accumulate, attention
        how = "accumulation on" if accumulate else "accumulation off"
        super().__init__(self.model, f"transformers {transformers.__version__}, {how}", dtype)

    def check(self, case: TrainingCase) -> None:
        super().check(case)
        if case.token_types:
            raise Unsupported("its ModernBERT has no token types")
        if not hasattr(self.hf, HEADS[case.head].architecture):
            raise Unsupported(f"this version has no {HEADS[case.head].architecture}")

    def model(self, case: TrainingCase) -> Any:
        torch, hf = self.torch, self.hf
        config = hf.ModernBertConfig(**case.config)
        config._attn_implementation = self.attention
        if hasattr(config, "reference_compile"):
            config.reference_compile = False
        model = getattr(hf, HEADS[case.head].architecture)(config)
        state = {
            name: torch.tensor(np.asarray(x, np.float32))
            for name, x in hf_names(case.params(), case.head).items()
        }
        if case.head == "masked_lm":
            state.setdefault("decoder.weight", state["model.embeddings.tok_embeddings.weight"])
        model.load_state_dict(state, strict=True)
        if case.head == "masked_lm" and case.fixture.tied:
            model.tie_weights()
        return model.to(getattr(torch, self.dtype))

    def step(
        self, case: TrainingCase, model: Any, named: Mapping[str, Any], optimiser: Any,
        window: Sequence[Arrays],
    ) -> tuple[float, dict[str, Array]]:  # fmt: skip
        hf, port, losses, seen = self.transformers, self, [], {}
        many = window if self.accumulate else [joined(window)]
        batches = [self.tensors(case, one) for one in many]

        class Shown(hf.Trainer):  # type: ignore[name-defined]
            def get_train_dataloader(self) -> Any:
                return port.torch.utils.data.DataLoader(batches, batch_size=None, shuffle=False)

            def training_step(self, *args: Any, **kwargs: Any) -> Any:
                loss = super().training_step(*args, **kwargs)
                losses.append(float(loss))
                return loss

        class Looks(hf.TrainerCallback):  # type: ignore[name-defined]
            def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
                seen.update(port.grads(named))

        with tempfile.TemporaryDirectory() as folder:
            settings: dict[str, Any] = dict(
                output_dir=folder, num_train_epochs=1, max_grad_norm=0.0, report_to=[],
                per_device_train_batch_size=len(batches[0]["input_ids"]),
                gradient_accumulation_steps=case.accumulate if self.accumulate else 1,
                save_strategy="no", logging_strategy="no", use_cpu=True, disable_tqdm=True,
                remove_unused_columns=False, dataloader_pin_memory=False,
            )  # fmt: skip
            known = inspect.signature(hf.TrainingArguments.__init__).parameters
            arguments = hf.TrainingArguments(**{k: x for k, x in settings.items() if k in known})
            flat = self.torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)
            trainer = Shown(
                model=model, args=arguments, train_dataset=batches, optimizers=(optimiser, flat),
                callbacks=[Looks()],
            )  # fmt: skip
            trainer.remove_callback(hf.PrinterCallback)
            trainer.train()
        return sum(losses), dict(seen)
