"""The backward passes of the encoder and of every head by the dot-product test, in float64.

Models, lengths, masks and windows are drawn; directions run over every parameter at once.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.adjoint import check, derivative, directions, normal
from support.cases import HEAD_KINDS
from support.strategies import batches, models

from refimpl.nlp.head import nlp_head
from refimpl.nlp.task_config import NLPTaskConfig
from refimpl.reference.config import ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.reference.heads import HEADS
from refimpl.reference.params import encoder_shapes
from refimpl.reference.sentence import Dense, LayerNorm, Normalize, Pooling, SentenceHead
from refimpl.reference.taps import record
from refimpl.train import encoder, heads, nlp_heads, sentence

MOST_TOKENS = 40


def random_params(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Unit-gain matrices, norms near 1: every term of the backward pass weighs."""
    out = {}
    for n, (name, shape) in enumerate(shapes.items()):
        x = np.random.default_rng([seed, n]).standard_normal(shape)
        near_one = name.endswith("norm.weight")
        out[name] = 1.0 + 0.3 * x if near_one else x / shape[-1] ** 0.5
    return out


def check_encoder(params, config, inputs, seed):
    steps = {}
    encode(params, config, **inputs, tap=record(steps))

    def back(u):
        grads = {}
        encoder.backward(params, config, steps, u, grads, inputs)
        return grads

    return check(lambda p: encode(p, config, **inputs), back, params, seed)


@st.composite
def encoders(draw):
    case = draw(models())
    batch = draw(batches(case.half_window, MOST_TOKENS))
    return case, case.inputs(batch), draw(st.integers(0, 2**16))


@given(encoders())
def test_encoder(drawn):
    case, inputs, seed = drawn
    given_inputs = {"input_ids": inputs.input_ids, "attention_mask": inputs.given_mask}
    config = ModernBertConfig.from_dict(case.config())
    check_encoder(case.params(), config, given_inputs, seed)


@given(encoders())
def test_encoder_packed(drawn):
    case, inputs, seed = drawn
    lengths = [n for n in inputs.mask.sum(axis=1) if n]
    ids = np.concatenate([row[:n] for row, n in zip(inputs.input_ids, lengths, strict=False)])
    packed = {"input_ids": ids, "cu_seqlens": np.cumsum([0, *lengths])}
    check_encoder(case.params(), ModernBertConfig.from_dict(case.config()), packed, seed)


EVERYTHING = ModernBertConfig.from_dict(dict(
    vocab_size=11, hidden_size=12, intermediate_size=10, num_hidden_layers=3, type_vocab_size=3,
    num_attention_heads=3, local_attention=4, norm_bias=True, attention_bias=True, mlp_bias=True,
    pad_token_id=0, bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2,
))  # fmt: skip


@pytest.mark.parametrize("types", [None, np.array([[0, 0, 1, 1, 2], [2, 2, 0, 0, 0]])])
def test_encoder_with_token_types_and_positions(types):
    inputs = {
        "input_ids": np.array([[1, 5, 5, 2, 0], [1, 3, 4, 9, 2]]),
        "attention_mask": np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]),
        "token_type_ids": types,
        "position_ids": np.array([[0, 1, 2, 7, 9], [4, 4, 4, 1, 0]]),
    }
    check_encoder(random_params(encoder_shapes(EVERYTHING), 1), EVERYTHING, inputs, 2)


def test_encoder_from_embeddings_gives_their_gradient():
    params = random_params(encoder_shapes(EVERYTHING), 1)
    x, steps = {"e": normal(3, 2, 5, 12)}, {}
    encode(params, EVERYTHING, inputs_embeds=x["e"], tap=record(steps))

    def back(u):
        grads = {}
        d = encoder.backward(params, EVERYTHING, steps, u, grads, {"inputs_embeds": x["e"]})
        assert "embeddings.tok_embeddings.weight" not in grads
        return {"e": d}

    check(lambda a: encode(params, EVERYTHING, inputs_embeds=a["e"]), back, x)


def test_taps_see_the_gradient_of_every_step_in_reverse():
    """What the tap is shown at a step is the derivative by what the forward's tap puts there."""
    params = random_params(encoder_shapes(EVERYTHING), 1)
    inputs = {"input_ids": np.array([[1, 5, 5, 2, 0]])}
    steps, gradients, u = {}, {}, normal(7, 1, 5, 12)
    encode(params, EVERYTHING, **inputs, tap=record(steps))
    encoder.backward(params, EVERYTHING, steps, u, {}, inputs, tap=record(gradients))
    shown = [name for name in steps if not name.startswith("rope.")]
    complex_params = {name: x.astype(complex) for name, x in params.items()}
    assert set(gradients) == set(shown)
    layer = [name for name in gradients if name.startswith("layers.1.")]
    assert [n.split(".", 2)[2] for n in layer] == [
        "residual_2", "mlp_out", "glu", "wi", "mlp_norm", "residual_1", "attn_out", "attention",
        "q_rot", "k_rot", "v", "q", "k", "attn_norm",
    ]  # fmt: skip
    for name in shown:
        v = directions(steps, 3)[name]

        def moved(a, name=name):
            swap = lambda at, x: x + a["by"] if at == name else x  # noqa: E731
            return encode(complex_params, EVERYTHING, **inputs, tap=swap)

        jv = derivative(moved, {"by": np.zeros(steps[name].shape)}, {"by": v})
        got, want = (gradients[name] * v).sum(), (u * jv).sum()
        assert abs(got - want) <= 1e-12 * np.linalg.norm(u) * np.linalg.norm(jv), name


# -- heads ----------------------------------------------------------------------------------------


def joined(outputs):
    """The outputs that losses are written on, as one array."""
    names = [n for n in ("logits", "start_logits", "end_logits", "embeddings") if n in outputs]
    return np.stack([outputs[name] for name in names])


def split(u, outputs):
    names = [n for n in ("logits", "start_logits", "end_logits", "embeddings") if n in outputs]
    return dict(zip(names, u, strict=True))


def check_head(forward, backward, params, hidden, seed=0):
    """forward(params, hidden, tap) -> outputs; backward(steps, d, grads) -> d of hidden. The last
    argument of the forward goes through the identity as well as the parameters."""
    steps = {}
    outputs = forward(params, hidden, record(steps))
    no_tap = lambda name, x: x  # noqa: E731

    def f(a):
        own = {name: x for name, x in a.items() if name != "hidden"}
        y = joined(forward(own, a["hidden"], no_tap))
        return np.where(np.isfinite(y), y, 0)

    def back(u):
        grads = {}
        d = backward(steps, split(u, outputs), grads)
        return grads | {"hidden": d}

    return check(f, back, {**params, "hidden": hidden}, seed)


masks = st.sampled_from(["none", "some", "empty row"])


def a_mask(kind, axes, seed):
    if kind == "none":
        return None
    mask = np.random.default_rng(seed).random(axes) < 0.7
    mask[..., -1] = True
    if kind == "empty row":
        mask.reshape(-1, axes[-1])[0] = False
    return mask.astype(np.int64)


@pytest.mark.parametrize("kind", HEAD_KINDS)
@given(models(), st.integers(0, 2**16), st.integers(1, 9), masks)
def test_head(kind, case, seed, seq, mask_kind):
    config, head = ModernBertConfig.from_dict(case.config()), HEADS[kind]
    axes = (2, 3, seq) if kind == "multiple_choice" else (3, seq)
    hidden, mask = normal(seed, *axes, case.hidden), a_mask(mask_kind, axes, seed)
    params = {name: case.params(kind)[name] for name in case.head_shapes(kind)}
    if kind == "masked_lm" and case.tied:
        params["embeddings.tok_embeddings.weight"] = case.params()[
            "embeddings.tok_embeddings.weight"
        ]

    def forward(p, h, tap):
        return head.forward(p, config, h, mask, tap=tap)

    def backward(steps, d, grads):
        return heads.BACKWARD[kind](params, config, steps, d, hidden, mask, grads)

    check_head(forward, backward, params, hidden, seed)


def test_every_head_has_a_backward_pass():
    assert list(heads.BACKWARD) == list(HEADS)


FAMILY_TASKS = {
    "sequence_classification": dict(task_type="emotion_detection", num_classes=3),
    "regression": dict(task_type="text_regression"),
    "token_classification": dict(task_type="named_entity_recognition", num_classes=4),
    "question_answering": dict(task_type="question_answering"),
    "text_similarity": dict(task_type="text_similarity"),
    "masked_lm": dict(task_type="masked_language_modeling", vocabulary_size=13),
    "multiple_choice": dict(task_type="multiple_choice"),
}


@pytest.mark.parametrize("family", FAMILY_TASKS)
@given(st.data(), st.integers(0, 2**16), st.integers(1, 9), masks)
def test_configurable_head(family, data, seed, seq, mask_kind):
    task = NLPTaskConfig("it", **FAMILY_TASKS[family])
    options = dict(
        use_intermediate=data.draw(st.booleans()),
        norm_bias=data.draw(st.booleans()),
        activation_type=data.draw(st.sampled_from(["gelu", "silu", "tanh"])),
    )
    if nlp_head(task, 8, options).options.pooling_type is not None:
        options["pooling_type"] = data.draw(
            st.sampled_from(["cls", "mean", "max", "last", "attention"])
        )
    head = nlp_head(task, 8, options, scope=data.draw(st.sampled_from(["", "it."])))
    axes = (2, 2, seq) if family == "multiple_choice" else (3, seq)
    hidden, mask = normal(seed, *axes, 8), a_mask(mask_kind, axes, seed)
    params = random_params(head.shapes(), seed)

    def forward(p, h, tap):
        return head.forward(p, None, h, mask, tap=tap)

    def backward(steps, d, grads):
        return nlp_heads.backward(head, params, steps, d, hidden, mask, grads)

    check_head(forward, backward, params, hidden, seed)


def test_every_family_is_among_them():
    from refimpl.nlp.families import FAMILY_OUTPUTS

    assert list(FAMILY_TASKS) == list(FAMILY_OUTPUTS)


@pytest.mark.parametrize("how", ["cosine", "dot", "learned"])
@given(st.integers(1, 4), st.integers(2, 6), st.integers(0, 2**16))
def test_similarity_of_two_texts(how, batch, width, seed):
    task = NLPTaskConfig("it", "text_similarity")
    options = {"similarity_function": how, "intermediate_size": width}
    head = nlp_head(task, 8, options)
    own = {n: x for n, x in random_params(head.shapes(), seed).items() if "similarity" in n}
    x = own | {"a": normal(seed, batch, width), "b": normal(seed + 1, batch, width)}

    def f(p):
        two = {"embeddings": p["a"]}, {"embeddings": p["b"]}
        return head.compare(p, *two)["similarity_score"]

    def back(u):
        grads = {}
        da, db = nlp_heads.compare(head, x, u, x["a"], x["b"], grads)
        return grads | {"a": da, "b": db}

    check(f, back, x, seed)


def test_cosine_of_a_zero_vector_moves_nothing():
    head = nlp_head(NLPTaskConfig("it", "text_similarity"), 3, {})
    a, b = np.zeros((1, 3)), np.ones((1, 3))
    da, db = nlp_heads.compare(head, {}, np.ones(1), a, b, {})
    assert not da.any() and not db.any()


CHAINS = {
    "mean, normalised": (Pooling(8), Normalize()),
    "cls and max": (Pooling(8, ("cls", "max")), Dense(16, 4), LayerNorm(4), Normalize()),
    "without the prompt": (Pooling(8, ("weightedmean",), include_prompt=False), Dense(8, 5)),
    "reranker": (
        Pooling(8, ("lasttoken", "mean_sqrt_len_tokens")),
        Dense(16, 6, activation="gelu"),
        LayerNorm(6),
        Dense(6, 1, activation="linear", scores=True),
    ),
}


@pytest.mark.parametrize("chain", CHAINS)
@given(st.integers(0, 2**16), st.integers(2, 9), masks)
def test_sentence_modules(chain, seed, seq, mask_kind):
    head = SentenceHead(CHAINS[chain])
    # A vector without a token stays 0 until it meets a bias: 1 / |x| of that is no derivative.
    hidden, mask = normal(seed, 3, seq, 8), a_mask(mask_kind, (3, seq), seed)
    if mask_kind == "empty row" and chain == "mean, normalised":
        mask[0, -1] = 1
    params = random_params(
        head.shapes(EVERYTHING.replace(hidden_size=8, num_attention_heads=2)), seed
    )

    def forward(p, h, tap):
        return head.forward(p, EVERYTHING, h, mask, tap=tap, prompt_length=1)

    def backward(steps, d, grads):
        (dout,) = d.values()
        return sentence.backward(head, params, dout, hidden, mask, grads, prompt_length=1)

    check_head(forward, backward, params, hidden, seed)
