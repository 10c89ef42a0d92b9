"""Declared deviations: a departure in precision that is named has a budget of its own, and no more.

Each port below does exactly what its deviation says. Undeclared it fails, and is told what to
declare; declared it is a declared deviation; a mistake beside it is found all the same.
"""

import json

import numpy as np
import pytest
from support.heavy import heavy_but_first

from refimpl.files.bfloat16 import to_bits, widen
from refimpl.reference import ops
from refimpl.verify.judge.gates import verify
from refimpl.verify.judge.selftest import CAUGHT, ratio
from refimpl.verify.ports.names import read_description
from refimpl.verify.ports.port import PortResult, ReferencePort
from refimpl.verify.report.html import to_html
from refimpl.verify.report.report import render, to_json
from refimpl.verify.truth.cases import case
from refimpl.verify.truth.rounding import DEVIATIONS, DTYPES, precision
from refimpl.verify.zoo import ZOO
from refimpl.verify.zoo.mistake import with_attention

CASES = [case("two-tokens"), case("eight-tokens"), case("padding-mixed"), case("pad-id-is-a-word")]


def terms(x):
    """x as the sum of two bfloat16 numbers."""
    high = widen(to_bits(x.astype(np.float32)))
    return high, widen(to_bits(x.astype(np.float32) - high))


def three_products(p):
    def linear(x, weight, bias=None):
        (a, b), (c, d) = terms(x), terms(weight)
        y = a @ c.T + a @ d.T + b @ c.T
        return y if bias is None else y + bias

    return p.with_ops(linear=linear)


def float32_tables(p):
    def rope_table(positions, head_dim, theta, dtype):
        tables = ops.rope_table(np.asarray(positions), head_dim, theta, np.dtype(np.float32))
        return tuple(x.astype(dtype) for x in tables)

    return p.with_ops(rope_table=rope_table)


def bfloat16_mask(p):
    """Scores go through bfloat16 where the mask is added."""

    def attention(q, k, v, key_mask, window):
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, np.where(key_mask[..., None, None], v, 0)))
        axis = np.arange(q.shape[2])
        seen = (ops.visible(axis, axis, window) & key_mask[:, None])[:, None]
        scores = widen(to_bits((q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5).astype(np.float32)))
        out = ops.softmax(scores, seen) @ v
        return out.swapaxes(1, 2).reshape(len(out), len(axis), -1).astype(np.float32)

    return with_attention(p, attention)


PORTS = {
    "float32+tf32": ZOO["X1a"].apply,
    "float32+bf16x3": three_products,
    "float64+float32-tables": float32_tables,
    "float32+float16-reductions": ZOO["N8"].apply,
    "float32+bfloat16-mask": bfloat16_mask,
}


class Port(ReferencePort):
    """The reference in the dtype, with a change, that declares what it is given."""

    def __init__(self, change, base, declared):
        super().__init__(base, change)
        object.__setattr__(self, "declared", declared)

    def run(self, request):
        result = super().run(request)
        return PortResult(result.taps, self.declared)


def judged(change, base, declared, suspects=False):
    return verify(Port(change, base, declared), CASES, runtime=False, suspects=suspects)


@pytest.mark.parametrize("dtype", heavy_but_first(PORTS))
def test_a_deviation_is_found_undeclared_and_named_when_declared(dtype):
    base, _, name = dtype.partition("+")
    report = judged(PORTS[dtype], base, base)
    assert report.verdict == "fail"
    told = [f.message for f in report.findings if f.level == "note"]
    assert any(f"--dtype {dtype} declares it" in message for message in told), told
    report = judged(PORTS[dtype], base, dtype)
    assert report.verdict == "declared deviation", report.findings
    assert report.exit_code in (3, 4)
    (text,) = {f.message.partition(":")[0] for f in report.findings if f.level == "deviation"}
    assert text == f"declared, {DEVIATIONS[name].text}"
    data = to_json(report)
    assert data["dtype"] == dtype
    assert any(f["data"].get("declared") == [name] for f in data["findings"])
    for written in (render(report), to_html(data)):
        assert dtype in written and DEVIATIONS[name].text in written
    assert "declared deviation" in render(report) and "declared deviation" in to_html(data)


@pytest.mark.parametrize("dtype", PORTS)
@pytest.mark.parametrize("id", heavy_but_first(["W4a", "C1", "F1"]))
def test_a_mistake_beside_a_declared_deviation_is_found(dtype, id):
    base = dtype.partition("+")[0]
    # The mistake last: a port that replaces the attention replaces a window's mistake in it.
    both = lambda p: ZOO[id].apply(PORTS[dtype](p))  # noqa: E731
    report = judged(both, base, dtype, suspects=True)
    assert report.verdict == "fail"
    assert report.suspects[0].id == id


def test_several_are_declared_at_once_and_none_is_hidden():
    both = lambda p: ZOO["N8"].apply(ZOO["X1a"].apply(p))  # noqa: E731
    dtype = "float32+tf32+float16-reductions"
    assert judged(both, "float32", dtype).verdict == "declared deviation"
    assert judged(both, "float32", "float32+float32-tables").verdict == "fail"


def test_what_is_declared_and_not_done_is_a_note():
    report = judged(lambda p: p, "float32", "float32+tf32")
    assert report.verdict == "exact-spec"
    assert all("declared and not needed" in f.message for f in report.findings)
    assert len(report.findings) == len(CASES)


@pytest.mark.parametrize("name", DEVIATIONS)
def test_a_deviation_widens_what_it_is_about_and_nothing_else(name):
    plain, wide = vars(DTYPES["float64"]), vars(precision(f"float64+{name}"))
    changed = {field for field in plain if plain[field] != wide[field]}
    assert changed == set(DEVIATIONS[name].allows)
    assert all(wide[field] >= plain[field] for field in plain)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("float31", "dtype 'float31' has no budget; known: float64, float32"),
        (
            "float32+tf31",
            "deviation 'tf31' of dtype 'float32.tf31' is unknown; known: tf32, bf16x3",
        ),
    ],
)
def test_a_dtype_that_nobody_knows_is_refused(dtype, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        precision(dtype)
    (tmp_path / "port.json").write_text(json.dumps({"dtype": dtype}))
    with pytest.raises(ValueError, match="port.json: .*" + words):
        read_description(tmp_path / "port.json")


@pytest.mark.parametrize("id", ["W3a", "R1a", "C1", "F1", "N3", "A1a", "H8b"])
def test_mistakes_miss_the_widened_budgets_tenfold(id):
    for name in DEVIATIONS:
        assert max(ratio(c.name, f"float32+{name}", id) for c in CASES) >= CAUGHT, name


@pytest.mark.parametrize("name", ["contradicting-keys", "silu-64", "mean-65", "spans"])
def test_the_worst_row_of_many_is_within_the_budget_of_float16_sums(name):
    """Its error is a normal number: equal ones for all rows miss these by up to a sixth."""
    assert ratio(name, "float32+float16-reductions", "N8") <= 1.0
