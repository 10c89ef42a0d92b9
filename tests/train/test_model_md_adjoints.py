"""MODEL.md's primed equations against its equations and against what the code cites."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "MODEL.md").read_text(encoding="utf-8")
PRIMED = {int(n) for n in re.findall(r"\((\d+)'\)", TEXT)}

# Facts of the config, positions and visibility: nothing that a gradient passes through.
NO_GRADIENT = {1, 2, 3, 4, 22, 23, 25}
# Heads and families: section 9 says in a sentence, section 11 in another, what they are backwards.
BY_A_SENTENCE = {31, 32, 33, 34, 41, 42, 43, 44, 46, 47}
# Losses and dropout, whose gradients stand in the same row; optimisers, schedules, data.
TRAINING = {*range(48, 65), 66, 67}


def test_every_equation_has_its_adjoint_beside_it():
    numbers = {int(n) for n in re.findall(r"(?m)^(?:\| |\| name \| )?\((\d+)\) ", TEXT)}
    assert PRIMED == numbers - NO_GRADIENT - BY_A_SENTENCE - TRAINING


def test_an_adjoint_stands_in_the_section_of_its_equation():
    sections = re.split(r"(?m)^## ", TEXT)
    for n in PRIMED:
        (home,) = [s for s in sections if re.search(rf"(?m)^(\| |\| name \| )?\({n}\) ", s)]
        assert f"({n}')" in home, n


def test_adjoints_and_equations_that_the_code_cites_exist():
    cited = set()
    for path in sorted((ROOT / "refimpl" / "train").glob("*.py")):
        cited |= set(re.findall(r"\((\d+)'\)", path.read_text(encoding="utf-8")))
    assert cited and {int(n) for n in cited} <= PRIMED
