"""Every family of configurable head against its pipeline written out token by token in float64."""

import numpy as np
import pytest
from support import bounded as b

from refimpl.nlp import NLPTaskConfig, NLPTaskType, create_nlp_head

WIDTH, BATCH, SEQ = 12, 4, 5
# Right padding, holes, left padding, none. No empty row: it is looked at apart.
MASK = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
POOLED = {
    "sequence_classification": dict(task_type="text_classification", num_classes=3),
    "multi_label": dict(task_type="topic_classification", num_classes=3, multi_label=True),
    "one_class": dict(task_type="spam_detection", num_classes=1),
    "regression": dict(task_type="text_regression"),
    "text_similarity": dict(task_type="text_similarity"),
    "multiple_choice": dict(task_type="multiple_choice"),
}
PER_TOKEN = {
    "token_classification": dict(task_type="named_entity_recognition", num_classes=4),
    "question_answering": dict(task_type="question_answering"),
    "masked_lm": dict(task_type="masked_language_modeling", vocabulary_size=9),
}
TASKS = {**POOLED, **PER_TOKEN}


def build(name, dtype="float64", task=None, **options):
    """A head whose norms and biases are random too, so that leaving one out is seen."""
    head = create_nlp_head(
        NLPTaskConfig(name="t", **TASKS[name], **(task or {})), WIDTH, dtype=dtype, **options
    )
    rng = np.random.default_rng(3)
    for key, x in head.params.items():
        head.params[key] = (rng.standard_normal(x.shape) * x.shape[-1] ** -0.5).astype(dtype)
    return head


def hidden_states(dtype="float64", seed=0, *lead):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((*(lead or (BATCH,)), SEQ, WIDTH)).astype(dtype)


def param(head, name):
    return head.params.get("nlp_head." + name)


def dense(head, name, x):
    return b.dense(x, param(head, name + ".weight"), param(head, name + ".bias"))


def norm(head, name, x, eps=1e-5):
    return b.layer_norm(x, param(head, name + ".weight"), param(head, name + ".bias"), eps)


def pooled(head, how, row, mask):
    """One vector of one sequence [seq, width], looking at its tokens one by one."""
    real = [j for j in range(SEQ) if mask[j]]
    if how == "cls":
        return row[0]
    if how == "last":
        return row[real[-1]]
    if how == "max":
        best = [max(real, key=lambda j, d=d: row.value[j, d]) for d in range(WIDTH)]
        return row[best, range(WIDTH)]
    if how == "mean":
        sums = b.total(b.Bounded(row.value[real].T, row.error[real].T, row.eps))
        return b.ratio(sums, b.exactly_like(np.array(float(len(real))), sums))
    scores = [
        b.dense(
            b.tanh(b.dense(row[j], param(head, "pooling.attention.weight"), None)),
            param(head, "pooling.score.weight"),
            None,
        )[0]
        for j in real
    ]
    weights = b.softmax(b.stack(scores))
    columns = b.Bounded(row.value[real].T, row.error[real].T, row.eps)
    spread = b.Bounded(
        np.broadcast_to(weights.value, columns.value.shape),
        np.broadcast_to(weights.error, columns.value.shape),
        row.eps,
    )
    return b.total(b.times(columns, spread))


def after_pooling(head, x, use_intermediate=True, eps=1e-5):
    x = norm(head, "norm", x, eps)
    if use_intermediate:
        x = norm(head, "intermediate.norm", dense(head, "intermediate.dense", x), eps)
        x = b.gelu(x)
    return dense(head, "output", x)


def expected(name, head, hidden, mask, how="cls", **options):
    """The output Dense of every row, and from it the family's outputs."""
    if name in PER_TOKEN:
        y = after_pooling(head, b.exactly(hidden), **options)
    else:
        rows = [pooled(head, how, b.exactly(hidden[i]), mask[i]) for i in range(len(hidden))]
        y = b.stack([after_pooling(head, row, **options) for row in rows])
    if name == "sequence_classification":
        return {"logits": y, "probabilities": b.softmax(y)}
    if name in ("multi_label", "one_class"):
        return {"logits": y, "probabilities": b.sigmoid(y)}
    if name == "regression":
        return {"logits": y, "values": y[:, 0]}
    if name == "text_similarity":
        return {"embeddings": y}
    return {"logits": y}


def check(got, want):
    assert set(got) == set(want)
    for key in want:
        assert want[key].agrees(got[key]), key


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("how", ["cls", "mean", "max", "last", "attention"])
@pytest.mark.parametrize("name", [n for n in POOLED if n != "multiple_choice"])
def test_nlp_pooled_head_equals_its_pipeline(name, how, dtype):
    head, hidden = build(name, dtype, pooling_type=how), hidden_states(dtype)
    got = head(hidden, MASK)
    assert {x.dtype for x in got.values()} == {np.dtype(dtype)}
    check(got, expected(name, head, hidden, MASK, how))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nlp_token_head_classifies_every_token(dtype):
    head, hidden = build("token_classification", dtype), hidden_states(dtype)
    got = head(hidden, MASK)
    want = expected("token_classification", head, hidden, MASK)["logits"]
    assert want.agrees(got["logits"])
    assert got["predictions"].dtype == np.int64
    best = [[int(np.argmax(token)) for token in row] for row in want.value]
    assert got["predictions"].tolist() == best


def test_nlp_vocabulary_head_scores_every_entry_at_every_token():
    head, hidden = build("masked_lm"), hidden_states()
    got = head(hidden, MASK)
    assert got["logits"].shape == (BATCH, SEQ, 9)
    check(got, expected("masked_lm", head, hidden, MASK))


def test_nlp_question_head_scores_start_and_end_and_never_padding():
    head, hidden = build("question_answering"), hidden_states()
    got = head(hidden, MASK)
    want = expected("question_answering", head, hidden, MASK)["logits"]
    assert set(got) == {"start_logits", "end_logits"}
    for column, key in enumerate(("start_logits", "end_logits")):
        real = MASK == 1
        assert want[..., column][real].agrees(got[key][real])
        assert (got[key][~real] == -np.inf).all()
    unmasked = head(hidden)
    assert all(np.isfinite(x).all() for x in unmasked.values())


@pytest.mark.parametrize("how", ["cls", "mean", "attention"])
def test_nlp_choice_head_scores_each_choice_and_softmaxes_over_them(how):
    head = build("multiple_choice", pooling_type=how)
    hidden = hidden_states("float64", 0, 2, 2)
    got = head(hidden, MASK.reshape(2, 2, SEQ))
    want = expected("multiple_choice", head, hidden.reshape(4, SEQ, WIDTH), MASK, how)["logits"]
    logits = b.Bounded(want.value.reshape(2, 2), want.error.reshape(2, 2), want.eps)
    check(got, {"logits": logits, "probabilities": b.softmax(logits)})


@pytest.mark.parametrize("name", ["sequence_classification", "masked_lm"])
@pytest.mark.parametrize(
    "options",
    [
        dict(use_intermediate=False),
        dict(norm_bias=True),
        dict(norm_eps=0.5),
        dict(intermediate_size=7),
        dict(intermediate_size=7, norm_bias=True, norm_eps=0.25),
    ],
    ids=str,
)
def test_nlp_head_option_changes_the_pipeline_as_it_says(name, options):
    head, hidden = build(name, **options), hidden_states()
    got = head(hidden, MASK)
    eps = options.get("norm_eps", 1e-5)
    use = options.get("use_intermediate", True)
    check(got, expected(name, head, hidden, MASK, use_intermediate=use, eps=eps))
    plain = build(name)(hidden, MASK)
    assert not np.array_equal(got["logits"], plain["logits"])


def test_nlp_head_activation_is_the_named_one():
    head, hidden = build("sequence_classification", activation_type="relu"), hidden_states()
    seen = {}
    head.head.forward(head.params, None, hidden, MASK, tap=lambda name, x: seen.setdefault(name, x))
    assert list(seen) == [
        "pooled", "head.norm", "head.intermediate.dense", "head.intermediate.norm",
        "head.intermediate.act", "logits",
    ]  # fmt: skip
    before, after = seen["head.intermediate.norm"], seen["head.intermediate.act"]
    assert np.array_equal(after, np.where(before > 0, before, 0))
    assert (before < 0).any()


def test_nlp_hidden_size_and_attention_pooling_of_the_task_are_the_options_of_that_name():
    hidden = hidden_states()
    by_task = build("sequence_classification", task=dict(hidden_size=7, use_attention_pooling=True))
    by_option = build("sequence_classification", intermediate_size=7, pooling_type="attention")
    assert by_task.head.shapes() == by_option.head.shapes()
    assert by_task.head.shapes()["nlp_head.intermediate.dense.weight"] == (7, WIDTH)
    assert "nlp_head.pooling.score.weight" in by_task.head.shapes()
    check(
        by_task(hidden, MASK),
        expected("sequence_classification", by_option, hidden, MASK, "attention"),
    )


@pytest.mark.parametrize("how", ["mean", "max", "last", "attention"])
def test_nlp_pooled_head_never_reads_padding_be_it_nan(how):
    head, hidden = build("sequence_classification", pooling_type=how), hidden_states()
    poisoned = np.where(MASK[..., None] == 0, np.nan, hidden)
    for key, x in head(poisoned, MASK).items():
        np.testing.assert_array_equal(x, head(hidden, MASK)[key])


@pytest.mark.parametrize("how", ["cls", "mean", "max", "last", "attention"])
def test_nlp_head_of_an_empty_row_is_that_of_a_zero_vector(how):
    head = build("text_similarity", pooling_type=how)
    mask = MASK.copy()
    mask[1] = 0
    got = head(hidden_states(), mask)["embeddings"]
    assert np.isfinite(got).all()
    zero = after_pooling(head, b.exactly(np.zeros(WIDTH)))
    assert zero.agrees(got[1])


@pytest.mark.parametrize("name", sorted(TASKS))
def test_nlp_head_without_mask_sees_every_token(name):
    lead = (2, 2) if name == "multiple_choice" else (BATCH,)
    head, hidden = build(name), hidden_states("float64", 0, *lead)
    everything = head(hidden, np.ones((*lead, SEQ), int))
    for key, x in head(hidden).items():
        np.testing.assert_array_equal(x, everything[key])


def test_nlp_head_takes_a_dict():
    head, hidden = build("sequence_classification", pooling_type="mean"), hidden_states()
    got = head({"hidden_states": hidden, "attention_mask": MASK})
    np.testing.assert_array_equal(got["logits"], head(hidden, MASK)["logits"])


@pytest.mark.parametrize("task", [t for t in NLPTaskType.all_tasks()], ids=str)
def test_nlp_every_task_has_its_head_or_is_refused_with_those_served(task):
    from refimpl.nlp.task_types import FAMILIES

    needs = {"masked_lm": dict(vocabulary_size=9)}
    family = FAMILIES.get(task)
    extra = needs.get(family, {})
    if family in ("sequence_classification", "token_classification"):
        extra = dict(num_classes=3)
    config = NLPTaskConfig("t", task, **extra)
    if family is None:
        with pytest.raises(ValueError, match=f"'{task}' has no head; served: text_classification"):
            create_nlp_head(config, WIDTH)
        return
    hidden = hidden_states("float32", 0, *((2, 3) if family == "multiple_choice" else (2,)))
    outputs = create_nlp_head(config, WIDTH)(hidden)
    shapes = {key: x.shape for key, x in outputs.items()}
    assert (
        shapes
        == {
            "sequence_classification": {"logits": (2, 3), "probabilities": (2, 3)},
            "regression": {"logits": (2, 1), "values": (2,)},
            "token_classification": {"logits": (2, SEQ, 3), "predictions": (2, SEQ)},
            "question_answering": {"start_logits": (2, SEQ), "end_logits": (2, SEQ)},
            "text_similarity": {"embeddings": (2, WIDTH)},
            "masked_lm": {"logits": (2, SEQ, 9)},
            "multiple_choice": {"logits": (2, 3), "probabilities": (2, 3)},
        }[family]
    )
