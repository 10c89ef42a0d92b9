"""The rooms of the package and of its conformance kit, and what each may import.

A room is a folder with one job, which the first line of its `__init__.py` says. A new room has to
be given a line here.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Room: the rooms that it may import. Bottom first: a line names rooms above it only.
ROOMS = """
reference:
nlp:        reference
files:      reference nlp
backends:   reference files
text:       files backends
models:     reference text nlp files backends
tasks:      reference text nlp files models
train:      reference text nlp files backends models
verify:     reference files backends models train
bulk:       text files tasks
serve:      reference text files backends models tasks
teach:      reference text files models tasks train verify
cli:        reference text nlp files backends models tasks train verify bulk serve teach
"""
# The same for the rooms of the kit, in which `verify` above is one room.
KIT = """
truth:
ports:      truth
zoo:        truth ports
judge:      truth ports zoo
report:     truth zoo judge
training:   truth ports zoo judge
"""


def rules(table: str) -> dict[str, set[str]]:
    """Room -> what it may import. ValueError for a name that stands twice, or below its users."""
    out: dict[str, set[str]] = {}
    for line in table.split("\n")[1:-1]:
        room, _, allowed = line.partition(":")
        if room in out:
            raise ValueError(f"{room} has two lines")
        if unknown := set(allowed.split()) - set(out):
            raise ValueError(f"{room} may import {sorted(unknown)}, which no line above it names")
        out[room] = set(allowed.split())
    return out


HOUSES = {"refimpl": rules(ROOMS), "refimpl.verify": rules(KIT)}


def folder_of(house: str) -> Path:
    return ROOT.joinpath(*house.split("."))


def purpose(house: str, room: str) -> str:
    """What the first line of a room's docstring says."""
    text = (folder_of(house) / room / "__init__.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").split("\n")[0].removesuffix(".")
