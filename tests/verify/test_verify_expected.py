"""The kit's own expected values, rounded to each dtype and handed back as a dump, are exact-spec.

They hold real tokens only, of long cases the boundaries only, and every step is recomputed from
values that were rounded: a port that computes wider than it dumps looks like this.
"""

import numpy as np
import pytest
from support.heavy import heavy_but_first

from refimpl.verify.judge.gates import verify
from refimpl.verify.ports.dump import DumpPort
from refimpl.verify.truth.cases import CASES, case
from refimpl.verify.truth.compare import compare
from refimpl.verify.truth.kit import case_files
from refimpl.verify.truth.passes import trace
from refimpl.verify.truth.rounding import DTYPES, significant_bits, unrounded
from refimpl.verify.zoo.mistake import round_bits

SHORT = [c.name for c in CASES if c.real.size <= 140]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """expected(name) -> the files that the kit exports, as arrays."""
    folder, made = tmp_path_factory.mktemp("kit"), {}

    def of(name):
        if name not in made:
            for path, content in case_files(case(name), full=False):
                if "/expected/" in path:
                    file = folder / path
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
            at = folder / "cases" / name / "expected"
            made[name] = {p.name.removesuffix(".npy"): np.load(p) for p in at.iterdir()}
        return made[name]

    return of


def handed_back(folder, name, arrays, dtype):
    (folder / name).mkdir(parents=True)
    for step, x in arrays.items():
        if x.dtype.kind == "f":
            bits = dtype == "bfloat16"
            x = round_bits(x, 8).astype(np.float32) if bits else x.astype(dtype)
        np.save(folder / name / f"{step}.npy", x)
    port = DumpPort(folder, declared=dtype)
    return verify(port, [case(name)], runtime=False, suspects=False)


@pytest.mark.parametrize("name", heavy_but_first(SHORT, 5))
def test_expected_values_given_back_are_exact_spec_in_every_dtype(name, expected, tmp_path):
    for dtype in DTYPES:
        report = handed_back(tmp_path / dtype, name, expected(name), dtype)
        assert report.verdict == "exact-spec", (dtype, report.culprit, report.smallest_k)
        assert len(report.cases[0].comparison.rows) == len(trace(case(name).model()))
        assert report.coverage.tokens[0] == len(expected(name)["tokens"])


def test_a_wrong_token_among_those_that_are_given_is_found(expected, tmp_path):
    arrays = dict(expected("mean-65"))
    arrays["layers.1.glu"] = arrays["layers.1.glu"].copy()
    arrays["layers.1.glu"][5] *= 1 + 1e-4
    report = handed_back(tmp_path, "mean-65", arrays, "float32")
    assert report.culprit == ("mean-65", "layers.1.glu")


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (np.array([0.0, 1.0]), "its dtype is float64"),
        (np.array([[0, 1]]), "its shape is [1, 2]"),
        (np.array([1, 0]), "it is 1, 0"),
        (np.array([0, 10**6]), "it is 0, 1000000"),
        (np.array([0, 100]), "it is 0, 100"),  # padding
        (np.array([-1, 0]), "it is -1, 0"),
    ],
)
def test_a_list_of_tokens_that_is_none_is_a_finding(tokens, words, expected, tmp_path):
    report = handed_back(tmp_path, "mean-65", {**expected("mean-65"), "tokens": tokens}, "float32")
    said = [f.message for f in report.findings if f.level == "fail"]
    if tokens.dtype.kind == "f":
        words = "its dtype is float32"
    assert any(words in message for message in said), said


def test_unpadded_steps_are_taken_without_a_list(tmp_path):
    c = case("cls-padding")
    (tmp_path / c.name).mkdir()
    for step, x in trace(c.model().astype(np.float32)).items():
        token = x.shape[:2] == c.real.shape and step != "pooled"
        np.save(tmp_path / c.name / f"{step}.npy", x[c.real] if token else x)
    report = verify(DumpPort(tmp_path), [c], runtime=False)
    assert report.verdict == "exact-spec" and report.coverage.tokens[0] == c.real.sum()


def test_what_is_undone_is_the_rounding_of_the_dump_and_no_more():
    x = {"a": np.linspace(1.0, 2.0, 50), "b": np.linspace(1.0, 2.0, 50).astype(np.float32)}
    x = {k: np.asarray(v, np.float64) for k, v in x.items()}
    assert significant_bits(x["a"]) == 53 and significant_bits(x["b"]) == 24
    moved = {k: np.abs(v / x[k] - 1).max() for k, v in unrounded(x, "bfloat16", 0).items()}
    assert moved["a"] <= 2.0**-52 < 2.0**-26 < moved["b"] <= 2.0**-24
    # A dump in fewer bits than the declared dtype buys no room.
    coarse = {"a": round_bits(x["a"], 8)}
    moved = np.abs(unrounded(coarse, "float32", 0)["a"] / coarse["a"] - 1).max()
    assert 0 < moved <= 2.0**-24


def test_a_step_may_err_by_the_rounding_of_what_it_starts_from():
    """The residual sums of a port that computes in float64 and dumps float32."""
    p = case("hard-rows").model()
    dump = {k: x.astype(np.float32).astype(np.float64) for k, x in trace(p).items()}
    assert compare(p, dump, "float32").ratio <= 1.0
