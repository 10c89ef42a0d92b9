"""Pairs of texts, several tasks over the same hidden states, and random initialisation of heads."""

import numpy as np
import pytest
from support import bounded as b

from refimpl.nlp import NLPTaskConfig, create_multi_task_nlp_head, create_nlp_head

WIDTH = 8
SIMILAR = NLPTaskConfig("same", "paraphrase_detection")
CLASSES = NLPTaskConfig("mood", "sentiment_analysis", num_classes=3)
TOKENS = NLPTaskConfig("names", "named_entity_recognition", num_classes=5)
MASKS = np.array([[1, 1, 0], [1, 1, 1]]), np.array([[1, 1, 1, 1], [1, 0, 0, 0]])


def texts(dtype="float64"):
    rng = np.random.default_rng(1)
    return [rng.standard_normal((2, seq, WIDTH)).astype(dtype) for seq in (3, 4)]


def shaken(head, seed=2):
    rng = np.random.default_rng(seed)
    for name, x in head.params.items():
        head.params[name] = (rng.standard_normal(x.shape) * x.shape[-1] ** -0.5).astype(x.dtype)
    return head


def written_out(head, how, e1, e2):
    """The score of each pair from two embeddings [batch, width], one pair after the other."""
    scores = []
    for i in range(len(e1)):
        x, y = b.exactly(e1[i]), b.exactly(e2[i])
        if how == "learned":
            both = b.concatenate([x, y, b.times(x, y), b.magnitude(b.minus(x, y))])
            p = {name.removeprefix("nlp_head.similarity."): v for name, v in head.params.items()}
            both = b.gelu(b.dense(both, p["dense.weight"], p["dense.bias"]))
            scores.append(b.dense(both, p["output.weight"], p["output.bias"])[0])
            continue
        dot = b.total(b.times(x, y))
        if how == "cosine":
            length = b.times(b.root(b.total(b.times(x, x))), b.root(b.total(b.times(y, y))))
            # taken of unit vectors: each length is off by (n / 2 + 2) eps, which scales every term
            dot.error = dot.error + dot.eps * np.abs(x.value * y.value).sum() * (WIDTH + 4)
            dot = b.ratio(dot, length)
        scores.append(dot)
    return b.stack(scores)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("how", ["cosine", "dot", "learned"])
def test_nlp_pair_scores_its_two_embeddings(how, dtype):
    head = shaken(create_nlp_head(SIMILAR, WIDTH, dtype=dtype, similarity_function=how))
    first, second = texts(dtype)
    got = head(first, MASKS[0], second, MASKS[1])
    assert set(got) == {"similarity_score", "embeddings_1", "embeddings_2"}
    np.testing.assert_array_equal(got["embeddings_1"], head(first, MASKS[0])["embeddings"])
    np.testing.assert_array_equal(got["embeddings_2"], head(second, MASKS[1])["embeddings"])
    assert got["similarity_score"].dtype == dtype
    want = written_out(head, how, got["embeddings_1"], got["embeddings_2"])
    assert want.agrees(got["similarity_score"])


def test_nlp_cosine_of_a_zero_embedding_is_zero():
    head = create_nlp_head(SIMILAR, WIDTH)
    for name in head.params:
        if name.startswith("nlp_head.output"):
            head.params[name] = np.zeros_like(head.params[name])
    first, second = texts("float32")
    assert head(first, None, second)["similarity_score"].tolist() == [0.0, 0.0]


def test_nlp_hidden_size_is_the_width_of_embeddings():
    task = NLPTaskConfig("same", "text_similarity", hidden_size=5)
    for use in (True, False):
        head = create_nlp_head(task, WIDTH, use_intermediate=use)
        assert head(texts("float32")[0])["embeddings"].shape == (2, 5)


def test_nlp_pair_must_have_equally_many_rows():
    first, second = texts()
    with pytest.raises(ValueError, match="hidden_states_2 has 1 rows, hidden_states 2"):
        create_nlp_head(SIMILAR, WIDTH)(first, None, second[:1])
    with pytest.raises(ValueError, match=r"attention_mask_2 has shape \[2, 3\]"):
        create_nlp_head(SIMILAR, WIDTH)(first, None, second, MASKS[0])


@pytest.mark.parametrize("as_mapping", [True, False])
def test_nlp_multi_task_outputs_are_those_of_the_heads_alone(as_mapping):
    tasks = [CLASSES, TOKENS, SIMILAR]
    given = {task.name: task for task in tasks} if as_mapping else tasks
    several = shaken(create_multi_task_nlp_head(given, WIDTH, dtype="float64", pooling_type="mean"))
    hidden = texts()[0]
    outputs = several(hidden, MASKS[0])
    assert list(outputs) == ["mood", "names", "same"]
    for task in tasks:
        options = {} if task is TOKENS else {"pooling_type": "mean"}
        one = create_nlp_head(task, WIDTH, dtype="float64", **options)
        at = f"nlp_head.{task.name}."
        for name in one.params:
            one.params[name] = several.params[at + name.removeprefix("nlp_head.")]
        alone = one(hidden, MASKS[0])
        assert set(alone) == set(outputs[task.name])
        for key, x in alone.items():
            np.testing.assert_array_equal(outputs[task.name][key], x)
    assert sum(name.startswith("nlp_head.") for name in several.params) == len(several.params)


def test_nlp_multi_task_pair_compares_where_a_task_compares():
    several = shaken(create_multi_task_nlp_head([CLASSES, SIMILAR], WIDTH, dtype="float64"))
    first, second = texts()
    got = several(first, MASKS[0], second, MASKS[1])
    one, two = several(first, MASKS[0]), several(second, MASKS[1])
    np.testing.assert_array_equal(got["mood"]["logits"], one["mood"]["logits"])
    np.testing.assert_array_equal(got["same"]["embeddings_2"], two["same"]["embeddings"])
    a, c = one["same"]["embeddings"], two["same"]["embeddings"]
    assert written_out(several, "cosine", a, c).agrees(got["same"]["similarity_score"])


def test_nlp_multi_task_steps_are_tapped_under_the_task():
    several, seen = create_multi_task_nlp_head([CLASSES, TOKENS], WIDTH), []

    def tap(name, x):
        seen.append(name)
        return x

    several.head.forward(several.params, None, texts("float32")[0], None, tap=tap)
    common = ["head.norm", "head.intermediate.dense", "head.intermediate.norm"]
    common += ["head.intermediate.act", "logits"]
    assert seen == ["mood." + n for n in ["pooled", *common]] + ["names." + n for n in common]


@pytest.mark.parametrize("options", [dict(pooling_type="attention"), dict(norm_bias=True)], ids=str)
def test_nlp_head_starts_as_drawn_matrices_unit_norms_and_zero_biases(options):
    head = create_nlp_head(CLASSES, 64, seed=5, **options)
    for name, x in head.params.items():
        if name.endswith("norm.weight"):
            assert (x == 1).all(), name
        elif x.ndim == 1:
            assert (x == 0).all(), name
        else:
            # truncated at two standard deviations of 0.02; float32 rounds the product once
            limit = 2 * 0.02 * (1 + 2 * float(np.finfo(np.float32).eps))
            assert 0 < np.abs(x).max() <= limit, name
            assert len(np.unique(x)) > x.size // 2, name


def test_nlp_head_seed_fixes_the_head_in_every_dtype():
    a, c = (create_nlp_head(CLASSES, WIDTH, seed=1, dtype=d).params for d in ("float32", "float64"))
    other = create_nlp_head(CLASSES, WIDTH, seed=2).params
    for name in a:
        assert np.array_equal(a[name], c[name])
    assert not np.array_equal(a["nlp_head.output.weight"], other["nlp_head.output.weight"])
