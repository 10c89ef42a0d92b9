"""Optimisers and schedules beside torch's, optimi's and transformers', in float32 and float64."""

from __future__ import annotations

import numpy as np
import pytest
from support.adjoint import normal

from refimpl.train.optimisers import AdamW, StableAdamW
from refimpl.train.schedules import Schedule

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

STEPS = 60
SHAPES = {"matrix": (9, 13), "vector": (13,)}
# Roundings of an update itself, relative to it; the sum with the parameter rounds once more a step.
IN_AN_UPDATE = 8


def gradient(name: str, t: int) -> np.ndarray:
    return normal(1000 + t, *SHAPES[name]) * (50.0 if t == 20 else 1.0)


def run(ours, theirs, parameters, dtype: type) -> None:
    """The same gradients and learning rates to both; params agree after every step."""
    schedule = Schedule("trapezoidal", 5, STEPS, 20, 0.1)
    start = {name: p.detach().numpy().copy() for name, p in parameters.items()}
    params = {name: x.copy() for name, x in start.items()}
    for t in range(STEPS):
        lr = 0.01 * schedule(t)
        for group in theirs.param_groups:
            group["lr"] = lr
        grads = {name: gradient(name, t).astype(dtype) for name in params}
        for name, p in parameters.items():
            p.grad = torch.from_numpy(grads[name].copy())
        theirs.step()
        ours.update(params, grads, lr)
        for name, p in parameters.items():
            size, moved = np.abs(params[name]).max(), np.abs(params[name] - start[name]).max()
            off = np.abs(params[name] - p.detach().numpy()).max()
            bound = np.finfo(dtype).eps * ((t + 1) * size + IN_AN_UPDATE * moved)
            assert off <= bound, (name, t, off, bound)
    assert all(np.abs(params[name] - start[name]).max() > 0.01 for name in params)


def parameters_of(dtype: type) -> dict:
    return {
        name: torch.nn.Parameter(torch.from_numpy(normal(n, *shape).astype(dtype)))
        for n, (name, shape) in enumerate(SHAPES.items())
    }


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_adamw_is_torchs(dtype):
    p = parameters_of(dtype)
    groups = [
        {"params": [p["matrix"]], "weight_decay": 0.3},
        {"params": [p["vector"]], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-6)
    run(AdamW((0.9, 0.98), 1e-6, 0.3), theirs, p, dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_stable_adamw_is_optimis(dtype):
    optimi = pytest.importorskip("optimi")
    p = parameters_of(dtype)
    groups = [
        {"params": [p["matrix"]], "weight_decay": 0.3},
        {"params": [p["vector"]], "weight_decay": 0.0},
    ]
    theirs = optimi.StableAdamW(
        groups, lr=0.01, betas=(0.9, 0.98), eps=1e-6, decouple_lr=True, max_lr=0.01, triton=False
    )
    run(StableAdamW(0.01, (0.9, 0.98), 1e-6, 0.3), theirs, p, dtype)


def factors(make, **options) -> list[float]:
    """What transformers makes of a learning rate of 1 over the run and past its end."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, out = make(optimiser, **options), []
    for _ in range(STEPS + 10):
        out.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    return out


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "trapezoidal"])
def test_schedules_are_those_of_transformers(kind, warmup):
    optimization = pytest.importorskip("transformers.optimization")
    own, options = {}, {"num_warmup_steps": warmup}
    if kind == "trapezoidal":
        own = {"decay": 20}
        options |= {"num_stable_steps": STEPS - warmup - 20, "num_decay_steps": 20}
        make = optimization.get_wsd_schedule
        options["decay_type"] = "1-sqrt"
    elif kind == "constant":
        make = optimization.get_constant_schedule_with_warmup
    else:
        make = getattr(optimization, f"get_{kind}_schedule_with_warmup")
        options["num_training_steps"] = STEPS
    schedule, theirs = Schedule(kind, warmup, STEPS, **own), factors(make, **options)
    last = STEPS if kind == "cosine" else len(theirs)  # its cosine rises again past the end
    ours = [schedule(t) for t in range(last)]
    np.testing.assert_allclose(ours, theirs[:last], rtol=0, atol=1e-15)


def test_a_trapezoids_floor_is_that_of_transformers():
    optimization = pytest.importorskip("transformers.optimization")
    theirs = factors(
        optimization.get_wsd_schedule,
        num_warmup_steps=0,
        num_stable_steps=40,
        num_decay_steps=20,
        decay_type="1-sqrt",
        min_lr_ratio=0.04,
    )
    schedule = Schedule("trapezoidal", 0, STEPS, 20, 0.04)
    np.testing.assert_allclose([schedule(t) for t in range(len(theirs))], theirs, atol=1e-15)
