"""The labelled text that the bundled heads are trained on, from the packages of tiny_corpus.py.

    python benchmarks/tiny_heads.py .

writes glosses-train.jsonl and glosses-test.jsonl, rows of `text` (a definition of WordNet) and
`label` (what kind of thing it defines), and pairs-train.jsonl and pairs-test.jsonl, rows of
`anchor` and `positive`: words and their definition, titles of sections of the manuals and how the
section begins. A tenth is for the test; no word and no title stands in both. Drawn from fixed
seeds. Licences: WordNet 3.0, PSF, public domain (SQLite), PostgreSQL.

    modernbert finetune classify glosses-train.jsonl --model tiny --lora 16 --out classify
    modernbert finetune embed pairs-train.jsonl --model tiny --lora 16 --out embed
    python benchmarks/tiny_heads.py . --measure classify embed tiny

The last line prints the share of test definitions that `classify` labels rightly, and for each
other folder how often the right text is first among all of its kind in the test, and the mean
reciprocal rank up to the tenth.
"""

from __future__ import annotations

import argparse
import html
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tiny_corpus import LARGEST_PAGE, MANUALS, plain, synsets, wordnet

# WordNet's files of nouns, by their number in its data.
KINDS = {
    "05": "animal", "06": "artifact", "08": "body", "12": "feeling", "13": "food", "15": "place",
    "18": "person", "20": "plant", "27": "substance", "28": "time",
}  # fmt: skip
MOST = 2_500  # rows of a label
DEFINITIONS = 30_000  # pairs of words and definition
BEGINNING = (80, 400)  # characters of a section: at least, and what is taken
TEST = 10  # one of so many
FIRST = 10  # ranks that count
HEADING = re.compile(r"(?is)<h([1-4])[^>]*>(.*?)</h\1>")
NUMBER = re.compile(r"^[\dA-Z]{0,2}(\.\d+)*\.?\s+(?=\S)")
Row = dict[str, str]


def definitions(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Number of the file, words, definition without examples of use."""
    for path in wordnet(folder):
        for number, words, gloss in synsets(path):
            definition = gloss.split(";")[0].split('"')[0].strip()
            if len(definition) > 15:
                yield number, words, definition


def sections(folder: Path) -> Iterator[tuple[str, str]]:
    """Title and beginning of the sections of the manuals."""
    for name in MANUALS:
        for path in sorted((folder / f"x_{name}").rglob("*.html")):
            if path.stat().st_size >= LARGEST_PAGE or "genindex" in path.name:
                continue
            parts = HEADING.split(path.read_text("utf-8", "replace"))
            for title, below in zip(parts[2::3], parts[3::3], strict=True):
                told = html.unescape(re.sub(r"<[^>]+>", "", title)).replace("¶", " ")
                told = NUMBER.sub("", " ".join(told.split()))
                text = " ".join(plain(below).split())[: BEGINNING[1]]
                if len(told.split()) > 1 and len(text) > BEGINNING[0]:
                    yield told, text


def parted(rows: list[Row], key: str) -> tuple[list[Row], list[Row]]:
    """Rows to learn from and of the test, in random order; rows with the same `key` together."""
    rng = random.Random(0)
    values = sorted({row[key].lower() for row in rows})
    rng.shuffle(values)
    held = set(values[: len(values) // TEST])
    rng.shuffle(rows)
    test = [row for row in rows if row[key].lower() in held]
    return [row for row in rows if row[key].lower() not in held], test


def labelled(folder: Path) -> list[Row]:
    found: dict[str, list[str]] = {}
    for number, _, definition in definitions(folder):
        if number in KINDS:
            found.setdefault(KINDS[number], []).append(definition)
    rng = random.Random(0)
    return [
        {"text": text, "label": label}
        for label, texts in sorted(found.items())
        for text in rng.sample(sorted(set(texts)), min(MOST, len(set(texts))))
    ]


def pairs(folder: Path) -> list[Row]:
    defined = [(words, text) for _, words, text in definitions(folder)]
    titles = list(sections(folder))
    some = random.Random(0).sample(defined, min(DEFINITIONS, len(defined)))
    rows = [{"kind": "word", "anchor": a, "positive": b} for a, b in some]
    rows += [{"kind": "title", "anchor": a, "positive": b} for a, b in titles]
    for name in ("anchor", "positive"):  # what stands twice is no question with one answer
        seen = Counter(row[name].lower() for row in rows)
        rows = [row for row in rows if seen[row[name].lower()] == 1]
    return rows


def write(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def accuracy(folder: Path, rows: Sequence[Row]) -> float:
    import refimpl

    classify: Any = refimpl.pipeline("text-classification", folder)
    found = classify([row["text"] for row in rows], batch_size=64)
    return float(
        np.mean([one["label"] == row["label"] for one, row in zip(found, rows, strict=True)])
    )


def ranks(folder: Path, rows: Sequence[Row]) -> dict[str, float]:
    """Of the rows of one kind: how often the right text is first, and the mean reciprocal rank."""
    import refimpl

    encoder = refimpl.SentenceEncoder(folder)
    asked, texts = (
        encoder.encode([row[name] for row in rows], normalize_embeddings=True)
        for name in ("anchor", "positive")
    )
    scores = asked @ texts.T
    rank = (scores > np.diag(scores)[:, None]).sum(1) + 1
    return {
        "texts": len(rows),
        "first": float(np.mean(rank == 1)),
        f"mrr@{FIRST}": float(np.mean(np.where(rank <= FIRST, 1 / rank, 0))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with x_PACKAGE of each package in it")
    parser.add_argument("--measure", type=Path, nargs="+", metavar="MODEL")
    args = parser.parse_args()
    if args.measure:
        classifier, *encoders = args.measure
        share = accuracy(classifier, read(args.folder / "glosses-test.jsonl"))
        print(f"{classifier}: {share:.1%} of the labels are right")
        asked = read(args.folder / "pairs-test.jsonl")
        for encoder in encoders:
            for kind in ("word", "title"):
                found = ranks(encoder, [row for row in asked if row["kind"] == kind])
                print(f"{encoder}, {kind}: {json.dumps(found)}", flush=True)
        return
    for name, key, rows in (
        ("glosses", "text", labelled(args.folder)),
        ("pairs", "anchor", pairs(args.folder)),
    ):
        train, test = parted(rows, key)
        # Every column of a pair is a text to the trainer.
        texts = [{n: x for n, x in row.items() if n != "kind"} for row in train]
        write(args.folder / f"{name}-train.jsonl", texts)
        write(args.folder / f"{name}-test.jsonl", test)
        column = "label" if name == "glosses" else "kind"
        print(name, len(train), len(test), dict(Counter(row[column] for row in train)))


if __name__ == "__main__":
    main()
