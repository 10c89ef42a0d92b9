"""The comparison under the kit: budgets that rounding meets and mistakes do not, both columns."""

from dataclasses import replace

import numpy as np
import pytest

from refimpl.reference import ops
from refimpl.verify.judge.slices import slices
from refimpl.verify.truth.cases import case
from refimpl.verify.truth.compare import budgets, compare
from refimpl.verify.truth.errors import STATISTICS, error, real_rows, token_errors
from refimpl.verify.truth.passes import forced, trace
from refimpl.verify.truth.rounding import DTYPES, SEEDS, K, noisy, sum_growth

NAMES = ("window-66", "padding-mixed", "packed", "mean-65")


def float32_dump(p):
    return {name: x.astype(np.float64) for name, x in trace(p.astype(np.float32)).items()}


@pytest.mark.parametrize("name", NAMES)
def test_float32_reference_is_within_every_budget(name):
    p = case(name).model()
    comparison = compare(p, float32_dump(p), "float32")
    assert comparison.culprit is None and comparison.ratio <= 1.0
    assert comparison.smallest_k == K * comparison.ratio
    assert [row.tap for row in comparison.rows] == list(trace(p))


def test_float32_is_not_within_the_budget_of_float64():
    p = case("window-66").model()
    comparison = compare(p, float32_dump(p), "float64")
    assert comparison.culprit == "embedding" and comparison.ratio > 1e3 * K


def test_one_wrong_step_is_the_culprit_and_only_it_is_wrong_by_itself():
    p = case("window-66").model()
    taps = float32_dump(
        p.with_edit(lambda name, x: x * 1.001 if name == "layers.2.attn_out" else x)
    )
    comparison = compare(p, taps, "float32")
    assert comparison.culprit == "layers.2.attn_out"
    wrong = [row.tap for row in comparison.rows if not row.forced.ratio <= 1.0]
    assert wrong == ["layers.2.attn_out"]
    late = next(row for row in comparison.rows if row.tap == "final_norm")
    assert late.cumulative.ratio > 1.0 >= late.forced.ratio


def test_missing_steps_are_spanned():
    p = case("window-66").model()
    broken = p.with_ops(glu=lambda u, act: ops.glu(u[..., ::-1], act))
    taps = float32_dump(broken)
    ends = {name: taps[name] for name in taps if name.endswith("residual_2")}
    assert compare(p, ends, "float32").culprit == "layers.0.residual_2"
    assert compare(p, {"final_norm": taps["final_norm"]}, "float32").culprit == "final_norm"


def test_forced_with_its_own_trace_changes_nothing():
    p = case("padding-mixed").model()
    own = trace(p)
    assert all(np.array_equal(x, own[name]) for name, x in forced(p, own).items())


def test_a_nan_is_over_every_budget_and_named():
    p = case("window-66").model()
    taps = float32_dump(p)
    taps["layers.1.wi"] = taps["layers.1.wi"].copy()
    taps["layers.1.wi"][0, 3, 0] = np.nan
    comparison = compare(p, taps, "float32")
    assert comparison.culprit == comparison.first_nonfinite == "layers.1.wi"
    assert comparison.ratio == np.inf


def test_padding_rows_are_not_compared():
    p = case("padding-mixed").model()
    taps = float32_dump(p)
    hidden = ~real_rows(p)
    assert hidden.any()
    for name, x in taps.items():
        if x.shape[:2] == hidden.shape:
            taps[name] = x.copy()
            taps[name][hidden] = np.nan
    comparison = compare(p, taps, "float32")
    assert comparison.ratio <= 1.0 and comparison.first_nonfinite is None


def test_budgets_are_k_times_the_worst_of_the_family_and_repeat():
    p = case("mean-65").model()
    said = budgets(p, "bfloat16")
    assert said == budgets(p, "bfloat16")
    truth, real = trace(p), real_rows(p)
    worst = max(
        token_errors(
            "final_norm", trace(noisy(p, "bfloat16", seed))["final_norm"], truth["final_norm"], real
        ).max()
        for seed in range(SEEDS)
    )
    assert said["final_norm"]["max"] == K * worst
    assert set(said) == set(truth) and set(said["logits"]) == set(STATISTICS)
    assert budgets(p, "bfloat16", ["logits"]) == {"logits": said["logits"]}


def test_budgets_of_linear_maps_scale_with_the_unit_roundoff():
    p = case("window-66").model()
    single, double = budgets(p, "float32"), budgets(p, "float64")
    scale = DTYPES["float32"].compute / DTYPES["float64"].compute
    # The same draws: equal seeds give equal noise, so the ratio is exact up to second order and to
    # the rounding of float64 itself, whose 2^-53 is as large as the noise: a factor of two.
    for name in ("layers.0.q", "layers.1.wi", "logits"):
        assert scale / 2 < single[name]["mean"] / double[name]["mean"] < scale * 2


def test_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="float8.*known: float64, float32, bfloat16, float16"):
        noisy(case("one-token").model(), "float8", 0)


def test_sum_growth_is_that_of_random_rounding():
    """The RMS error of naive float32 sums of positive numbers, in units of u times the sum."""
    n, trials = 4096, 400
    x = np.random.default_rng(0).uniform(0.5, 1.5, (trials, n)).astype(np.float32)
    total = np.zeros(trials, np.float32)
    for column in x.T:
        total += column
    exact = x.astype(np.float64).sum(axis=1)
    seen = np.sqrt(np.mean(((total - exact) / exact) ** 2)) / DTYPES["float32"].compute
    # Roundoffs are uniform in relative size only within a binade: the model is right to a factor
    # of two, which is what separates it from "grows as n" (1365) and "does not grow" (1).
    assert sum_growth(n) / 2 < seen < sum_growth(n) * 2


def test_slices_show_where_a_window_mistake_sits():
    p = case("window-66").model()
    wide = p.with_ops(
        attention=lambda q, k, v, m, w: ops.attention(q, k, v, m, None if w is None else w + 1)
    )
    taps = float32_dump(wide)
    culprit = compare(p, taps, "float32").culprit
    found = {(s.kind, s.name): s for s in slices(p, taps, culprit)}
    assert culprit == "layers.1.attention"
    assert ("tokens", "sliding layer") in found and ("window", "window bites") in found
    heads = [s for (kind, _), s in found.items() if kind == "head"]
    assert len(heads) == p.config.num_attention_heads
    buckets = [s for (kind, _), s in found.items() if kind == "position"]
    assert sum(s.tokens for s in buckets) == real_rows(p).sum()


def test_a_pass_with_other_inputs_leaves_the_first_alone():
    p = case("window-66").model()
    other = p.with_inputs(input_ids=p.inputs["input_ids"][:, ::-1])
    assert not np.array_equal(other.inputs["input_ids"], p.inputs["input_ids"])
    assert replace(other, inputs=p.inputs).inputs is p.inputs


@pytest.mark.parametrize("n", [1, 2, 20, 21, 257])
def test_statistics_are_those_of_the_errors_of_tokens(n: int) -> None:
    rng = np.random.default_rng(n)
    want = rng.standard_normal((1, n, 8))
    got, real = want + 1e-3 * rng.standard_normal(want.shape), np.ones((1, n), bool)
    e = np.linalg.norm(got - want, axis=-1)[0] / np.linalg.norm(want, axis=-1)[0]
    said = error("embedding", got, want, real)
    assert said["mean"] == pytest.approx(e.mean(), rel=1e-13)
    assert said["p95"] == pytest.approx(np.quantile(e, 0.95), rel=1e-13)
    assert said["max"] == pytest.approx(e.max(), rel=1e-13)
