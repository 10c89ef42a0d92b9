"""The text that the bundled model is trained on, from Debian packages and Python's library.

    apt-get download wordnet-base sqlite3-doc python3.11-doc postgresql-doc-15
    for p in *.deb; do dpkg -x "$p" "x_${p%%_*}"; done
    python benchmarks/tiny_corpus.py . --stdlib /usr/lib/python3.11

writes train.jsonl and held-out.jsonl (every document once, 2 % held out), rows of `text` and
`source`: pages of the manuals without their mark-up, glosses of WordNet by twelves, modules of the
library. Licences: WordNet 3.0, PSF, public domain (SQLite), PostgreSQL. The order is drawn from
fixed seeds, so the same packages and library give the same files.
"""

from __future__ import annotations

import argparse
import collections
import html
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

MANUALS = ("python3.11-doc", "sqlite3-doc", "postgresql-doc-15")
LARGEST_PAGE, LARGEST_MODULE, SHORTEST = 400_000, 200_000, 400  # bytes; characters of a page
SHORTEST_LINE, TOGETHER = 20, 12  # characters; glosses of a document
LEFT_OUT = {"site-packages", "test", "idlelib", "encodings"}  # of the library
Document = tuple[str, str]  # source, text


def plain(page: str) -> str:
    """Lines of more than a few words of an HTML page."""
    page = re.sub(r"(?is)<(script|style|head|nav|footer).*?</\1>", " ", page)
    page = re.sub(r"(?i)<(p|div|li|tr|h\d|dt|dd|pre|br)[^>]*>", "\n", page)
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    lines = [re.sub(r"[ \t]+", " ", line).rstrip() for line in text.split("\n")]
    return "\n".join(line for line in lines if len(line.strip()) > SHORTEST_LINE)


def manuals(folder: Path) -> Iterator[Document]:
    for name in MANUALS:
        for path in sorted((folder / f"x_{name}").rglob("*.html")):
            if path.stat().st_size < LARGEST_PAGE and "genindex" not in path.name:
                text = plain(path.read_text("utf-8", "replace"))
                if len(text) > SHORTEST:
                    yield name, text


def wordnet(folder: Path) -> list[Path]:
    """Its files of synsets, by part of speech."""
    return sorted((folder / "x_wordnet-base/usr/share/wordnet").glob("data.*"))


def synsets(path: Path) -> Iterator[tuple[str, str, str]]:
    """Number of the lexicographer's file, words, gloss."""
    for line in path.read_text().splitlines():
        if line.startswith("  ") or "|" not in line:
            continue
        head, gloss = line.split("|", 1)
        fields = head.split()
        words = [fields[4 + 2 * i].replace("_", " ") for i in range(int(fields[3], 16))]
        words = [re.sub(r"\(.*?\)", "", word) for word in words]
        yield fields[1], ", ".join(words), gloss.strip()


def glosses(folder: Path) -> Iterator[Document]:
    for path in wordnet(folder):
        found = [f"{words}: {gloss}" for _, words, gloss in synsets(path)]
        random.Random(0).shuffle(found)
        for i in range(0, len(found), TOGETHER):
            yield "wordnet-base", "\n".join(found[i : i + TOGETHER])


def modules(library: Path) -> Iterator[Document]:
    for path in sorted(library.rglob("*.py")):
        if LEFT_OUT.isdisjoint(path.parts) and path.stat().st_size <= LARGEST_MODULE:
            yield "python", path.read_text("utf-8", "replace")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with x_PACKAGE of each package in it")
    parser.add_argument("--stdlib", type=Path, default=Path(sysconfig.get_paths()["stdlib"]))
    args = parser.parse_args()
    documents = [*manuals(args.folder), *glosses(args.folder), *modules(args.stdlib)]
    random.Random(1).shuffle(documents)
    held = max(1, len(documents) // 50)
    for name, some in (("held-out", documents[:held]), ("train", documents[held:])):
        rows = (json.dumps({"text": text, "source": source}) for source, text in some)
        (args.folder / f"{name}.jsonl").write_text("".join(row + "\n" for row in rows))
    sizes = collections.Counter[str]()
    for source, text in documents:
        sizes[source] += len(text)
    print(json.dumps({"documents": len(documents), "held_out": held, "characters": sizes}))


if __name__ == "__main__":
    main()
