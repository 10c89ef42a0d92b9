"""The training kit's truth is refimpl.train's, and honest steps stay within its budgets."""

from dataclasses import replace

import numpy as np
import pytest
from support.heavy import heavy_but_first

from refimpl import ModernBERTForTask
from refimpl.reference.heads import HEADS
from refimpl.train import gradients
from refimpl.verify.training.cases import CASES, STEPS, TASKS, case
from refimpl.verify.training.compare import Told, compare, right, values
from refimpl.verify.training.coverage import NAMES, covered, names_of
from refimpl.verify.training.honest import HONEST
from refimpl.verify.training.rounding import noisy
from refimpl.verify.training.step import gradient
from refimpl.verify.training.trainer_port import counted

FIRST = (1,)


@pytest.mark.parametrize("one", CASES, ids=lambda c: c.name)
def test_loss_and_gradients_are_those_of_refimpl_train(one):
    t = one.training()
    model = ModernBERTForTask(t.config, dict(t.params), HEADS[one.head], backend="numpy")
    options = {"normaliser": sum(counted(one, m.labels) for m in t.windows[0])}
    if one.class_weights:
        options |= {"class_weights": one.class_weights, "label_smoothing": one.label_smoothing}
    loss, grads = 0.0, {}
    for micro in t.windows[0]:
        inputs = dict(micro.inputs)
        if one.choices:
            inputs = {n: x.reshape(-1, one.choices, x.shape[-1]) for n, x in inputs.items()}
        own, new = gradients(model, inputs, micro.labels, task=TASKS[one.head], **options)
        loss += own
        grads = {n: x + grads.get(n, 0.0) for n, x in new.items()}
    step = gradient(t, t.windows[0])
    assert float(step.values["loss"]) == pytest.approx(loss, rel=1e-14)
    most = max(np.abs(x).max() for x in grads.values())
    for name, x in grads.items():
        np.testing.assert_allclose(step.grads[name], x, rtol=0, atol=1e-14 * most)


def test_values_stand_in_the_order_of_the_backward_pass():
    t = case("mask-tied").training()
    order = list(values(t, FIRST))
    wanted = [
        "layers.0.wi", "logits", "loss", "d.logits", "grad.head.dense.weight",
        "d.layers.2.residual_2", "grad.layers.2.mlp.Wo.weight", "grad.layers.2.attn.Wqkv.weight",
        "grad.layers.0.mlp.Wi.weight", "grad.embeddings.tok_embeddings.weight",
        "after_1.embeddings.tok_embeddings.weight",
    ]  # fmt: skip
    places = [order.index(name) for name in wanted]
    assert places == sorted(places)
    assert "grad.decoder.weight" not in order


@pytest.mark.parametrize("name", heavy_but_first(["packed", "tokens-biased", "classes-weighted"]))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_honest_steps_are_inside_and_a_scale_is_not(name, dtype):
    """A thousandth in float32; in bfloat16 a sixteenth, where honest gradients of a model of a few
    dozen numbers stray by one or two in a hundred."""
    scale = {"float32": 2.0**-10, "bfloat16": 2.0**-4}[dtype]
    t = case(name).training()
    of = right(t, dtype, FIRST)
    for id, variant in HONEST.items():
        if variant.dtype == dtype:
            told = variant.values(t, FIRST)
            found = compare(of, Told(told))
            assert found.ratio < 0.9, (id, max((r.cumulative.ratio, r.tap) for r in found.rows))
            off = {n: x * (1 + scale) for n, x in told.items() if n.startswith("grad.")}
            assert compare(of, Told(off)).ratio > 1.0, id


def test_equal_seeds_give_equal_members_of_the_family():
    t = case("resumed").training()
    one, same, other = (values(noisy(t, "float32", seed), FIRST) for seed in (1, 1, 2))
    name = "grad.layers.0.attn.Wqkv.weight"
    np.testing.assert_array_equal(one[name], same[name])
    assert (one[name] != other[name]).any()


def test_a_step_is_forced_from_what_the_port_had():
    """A wrong step is named where it is wrong, and not held against those computed from it."""
    t = case("mask-silu").training()
    at = "layers.1.residual_2"
    wrong = replace(t.astype(np.float32), backward_edit=lambda n, d: d * 1.5 if n == at else d)
    made = values(wrong, ())
    found = compare(right(t, "float32", ()), Told({n: x.astype(float) for n, x in made.items()}))
    assert [row.tap for row in found.rows if row.forced.ratio > 1.0] == ["d." + at]
    assert len([row for row in found.rows if row.cumulative.ratio > 1.0]) > 20


def test_every_case_is_lacking_until_it_is_compared():
    assert covered({}).lacking == NAMES
    every = {c.name: names_of(c) for c in CASES}
    assert covered(every).complete and covered(every).steps[0] == covered(every).steps[1]
    some = {c.name: [n for n in names_of(c) if "after_10" not in n] for c in CASES}
    assert covered(some).lacking == ("run", "resume")
    for c in CASES:
        rest = covered({name: x for name, x in every.items() if name != c.name})
        assert rest.cases[0] == len(CASES) - 1
        assert max(c.windows) <= c.accumulate and len(c.windows) == STEPS
