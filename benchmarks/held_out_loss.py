"""What is the masked-LM loss of model folders on texts that none of them was trained on?

    python benchmarks/held_out_loss.py held-out.jsonl FOLDER.. [--rates 0.3,0.15] [--length 256]

Of the tokens each rate is guessed (80 % masked, 10 % another token, 10 % as they were), the same
ones for every folder with the same tokenizer, in two ways: `documents`, each cut to `length` tokens
and seen alone, as `modernbert pretrain` trains and models are used; and `rows`, all of them end to
end, so that a row may hold the end of one and the beginning of the next, which see each other: the
way of the baseline that the tiny recipe is compared with, which was trained so. Natural logarithm,
float32, and the share of guesses that are right.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from harness import machine

import refimpl
from refimpl.tasks.task import open_tokenizer
from refimpl.train.documents import DocumentFile
from refimpl.train.losses import IGNORED, cross_entropy
from refimpl.train.masked import NO_STEP, Held, Masks, pieces

TOGETHER = 16  # rows of a pass


def documents_of(path: Path, tokenizer: Any, length: int) -> list[Held]:
    found = DocumentFile(path).read((0, 0))
    return [x for d in found for x in pieces(tokenizer, d.text, d.where, length)]


def rows_of(path: Path, tokenizer: Any, length: int) -> list[Held]:
    texts = (document.text for document in DocumentFile(path).read((0, 0)))
    ids = np.concatenate([tokenizer.encode(text, truncate="never").ids for text in texts])
    whole = ids[: len(ids) // length * length].astype(np.int64).reshape(-1, length)
    return [Held(row, f"row {i}") for i, row in enumerate(whole)]


WAYS = {"documents": documents_of, "rows": rows_of}


def loss(model: Any, rows: list[Held], masks: Masks) -> tuple[float, float]:
    """Mean over the guesses, and the share that is right."""
    units, total, count, right = masks.units(rows, 0, NO_STEP), 0.0, 0.0, 0
    for i in range(0, len(units), TOGETHER):
        some = units[i : i + TOGETHER]
        ids = np.concatenate([unit.sequences[0] for unit in some])
        labels = np.concatenate([unit.labels for unit in some])
        ends = np.cumsum([0, *(unit.tokens for unit in some)])
        asked = labels != IGNORED
        hidden = model.encode_packed(ids, ends)[asked]
        logits = model.head.forward(dict(model.params), model.config, hidden)["logits"]
        found = cross_entropy(logits, labels[asked])
        total, count = total + found.total, count + found.count
        right += int((logits.argmax(axis=-1) == labels[asked]).sum())
    return total / count, right / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path, help="JSONL, CSV or plain text, as for pretrain")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--rates", default="0.3,0.15")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    found = dict[str, Any]()
    for folder in args.folders:
        model: Any = refimpl.load(folder, num_threads=args.threads)
        tokenizer = open_tokenizer(folder)
        assert tokenizer.mask_token_id is not None
        for way, cut in WAYS.items():
            texts = cut(args.texts, tokenizer, args.length)
            for rate in map(float, args.rates.split(",")):
                masks = Masks(tokenizer.mask_token_id, model.config.vocab_size, rate)
                at, right = loss(model, texts, masks)
                key = f"{way} {rate}"
                found.setdefault(str(folder), {})[key] = {"loss": at, "accuracy": right}
                print(f"{folder}, {way}, {rate:.0%}: loss {at:.4f}, {right:.1%} right", flush=True)
    print(json.dumps({"found": found, "machine": machine()}))


if __name__ == "__main__":
    main()
