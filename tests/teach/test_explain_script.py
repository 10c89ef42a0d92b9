"""The page's sources: its equations are MODEL.md's, its modules name what they take from others and
can be put behind one another."""

import re
from pathlib import Path

import pytest

import refimpl
from refimpl.teach.page.equations import ANSWERS, FUNCTIONS, STEPS
from refimpl.teach.page.pages import FOLDER, IMPORT, joined_script

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((FOLDER / "script").glob("*.js"))
TOP = re.compile(
    r"^(?:export )?(?:async )?(?:const|let|class|function) (\w+|\[[^\]]*\])", re.MULTILINE
)


def model_md() -> str:
    path = ROOT / "MODEL.md"
    if not path.exists():
        pytest.skip("not a checkout: MODEL.md is not in a wheel")
    return path.read_text(encoding="utf-8")


def squeezed(text: str) -> str:
    return " ".join(text.split())


def table_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def test_steps_are_the_rows_of_model_md_in_order():
    rows = [r for r in table_rows(model_md()) if len(r) == 5]
    said = [(r[0].strip("()"), r[1].strip("`"), r[2]) for r in rows]
    mine = [(s.number, s.tap, s.equation) for s in STEPS]
    section_2 = [row for row in said if row[1].startswith(("embedding", "layers.", "final_norm"))]
    heads = [row for row in said if row[1] in ("head.dense", "head.act", "head.norm")][:3]
    assert mine == section_2 + heads


def equation_lines() -> set[str]:
    """Lines of MODEL.md's blocks, squeezed, with and without the note that stands after a gap."""
    found = set()
    for line in model_md().splitlines():
        gaps = [m.start() for m in re.finditer(r"(?<=\S)   +(?=\S)", line)]
        found |= {squeezed(line[:end]) for end in [*gaps, None]}
    return found


def test_functions_and_answers_stand_in_model_md():
    lines = equation_lines()
    for number, equations in FUNCTIONS.items():
        if number in ("3", "4"):  # two lines there, one here: see the next test
            continue
        first, *more = equations.split("\n")
        for line in (f"({number}) {first}", *more):
            assert squeezed(line) in lines, line
    rows = [r for r in table_rows(model_md()) if len(r) == 4]
    for kind, (number, equation) in ANSWERS.items():
        assert [f"({number})", f"`{kind}`", equation] in [r[:3] for r in rows]


def test_two_branches_of_3_and_4_are_those_of_the_config():
    config = refimpl.ModernBertConfig.from_variant("tiny")
    for i in range(4):
        full = config.is_global(i)
        assert config.window(i) == (None if full else config.local_attention // 2)
        theta = config.global_rope_theta if full else config.local_rope_theta
        assert config.rope_theta(i) == theta
    assert FUNCTIONS["3"] == "window(i) = none if full(i), floor(local_attention / 2) otherwise"
    assert FUNCTIONS["4"] == "theta(i) = global_rope_theta if full(i), local_rope_theta otherwise"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_module_opens_with_its_purpose_and_imports_what_there_is(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("/* ") and len(text.splitlines()) < 300
    lines = re.findall(r"(?m)^import .*$", text)
    assert len(lines) == len(IMPORT.findall(text)), "an import that pages.py does not know"
    for names, module in re.findall(r'(?m)^import \{ ([^}]*) \} from "\./(\w+\.js)";', text):
        exported = set(
            re.findall(r"(?m)^export (?:async )?\w+ (\w+)", (path.parent / module).read_text())
        )
        wanted = set(names.split(", "))
        assert wanted <= exported
        body = IMPORT.sub("", text)
        assert all(re.search(rf"\b{name}\b", body) for name in wanted), "imported, and not used"


def test_modules_share_no_name_and_none_is_left_over():
    names = [n for path in MODULES for n in TOP.findall(path.read_text(encoding="utf-8"))]
    assert len(names) == len(set(names)), sorted({n for n in names if names.count(n) > 1})
    joined = joined_script(FOLDER / "script" / "main.js")
    assert not re.search(r"(?m)^(import|export) ", joined)
    for path in MODULES:
        assert path.read_text(encoding="utf-8").splitlines()[0] in joined, path.name


def test_circle_of_imports_is_refused(tmp_path):
    (tmp_path / "a.js").write_text('import { b } from "./b.js";\n')
    (tmp_path / "b.js").write_text('import { a } from "./a.js";\n')
    with pytest.raises(ValueError, match=r"a\.js imports itself, by b\.js"):
        joined_script(tmp_path / "a.js")
