"""`refimpl.train.gradients` beside torch's autograd through transformers' ModernBERT and losses.

float64 with float64 rotary steps: loss and every parameter's gradient within 1e-10 relative.
float32: the error against float64 is at most twice that of torch in float32, over the whole
gradient and in the tensor that is worst. Figures go to the test's properties and `pytest -rP`.
Two things of transformers are set aside: its masked-LM loss rounds the logits to float32 (here:
torch's cross_entropy of the logits as they are), and its embedding gives the row of the padding id
no gradient, also where that id is a real token (`padding_idx`).
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from support.cases import BY_NAME, CASES, REAL, Case, choices, mixed

import refimpl
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.heads import HEADS
from refimpl.train import gradients

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", minversion="5.0")
import hf  # noqa: E402  (it imports both)

pytestmark = pytest.mark.oracle

TASKS = {
    "mask": "masked_lm",
    "classify": "sequence_classification",
    "tokens": "token_classification",
    "answer": "question_answering",
    "choice": "multiple_choice",
}
FLOAT64 = 1e-10  # the promise, per parameter
FLOAT32_FACTOR = 2.0  # our float32 error, of torch's


def labels_for(task: str, case: Case, mask: np.ndarray) -> np.ndarray:
    """Some labels at real tokens, or one per row; the last row always has one."""
    rng = np.random.default_rng(case.seed)
    if task in ("mask", "tokens"):
        classes = case.vocab if task == "mask" else case.labels
        wanted = (mask != 0) & (rng.random(mask.shape) < 0.4)
        wanted[tuple(np.argwhere(mask != 0)[-1])] = True
        return np.where(wanted, rng.integers(0, classes, mask.shape), -100)
    if task == "answer":
        return rng.integers(0, mask.shape[1], (len(mask), 2))
    if task == "choice":
        assert choices(len(mask)) > 1
        return rng.integers(0, choices(len(mask)), len(mask) // choices(len(mask)))
    return rng.integers(0, case.labels, len(mask))


def arrays(task: str, inputs, labels: np.ndarray):
    """ids, mask and labels in the shapes of the task."""
    ids, mask = inputs.input_ids, inputs.mask
    if task == "choice":
        shape = (-1, choices(len(ids)), ids.shape[1])
        ids, mask = ids.reshape(shape), mask.reshape(shape)
    return ids, mask, labels


def ours(task: str, case: Case, inputs, labels, dtype: type):
    config = ModernBertConfig.from_dict(case.config())
    if task == "answer":
        config = config.replace(num_labels=2)
    head = HEADS[TASKS[task]]
    params = case.params(head.kind, dtype)
    model = refimpl.ModernBERTForTask(config, params, head, backend="numpy")
    ids, mask, labels = arrays(task, inputs, labels)
    if task == "classify" and case.labels == 1:
        labels = labels + 0.25
    return gradients(model, {"input_ids": ids, "attention_mask": mask}, labels, task=task)


def theirs(task: str, case: Case, inputs, labels, dtype, exact: bool, attention: str = "sdpa"):
    """Loss and gradients of transformers, under our names."""
    kind, numpy_dtype = TASKS[task], {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    params = case.params(kind, numpy_dtype)
    model = hf.build(case.config(), params, kind, dtype, attention)
    model.model.embeddings.tok_embeddings.padding_idx = None
    if task == "mask" and case.tied:
        model.decoder.weight = model.model.embeddings.tok_embeddings.weight
    ids, mask, labels = arrays(task, inputs, labels)
    labels = torch.from_numpy(labels)
    if task == "answer":
        wanted = {"start_positions": labels[:, 0], "end_positions": labels[:, 1]}
    elif task == "classify" and case.labels == 1:
        wanted = {"labels": labels.to(dtype) + 0.25}
    else:
        wanted = {"labels": labels}
    with hf.exact_rotary(model) if exact else contextlib.nullcontext():
        out = model(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), **wanted
        )
        loss = out.loss
        if task == "mask":
            loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), labels.flatten())
        loss.backward()
    found = {
        name.removeprefix("model."): p.grad.numpy()
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    return loss.item(), found


def missed(got: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> dict[str, float]:
    """|got - truth| / |truth| of each parameter, "all" of the whole gradient.

    A gradient that is nothing but rounding (a bias before a softmax over tokens has gradient 0) is
    measured by the whole gradient's norm.
    """
    total = np.sqrt(sum(float((x.astype(np.float64) ** 2).sum()) for x in truth.values()))
    out, squares = {}, 0.0
    for name, x in truth.items():
        off = np.linalg.norm(got[name].astype(np.float64) - x)
        size = np.linalg.norm(x)
        out[name] = off / (size if size > 1e-9 * total else total)
        squares += off**2
    return out | {"all": np.sqrt(squares) / total}


def of_task(case: Case, task: str) -> Case:
    """With one class there is nothing to choose: a classification is a regression then."""
    return replace(case, labels=2) if task == "tokens" and case.labels == 1 else case


def a_batch(case: Case):
    """The case's batch with the most kinds of padding, rows without a token left out."""
    batch = max(case.batches, key=lambda b: (len(b.rows), -b.seq))
    rows = [(r.length, r.padding) for r in batch.rows if r.length]
    if len(rows) == 1:  # one choice is none
        rows.append((-(-batch.seq // 2), "right"))
    return case.inputs(mixed(batch.seq, *rows))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradients_float64(case: Case, task: str, record_property) -> None:
    case = of_task(case, task)
    inputs = a_batch(case)
    labels = labels_for(task, case, inputs.mask)
    loss, got = ours(task, case, inputs, labels, np.float64)
    their_loss, want = theirs(task, case, inputs, labels, torch.float64, exact=True)
    assert set(want) == set(got)
    assert abs(loss - their_loss) <= FLOAT64 * abs(their_loss)
    figures = missed(got, want)
    worst = max(figures, key=figures.get)
    record_property("float64, worst parameter", f"{worst} {figures[worst]:.3g}")
    print(f"{case.name} {task}: {worst} {figures[worst]:.3g}")
    assert figures[worst] <= FLOAT64, (worst, figures[worst])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradients_float32(case: Case, task: str, record_property) -> None:
    case = of_task(case, task)
    inputs = a_batch(case)
    labels = labels_for(task, case, inputs.mask)
    _, truth = ours(task, case, inputs, labels, np.float64)
    _, got = ours(task, case, inputs, labels, np.float32)
    _, want = theirs(task, case, inputs, labels, torch.float32, exact=False)
    mine, its = missed(got, truth), missed(want, truth)
    worst = max(mine, key=mine.get), max(its, key=its.get)
    for name, a, b in (("all", "all", "all"), ("worst", *worst)):
        ratio = mine[a] / its[b]
        record_property(f"float32 error of torch's, {name}", f"{ratio:.2f}")
        print(f"{case.name} {task} {name}: {a} {mine[a]:.3g}, torch {b} {its[b]:.3g}, {ratio:.2f}")
        assert ratio <= FLOAT32_FACTOR, (name, a, mine[a], b, its[b])


def test_gradients_of_the_base_shape_in_float64(record_property) -> None:
    (base,) = [case for case in REAL if case.name == "base"]
    inputs = base.inputs(mixed(80, (80, "none"), (33, "right")))
    labels = labels_for("mask", base, inputs.mask)
    loss, got = ours("mask", base, inputs, labels, np.float64)
    their_loss, want = theirs("mask", base, inputs, labels, torch.float64, exact=True)
    figures = missed(got, want)
    worst = max(figures, key=figures.get)
    record_property("float64, worst parameter", f"{worst} {figures[worst]:.3g}")
    print(f"base: {worst} {figures[worst]:.3g}, loss {loss}")
    assert abs(loss - their_loss) <= FLOAT64 * their_loss and figures[worst] <= FLOAT64


def test_a_wrong_gradient_is_seen() -> None:
    case = BY_NAME["v4-window6-tied"]
    inputs = a_batch(case)
    labels = labels_for("mask", case, inputs.mask)
    _, truth = ours("mask", case, inputs, labels, np.float64)
    one_row = {n: x.copy() for n, x in truth.items()}
    one_row["embeddings.tok_embeddings.weight"][5] *= 1 + 1e-6
    assert missed(one_row, truth)["embeddings.tok_embeddings.weight"] > FLOAT64
