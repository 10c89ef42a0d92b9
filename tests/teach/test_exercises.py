"""Exercises: what a student gets fails every check, the unbroken port passes, the kit finds bugs.

A few bugs and an equation in every run, all of them under `heavy`. Time is that of the processor,
since the machine may be busy.
"""

import json
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.children import PROGRAM
from support.readme import ROOT

from refimpl.cli import main
from refimpl.errors import ExerciseError
from refimpl.teach.exercises import folder, pages, referee
from refimpl.teach.exercises.catalogue import EXERCISES, exercise, listing
from refimpl.teach.exercises.table import DEGREES, Edit, given, place, planted
from refimpl.verify.training.zoo import ZOO as TRAINING_ZOO
from refimpl.verify.zoo import CLASSES, ZOO

BUGS = [e for e in EXERCISES.values() if e.kind == "bug"]
EQUATIONS = [e for e in EXERCISES.values() if e.kind == "equation"]
SAMPLE = ("bug-09", "bug-21", "bug-32")


def sampled(exercises, sample):
    return [
        pytest.param(e, id=e.id, marks=() if e.id in sample else pytest.mark.heavy)
        for e in exercises
    ]


def made(e, tmp_path, language="python"):
    """A student's folder without the report of a first run, which takes a while."""
    return folder.read(folder.write(tmp_path / e.id, folder.contents(e, language)))


def verify(student, json_path):
    """`modernbert verify --command` in the folder, as a student runs it: (report, seconds)."""
    e = student.exercise
    command = [*PROGRAM, "verify", "--command"]
    command += [f'"{sys.executable}" {e.file}', "--json", str(json_path)]
    command += ["--training"] if e.training else ["--no-runtime"]
    for name in e.cases:
        command += ["--case", name]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=student.folder, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in (0, 1, 3, 4), done.stderr
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(Path(json_path).read_text()), spent


@pytest.fixture
def few_cases(monkeypatch):
    """A kit of three cases, for tests of what is said, not of what is right."""
    monkeypatch.setattr(referee, "names", lambda e: [*FEW])


FEW = ("plain-short", "plain-window", "plain-padded")


# -- the table ------------------------------------------------------------------------------------


def test_there_are_enough_of_every_degree_and_ids_are_in_order():
    assert len(BUGS) >= 30 and len(EQUATIONS) >= 10
    assert {e.degree for e in BUGS} == set(DEGREES)
    for kind, prefix in (("port.py", "bug"), ("trainer.py", "step")):
        own = [e for e in BUGS if e.file == kind]
        assert [e.id for e in own] == [f"{prefix}-{n:02d}" for n in range(1, len(own) + 1)]
        assert [e.degree for e in own] == sorted(e.degree for e in own)
    assert len({(e.file, e.zoo) for e in BUGS}) == len(BUGS), "a mistake is planted twice"


@pytest.mark.parametrize("e", EXERCISES.values(), ids=EXERCISES)
def test_an_exercise_is_complete(e):
    assert e.symptom and e.hints and 0 < len(e.title) < 70
    assert e.kind == "equation" or e.zoo in (TRAINING_ZOO if e.training else ZOO)
    assert set(e.cases) <= set(referee.names(e)) and len(e.cases) >= 2
    assert place(e).startswith("`")
    source = planted(given(e.file), e.edits)
    compile(source, e.file, "exec")
    assert source != given(e.file)


def test_a_port_that_was_changed_fails_at_once():
    with pytest.raises(ValueError, match="stands 0 times"):
        planted("a = 1\n", [Edit("b = 1", "b = 2")])
    with pytest.raises(ValueError, match="stands 2 times"):
        planted("a = 1\na = 1\n", [Edit("a = 1", "a = 2")])


def test_list_is_the_table(capsys):
    assert main(["exercise", "list"]) == 0
    out = capsys.readouterr().out
    assert out == listing() + "\n"
    lines = [line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  ")]
    assert [(id, title.removesuffix(" (training)")) for id, title in lines] == [
        (e.id, e.title) for e in EXERCISES.values()
    ]
    headings = [line for line in out.splitlines() if line and not line.startswith("  ")]
    assert headings[0] == "Write an equation." and len(headings) == 1 + len(DEGREES)
    for degree, what in DEGREES.items():
        assert headings[degree] == f"Find the bug, degree {degree}: {what}."
        below = out.split(headings[degree])[1].split("\n\n")[0]
        assert re.findall(r"(?m)^  (\S+)", below) == [e.id for e in BUGS if e.degree == degree]


# -- what a student gets ---------------------------------------------------------------------------


@pytest.mark.parametrize("e", EXERCISES.values(), ids=EXERCISES)
def test_no_solution_is_in_a_students_folder(e):
    texts = folder.contents(e)
    assert set(texts) == {e.file, "MODEL.md", "port.json", "exercise.json"}
    code = texts[e.file]
    for edit in e.edits:
        assert edit.right not in code
    told = pages.readme(e, "python", "", "python " + e.file) + texts["exercise.json"]
    if e.kind == "bug":
        title = (TRAINING_ZOO if e.training else ZOO)[e.zoo].title
        assert e.zoo not in re.findall(r"\w+", told + code) and title not in told
    assert not any(hint in told for hint in e.hints)


@pytest.mark.parametrize("e", sampled(EXERCISES.values(), ("bug-09", "eq-rope")))
def test_a_students_folder_fails_its_check(e, tmp_path):
    outcome = referee.checked(made(e, tmp_path))
    assert not outcome.right
    assert any(line.startswith("not yet") for line in outcome.lines), outcome.lines
    assert not any("all" in line and "right" in line for line in outcome.lines[-1:])


@pytest.mark.parametrize("e", sampled(BUGS, SAMPLE))
def test_the_kit_finds_a_planted_bug_and_names_it_first(e, tmp_path):
    report, spent = verify(made(e, tmp_path), tmp_path / "report.json")
    print(f"{e.id}: {spent:.1f} s of processor time")  # 5 - 15, as the processor is
    assert report["verdict"] != "exact-spec"
    first = report["suspects"][0]
    klass = next((ids for ids in CLASSES.values() if e.zoo in ids), (e.zoo,))
    assert first["id"] == e.zoo or not e.training and first["id"] in klass, report["suspects"]
    assert first["explained"] > 0.9


@pytest.mark.heavy
@pytest.mark.parametrize("file", ["port.py", "trainer.py"])
def test_the_unbroken_port_is_exact_spec_and_passes_every_check(file, tmp_path):
    """Every exercise's solution is this file: what `checked` runs does not go by the exercise, but
    for its cases, which are among all of them."""
    e = next(e for e in EXERCISES.values() if e.file == file)
    student = made(e, tmp_path)
    (student.folder / file).write_text(given(file))
    outcome = referee.checked(student)
    assert outcome.right, outcome.lines
    ran = int(re.search(r"All (\d+) cases", "\n".join(outcome.lines))[1])
    assert ran == (27 if file == "port.py" else 7)


def test_a_mend_that_breaks_something_else_is_not_yet(tmp_path, few_cases):
    """Without a window the cases of bug-01, of four tokens at most, are right, and others not."""
    e = exercise("bug-01")
    student = made(e, tmp_path)
    mended = given("port.py").replace("np.abs(ahead) <= window", "np.abs(ahead) <= 99")
    (student.folder / "port.py").write_text(mended)
    outcome = referee.checked(student)
    assert not outcome.right and "not on every case" in "\n".join(outcome.lines)
    assert [line for line in outcome.lines if line.startswith("right")]
    assert any(line.startswith("not yet  plain-window") for line in outcome.lines)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda at: (at / "port.py").write_text("import sys; sys.exit('no time')"), "no time"),
        (lambda at: (at / "port.py").unlink(), "ends with exit code"),
        (lambda at: (at / "port.py").write_text("pass"), "no"),
        (lambda at: (at / "port.json").write_text('{"command": "no-such-program"}'), "started"),
        (lambda at: (at / "port.json").write_text('{"build": "false", "command": "x"}'), "build"),
    ],
)
def test_a_port_that_does_not_run_is_not_yet(break_it, said, tmp_path):
    student = made(exercise("bug-01"), tmp_path)
    break_it(student.folder)
    outcome = referee.checked(student)
    assert not outcome.right and said in "\n".join(outcome.lines), outcome.lines


EMBEDDING = """
import sys
sys.path.insert(0, ".")
import right
steps = right.run(right.Path(sys.argv[1]))
right.np.save(sys.argv[2] + "/embedding.npy", steps["embedding"])
"""
REFUSAL = """
import sys
open(sys.argv[2] + "/port.json", "w").write('{"refused": "too hard"}')
"""


@pytest.mark.parametrize(
    ("source", "said"),
    [(EMBEDDING, "not yet  plain-short: it does not write final_norm"),
     (REFUSAL, "not run  plain-short: refused by the port: too hard")],
)  # fmt: skip
def test_a_port_that_shows_nothing_is_not_yet(source, said, tmp_path, few_cases):
    """What is right of it says nothing about the exercise."""
    student = made(exercise("bug-02"), tmp_path)
    (student.folder / "right.py").write_text(given("port.py"))
    (student.folder / "port.py").write_text(source)
    outcome = referee.checked(student)
    assert not outcome.right and outcome.lines[0].startswith(said), outcome.lines


@pytest.mark.heavy
def test_a_trainer_that_gives_its_loss_alone_is_not_yet(tmp_path):
    student = made(exercise("step-13"), tmp_path)
    whole = given("trainer.py")
    loss_only = 'if name == "loss":\n            np.save'
    (student.folder / "trainer.py").write_text(
        whole.replace("    np.save(Path", f"    {loss_only}(Path")
    )
    outcome = referee.checked(student)
    assert not outcome.right and "it does not write grad." in outcome.lines[0], outcome.lines


# -- in C ------------------------------------------------------------------------------------------

IN_C = {
    "eq-layer-norm": """
    for (long i = 0; i < rows; i++, x += hidden, out += hidden) {
        double mean = 0, square = 0;
        for (long j = 0; j < hidden; j++) mean += x[j];
        mean /= hidden;
        for (long j = 0; j < hidden; j++) square += (x[j] - mean) * (x[j] - mean);
        double s = sqrt(square / hidden + eps);
        for (long j = 0; j < hidden; j++)
            out[j] = (float)((x[j] - mean) / s * weight[j] + (bias ? bias[j] : 0));
    }""",
    "eq-rope": """
    long half = head_dim / 2;
    for (long t = 0; t < tokens; t++, cosine += head_dim, sine += head_dim)
        for (long h = 0; h < heads; h++, x += head_dim, out += head_dim)
            for (long j = 0; j < head_dim; j++)
                out[j] = x[j] * cosine[j] + (j < half ? -x[j + half] : x[j - half]) * sine[j];""",
    "eq-glu": """
    for (long t = 0; t < tokens; t++, u += 2 * inter, out += inter)
        for (long j = 0; j < inter; j++) {
            double a = u[j];
            double y = silu ? a / (1 + exp(-a)) : a / 2 * (1 + erf(a / sqrt(2.0)));
            out[j] = (float)y * u[j + inter];
        }""",
    "eq-attention": """
    long hidden = heads * head_dim;
    for (long i = 0; i < seq; i++)
        for (long h = 0; h < heads; h++) {
            const float *query = q + i * hidden + h * head_dim;
            float *o = out + i * hidden + h * head_dim;
            double top = -INFINITY, total = 0;
            for (long c = 0; c < head_dim; c++) o[c] = 0;
            for (int pass = 0; pass < 3; pass++)
                for (long j = 0; j < seq; j++) {
                    if (!seen[i * seq + j]) continue;
                    double s = 0;
                    for (long c = 0; c < head_dim; c++)
                        s += (double)query[c] * k[j * hidden + h * head_dim + c];
                    s /= sqrt((double)head_dim);
                    if (pass == 0) top = s > top ? s : top;
                    else if (pass == 1) total += exp(s - top);
                    else
                        for (long c = 0; c < head_dim; c++)
                            o[c] += (float)(exp(s - top) / total)
                                * v[j * hidden + h * head_dim + c];
                }
        }""",
}  # fmt: skip


def test_equations_in_c_are_the_ones_that_say_so():
    assert {e.id for e in EQUATIONS if e.in_c} == set(IN_C)


@pytest.mark.parametrize("e", sampled([exercise(id) for id in IN_C], ()))
def test_an_equation_in_c_fails_empty_and_passes_when_it_is_written(e, tmp_path):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    student = made(e, tmp_path, "c")
    assert not referee.checked(student).right
    source = student.folder / "equation.c"
    source.write_text(source.read_text().replace("    /* yours to write */", IN_C[e.id]))
    outcome = referee.checked(student)
    assert outcome.right, outcome.lines
    source.write_text("int x = ;")
    outcome = referee.checked(student)
    assert "does not build" in outcome.lines[0] and "equation.c" in outcome.lines[0]


@pytest.mark.heavy
def test_a_whole_port_in_c_may_stand_in_for_the_python_one(tmp_path):
    """port.json may name a library behind the kit's port.h, and how it is built."""
    pytest.importorskip("cffi")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    student = made(exercise("bug-13"), tmp_path)
    shutil.copy(ROOT / "tests" / "ports" / "port.c", student.folder)
    for switch, right in (("-DBUG_WINDOW", False), ("-O2", True)):
        header = ROOT / "refimpl" / "verify" / "ports"
        build = f"cc -std=c11 {switch} -shared -fPIC -I{header} -o p.so port.c -lm"
        (student.folder / "port.json").write_text(json.dumps({"build": build, "library": "p.so"}))
        outcome = referee.checked(student)
        assert outcome.right is right, outcome.lines


def test_what_cannot_be_written_in_c_is_refused():
    with pytest.raises(ValueError, match="eq-layer-norm, eq-glu, eq-rope, eq-attention"):
        folder.contents(exercise("bug-01"), "c")


# -- folders and their state ----------------------------------------------------------------------


def test_start_check_and_hints_as_a_student_has_them(tmp_path, capsys, monkeypatch, few_cases):
    monkeypatch.chdir(tmp_path)
    assert main(["exercise", "start", "bug-09"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "bug-09")
    at = tmp_path / "bug-09"
    assert {f.name for f in at.iterdir()} == {
        "README.md", "MODEL.md", "port.py", "port.json", "exercise.json",
        "report.txt", "report.html",
    }  # fmt: skip
    shown = (at / "report.txt").read_text() + (at / "report.html").read_text()
    assert "first wrong step: layers.1.attention" in shown and "W1" not in shown
    assert "Suspects" not in shown and "explains" not in shown
    before = {f.name: f.read_bytes() for f in at.iterdir() if f.is_file()}

    monkeypatch.chdir(at)
    assert main(["exercise", "check"]) == 1
    out = capsys.readouterr().out
    assert "right    plain-short" in out and "not yet  plain-window" in out
    assert "layers.1.attention" in out and "W1" not in out

    hints = []
    for n in range(1, 5):
        assert main(["exercise", "hint"]) == 0
        hints.append(capsys.readouterr().out)
        assert hints[-1].startswith(f"{n} of 4. ")
    assert "layers.1.attention" in hints[0] and "`visible`" in hints[2] and "W1" in hints[3]
    assert all("np." not in hint for hint in hints)
    assert main(["exercise", "hint", "."]) == 0
    assert "no more than 4 hints" in capsys.readouterr().out
    assert folder.read(at).hints == 4
    changed = {f.name for f in at.iterdir() if f.is_file() and before.get(f.name) != f.read_bytes()}
    assert changed == {"exercise.json"}, "state is in the folder's exercise.json alone"

    (at / "port.py").write_text(given("port.py"))
    assert main(["exercise", "check", str(at)]) == 0
    out = capsys.readouterr().out
    assert "All 3 cases that this port runs are right: done." in out
    assert "W1, window missing" in out and "Others have made it: vLLM#16648" in out
    assert {f.name for f in tmp_path.iterdir()} == {"bug-09"}


@pytest.mark.heavy
@pytest.mark.parametrize("id", ["bug-32", "step-17"])
def test_the_commands_of_a_students_readme_run(id, tmp_path):
    at = pages.started(id, tmp_path / id)
    commands = re.findall(
        r"(?m)^    ((?:modernbert|python) .*?)(?:  +.*)?$", (at / "README.md").read_text()
    )
    assert len(commands) == 5
    program, python = shlex.join(PROGRAM), shlex.quote(sys.executable)
    functions = f'modernbert() {{ {program} "$@"; }}; python() {{ {python} "$@"; }}'
    for command in commands:
        command = command.replace('"python ', f'"{sys.executable} ')
        line = ["bash", "-c", f"{functions}\n{command}"]
        done = subprocess.run(line, cwd=at, capture_output=True, text=True)
        wrong = "check" in command or "--command" in command
        assert done.returncode == (1 if wrong else 0), (command, done.stderr)
    case = exercise(id).cases[-1]
    mine = {f.name for f in (at / "mine").glob("*.npy")}
    expected = {f.name for f in (at / "kit" / "cases" / case / "expected").glob("*.npy")}
    assert len(mine & expected) > 40


def test_degree_2_gets_numbers_and_degree_3_nothing(tmp_path):
    two = pages.started("bug-21", tmp_path / "two")
    assert "numbers.txt" in (two / "README.md").read_text()
    rows = (two / "numbers.txt").read_text().splitlines()
    assert len(rows) > 3 and not any("layers." in row for row in rows)
    three = pages.started("bug-31", tmp_path / "three")
    assert {f.name for f in three.iterdir()} == {
        "README.md", "MODEL.md", "port.py", "port.json", "exercise.json"
    }  # fmt: skip


def test_start_refuses_what_is_there_and_unknown_ids(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("a year's work")
    assert main(["exercise", "start", "eq-rope", str(tmp_path / "mine")]) == 1
    assert "is not an empty folder" in capsys.readouterr().err
    assert [f.name for f in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert main(["exercise", "start", "bug-99", str(tmp_path / "new")]) == 1
    assert "exercise 'bug-99' is unknown" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


STATE = {"made_by": "modernbert exercise", "format": 1, "exercise": "bug-01", "hints": 0}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is no exercise: it has no exercise.json"),
        ("", "cannot be read"), ("[" * 100000, "more than"), ("[" * 9999, "cannot be read"),
        ("\xff", "made_by|cannot be read"),
        ("[]", "was not made by"), ("{}", "was not made by"),
        (json.dumps({**STATE, "made_by": "me"}), "was not made by"),
        (json.dumps({**STATE, "format": 2}), "has format 2"),
        (json.dumps({**STATE, "exercise": "bug-00"}), "'bug-00' is unknown"),
        (json.dumps({**STATE, "exercise": 3}), "has exercise 3"),
        (json.dumps({**STATE, "hints": -1}), "has hints -1"),
        (json.dumps({**STATE, "hints": True}), "has hints True"),
    ],
)  # fmt: skip
def test_a_folder_that_start_has_not_made_is_refused(content, said, tmp_path, capsys):
    if content is not None:
        (tmp_path / "exercise.json").write_text(content)
    with pytest.raises(ExerciseError, match=said):
        folder.read(tmp_path)
    for action in ("check", "hint"):
        assert main(["exercise", action, str(tmp_path)]) == 1
        assert re.search(said, capsys.readouterr().err)
    assert {f.name for f in tmp_path.iterdir()} <= {"exercise.json"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not there"), ("{", "cannot be read"), ("[]", "must hold an object"),
        ("{}", '"command" or "library", and not both'), ('{"command": ""}', "it must be text"),
        ('{"command": 3}', "it must be text"), ('{"command": "a", "colour": "b"}', "keys of"),
        ('{"command": "a", "library": "b"}', "not both"),
    ],
)  # fmt: skip
def test_a_port_json_that_says_nothing_to_run_is_refused(content, said, tmp_path):
    student = made(exercise("bug-01"), tmp_path)
    path = student.folder / "port.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ExerciseError, match=said):
        referee.checked(student)
