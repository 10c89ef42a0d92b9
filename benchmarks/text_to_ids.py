"""How fast is text turned into ids, on one thread, beside the `tokenizers` package?

    python benchmarks/text_to_ids.py [FOLDER] [--rounds 7] [--megabytes 4]

FOLDER holds a tokenizer.json (default: the bundled model's). Code is Python's own library, prose
the docstrings in it. Both are given whole texts, ids and offsets are made, columns are not fetched;
ids must be equal. Seconds are those of the thread, so that waiting for a core does not count.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness import machine, summary

os.environ["TOKENIZERS_PARALLELISM"] = "false"


def corpus(megabytes: float) -> dict[str, list[str]]:
    """Texts of some kilobytes by what they are."""
    code: list[str] = []
    prose: list[str] = []
    for path in sorted(Path(json.__file__).parents[1].glob("*.py")):
        source = path.read_text(encoding="utf-8", errors="ignore")
        code.append(source)
        nodes = (ast.FunctionDef, ast.ClassDef, ast.Module)
        found = [ast.get_docstring(n) for n in ast.walk(ast.parse(source)) if isinstance(n, nodes)]
        prose.append("\n".join(text for text in found if text))
    out = {}
    for name, texts in (("code", code), ("prose", prose)):
        wanted, kept = megabytes * 1e6, []
        while wanted > 0:
            for text in texts:
                kept.append(text)
                wanted -= len(text.encode())
                if wanted <= 0:
                    break
        out[name] = kept
    return out


def seconds(encode: Callable[[str], object], texts: list[str]) -> float:
    start = time.thread_time()
    for text in texts:
        encode(text)
    return time.thread_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=float, default=4.0)
    options = parser.parse_args()
    from refimpl.backends.backend import native, why_not_native
    from refimpl.models.model import BUNDLED

    if (why := why_not_native()) is not None:
        sys.exit(f"needs the C library: {why}")
    import tokenizers

    path = (options.folder or BUNDLED) / "tokenizer.json"
    own, theirs = native().Tokenizer(str(path)), tokenizers.Tokenizer.from_file(str(path))
    rows = {}
    for name, texts in corpus(options.megabytes).items():
        for text in texts[:20]:
            if own.encode(text)["ids"].tolist() != theirs.encode(text).ids:
                sys.exit(f"{name}: ids differ")
        size = sum(len(text.encode()) for text in texts)
        runs = {"own": own.encode, "tokenizers": theirs.encode}
        taken: dict[str, list[float]] = {key: [] for key in runs}
        for turn in range(options.rounds):
            for key in sorted(runs, reverse=bool(turn % 2)):
                taken[key].append(seconds(runs[key], texts))
        ratios = [b / a for a, b in zip(taken["own"], taken["tokenizers"], strict=True)]
        for key, values in taken.items():
            rows[f"{name}, {key}"] = summary(values) | {"mb_per_s": size / 1e6 / min(values)}
            print(f"{name:6} {key:11} {size / 1e6 / statistics.median(values):8.1f} MB/s")
        print(f"{name:6} ratio       {statistics.median(ratios):8.1f}")
    print(json.dumps({"question": "text to ids", "rows": rows, "machine": machine()}))


if __name__ == "__main__":
    main()
