"""A step on the CPU engine: numpy's gradients under the kit's budgets, and 0 differing bits.

Derived budgets are those of the training kit, which judges passes, sums and updates of each tier.
Bits are compared over drawn steps: however units share passes, at any number of threads, recomputed
or kept, and over whole runs that are killed and resumed.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import test_trainer as in_numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from support.heavy import heavy_but_first
from support.native import extension, tiers
from test_trainer import SETTINGS, bits, examples, killed, replace

import refimpl
from refimpl.backends.backend import chosen_tier
from refimpl.train.embedding_work import Contrastive
from refimpl.train.examples import Unit
from refimpl.train.native import NativeStep
from refimpl.train.pairs import Together
from refimpl.train.settings import Settings
from refimpl.train.start import with_embeddings, with_head
from refimpl.train.trainer import Trainer
from refimpl.train.work import counted, of_units
from refimpl.verify.training import judge
from refimpl.verify.training.cases import CASES
from refimpl.verify.training.trainer_port import EngineTrainer

extension()
DTYPES = ("float32", "bfloat16")
CHOICES = [(tier, dtype) for tier in tiers() for dtype in DTYPES]
every_dtype = pytest.mark.parametrize(("tier", "dtype"), heavy_but_first(CHOICES, 2))
HEADS = {
    "mask": ("masked_lm", ()),
    "classify": ("sequence_classification", ("a", "b", "c")),
    "tokens": ("token_classification", ("a", "b", "c")),
    "answer": ("question_answering", ("start", "end")),
    "choice": ("multiple_choice", ()),
}
VOCAB = 90
WIDE = 4096  # of inter: such layers take 256 rows at a time


def model_for(task: str, dtype: str = "float32", **more) -> refimpl.ModernBERTForTask:
    sizes = dict(hidden_size=24, num_heads=2, intermediate_size=20, vocab_size=VOCAB)
    base = refimpl.ModernBERT.from_variant(
        "tiny", num_layers=3, local_attention=16, seed=3, dtype=dtype, backend="numpy",
        **(sizes | more),
    )  # fmt: skip
    kind, names = HEADS[task]
    problem = "single_label_classification" if task == "classify" else None
    return with_head(base, kind, names, problem, 3)


def units_for(task: str, lengths: list[int], seed: int = 0) -> list[Unit]:
    rng, out = np.random.default_rng(seed), []
    for i, n in enumerate(lengths):
        ids = rng.integers(0, VOCAB, n)
        several = [ids, ids[: n // 2 + 1], ids[::-1].copy()]
        labels = {
            "mask": np.where(rng.random(n) < 0.3, rng.integers(0, VOCAB, n), -100),
            "classify": rng.integers(0, 3, 1),
            "tokens": np.where(rng.random(n) < 0.8, rng.integers(0, 3, n), -100),
            "answer": np.array([[0, n - 1]]),
            "choice": rng.integers(0, 3, 1),
        }[task]
        out.append(Unit(several if task == "choice" else [ids], labels, f"text {i}"))
    return out


def step(model, task, units, **how) -> tuple[float, dict[str, bytes]]:
    size = how.pop("batch_size", len(units))
    count = sum(counted(model, u.labels) for u in units) or 1.0
    native = NativeStep(model, list(model.params), **how)
    loss, grads = native.of_units(task, units, count, batch_size=size, seed=1, step=2)
    return loss, {name: x.tobytes() for name, x in grads.items()}


# -- the truth ------------------------------------------------------------------------------------

FIRST = "mask-tied"
NAMES = [c.name for c in CASES]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", heavy_but_first(sorted(NAMES, key=lambda n: n != FIRST)))
def test_the_training_kit_finds_nothing(dtype, name, monkeypatch):
    """Gradients of every tensor, and parameters after 1 and 10 steps, within the kit's budgets."""
    case = next(c for c in CASES if c.name == name)
    # The right run and its family, which take longest, are the same for every tier.
    right, kept = judge.right, {}
    monkeypatch.setattr(
        judge, "right", lambda t, of: kept.get(of) or kept.setdefault(of, right(t, of))
    )
    for tier in tiers():
        report = judge.verify(EngineTrainer(tier, dtype), [case])
        assert report.verdict == "exact-spec", (tier, report)


@pytest.mark.parametrize(("task", "inter"), [*((task, 20) for task in HEADS), ("tokens", WIDE)])
def test_gradients_are_those_of_numpy(task, inter):
    """Of steps of many units, in two layers of passes, which the kit has not: float64 to rounding,
    relative to the largest gradient of all."""
    model = model_for(task, "float64", intermediate_size=inter)
    mine = refimpl.ModernBERTForTask(
        model.config, {n: x.astype(np.float32) for n, x in model.params.items()}, model.head,
        backend="numpy",
    )  # fmt: skip
    units = units_for(task, [300, 5, 1, 33, 64, 17])
    how, wanted = Settings(seed=1), list(model.params)
    want = of_units(model, task, units, how, 2, wanted, None).gradients
    theirs = of_units(mine, task, units, how, 2, wanted, None).gradients
    native = NativeStep(mine, list(model.params), num_threads=2)
    count = sum(counted(mine, u.labels) for u in units)
    _, grads = native.of_units(task, units, count, batch_size=4, seed=1, step=2)
    for name, x in want.items():
        floor = 1e-8 * max(np.abs(g).max() for g in want.values())
        numpys = np.abs(theirs[name] - x).max()
        assert np.abs(grads[name] - x).max() <= 3 * numpys + floor, name


def test_gradients_of_embeddings_are_those_of_numpy():
    base = refimpl.ModernBERT.from_variant(
        "tiny", num_layers=2, hidden_size=24, num_heads=2, intermediate_size=20, vocab_size=VOCAB,
        seed=3, backend="numpy",
    )  # fmt: skip
    model = with_embeddings(base, 64)

    class Words:
        def encode_batch(self, texts, **_):
            return [type("E", (), {"ids": [ord(c) % VOCAB for c in t], "lost": 0})() for t in texts]

    rows = [Together(f"row {i}", (f"text {i}", f"other {i * i}"), None) for i in range(7)]
    work = Contrastive(rows, Words(), 64)  # type: ignore[arg-type]
    how = Settings(batch_size=4, accumulate=2, epochs=1)
    work.begin(model, how)
    want = work.step(model, 0, how, list(model.params))
    got = work.step(model, 0, how, list(model.params), NativeStep(model, list(model.params)))
    assert got.loss == pytest.approx(want.loss, rel=1e-5) and got.tokens == want.tokens
    most = max(np.abs(x).max() for x in want.gradients.values())
    for name, x in want.gradients.items():
        np.testing.assert_allclose(got.gradients[name], x, atol=1e-5 * most, err_msg=name)


# -- 0 differing bits -----------------------------------------------------------------------------


@every_dtype
@settings(max_examples=60)
@given(st.data())
def test_no_bit_depends_on_passes_threads_or_recomputation(tier, dtype, data):
    task = data.draw(st.sampled_from(sorted(HEADS)))
    lengths = data.draw(st.lists(st.integers(1, 70) | st.just(290), min_size=1, max_size=7))
    model, units = model_for(task), units_for(task, lengths, len(lengths))
    first = step(model, task, units, tier=tier, dtype=dtype, num_threads=1, recompute=False)
    few = data.draw(st.integers(0, 800 * sum(lengths) * 3))  # bytes: some layers, or all
    with patch("refimpl.backends.training.KEPT", few):
        other = step(
            model, task, units, tier=tier, dtype=dtype, num_threads=data.draw(st.integers(1, 6)),
            batch_size=data.draw(st.integers(1, len(units))),
            recompute=data.draw(st.sampled_from([False, True, None])),
        )  # fmt: skip
    assert first == other


@every_dtype
def test_no_bit_depends_on_the_parts_that_a_pass_is_taken_in(tier, dtype):
    model = model_for("tokens", intermediate_size=WIDE)
    units = units_for("tokens", [300, 5, 257, 40, 600, 1])
    alone = step(model, "tokens", units, tier=tier, dtype=dtype, num_threads=1, batch_size=1)
    for how in ({}, {"recompute": True}, {"batch_size": 4, "num_threads": 3}):
        assert alone == step(model, "tokens", units, tier=tier, dtype=dtype, **how), how


def small_model() -> refimpl.ModernBERTForTask:
    """That of test_trainer.py, which drops nothing out but before its classifier."""
    return in_numpy.small_model(attention_dropout=0.0, mlp_dropout=0.0)


def trained(folder: Path, changes: Settings = SETTINGS, tell=lambda line: None, resume=False):
    """A run as REFIMPL_TEST_RUN says: threads, recomputation, dtype."""
    threads, recompute, dtype = os.environ.get("REFIMPL_TEST_RUN", "1,0,float32").split(",")
    trainer = Trainer(
        small_model(), examples(), examples(9, 1), changes, folder, tell, backend="native",
        dtype=dtype, num_threads=int(threads), recompute=recompute == "1",
    )  # fmt: skip
    return trainer, trainer.run(resume=resume)


@pytest.fixture
def on_native(monkeypatch):
    """The helpers of test_trainer.py start children of this file."""
    child = in_numpy.CHILD.replace("from test_trainer import", "from test_native_step import")
    monkeypatch.setattr(in_numpy, "CHILD", child)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


def test_a_run_learns_as_one_of_numpy_does(tmp_path):
    model = small_model()
    how = Settings(epochs=15, batch_size=10, learning_rate=1e-2)
    figures = Trainer(model, examples(100), examples(30, 1), how, tmp_path / "a",
                      backend="native").run()  # fmt: skip
    theirs = Trainer(model, examples(100), examples(30, 1), how, tmp_path / "b").run()
    assert figures["eval_accuracy"] >= 0.9
    assert figures["best"] == pytest.approx(theirs["best"], rel=1e-2)


@pytest.mark.heavy
def test_a_run_that_was_killed_goes_on_with_the_same_bits(tmp_path, on_native):
    trained(tmp_path / "whole")
    assert killed(tmp_path / "killed", 5, 4) >= 2
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


@pytest.mark.soak
def test_500_pairs_of_runs_have_the_same_bits(tmp_path, monkeypatch, on_native):
    """They differ in micro-batches, threads, recomputation, and in being killed, 100 times at
    least; per tier and dtype. `pytest -m soak tests/train/test_native_step.py -s`."""
    rng, kills, wanted = random.Random(2), 0, {}
    for n in range(500):
        tier, dtype = CHOICES[n % len(CHOICES)]
        monkeypatch.setenv("REFIMPL_ISA", tier)
        assert chosen_tier() == tier
        if (tier, dtype) not in wanted:
            monkeypatch.setenv("REFIMPL_TEST_RUN", f"1,0,{dtype}")
            trained(tmp_path / f"{tier}-{dtype}")
            wanted[tier, dtype] = bits(tmp_path / f"{tier}-{dtype}")
        threads, recompute, split = rng.randint(1, 4), rng.randint(0, 1), rng.choice([4, 2, 1])
        monkeypatch.setenv("REFIMPL_TEST_RUN", f"{threads},{recompute},{dtype}")
        folder = tmp_path / str(n)
        if n % 5 == 0:
            kills += killed(folder, n, rng.randint(1, 3), (split, 4 // split))
        else:
            how = replace(SETTINGS, batch_size=split, accumulate=4 // split)
            trained(folder, how)
        assert bits(folder) == wanted[tier, dtype], (n, tier, dtype, threads, recompute, split)
        if n % 50 == 49:
            print(f"{n + 1} pairs, {kills} kills, 0 differing bits", flush=True)
    assert kills >= 100


@pytest.mark.parametrize("task", ["classify", "mask"])
def test_gradients_handed_on_layer_by_layer_are_the_same_in_less_memory(task):
    """As soon as a part is complete its parameters may change: here they become NaN."""
    units, given = units_for(task, [40, 3, 290]), {}
    want = step(model_for(task), task, units, num_threads=2)[1]
    model = model_for(task)
    params = {name: x.copy() for name, x in model.params.items()}
    mine = refimpl.ModernBERTForTask(model.config, params, model.head, backend="numpy")

    def sink(grads):
        for name, x in grads.items():
            assert name not in given
            given[name] = x.tobytes()
            params[name].fill(np.nan)

    for recompute in (False, True):
        given.clear()
        for name, x in model.params.items():
            params[name][...] = x
        native = NativeStep(mine, list(params), num_threads=2, sink=sink, recompute=recompute)
        count = sum(counted(model, u.labels) for u in units)
        native.of_units(task, units, count, batch_size=1, seed=1, step=2)
        assert given == want
    layers = {n.partition(".")[2] for n in params if n.startswith("layers.")}
    held = {id(x) for x in native.gradients.values()}
    assert len(held) == len({n for n in params if not n.startswith("layers.")}) + len(
        {n.partition(".")[2] for n in layers}
    )


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_updates_in_the_way_back_are_those_after_it(lora_rank):
    how = replace(SETTINGS, lora_rank=lora_rank)
    at_once = Trainer(small_model(), examples(), None, how, None, backend="native")
    after = Trainer(small_model(), examples(), None, replace(how, batch_size=2, accumulate=2),
                    None, backend="native")  # fmt: skip
    assert at_once.engine.sink is not None and after.engine.sink is None
    for trainer in (at_once, after):
        trainer.run()
    for name, x in at_once.params.items():
        assert x.tobytes() == after.params[name].tobytes(), name


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"lora_rank": 2}, ("head.", "classifier.", "attn.Wqkv", "attn.Wo")),
        ({"freeze": ("embeddings.", "layers.0.")}, ("head.", "classifier.", "layers.1.", "final_")),
    ],
)
def test_only_parameters_that_change_are_copied(changes, changed):
    model = small_model()
    before = {name: x.tobytes() for name, x in model.params.items()}
    trainer = Trainer(model, examples(), None, replace(SETTINGS, **changes), None, backend="native")
    trainer.run()
    for name, x in trainer.params.items():
        assert model.params[name].tobytes() == before[name], name
        own = any(part in name for part in changed)
        assert np.shares_memory(x, model.params[name]) != own, name


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: model_for("classify", "float64"), "parameters are float64"),
        (lambda: in_numpy.small_model(), "config drops probs, attn_out, glu out"),
    ],
)
def test_a_model_that_the_engine_does_not_train(model, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Trainer(model(), examples(), None, SETTINGS, None, backend="native")
    lines: list[str] = []
    trainer = Trainer(model(), examples(), None, SETTINGS, None, lines.append, backend="auto")
    assert trainer.engine is None and lines[0].startswith("numpy computes: ")


def test_a_run_on_another_backend_is_another_run(tmp_path):
    trained(tmp_path)
    with pytest.raises(ValueError, match="its backend is 'native .* float32', here it is 'numpy'"):
        Trainer(small_model(), examples(), examples(9, 1), SETTINGS, tmp_path).run(resume=True)


@pytest.mark.parametrize(
    ("backend", "dtype", "message"),
    [
        ("numpy", "bfloat16", "dtype 'bfloat16' is not available on backend numpy"),
        ("native", "float64", "dtype is 'float64'; products of training are float32 or bfloat16"),
        ("native", "bf16x3", "dtype is 'bf16x3'"),
        ("native", "int8", "dtype is 'int8'"),
        ("cuda", "float32", "backend 'cuda' is not available"),
    ],
)
def test_a_backend_that_is_not_there(backend, dtype, message):
    with pytest.raises(ValueError, match=message):
        Trainer(small_model(), examples(), None, SETTINGS, None, backend=backend, dtype=dtype)


@pytest.mark.parametrize("sink", [None, lambda grads: None])
@pytest.mark.parametrize("task", ["classify", "tokens"])
def test_a_number_that_is_not_finite_is_named_with_its_text(task, sink):
    model = model_for(task)
    params = {name: x.copy() for name, x in model.params.items()}
    broken = refimpl.ModernBERTForTask(model.config, params, model.head, backend="numpy")
    units = [Unit([np.full(5, n)], u.labels, u.where) for n, u in
             enumerate(units_for(task, [5] * 4))]  # fmt: skip
    params["embeddings.tok_embeddings.weight"][2] = np.inf
    native = NativeStep(broken, list(params), sink=sink)
    with pytest.raises(FloatingPointError, match="step 3, text 2: .* is not finite"):
        native.of_units(task, units, 4.0, batch_size=4, step=2)


def test_a_step_that_did_not_end_leaves_nothing_to_the_next():
    """Rows of the embeddings wait in the engine for the end of a step."""
    model, units = model_for("classify"), units_for("classify", [5, 9, 7, 4])
    params = {name: x.copy() for name, x in model.params.items()}
    mine = refimpl.ModernBERTForTask(model.config, params, model.head, backend="numpy")
    native = NativeStep(mine, list(params))
    how = dict(batch_size=2, seed=1, step=2)
    want = {n: x.tobytes() for n, x in native.of_units("classify", units, 4.0, **how)[1].items()}
    broken = [*units[:2], Unit([np.full(5, VOCAB - 1)], units[2].labels, "text 2"), units[3]]
    own = params["embeddings.tok_embeddings.weight"][VOCAB - 1].copy()
    params["embeddings.tok_embeddings.weight"][VOCAB - 1] = np.inf
    with pytest.raises(FloatingPointError, match="text 2: the loss is not finite"):
        native.of_units("classify", broken, 4.0, **how)
    params["embeddings.tok_embeddings.weight"][VOCAB - 1] = own
    got = native.of_units("classify", units, 4.0, **how)[1]
    assert {n: x.tobytes() for n, x in got.items()} == want


def test_frozen_parameters_get_no_gradient_and_the_others_the_same():
    model, units = model_for("classify"), units_for("classify", [9, 30])
    whole = step(model, "classify", units)[1]
    some = ["layers.1.attn.Wqkv.weight", "classifier.weight"]
    native = NativeStep(model, some)
    _, grads = native.of_units("classify", units, 2.0, batch_size=2, seed=1, step=2)
    assert list(grads) == some and all(x.tobytes() == whole[n] for n, x in grads.items())
