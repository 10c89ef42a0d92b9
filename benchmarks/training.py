"""How fast is a training step beside torch + transformers, and what memory does it take?

    python benchmarks/training.py [--variant base] [--shapes 8x128,8x512,1x4096] [--task classify]
                                  [--threads 2] [--isa avx2] [--rounds 5] [--only NAME,..]
                                  [--save benchmarks/results/NAME.json]

A step: forward, loss, backward, AdamW, on the same random weights, ids and labels. Every
contender lives in a process of its own; rounds run one step of each, in turn, so that a slow
minute hits all. Peak is that process's VmHWM after its last step, with Python and weights. cpu is
processor time of a step, all threads together: on a busy machine --threads 1 and its ratio say
more than the clock. of_torch: beside torch in the same dtype. loss_off: the first loss beside ours
in float32 (of --task mask, 30 % of whose tokens are labelled; a classifier is drawn anew by each).
--isa caps torch, MKL and oneDNN as well. `lora` trains adapters of rank 8 on Wqkv and Wo. Aims in
float32 on AVX2: 1.3 times torch (2.5 at 1x4096), half of its peak, 1.2 GB for lora on base; in
bfloat16, where there is AMX, 3 times torch's autocast (6 at 1x4096). --check runs tiny, two rounds,
and shows that all of it works. Long because both trainers, and the processes that run them, stand
here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import save, status

from refimpl import VARIANTS, ModernBERT
from refimpl.train.examples import Examples, Unit
from refimpl.train.settings import Settings
from refimpl.train.start import with_head
from refimpl.train.trainer import Trainer
from refimpl.train.work import Supervised

CONTENDERS = (
    "refimpl float32", "refimpl bfloat16", "refimpl recompute", "refimpl lora",
    "torch float32", "torch bfloat16",
)  # fmt: skip
CLASSES, MASKED, RANK, SEED = 4, 0.3, 8, 0
OURS, THEIRS, HALVES = "refimpl float32", "torch float32", "torch bfloat16"
KINDS = {"classify": "sequence_classification", "mask": "masked_lm"}
PROBLEM = "single_label_classification"
Step = Callable[[], float]


def batch(shape: str, vocab: int, task: str) -> tuple[np.ndarray, np.ndarray]:
    """ids [texts, tokens] and labels of a shape."""
    texts, tokens = map(int, shape.split("x"))
    rng = np.random.default_rng(SEED)
    ids = rng.integers(0, vocab, (texts, tokens))
    if task == "classify":
        return ids, rng.integers(0, CLASSES, texts)
    return ids, np.where(rng.random(ids.shape) < MASKED, ids, -100)


def ours(name: str, folder: Path, shape: str, task: str, threads: int) -> Step:
    how = name.split()[1]
    model = with_head(ModernBERT.from_pretrained(folder, backend="numpy"), KINDS[task],
                      [f"class {i}" for i in range(CLASSES)] if task == "classify" else (),
                      PROBLEM if task == "classify" else None)  # fmt: skip
    ids, labels = batch(shape, model.config.vocab_size, task)
    rows = [
        Unit([x], y[None] if task == "classify" else y, "")
        for x, y in zip(ids, labels, strict=True)
    ]
    settings = Settings(
        epochs=10**6, batch_size=len(rows), learning_rate=1e-6, schedule="constant", warmup=0.0,
        lora_rank=RANK if how == "lora" else 0,
    )  # fmt: skip
    trainer = Trainer(
        model, Supervised(Examples(task, rows, 0)), None, settings, None, backend="native",
        dtype="bfloat16" if how == "bfloat16" else "float32", num_threads=threads,
        recompute=True if how in ("recompute", "lora") else None,
    )  # fmt: skip
    del model
    return lambda: trainer._step()["loss"]


def torches(name: str, folder: Path, shape: str, task: str, threads: int) -> Step:
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    kind = {"classify": "SequenceClassification", "mask": "MaskedLM"}[task]
    more: dict[str, Any] = {"num_labels": CLASSES} if task == "classify" else {}
    model = getattr(transformers, f"ModernBertFor{kind}").from_pretrained(
        folder, attn_implementation="sdpa", dtype=torch.float32, **more
    )
    model.train()
    ids, labels = (torch.from_numpy(x) for x in batch(shape, model.config.vocab_size, task))
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=1e-6, betas=(0.9, 0.98), eps=1e-6, weight_decay=1e-5
    )

    def step() -> float:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=name.endswith("bfloat16")):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return step


def serve(name: str, folder: Path, shape: str, task: str, threads: int) -> None:
    """A process of one contender: a line in, a step, seconds, loss and peak out."""
    make = torches if name.startswith("torch") else ours
    step = make(name, folder, shape, task, threads)
    print("ready", flush=True)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        loss = step()
        told = {
            "seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu,
            "loss": loss, "peak_mib": status()["VmHWM"],
        }  # fmt: skip
        print(json.dumps(told), flush=True)


class Contender:
    def __init__(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        call = [sys.executable, __file__, "--serve", name, *arguments]
        self.process = subprocess.Popen(
            call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **environment},
        )  # fmt: skip
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.last: dict[str, float] = {}
        self.first_loss = float("nan")
        self.alive = self.process.stdout is not None and self.process.stdout.readline() == "ready\n"

    def step(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        print("step", file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        self.alive = bool(line)
        if self.alive:
            self.last = json.loads(line)
            if not self.seconds:
                self.first_loss = self.last["loss"]
            self.seconds.append(self.last["seconds"])
            self.cpu.append(self.last["cpu"])

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def environment(isa: str, threads: int) -> dict[str, str]:
    out = {"OMP_NUM_THREADS": str(threads), "REFIMPL_THREADS": str(threads)}
    if isa:
        out |= {"REFIMPL_ISA": isa, "ATEN_CPU_CAPABILITY": isa}
        out |= {"ONEDNN_MAX_CPU_ISA": isa.upper(), "MKL_ENABLE_INSTRUCTIONS": isa.upper()}
    return out


def compare(args: argparse.Namespace, folder: Path, shape: str) -> dict[str, dict[str, Any]]:
    given = ["--folder", str(folder), "--shapes", shape, "--task", args.task]
    given += ["--threads", str(args.threads)]
    where = environment(args.isa, args.threads)
    some = {name: Contender(name, given, where) for name in args.only}
    tokens = int(np.prod([int(n) for n in shape.split("x")]))
    for turn in range(args.rounds + 1):  # the first warms up
        names = list(some)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if some[name].alive:
                some[name].step()
    out = {}
    for name, c in some.items():
        c.end()
        if len(c.seconds) < 2:
            out[f"{shape} {name}"] = {"tokens_s": "not run"}
            continue
        own, theirs = c.seconds[1:], some.get(HALVES if name.endswith("bfloat16") else THEIRS)
        row: dict[str, Any] = {
            "tokens_s": round(tokens / statistics.median(own), 1),
            "cpu_s": round(statistics.median(c.cpu[1:]), 3),
            "peak_mib": round(c.last["peak_mib"]),
        }
        if theirs is not None and len(theirs.seconds) > 1:
            ratios = [b / a for a, b in zip(own, theirs.seconds[1:], strict=False)]
            row["of_torch"] = round(statistics.median(ratios), 2)
            ratios = [b / a for a, b in zip(c.cpu[1:], theirs.cpu[1:], strict=False)]
            row["cpu_of_torch"] = round(statistics.median(ratios), 2)
            row["peak_of_torch"] = round(c.last["peak_mib"] / theirs.last["peak_mib"], 2)
        if OURS in some and args.task == "mask":  # a classifier is drawn anew by each
            right = some[OURS].first_loss
            row["loss_off"] = f"{abs(c.first_loss - right) / right:.1e}"
        out[f"{shape} {name}"] = row
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--variant", choices=list(VARIANTS), default="base")
    parser.add_argument("--shapes")
    parser.add_argument("--task", choices=list(KINDS), default="classify")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--isa", default="")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(CONTENDERS))
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve, args.folder, args.shapes, args.task, args.threads)
    if args.check:
        args.variant, args.shapes, args.rounds = "tiny", args.shapes or "4x64", 2
    shapes = args.shapes or {"tiny": "32x256"}.get(args.variant, "8x128,8x512,1x4096")
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = args.folder or Path(place)
        if args.folder is None:
            base = ModernBERT.from_variant(args.variant, seed=SEED, backend="numpy")
            head = with_head(base, "masked_lm", (), None, SEED)
            (head if args.task == "mask" else base).save_pretrained(folder)
            del base, head
        for shape in shapes.split(","):
            rows |= compare(args, folder, shape)
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    print(f"{args.variant}, {args.task}, {args.threads} threads {args.isa}")
    print(f"{'':26}" + "".join(f"{column:>15}" for column in columns))
    for name, row in rows.items():
        print(f"{name:26}" + "".join(f"{row.get(column, '-'):>15}" for column in columns))
    save("training", rows, args.save)


if __name__ == "__main__":
    main()
