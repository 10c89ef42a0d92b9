"""The exported kit, read as a stranger would: by the formats its README describes, nothing of ours.

With the reader of support/kit_reader.py, written from kit.md alone, an honest float32 run must pass
the kit's own recipe and a broken one must not.
"""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from support.kit_reader import read_npy, read_safetensors, verdict

from refimpl.verify.truth import kit as content
from refimpl.verify.truth.cases import CASES, case, padded
from refimpl.verify.truth.export import export
from refimpl.verify.truth.fixtures import uniform
from refimpl.verify.truth.kit import chosen_tokens, kit_files
from refimpl.verify.truth.passes import trace
from refimpl.verify.truth.rounding import DTYPES

GOLDEN = Path(__file__).parents[1] / "golden" / "verify_kit.json"
MAX_BYTES = 40e6  # what travels in a test folder; the kit's promise
AGREEMENT = 1e-13  # of expected values regenerated elsewhere; the kit's promise
SOME = tuple(case(name) for name in ("one-token", "spans", "packed", "mean-65"))


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    return export(tmp_path_factory.mktemp("kits") / "kit", SOME)


@pytest.fixture
def no_budgets(monkeypatch):
    """Budgets of the usual length without the runs that they come from."""

    def step_budgets(p, truth, dtype, chosen):
        column = {"mean": 1.234e-07, "p95": 1.234e-07, "max": 1.234e-07}
        return {name: {"alone": column, "cumulative": column} for name in truth}

    monkeypatch.setattr(content, "step_budgets", step_budgets)


# -- tests ----------------------------------------------------------------------------------------


def test_both_formats_hold_the_same_numbers(kit):
    pairs = [(c / "inputs.safetensors", c / "inputs") for c in (kit / "cases").iterdir()]
    pairs += [(c / "expected.safetensors", c / "expected") for c in (kit / "cases").iterdir()]
    pairs += [(m / "model.safetensors", m / "weights") for m in (kit / "models").iterdir()]
    for together, apart in pairs:
        tensors = read_safetensors(together)
        assert sorted(tensors) == sorted(f.name.removesuffix(".npy") for f in apart.iterdir())
        for name, x in tensors.items():
            assert np.array_equal(x, read_npy(apart / f"{name}.npy")), name


@pytest.mark.parametrize("c", SOME, ids=[c.name for c in SOME])
def test_an_honest_run_passes_the_recipe_and_a_broken_one_does_not(kit, c):
    folder = kit / "cases" / c.name
    honest = trace(c.model().astype(np.float32))
    assert verdict(folder, honest, "float32", "cumulative") == []
    p = c.model().astype(np.float32)
    broken = p.with_ops(activate=lambda x, name: np.maximum(x, 0), glu=lambda u, a: u[..., ::2])
    assert verdict(folder, trace(broken), "float32", "cumulative")[0] == "layers.0.glu"


@pytest.mark.parametrize("c", SOME, ids=[c.name for c in SOME])
def test_inputs_weights_and_steps_are_the_cases_own(kit, c):
    folder = kit / "cases" / c.name
    about = json.loads((folder / "case.json").read_text())
    assert about["why"] == c.why and about["head"] == c.head
    assert [step["tap"] for step in about["steps"]] == list(trace(c.model()))
    assert set(about["steps"][0]["budget"]) == set(DTYPES)
    inputs = read_safetensors(folder / "inputs.safetensors")
    assert inputs.keys() == c.inputs.keys()
    assert all(np.array_equal(inputs[name], x) for name, x in c.inputs.items())
    model = (folder / about["model"]).resolve()
    assert json.loads((model / "config.json").read_text()) == c.config
    weights = read_safetensors(model / "model.safetensors")
    mine = c.params()
    of_head = ("head.", "classifier.", "decoder.")
    for name in mine:
        theirs = name if name.startswith(of_head) or c.head is None else f"model.{name}"
        assert np.array_equal(weights[theirs], mine[name]), name
    assert len(weights) == len(mine)


def test_expected_rows_are_the_real_tokens_or_the_boundaries(kit):
    truth = trace(case("mean-65").model())
    expected = read_safetensors(kit / "cases" / "mean-65" / "expected.safetensors")
    flat = truth["final_norm"].reshape(-1, 32)
    assert np.array_equal(expected["final_norm"], flat[expected["tokens"]])
    assert np.array_equal(expected["pooled"], truth["pooled"][expected["sequences"]])
    assert {0, 1, 64} <= set(expected["tokens"]) and len(expected["tokens"]) < 65
    assert len(read_safetensors(kit / "cases" / "spans" / "expected.safetensors")["tokens"]) == 15


@pytest.mark.parametrize("c", CASES, ids=[c.name for c in CASES])
def test_chosen_tokens_are_real_and_every_row_has_some(c):
    chosen = chosen_tokens(c, full=False)
    assert not (chosen & ~c.real).any()
    assert (np.atleast_2d(chosen).any(1) == np.atleast_2d(c.real).any(1)).all()
    if c.real.size <= 66:
        assert (chosen == c.real).all()
    assert (chosen_tokens(c, full=True) == c.real).all()


def test_chosen_tokens_of_a_long_row_with_holes_leave_the_holes_out():
    c = padded("holes", "tied", "", 140, ("holes", 40))
    chosen = chosen_tokens(c, full=False)
    assert chosen[0, [0, 139]].all() and not (chosen & ~c.real).any()
    assert not c.real[0, [63, 64, 65, 127, 128, 129]].all(), "some edge is a hole"


def test_manifest_lists_every_file_with_its_digest(kit):
    listed = json.loads((kit / "manifest.json").read_text())
    files = {p.relative_to(kit).as_posix() for p in kit.rglob("*") if p.is_file()}
    assert set(listed["sha256"]) == files - {"manifest.json"}
    for name, digest in listed["sha256"].items():
        assert hashlib.sha256((kit / name).read_bytes()).hexdigest() == digest
    assert listed["kit_version"] == 2 and listed["generator"]["numpy"] == np.__version__


def test_the_whole_kit_is_small_enough(no_budgets):
    assert sum(len(content) for _, content in kit_files(CASES, full=False)) < MAX_BYTES


def test_regenerating_gives_the_same_bytes(kit, tmp_path):
    again = json.loads((export(tmp_path / "again", SOME[:2]) / "manifest.json").read_text())
    first = json.loads((kit / "manifest.json").read_text())["sha256"]
    assert again["sha256"].items() <= first.items() and len(again["sha256"]) > 200


def fingerprint():
    """Case -> step -> <x, r> / |x| |r| with r a fixed random vector: moves by at most the relative
    L2 change of x, and cheap to commit."""
    out = {}
    for c in CASES:
        steps = {n: x for n, x in trace(c.model()).items() if n.endswith(("residual_2", "norm"))}
        for name, x in steps.items():
            x = (x[c.real] if x.shape[: c.real.ndim] == c.real.shape else x).ravel()
            r = 2.0 * uniform(x.shape, 0, name) - 1.0
            scale = math.sqrt(math.fsum(x * x) * math.fsum(r * r))
            out.setdefault(c.name, {})[name] = math.fsum(x * r) / scale
    return out


def test_expected_values_are_the_committed_ones():
    golden = json.loads(GOLDEN.read_text())
    mine = fingerprint()
    assert {c: set(steps) for c, steps in mine.items()} == {c: set(s) for c, s in golden.items()}
    for name, steps in golden.items():
        for step, value in steps.items():
            assert abs(mine[name][step] - value) <= AGREEMENT, (name, step)


def test_a_target_that_is_not_empty_is_refused_and_left_alone(tmp_path, no_budgets):
    target = tmp_path / "kit"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="kit exists and is not an empty folder"):
        export(target, SOME[:1])
    assert [p.name for p in tmp_path.rglob("*")] == ["kit", "mine.txt"]
    (target / "mine.txt").unlink()
    assert (export(target, SOME[:1]) / "manifest.json").is_file()
    with pytest.raises(FileExistsError):
        export(target / "README.md", SOME[:1])
    with pytest.raises(ValueError, match="cases is empty"):
        export(tmp_path / "none", [])


def test_a_failure_half_way_leaves_nothing(tmp_path, no_budgets, monkeypatch):
    def broken(*model):
        yield from ()
        raise RuntimeError("disk full")

    monkeypatch.setattr(content, "model_files", broken)
    with pytest.raises(RuntimeError, match="disk full"):
        export(tmp_path / "kit", SOME)
    assert list(tmp_path.iterdir()) == []


def test_the_kits_readme_names_files_and_steps_that_exist(kit):
    text = (kit / "README.md").read_text()
    for c in CASES:
        starred = c.name.split("-")[0] + "-*"
        assert f"`{c.name}`" in text or f"`{starred}`" in text, f"{c.name} is not in the order"
    for name in trace(case("spans").model()):
        assert name.split(".")[-1] in text, name
