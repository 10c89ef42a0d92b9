"""How good, and how quick, is a classifier from 64 labelled texts on the bundled encoder?

    python benchmarks/few_shot.py data.noun [--seeds 10] [--only refimpl]

The texts are glosses of WordNet's nouns (Debian: wordnet-base, usr/share/wordnet/data.noun), the
label one of four of its files: animal, artifact, food, person; 16 of each to learn from, 150 of
each to be asked for, drawn by the seed. Beside `finetune classify` as it is by default: SetFit as
it is by default, from the same encoder with mean pooling. Processor seconds are those of training
alone. Both know the text: the bundled encoder was trained on these glosses, without labels.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import machine

import refimpl

FILES = {"05": "animal", "06": "artifact", "13": "food", "18": "person"}
LEARNED, ASKED = 16, 150
SHORTEST, LONGEST = 25, 200  # characters of a gloss
Row = dict[str, str]


def glosses(path: Path) -> dict[str, list[str]]:
    """Label -> definitions, without examples of use."""
    found: dict[str, list[str]] = {label: [] for label in FILES.values()}
    for line in path.read_text(encoding="utf-8").splitlines():
        head, _, gloss = line.partition("|")
        fields = head.split()
        if len(fields) > 1 and fields[1] in FILES and not line.startswith("  "):
            text = gloss.split(";")[0].split('"')[0].strip()
            if SHORTEST < len(text) < LONGEST:
                found[FILES[fields[1]]].append(text)
    return found


def drawn(found: dict[str, list[str]], seed: int) -> tuple[list[Row], list[Row]]:
    """Rows to learn from and rows to be asked for."""
    rng, learned, asked = random.Random(seed), [], []
    for label, texts in found.items():
        some = [{"text": t, "label": label} for t in rng.sample(texts, LEARNED + ASKED)]
        learned += some[:LEARNED]
        asked += some[LEARNED:]
    return learned, asked


def ours(learned: Sequence[Row], seed: int, folder: Path) -> Callable[[list[str]], list[str]]:
    from refimpl.train import finetune
    from refimpl.train.finetune import defaults

    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in learned), encoding="utf-8")
    finetune("classify", [data], folder / "out", settings=replace(defaults("classify"), seed=seed))
    classify: Any = refimpl.pipeline("text-classification", folder / "out")
    return lambda texts: [found["label"] for found in classify(texts, batch_size=32)]


def setfits(learned: Sequence[Row], seed: int, folder: Path) -> Callable[[list[str]], list[str]]:
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    from refimpl.models.model import bundled
    from refimpl.train.start import with_embeddings

    base = refimpl.load(bundled(), backend="numpy")
    with_embeddings(base, 512).save_pretrained(folder / "encoder")
    model = SetFitModel.from_pretrained(str(folder / "encoder"), labels=list(FILES.values()))
    how = TrainingArguments(
        output_dir=str(folder / "out"), seed=seed, report_to="none", save_strategy="no",
        logging_strategy="no", show_progress_bar=False,
    )  # fmt: skip
    Trainer(model=model, args=how, train_dataset=Dataset.from_list(list(learned))).train()
    return lambda texts: [str(label) for label in model.predict(texts)]


WAYS = {"refimpl": ours, "setfit": setfits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="WordNet's data.noun")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", choices=WAYS)
    args = parser.parse_args()
    found, rows = glosses(args.path), dict[str, Any]()
    for name in [args.only] if args.only else WAYS:
        accuracy, seconds = [], []
        for seed in range(args.seeds):
            learned, asked = drawn(found, seed)
            with tempfile.TemporaryDirectory() as folder:
                start = time.process_time()
                try:
                    label = WAYS[name](learned, seed, Path(folder))
                except ImportError as error:
                    rows[name] = {"left_out": str(error)}
                    break
                seconds.append(time.process_time() - start)
                guessed = label([row["text"] for row in asked])
            right = [g == row["label"] for g, row in zip(guessed, asked, strict=True)]
            accuracy.append(float(np.mean(right)))
            print(f"{name}, seed {seed}: {accuracy[-1]:.3f}, {seconds[-1]:.1f} s", flush=True)
        else:
            rows[name] = {
                "accuracy": accuracy, "mean": float(np.mean(accuracy)), "processor_s": seconds,
            }  # fmt: skip
    print(json.dumps({"rows": rows, "machine": machine()}))


if __name__ == "__main__":
    main()
