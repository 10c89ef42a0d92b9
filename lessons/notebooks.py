"""Notebooks of the lessons, with nothing but json: `python lessons/notebooks.py [--out FOLDER]`.

A lesson is a Python file in the percent format: `# %%` begins a cell, `# %% [markdown]` one of
text. That file is the source of truth, runs as it is (`python lessons/03_attention.py`), and opens
as cells in VS Code, Spyder, PyCharm and through jupytext. Notebooks are made of it and never
committed. jupytext would make them, too, but brings packages for what json does in thirty lines,
and a locked-down room has two. `--answers` puts the answers in, for whoever teaches.
"""

import argparse
import json
import re
from pathlib import Path

from answers import ANSWERS

HERE = Path(__file__).parent
MARKER = "...  # yours"


def lessons():
    """The lessons' files, in order."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def answered(source, answers=ANSWERS):
    """The lesson with an answer in each question's place."""
    cells = re.split(r"(?m)^(?=# %%)", source)
    for i, cell in enumerate(cells):
        question = re.match(r"# %% question (\S+)\n", cell)
        if question and question[1] in answers:
            cells[i] = cell.replace(MARKER, answers[question[1]])
    return "".join(cells)


def notebook(source):
    """The lesson as a notebook: a dict, to be written as JSON."""
    cells = []
    for n, cell in enumerate(re.split(r"(?m)^# %%", source)[1:]):
        title, _, body = cell.partition("\n")
        text = "[markdown]" in title
        body = body.strip("\n")
        if text:
            body = re.sub(r"(?m)^# ?", "", body)
        lines = body.splitlines(keepends=True)
        kind = {"cell_type": "markdown"} if text else {
            "cell_type": "code", "execution_count": None, "outputs": []
        }  # fmt: skip
        cells.append({**kind, "id": f"cell-{n}", "metadata": {}, "source": lines})
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": python}, "nbformat": 4, "nbformat_minor": 5}


def main():
    parser = argparse.ArgumentParser(description="Make notebooks of the lessons.")
    parser.add_argument("--out", type=Path, default=HERE, help="where to (default: beside them)")
    parser.add_argument("--answers", action="store_true", help="with the answers in their places")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for path in lessons():
        source = path.read_text(encoding="utf-8")
        made = notebook(answered(source) if args.answers else source)
        target = args.out / path.with_suffix(".ipynb").name
        target.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(target)


if __name__ == "__main__":
    main()
