"""Optimisers against their formulas, written plainly entry by entry; schedules; refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.adjoint import normal

import refimpl
from refimpl.train.optimisers import AdamW, Optimiser, StableAdamW
from refimpl.train.schedules import KINDS, Schedule

STEPS = 12


def plain(kind: str, p, g_of_step, rates, settings, decays: bool):
    """One parameter, float64, numbers one by one: from the papers' formulas."""
    (b1, b2), eps, wd = settings["betas"], settings["eps"], settings["weight_decay"]
    wd = wd if decays else 0.0
    p = [float(x) for x in p.ravel()]
    m, v = [0.0] * len(p), [0.0] * len(p)
    for t, lr in enumerate(rates, start=1):
        g = [float(x) for x in g_of_step(t).ravel()]
        if kind == "adamw":
            m = [b1 * a + (1 - b1) * b for a, b in zip(m, g, strict=True)]
            v = [b2 * a + (1 - b2) * b * b for a, b in zip(v, g, strict=True)]
            hats = [(a / (1 - b1**t), b / (1 - b2**t)) for a, b in zip(m, v, strict=True)]
            p = [
                x * (1 - lr * wd) - lr * a / (math.sqrt(b) + eps)
                for x, (a, b) in zip(p, hats, strict=True)
            ]
            continue
        c1, c2 = (b * (1 - b ** (t - 1)) / (1 - b**t) for b in (b1, b2))
        m = [c1 * a + (1 - c1) * b for a, b in zip(m, g, strict=True)]
        v = [c2 * a + (1 - c2) * b * b for a, b in zip(v, g, strict=True)]
        rms = math.sqrt(sum(b * b / max(a, eps**2) for a, b in zip(v, g, strict=True)) / len(p))
        rate = lr / max(1.0, rms)
        p = [
            x * (1 - rate / settings["peak"] * wd) - rate * a / (math.sqrt(b) + eps)
            for x, a, b in zip(p, m, v, strict=True)
        ]
    return np.array(p)


SETTINGS = {
    "adamw": dict(betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1),
    "stable": dict(betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1, peak=0.05),
}


def built(kind: str) -> Optimiser:
    return AdamW(**SETTINGS[kind]) if kind == "adamw" else StableAdamW(**SETTINGS[kind])


def gradient(t: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Grows a hundredfold at step 7, where a stable step has to be shortened; 0 in one column."""
    g = normal(seed + t, *shape) * (100.0 if t == 7 else 1.0)
    g[..., 0] = 0.0
    return g


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("shape", [(7,), (3, 5)], ids=["vector", "matrix"])
@given(st.integers(0, 2**16))
def test_steps_are_the_formula(kind, shape, seed):
    rates = [0.05 * Schedule("linear", 3, STEPS)(t) for t in range(STEPS)]
    p = {"x": normal(seed, *shape)}
    want = plain(
        kind, p["x"], lambda t: gradient(t, shape, seed), rates, SETTINGS[kind], len(shape) > 1
    )
    optimiser = built(kind)
    for t, lr in enumerate(rates, start=1):
        optimiser.update(p, {"x": gradient(t, shape, seed)}, lr)
    np.testing.assert_allclose(p["x"].ravel(), want, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", SETTINGS)
def test_float32_stays_float32(kind):
    optimiser, p = built(kind), {"x": normal(1, 3, 5).astype(np.float32)}
    optimiser.update(p, {"x": gradient(1, (3, 5), 1).astype(np.float32)}, 0.01)
    assert {a.dtype for a in (p["x"], *vars(optimiser.moments["x"]).values())} == {
        np.dtype(np.float32)
    }


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_run_that_was_saved_goes_on_with_the_same_bits(kind):
    whole, p, q = built(kind), {"x": normal(1, 3, 5)}, {"x": normal(1, 3, 5)}
    for t in range(1, 9):
        whole.update(p, {"x": gradient(t, (3, 5), 1)}, 0.01)
    first, second = built(kind), built(kind)
    for t in range(1, 5):
        first.update(q, {"x": gradient(t, (3, 5), 1)}, 0.01)
    second.restore(first.state())
    first.update({"x": q["x"].copy()}, {"x": gradient(5, (3, 5), 1)}, 0.01)  # shares no array
    for t in range(5, 9):
        second.update(q, {"x": gradient(t, (3, 5), 1)}, 0.01)
    np.testing.assert_array_equal(p["x"], q["x"])


def test_clipping_is_per_tensor():
    """A tensor whose gradients explode does not shorten the step of another."""
    alone, together = StableAdamW(0.1), StableAdamW(0.1)
    p, q = {"a": np.ones((2, 2))}, {"a": np.ones((2, 2)), "b": np.ones((2, 2))}
    for t in range(3):
        g = {"a": np.full((2, 2), 0.1)}
        alone.update(p, g, 0.1)
        together.update(q, g | {"b": np.full((2, 2), 10.0**t)}, 0.1)
    np.testing.assert_array_equal(p["a"], q["a"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AdamW(betas=(0.9, 1.0)), r"betas\[1\] is 1.0"),
        (lambda: AdamW(eps=0.0), "eps is 0.0"),
        (lambda: AdamW(weight_decay=-1.0), "weight_decay is -1.0"),
        (lambda: StableAdamW(peak=0.0), "peak is 0.0"),
        (lambda: AdamW().update({}, {}, float("nan")), "lr is nan"),
        (lambda: AdamW().update({}, {"x": np.ones(2)}, 0.1), "params have nothing there"),
        (lambda: AdamW().update({"x": np.ones(3)}, {"x": np.ones(2)}, 0.1), r"params have \[3\]"),
        (lambda: Schedule("step", 0, 1), "kind is 'step'; known: constant, linear"),
        (lambda: Schedule("linear", -1, 1), "warmup is -1"),
        (lambda: Schedule("linear", 1, 2.5), "total is 2.5"),
        (lambda: Schedule("trapezoidal", 6, 10, 5), "total is 10; it must be at least warmup 6"),
        (lambda: Schedule("trapezoidal", 1, 10, 5, 2.0), "floor is 2.0"),
        (lambda: Schedule("cosine", 1, 10, 5), "decay and floor are of a trapezoidal"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_rises_to_1_and_never_leaves_0_to_1(kind):
    more = dict(decay=30, floor=0.1) if kind == "trapezoidal" else {}
    s = Schedule(kind, 10, 100, **more)
    factors = [s(t) for t in range(130)]
    assert factors[0] == 0 and factors[10] == max(factors) == 1
    assert min(factors) >= 0 and factors[5] == 0.5
    end = {"constant": 1.0, "trapezoidal": 0.1}.get(kind, 0.0)
    assert factors[100] == factors[129] == pytest.approx(end, abs=1e-15)
    assert Schedule(kind, 0, 100)(0) == 1


def test_a_trapezoid_by_hand():
    s = Schedule("trapezoidal", 2, 10, 4, 0.2)
    want = [0, 0.5, 1, 1, 1, 1, 1, 0.2 + 0.8 * 0.5, 0.2 + 0.8 * (1 - 0.5**0.5)]
    assert [s(t) for t in range(9)] == pytest.approx(want, abs=1e-15)


def test_parameters_of_a_model_are_refused_with_what_to_do():
    model = refimpl.ModernBERT.from_variant("tiny", pretrained=True)
    optimiser, name = AdamW(), "final_norm.weight"
    first = {"embeddings.norm.weight": np.ones(256, np.float32)}
    grads = first | {name: np.ones(256, np.float32)}
    mixed = first | {name: model.params[name]}
    with pytest.raises(ValueError, match=r"'final_norm.weight'\] is read-only.*x\.copy\(\).*head"):
        optimiser.update(mixed, grads, 0.1)
    assert optimiser.steps == 0 and (first["embeddings.norm.weight"] == 1).all()
    with pytest.raises(TypeError, match=r"read-only; .*type\(model\)\(model.config, params\)"):
        model.params[name] = grads[name]
    params = {name: x.copy() for name, x in model.params.items()}
    optimiser.update(params, grads, 0.1)
    assert not np.array_equal(type(model)(model.config, params).params[name], model.params[name])
