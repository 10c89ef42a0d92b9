"""Every lesson runs as it stands and with its answers, and its questions refuse a wrong one.

Two lessons run in every run, in processes of their own as a reader starts them; the others and the
wrong answers are `heavy`.
"""

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.heavy import heavy_but_first
from support.readme import ROOT

from refimpl.teach.exercises.catalogue import EXERCISES
from refimpl.teach.questions import NotYet, check, seal

LESSONS = ROOT / "lessons"
if not LESSONS.exists():
    pytest.skip("not a checkout: the lessons are not installed", allow_module_level=True)
sys.path.insert(0, str(LESSONS))
import notebooks  # noqa: E402
from answers import ANSWERS, WRONG  # noqa: E402

FILES = sorted(LESSONS.glob("[0-9][0-9]_*.py"))
NAMES = [f.name for f in FILES]
QUICK = ("03_attention.py", "01_tokens.py")
SECONDS = 60.0  # of the processor: the machine may be busy
BY_SPEED = [*QUICK, *(name for name in NAMES if name not in QUICK)]


def text(name):
    return (LESSONS / name).read_text(encoding="utf-8")


def questions(name):
    return re.findall(r"(?m)^# %% question (\S+)$", text(name))


def run(source, folder):
    """The source as a script in an empty folder: (what it prints, what it says last)."""
    path = Path(folder, "lesson.py")
    path.write_text(source, encoding="utf-8")
    done = subprocess.run([sys.executable, str(path)], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", heavy_but_first(BY_SPEED, 1))
def test_a_lesson_runs_unanswered(name, tmp_path):
    code, out, err = run(text(name), tmp_path)
    assert code == 0, err
    assert re.findall(r"(?m)^(\S+)  not answered yet$", out) == questions(name)
    assert not re.search(r"(?m)^\S+  right$", out)


@pytest.mark.parametrize("name", heavy_but_first(BY_SPEED, 2))
def test_a_lesson_is_right_with_its_answers(name, tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code, out, err = run(notebooks.answered(text(name)), tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert code == 0, err
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS
    assert re.findall(r"(?m)^(\S+)  right$", out) == questions(name)
    assert "RuntimeWarning" not in err


@pytest.mark.parametrize("name", heavy_but_first(BY_SPEED, 1))
def test_every_question_refuses_a_wrong_answer(name, tmp_path):
    """All of a lesson's wrong answers in one run, each check's refusal caught and counted."""
    source = notebooks.answered(text(name), WRONG)
    caught = re.sub(
        r"(?m)^check\((.*)\)$",
        r"try:\n    check(\1)\nexcept AssertionError as error:\n    print(error)",
        source,
    )
    code, out, err = run(caught, tmp_path)
    assert code == 0, err
    assert re.findall(r"(?m)^question (\S+): not yet: ", out) == questions(name)
    assert not re.search(r"(?m)^\S+  (right|not answered yet)$", out)


def test_questions_answers_and_wrong_ones_are_the_same():
    asked = [q for name in NAMES for q in questions(name)]
    assert list(ANSWERS) == list(WRONG) == asked
    assert len(asked) == len(set(asked)) >= 40
    for name in NAMES:
        number = str(int(name[:2]))
        assert all(q.split(".")[0] == number for q in questions(name)) and questions(name)
        assert text(name).count(notebooks.MARKER) - name.startswith("01") == len(questions(name))


def test_a_lesson_imports_numpy_and_the_package_alone():
    for name in NAMES:
        found = set(re.findall(r"(?m)^(?:import|from) (\w+)", text(name)))
        assert found - {"numpy", "refimpl"} <= set(sys.stdlib_module_names), name


def test_lessons_name_equations_steps_and_exercises_that_there_are():
    model = (ROOT / "MODEL.md").read_text(encoding="utf-8")
    pages = [text(name) for name in NAMES] + [text("README.md")]
    for page in pages:
        prose = "\n".join(line for line in page.splitlines() if line.startswith("# "))
        for number in re.findall(r"\((\d+'?)\)", prose):
            assert f"({number})" in model, number
        for id in re.findall(r"\b(?:bug-\d\d|step-\d\d|eq-[a-z]+(?:-[a-z]+)*)\b", page):
            assert id in EXERCISES, id
        for several in re.findall(r"bugs? ((?:\d+(?:, | and | to )?)+)", page):
            for number in re.findall(r"\d+", several):
                assert f"bug-{int(number):02d}" in EXERCISES, number


def test_a_lesson_ends_with_the_exercises_of_the_table():
    cells = dict(re.findall(r"(?m)^\| \[.*?\]\((\S+)\) \|.*\| ([^|]*) \|$", text("README.md")))
    assert sorted(cells) == sorted(NAMES)
    for name, cell in cells.items():
        end = " ".join(text(name)[-600:].replace("\n#", "\n").split())
        assert f"To practise, by `modernbert exercise start ID`: {cell}." in end, name


def test_syllabus_names_every_lesson_and_adds_up():
    page = text("README.md")
    assert re.findall(r"\]\((\d\d_\w+\.py)\)", page) == NAMES
    for name in NAMES:
        read, ran = re.search(r"\*(\d+) minutes to read, (\d+) seconds to run", text(name)).groups()
        row = next(line for line in page.splitlines() if f"]({name})" in line)
        cells = [cell.strip() for cell in row.split("|")]
        assert (cells[3].split()[0], cells[4].split()[0]) == (read, ran), name
        assert int(read) <= 15 and int(ran) <= 60
    bugs = [e for e in EXERCISES.values() if e.kind == "bug"]
    assert f"{len(bugs)} of them in three degrees" in page
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"find the bug: {len(bugs)} small ports" in readme
    assert len(EXERCISES) - len(bugs) == 15 and "fifteen equations" in readme and "Fifteen" in page
    lesson = re.search(r"(?ms)^### 90 minutes.*?^### ", page)[0]
    assert sum(int(n) for n in re.findall(r"(?m)^\| (\d+) \|", lesson)) == 90


# -- notebooks ------------------------------------------------------------------------------------


def test_notebooks_are_made_of_the_lessons(tmp_path):
    command = [sys.executable, str(LESSONS / "notebooks.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    made = sorted(tmp_path.glob("*.ipynb"))
    assert [f.stem for f in made] == [name.removesuffix(".py") for name in NAMES]
    for file, name in zip(made, NAMES, strict=True):
        book = json.loads(file.read_text(encoding="utf-8"))
        assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
        kinds = {cell["cell_type"] for cell in book["cells"]}
        assert kinds == {"markdown", "code"}
        assert book["cells"][0]["source"][0].startswith(f"# {int(name[:2])}. ")
        prose = [c["source"] for c in book["cells"] if c["cell_type"] == "markdown"]
        assert not any(line.startswith("# %") or line == "#" for lines in prose for line in lines)
        code = ["".join(c["source"]) for c in book["cells"] if c["cell_type"] == "code"]
        assert all(compile(cell, name, "exec") for cell in code)
        assert sum(cell.count(notebooks.MARKER) for cell in code) == len(questions(name))
        ids = [cell["id"] for cell in book["cells"]]
        assert len(set(ids)) == len(ids)


def test_no_notebook_is_in_the_tree():
    listed = subprocess.run(["git", "ls-files", "*.ipynb"], cwd=ROOT, capture_output=True)
    assert listed.returncode != 0 or listed.stdout == b""


# -- check ----------------------------------------------------------------------------------------

X = np.array([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("answer", "truth", "more"),
    [
        (3, 3, {}), (3.0, 3, {}), (0.333, 1 / 3, {"digits": 2}), (0.30, 0.3013, {"digits": 2}),
        ("yes", "yes", {}), (True, np.bool_(True), {}), ([1, 2], [1, 2], {}), ((1, 2), [1, 2], {}),
        (X, X, {}), (X * (1 + 1e-12), X, {}), (X.tolist(), X, {}), (1.0 + 1e-12, 1.0, {}),
        (np.array([True, False]), np.array([True, False]), {}),
    ],
)  # fmt: skip
def test_check_takes_what_is_right(answer, truth, more, capsys):
    check("9.9", answer, truth, **more)
    assert capsys.readouterr().out == "9.9  right\n"


@pytest.mark.parametrize(
    ("answer", "truth", "digits"),
    [
        (3, 3, None), (3.0, 3, None), (0.0157, 0.016, 3), (0.016, 129 / 8192, 3), ("a", "a", None),
        (np.bool_(False), False, None), ([1, 2.0], [1, 2], None), ((4, 6), [4, 6], None),
        (-0.0, 0.0, 6), (2.0**-23, 2.0**-23, None), (np.int64(9), 9, None),
    ],
)  # fmt: skip
def test_check_knows_a_sealed_truth(answer, truth, digits, capsys):
    check("9.9", answer, sealed=seal("9.9", truth, digits), digits=digits)
    assert capsys.readouterr().out == "9.9  right\n"


@pytest.mark.parametrize("answer", [2, 3.5, "3", [3], True, np.ones(3), float("nan"), object()])
def test_check_refuses_what_is_not_under_the_seal(answer):
    with pytest.raises(NotYet, match="question 9.9: not yet: no"):
        check("9.9", answer, sealed=seal("9.9", 3.25))


@pytest.mark.parametrize("answer", [..., None])
def test_check_goes_on_without_an_answer(answer, capsys):
    check("9.9", answer, 3)
    assert capsys.readouterr().out == "9.9  not answered yet\n"


@pytest.mark.parametrize(
    ("answer", "truth", "more", "said"),
    [
        (2, 3, {}, "too small"), (4, 3, {}, "too large"), (0.32, 1 / 3, {"digits": 2}, "too small"),
        ("3", 3, {}, "one number"), (True, 1, {}, "one number"), (X, 3.0, {}, "one number"),
        (float("nan"), 3.0, {}, "no number"), (1, True, {}, "True or False"),
        ("no", "yes", {}, "no"),
        (1, "yes", {}, "type str"), ([1], [1, 2], {}, "1 entries"), ([1, 3], [1, 2], {}, "entry 1"),
        (3, [1, 2], {}, "a list"), (X.T, X, {}, "2 of 4 entries differ, first the one at [0, 1]"),
        (X[0], X, {}, "its shape is [2], and should be [2, 2]"), (X + 1e-6, X, {}, "4 of 4"),
        (X * np.nan, X, {}, "4 of 4"), (np.array(["a"]), np.array([1.0]), {}, "not numbers"),
        (1.0 + 1e-6, 1.0, {}, "too large"),
    ],
)  # fmt: skip
def test_check_refuses_what_is_wrong_and_says_how(answer, truth, more, said):
    with pytest.raises(NotYet) as caught:
        check("9.9", answer, truth, **more)
    assert said in str(caught.value) and caught.value.question == "9.9"
    assert str(caught.value).startswith("question 9.9: not yet: ")
