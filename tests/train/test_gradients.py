"""`gradients`: the loss and its gradient end to end, by complex steps through forward and loss.

The losses stand here a second time, written plainly from MODEL.md section 14.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.adjoint import TOLERANCE, complex_forward, directions, normal
from support.cases import Case, mixed, single
from support.strategies import batches, models

import refimpl
from refimpl.nlp import NLPTaskConfig
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.reference.heads import HEADS
from refimpl.train import Draws, gradients

STEP = 2.0**-100
KINDS = {
    "mask": "masked_lm",
    "classify": "sequence_classification",
    "tokens": "token_classification",
    "answer": "question_answering",
    "choice": "multiple_choice",
}
SMALL = Case("gradients", "v5", "fsf", 24, 3, 20, 31, 6, 160000.0, 10.0, bias="namcd", labels=4)
BATCH = mixed(11, (11, "none"), (7, "right"), (4, "left"), (8, "inside"))


def model_of(case: Case, task: str, dtype: type = np.float64, **overrides) -> refimpl.ModernBERT:
    kind = KINDS[task]
    config = ModernBertConfig.from_dict({**case.config(), **overrides})
    if task == "answer":
        config = config.replace(num_labels=2)
    params = case.params(kind, dtype)
    return refimpl.ModernBERTForTask(config, params, HEADS[kind], backend="numpy")


def labels_for(task: str, mask: np.ndarray, classes: int, seed: int = 0) -> np.ndarray:
    """Random labels, a third of them not counted; one of them always is."""
    rng = np.random.default_rng(seed)
    if task in ("mask", "tokens"):
        labels = np.where((mask != 0) & (rng.random(mask.shape) < 0.6), 0, -100)
        labels[labels == 0] = rng.integers(0, classes, (labels == 0).sum())
        row, column = np.argwhere(mask != 0)[-1]
        labels[row, column] = classes - 1
        return labels
    n = mask.shape[-1] if task == "answer" else classes
    shape = (len(mask), 2) if task == "answer" else (len(mask),)
    labels = np.where(rng.random(shape) < 0.3, -100, rng.integers(0, n, shape))
    labels[-1] = n - 1
    return labels


# -- the losses, plainly --------------------------------------------------------------------------


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.real.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def cross_entropy(logits, labels, smoothing=0.0, weights=None):
    """(total, count), one label after the other."""
    total, count, classes = 0.0, 0.0, logits.shape[-1]
    weights = np.ones(classes) if weights is None else weights
    for row, label in zip(logits.reshape(-1, classes), labels.reshape(-1), strict=True):
        if label == -100:
            continue
        log_p = log_softmax(row)
        total = total - (1 - smoothing) * weights[label] * log_p[label]
        if smoothing:
            total = total - smoothing / classes * (weights * log_p).sum()
        count += weights[label]
    return total, count


def binary(logits, labels):
    positive, negative = np.log(1 + np.exp(-logits)), np.log(1 + np.exp(logits))
    return (labels * positive + (1 - labels) * negative).sum(), logits.size


def squares(values, labels):
    return ((values - labels.reshape(values.shape)) ** 2).sum(), values.size


def plain_loss(model, params, batch, labels, how="cross_entropy", **options):
    """Loss by the numpy forward, from params that may be complex."""
    flat = {n: x.reshape(-1, x.shape[-1]) for n, x in batch.items()}
    hidden = encode(params, model.config, **flat)
    hidden = hidden.reshape(*batch["input_ids"].shape, -1)
    out = model.head.forward(params, model.config, hidden, batch.get("attention_mask"))
    if "start_logits" in out:
        a = cross_entropy(out["start_logits"], labels[:, 0], **options)
        b = cross_entropy(out["end_logits"], labels[:, 1], **options)
        return (a[0] + b[0]) / (a[1] + b[1])
    loss = {"cross_entropy": cross_entropy, "binary": binary, "squares": squares}[how]
    total, count = loss(out["logits"], labels, **options)
    return total / count


def check(model, inputs, labels, task, how="cross_entropy", seed=1, **options):
    """Loss and directional derivative against the plain loss, for a random direction."""
    named = {"smoothing": "label_smoothing", "weights": "class_weights"}
    loss, grads = gradients(
        model, inputs, labels, task=task, **{named[n]: x for n, x in options.items()}
    )
    params = dict(model.params)
    assert list(grads) == list(params)
    for name, x in params.items():
        assert grads[name].shape == x.shape and grads[name].dtype == x.dtype, name
    v = directions(params, seed)
    moved = {name: x + 1j * STEP * v[name] for name, x in params.items()}
    with complex_forward():
        want = complex(plain_loss(model, moved, inputs, labels, how, **options))
    assert abs(loss - want.real) <= 1e-12 * max(abs(want.real), 1)
    got, derivative = sum((grads[n] * v[n]).sum() for n in v), want.imag / STEP
    scale = sum(np.linalg.norm(grads[n]) * np.linalg.norm(v[n]) for n in v)
    assert abs(got - derivative) <= TOLERANCE * scale
    return loss, grads


def inputs_of(case: Case, batch, task: str) -> dict[str, np.ndarray]:
    x = case.inputs(batch)
    out = {"input_ids": x.input_ids, "attention_mask": x.mask}
    if task == "choice":
        other = {"input_ids": (x.input_ids + 1) % case.vocab, "attention_mask": x.mask}
        out = {n: np.stack([a, other[n]], axis=1) for n, a in out.items()}
    return out


def classes_of(model, task: str, inputs) -> int:
    if task == "mask":
        return model.config.vocab_size
    return inputs["input_ids"].shape[1] if task == "choice" else model.config.num_labels


def a_case(case: Case, batch, task: str, seed: int = 0, **overrides):
    model, inputs = model_of(case, task, **overrides), inputs_of(case, batch, task)
    labels = labels_for(task, inputs["attention_mask"], classes_of(model, task, inputs), seed)
    return model, inputs, labels


@pytest.mark.parametrize("task", KINDS)
@given(models(), st.data(), st.integers(0, 2**16))
def test_gradient_of_every_task(task, case, data, seed):
    batch = data.draw(batches(case.half_window, 24))
    if task == "classify" and case.labels == 1:
        case = Case(**{**vars(case), "labels": 2})  # one label is a regression: below
    model, inputs, labels = a_case(case, batch, task, seed)
    check(model, inputs, labels, task, seed=seed)


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_gradient_with_smoothing(task, pooling):
    model, inputs, labels = a_case(SMALL, BATCH, task, classifier_pooling=pooling)
    check(model, inputs, labels, task, smoothing=0.1)


@pytest.mark.parametrize("task", ["classify", "tokens"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradient_with_class_weights(task, smoothing):
    model, inputs, labels = a_case(SMALL, BATCH, task)
    weights = np.array([0.5, 2.0, 1.0, 3.0])
    check(model, inputs, labels, task, weights=weights, smoothing=smoothing)


def test_gradient_of_several_labels():
    model, inputs, _ = a_case(SMALL, BATCH, "classify")
    labels = (normal(1, 4, 4) > 0).astype(np.float64)
    check(model, inputs, labels, "classify", "binary")
    said = model_of(SMALL, "classify", problem_type="multi_label_classification")
    check(said, inputs, labels.astype(np.int64), "classify", "binary")


@pytest.mark.parametrize("labels", [1, 3])
def test_gradient_of_a_regression(labels):
    case = Case(**{**vars(SMALL), "labels": labels})
    problem = {} if labels == 1 else {"problem_type": "regression"}
    model, inputs, _ = a_case(case, BATCH, "classify", **problem)
    wanted = normal(2, 4, labels)
    check(model, inputs, wanted[:, 0] if labels == 1 else wanted, "classify", "squares")


# -- packed, micro-batches, dtypes ----------------------------------------------------------------


def same(a, b, tolerance=1e-12):
    """Each gradient, relative to its norm; those near 0, to a hundredth of the whole gradient's."""
    (loss_a, grads_a), (loss_b, grads_b) = a, b
    assert abs(loss_a - loss_b) <= tolerance * abs(loss_b)
    floor = 0.01 * np.sqrt(sum((x**2).sum() for x in grads_b.values()))
    for name, x in grads_b.items():
        missed = np.linalg.norm(grads_a[name] - x)
        assert missed <= tolerance * max(np.linalg.norm(x), floor), name


def pack(inputs, labels, task):
    """The same sequences end to end; rows must be padded on the right."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"] != 0
    lengths = mask.sum(axis=-1).reshape(-1)
    packed = {"input_ids": ids[mask], "cu_seqlens": np.cumsum([0, *lengths])}
    return packed, labels[mask] if task in ("mask", "tokens") else labels


RIGHT = mixed(11, (11, "none"), (7, "right"), (3, "right"), (1, "right"))


@pytest.mark.parametrize("drawn", [None, Draws(3, 5)], ids=["plain", "dropout"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("task", [t for t in KINDS if t != "answer"])
def test_packed_is_padded(task, pooling, drawn):
    rates = dict.fromkeys(
        ("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"), 0.2
    )
    model, inputs, labels = a_case(SMALL, RIGHT, task, classifier_pooling=pooling, **rates)
    packed, own = pack(inputs, labels, task)
    padded = gradients(model, inputs, labels, task=task, draws=drawn)
    same(gradients(model, packed, own, task=task, draws=drawn), padded)


def test_answers_in_packed_sequences_have_no_padding_to_point_at():
    """Padded, a checkpoint's head scores the padding too, as in transformers; packed, there is
    none: each sequence then is what it is alone."""
    model, inputs, labels = a_case(SMALL, RIGHT, "answer")
    labels = np.array([[0, 10], [6, -100], [2, 1], [0, 0]])
    packed, _ = pack(inputs, labels, "answer")
    together = gradients(model, packed, labels, task="answer", normaliser=7.0)
    alone, total = 0.0, {name: np.zeros_like(x) for name, x in model.params.items()}
    for row, wanted, n in zip(inputs["input_ids"], labels, (11, 7, 3, 1), strict=True):
        loss, grads = gradients(model, row[None, :n], [wanted], task="answer", normaliser=7.0)
        alone += loss
        total = {name: x + grads[name] for name, x in total.items()}
    same(together, (alone, total))


@pytest.mark.parametrize("drawn", [False, True], ids=["plain", "dropout"])
@pytest.mark.parametrize("task", KINDS)
def test_micro_batches_add_up(task, drawn):
    rates = {"attention_dropout": 0.1, "mlp_dropout": 0.3, "classifier_dropout": 0.2}
    model, inputs, labels = a_case(SMALL, BATCH, task, **rates)
    counted = float((labels != -100).sum())
    draws = (lambda row: Draws(1, 2, row)) if drawn else (lambda row: None)
    whole = gradients(model, inputs, labels, task=task, draws=draws(0))
    loss, total = 0.0, {name: np.zeros_like(x) for name, x in model.params.items()}
    for some in (slice(0, 1), slice(1, 4)):
        part = {name: x[some] for name, x in inputs.items()}
        each = inputs["input_ids"].shape[1] if task == "choice" else 1
        first = draws(some.start * each)
        own, grads = gradients(
            model, part, labels[some], task=task, normaliser=counted, draws=first
        )
        loss += own
        total = {name: x + grads[name] for name, x in total.items()}
    same((loss, total), whole)


@pytest.mark.parametrize("task", KINDS)
def test_float32_stays_float32_and_near_float64(task):
    _, inputs, labels = a_case(SMALL, BATCH, task)
    truth = gradients(model_of(SMALL, task), inputs, labels, task=task)
    loss, grads = gradients(model_of(SMALL, task, np.float32), inputs, labels, task=task)
    assert {x.dtype for x in grads.values()} == {np.dtype(np.float32)}
    same((loss, grads), truth, 1e-5)


def test_a_parameter_that_is_not_used_has_a_zero_gradient():
    model = refimpl.create_modern_bert_with_head(
        "tiny",
        [NLPTaskConfig("a", "text_regression"), NLPTaskConfig("b", "topic_classification", 3)],
        dtype="float64",
        backend="numpy",
        bert_config_overrides=dict(num_layers=1),
    )
    labels = {"a": [0.5], "b": [-100]}
    _, grads = gradients(model, [[1, 5, 2]], labels, task="several", normaliser=1.0)
    assert not grads["nlp_head.b.output.weight"].any()
    assert grads["nlp_head.a.output.weight"].any()
    unseen = np.setdiff1d(np.arange(8192), [1, 5, 2])
    assert not grads["embeddings.tok_embeddings.weight"][unseen].any()
    assert grads["embeddings.tok_embeddings.weight"][[1, 5, 2]].any(axis=1).all()


@pytest.mark.parametrize("task", ["mask", "tokens"])
def test_a_micro_batch_without_a_label_adds_nothing(task):
    model, inputs, labels = a_case(SMALL, BATCH, task)
    loss, grads = gradients(model, inputs, np.full_like(labels, -100), task=task, normaliser=3.0)
    assert loss == 0 and not any(x.any() for x in grads.values())


# -- configurable heads ---------------------------------------------------------------------------

CONFIGURABLE = {
    "classify": ("classify", dict(task_type="emotion_detection", num_classes=4), "cross_entropy"),
    "several labels": (
        "classify",
        dict(task_type="topic_classification", num_classes=4, multi_label=True),
        "binary",
    ),
    "one class": ("classify", dict(task_type="spam_detection", num_classes=1), "binary"),
    "regression": ("classify", dict(task_type="text_regression"), "squares"),
    "tokens": ("tokens", dict(task_type="named_entity_recognition", num_classes=4), None),
    "mask": ("mask", dict(task_type="masked_language_modeling"), None),
    "answer": ("answer", dict(task_type="question_answering"), None),
    "choice": ("choice", dict(task_type="multiple_choice"), None),
}


@pytest.mark.parametrize("name", CONFIGURABLE)
def test_gradient_of_configurable_heads(name):
    task, of_task, how = CONFIGURABLE[name]
    model = refimpl.create_modern_bert_with_head(
        "tiny", NLPTaskConfig("it", **of_task), dtype="float64", backend="numpy",
        bert_config_overrides=dict(
            num_layers=2, hidden_size=24, num_heads=3, intermediate_size=20, vocab_size=31,
            local_attention=6,
        ),
    )  # fmt: skip
    inputs = inputs_of(SMALL, BATCH, task)
    n = {"several labels": 4, "one class": 1, "regression": 1}.get(name)
    if how == "binary":
        labels = (normal(1, 4, n) > 0).astype(np.float64)
    elif how == "squares":
        labels = normal(1, 4, 1)
    else:
        classes = {"mask": 31, "choice": 2}.get(task, 4)
        labels = labels_for(task, inputs["attention_mask"], classes)
        if task == "answer":
            labels = np.array([[0, 10], [6, -100], [7, 8], [0, 10]])  # at real tokens
    check(model, inputs, labels, task, how or "cross_entropy")


def test_a_task_of_weight_0_adds_nothing():
    tasks = [
        NLPTaskConfig("a", "text_regression"),
        NLPTaskConfig("b", "emotion_detection", 3, loss_weight=0.0),
    ]
    model = refimpl.create_modern_bert_with_head(
        "tiny", tasks, dtype="float64", backend="numpy", bert_config_overrides=dict(num_layers=1)
    )
    loss, grads = gradients(model, [[1, 5]], {"a": [2.0], "b": [1]}, task="several")
    assert loss > 0 and not grads["nlp_head.b.output.weight"].any()


def test_several_tasks_are_their_weighted_sum():
    tasks = [
        NLPTaskConfig("mood", "emotion_detection", 3, loss_weight=0.5, label_smoothing=0.1),
        NLPTaskConfig("names", "named_entity_recognition", 4, loss_weight=2.0),
    ]
    model = refimpl.create_modern_bert_with_head(
        "tiny", tasks, dtype="float64", backend="numpy", bert_config_overrides=dict(num_layers=2)
    )
    ids, labels = [[1, 5, 7, 2]], {"mood": [2], "names": [[-100, 1, 3, -100]]}
    loss, grads = gradients(model, ids, labels, task="several")
    params = dict(model.params)
    v = directions(params, 1)
    moved = {name: x + 1j * STEP * v[name] for name, x in params.items()}
    with complex_forward():
        hidden = encode(moved, model.config, np.array(ids))
        out = model.head.forward(moved, model.config, hidden, np.ones((1, 4)))
    mood = cross_entropy(out["mood"]["logits"], np.array([2]), 0.1)
    names = cross_entropy(out["names"]["logits"], np.array(labels["names"]))
    want = 0.5 * mood[0] / mood[1] + 2.0 * names[0] / names[1]
    assert abs(loss - want.real) <= 1e-12
    got = sum((grads[n] * v[n]).sum() for n in v)
    scale = sum(np.linalg.norm(grads[n]) * np.linalg.norm(v[n]) for n in v)
    assert abs(got - want.imag / STEP) <= TOLERANCE * scale


# -- refusals -------------------------------------------------------------------------------------

REFUSED = {
    "unknown task": (dict(task="sing"), "task is 'sing'; known: mask, classify"),
    "another head": (dict(task="tokens"), "trains a token_classification head; model has"),
    "label outside": (
        dict(labels=[0, 1, 2, 4]),
        r"labels\[3\] is 4; it must be in 0 .. 3, or -100",
    ),
    "not integers": (dict(labels=["a", "b", "c", "d"]), "labels has dtype"),
    "shape": (dict(labels=[0, 1]), r"labels has shape \[2\]; it must be \[4\]"),
    "ragged": (dict(labels=[[0], [1, 2]]), "labels is not rectangular"),
    "nothing counted": (dict(labels=[-100] * 4), "labels holds nothing to learn from"),
    "normaliser": (dict(normaliser=0.0), "normaliser is 0.0; it must be positive"),
    "smoothing": (dict(label_smoothing=1.0), "label_smoothing is 1.0; it must be in"),
    "weights": (dict(class_weights=[1, 2]), r"class_weights has shape \[2\]; it must be \[4\]"),
    "weight": (dict(class_weights=[1, 2, -1, 1]), r"class_weights\[2\] is -1; it must be positive"),
    "packed": (
        dict(inputs={"input_ids": [1, 2], "cu_seqlens": [0, 2], "attention_mask": [1, 1]}),
        "inputs has the key 'attention_mask' beside cu_seqlens",
    ),
    "draws": (dict(draws=Draws(-1)), "draws.seed is -1; it must be in 0"),
}


def test_options_that_a_loss_does_not_read_are_refused():
    regression = {"problem_type": "regression"}
    model, inputs, _ = a_case(SMALL, BATCH, "classify", **regression)
    call = dict(task="classify", labels=np.zeros((4, 4)))
    for option in (dict(label_smoothing=0.1), dict(class_weights=[1, 1, 1, 1])):
        with pytest.raises(ValueError, match="the loss of regression does not use it"):
            gradients(model, inputs, **call, **option)
    model, inputs, labels = a_case(SMALL, BATCH, "answer")
    with pytest.raises(ValueError, match="class_weights is .*; the loss of answer does not"):
        gradients(model, inputs, labels, task="answer", class_weights=[1] * 11)


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_by_name(name):
    change, message = REFUSED[name]
    model, inputs, labels = a_case(SMALL, BATCH, "classify")
    call = dict(inputs=inputs, labels=labels, task="classify") | change
    with pytest.raises(ValueError, match=message):
        gradients(model, **call)


def test_labels_are_checked_before_the_forward_pass(monkeypatch):
    from refimpl.train import loss_gradients

    def never(*args, **kwargs):
        raise AssertionError("computed first")

    monkeypatch.setattr(loss_gradients, "encode", never)
    for task in KINDS:
        model, inputs, labels = a_case(SMALL, BATCH, task)
        with pytest.raises(ValueError, match="labels"):
            gradients(model, inputs, labels + 1000, task=task)


def test_a_label_at_padding_is_refused():
    model, inputs, labels = a_case(SMALL, BATCH, "tokens")
    labels[1, 9] = 2
    with pytest.raises(ValueError, match=r"labels\[1, 9\] is 2, but the mask hides that token"):
        gradients(model, inputs, labels, task="tokens")


def test_an_encoder_has_no_task():
    model = refimpl.ModernBERT.from_variant("tiny", num_layers=1)
    with pytest.raises(ValueError, match="model has no head"):
        gradients(model, [[1, 2]], [0], task="classify")


def test_a_gradient_that_is_not_finite_is_named():
    model = model_of(SMALL, "classify")
    params = dict(model.params)
    params["layers.1.mlp.Wi.weight"] = np.full_like(params["layers.1.mlp.Wi.weight"], np.nan)
    broken = refimpl.ModernBERTForTask(model.config, params, model.head, backend="numpy")
    inputs = inputs_of(SMALL, single(5), "classify")
    with pytest.raises(FloatingPointError, match="the loss is not finite"):
        gradients(broken, inputs, [1], task="classify")
