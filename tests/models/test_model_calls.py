"""The model as an object: outputs, hidden states, attention maps, predict, packing, summary."""

import re

import numpy as np
import pytest

from refimpl import ModelFormatError, ModernBERT, ModernBERTForTask
from refimpl.models.summary import parameter_table
from refimpl.reference.heads import HEADS
from refimpl.reference.params import initialise

SIZES = dict(
    vocab_size=37, hidden_size=16, num_layers=4, num_heads=2, intermediate_size=10,
    local_attention=4, use_bias=True,
)  # fmt: skip
HEAD_DIM, EPS = 8, float(np.finfo(np.float64).eps)
IDS = np.random.default_rng(0).integers(0, 37, (3, 9))
MASK = np.array([[1] * 9, [1] * 5 + [0] * 4, [0, 0, 1, 1, 0, 1, 1, 1, 1]])


def lively(params, seed=1):
    """Weights of unit gain: attention is far from uniform, and every bias and norm matters."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(x.shape) * (x.shape[-1] ** -0.5 if x.ndim == 2 else 1.0)
        for name, x in params.items()
    }


@pytest.fixture(scope="module")
def model():
    drawn = ModernBERT.from_variant("tiny", dtype="float64", **SIZES)
    return ModernBERT(drawn.config, lively(drawn.params))


def with_head(model, kind):
    shapes = HEADS[kind].shapes(model.config)
    params = initialise(shapes, model.config, 0, np.float64)
    return ModernBERTForTask(model.config, {**model.params, **lively(params)}, HEADS[kind])


def steps_of(model, *args, **kwargs):
    seen = {}

    def tap(name, x):
        seen[name] = x
        return x

    return model(*args, tap=tap, **kwargs), seen


def test_model_outputs_are_last_hidden_state_and_the_mask(model):
    out = model({"input_ids": IDS, "attention_mask": MASK})
    assert set(out) == {"last_hidden_state", "attention_mask"}
    assert out["last_hidden_state"].shape == (3, 9, 16)
    assert out["last_hidden_state"].dtype == np.float64
    assert np.array_equal(out["attention_mask"], MASK)
    assert np.array_equal(model(IDS)["attention_mask"], np.ones((3, 9)))


def test_model_takes_dict_array_and_arguments_alike(model):
    want = model({"input_ids": IDS, "attention_mask": MASK, "position_ids": np.arange(9) + 3})
    got = model(IDS, MASK, np.arange(9) + 3)
    np.testing.assert_array_equal(got["last_hidden_state"], want["last_hidden_state"])
    assert not np.array_equal(got["last_hidden_state"], model(IDS)["last_hidden_state"])


def test_model_of_the_embeddings_is_the_model_of_the_ids(model):
    embeds = model.params["embeddings.tok_embeddings.weight"][IDS]
    want = model(IDS, MASK)["last_hidden_state"]
    got = model({"inputs_embeds": embeds, "attention_mask": MASK})["last_hidden_state"]
    np.testing.assert_array_equal(got, want)


def test_model_hidden_states_are_embedding_and_layers_the_last_behind_the_final_norm(model):
    out, seen = steps_of(model, IDS, MASK, output_hidden_states=True)
    states = out["hidden_states"]
    assert isinstance(states, tuple) and len(states) == 5
    names = ["embedding", *(f"layers.{i}.residual_2" for i in range(3)), "final_norm"]
    for state, name in zip(states, names, strict=True):
        assert np.array_equal(state, seen[name])
    assert np.array_equal(out["last_hidden_state"], states[-1])
    assert not np.array_equal(states[-1], seen["layers.3.residual_2"])  # which the tap still gives
    assert "hidden_states" not in model(IDS)


def test_model_attentions_sum_to_one_over_visible_keys_and_are_zero_elsewhere(model):
    maps = model(IDS, MASK, output_attentions=True)["attentions"]
    assert len(maps) == 4
    near = np.abs(np.subtract.outer(np.arange(9), np.arange(9))) <= 2
    for i, probs in enumerate(maps):
        assert probs.shape == (3, 2, 9, 9)
        visible = (MASK[:, None, :] == 1) & (True if i % 3 == 0 else near)
        assert (probs[np.broadcast_to(~visible[:, None], probs.shape)] == 0).all()
        some = np.broadcast_to(visible.any(-1)[:, None], probs.shape[:-1])
        # n terms of a sum of 1: n roundings of it, and one of each division
        assert np.abs(probs.sum(-1)[some] - 1).max() <= 2 * 9 * EPS
        assert (probs.sum(-1)[~some] == 0).all()
    assert not visible.all(-1).all() and "attentions" not in model(IDS)


def test_model_attentions_reproduce_the_attention_step(model):
    out, seen = steps_of(model, IDS, MASK, output_attentions=True)
    for i, probs in enumerate(out["attentions"]):
        v, joined = seen[f"layers.{i}.v"], seen[f"layers.{i}.attention"]
        for batch, query, head in np.ndindex(3, 9, 2):
            total, size = np.zeros(HEAD_DIM), np.zeros(HEAD_DIM)
            for key in range(9):
                total += probs[batch, head, query, key] * v[batch, key, head]
                size += probs[batch, head, query, key] * np.abs(v[batch, key, head])
            got = joined[batch, query, head * HEAD_DIM : (head + 1) * HEAD_DIM]
            # The map and the step each round scores of head_dim terms, exponentials and a sum of 9
            # keys: relative error of a weight 2 (head_dim |q||k| scale + 4 + 9) eps.
            q, k = (np.abs(seen[f"layers.{i}.{x}_rot"][batch, :, head]) for x in "qk")
            spread = (q[query] * k).sum(-1).max() * HEAD_DIM**-0.5
            bound = 2 * 2 * (HEAD_DIM * spread + 4 + 2 * 9) * EPS * size
            assert (np.abs(got - total) <= bound).all(), (i, batch, query, head)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_model_predict_is_the_call_joined(model, batch_size):
    inputs = {"input_ids": IDS, "attention_mask": MASK, "position_ids": np.arange(9) + 1}
    want, got = model(inputs), model.predict(inputs, batch_size=batch_size)
    assert set(got) == set(want)
    assert np.array_equal(got["attention_mask"], MASK)
    if batch_size >= 3:
        np.testing.assert_array_equal(got["last_hidden_state"], want["last_hidden_state"])
    for start in range(0, 3, batch_size):
        rows = slice(start, start + batch_size)
        part = model(IDS[rows], MASK[rows], np.arange(9) + 1)["last_hidden_state"]
        np.testing.assert_array_equal(got["last_hidden_state"][rows], part)


def test_model_predict_checks_every_row_first_and_the_batch_size(model):
    late = IDS.copy()
    late[2, 0] = 99
    with pytest.raises(ValueError, match=r"input_ids\[2, 0\] is 99"):
        model.predict(late, batch_size=1)
    with pytest.raises(ValueError, match="batch_size is 0; it must be at least 1"):
        model.predict(IDS, batch_size=0)
    with pytest.raises(TypeError, match="batch_size is 1.5; it must be an integer"):
        model.predict(IDS, batch_size=1.5)


def test_model_predict_shows_progress_when_asked(model, capsys):
    model.predict(IDS, batch_size=2, verbose=True)
    assert capsys.readouterr().err.endswith("2/2\n")
    model.predict(IDS, batch_size=2)
    assert capsys.readouterr().err == ""


def test_model_packed_equals_each_sequence_alone(model):
    lengths = [1, 9, 4]
    ids = np.concatenate([IDS[i, :n] for i, n in enumerate(lengths)])
    got = model.encode_packed(ids, np.cumsum([0, *lengths]))
    assert got.shape == (14, 16)
    # BLAS may sum in another order for another number of rows. How far rounding then travels is
    # measured, not guessed: by moving the embeddings by the rounding of one sum of hidden terms.
    alone = [model(IDS[i : i + 1, :n])["last_hidden_state"][0] for i, n in enumerate(lengths)]
    embeds = model.params["embeddings.tok_embeddings.weight"]
    rng, moved = np.random.default_rng(0), 0.0
    for _ in range(8):
        shift = 1 + rng.choice([-1, 1], (3, 9, 16)) * 16 * EPS
        for i, n in enumerate(lengths):
            run = model({"inputs_embeds": embeds[IDS[i : i + 1, :n]] * shift[i : i + 1, :n]})
            moved = max(moved, np.abs(run["last_hidden_state"][0] - alone[i]).max())
    assert np.abs(got - np.concatenate(alone)).max() <= moved


def test_model_summary_prints_parts_and_the_total(model, capsys):
    model.summary()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ModernBERT"
    total = sum(x.size for x in model.params.values())
    assert lines[-1].split() == ["total", f"{total:,}"] and model.num_parameters == total
    rows = {line.split()[0]: line for line in lines[2:-2]}
    assert all(len(line) == len(lines[1]) for line in lines[1:])
    assert sum(int(row.split()[-1].replace(",", "")) for row in rows.values()) == total
    assert "[48, 16] x 3" in rows["layers.1-3.attn.Wqkv.weight"]
    assert rows["layers.1-3.attn.Wqkv.weight"].split()[-1] == f"{3 * 48 * 16:,}"
    # Layer 0 has no norm before its attention, so it stands alone; every other tensor is in a row.
    folded = {re.sub(r"layers\.[123]\.", "layers.1-3.", name) for name in model.params}
    assert set(rows) == folded


def test_model_summary_folds_alike_layers_only():
    shapes = {"layers.0.w": (2,), "layers.1.w": (2,), "layers.2.w": (3,), "layers.3.w": (2,)}
    rows = parameter_table("x", {"a": (1,), **shapes, "head.w": (2,)}).splitlines()[2:-2]
    assert [row.split()[0] for row in rows] == ["a", "layers.0-1.w", "layers.2.w", "layers.3.w",
                                                "head.w"]  # fmt: skip


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_model_with_a_checkpoint_head_predicts_its_calls(model, kind):
    task = with_head(model, kind)
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    if kind == "multiple_choice":
        inputs = {name: x.reshape(1, 3, 9) for name, x in inputs.items()}
    out = task(inputs)
    for key, x in task.predict(inputs).items():
        np.testing.assert_array_equal(x, out[key])
    encoder = task.encoder
    assert set(encoder.params) == set(model.params)
    rows = {name: x.reshape(-1, 9) for name, x in inputs.items()}
    hidden = encoder(rows)["last_hidden_state"].reshape(*inputs["input_ids"].shape, 16)
    want = HEADS[kind].forward(task.params, task.config, hidden, inputs["attention_mask"])
    for key, x in want.items():
        np.testing.assert_array_equal(out[key], x)


def test_model_token_types_are_added_before_the_embedding_norm():
    drawn = ModernBERT.from_variant("tiny", dtype="float64", type_vocab_size=3, **SIZES)
    model = ModernBERT(drawn.config, lively(drawn.params))
    types = np.random.default_rng(2).integers(0, 3, IDS.shape)
    got = model({"input_ids": IDS, "token_type_ids": types})["last_hidden_state"]
    table = model.params["embeddings.token_type_embeddings.weight"]
    words = model.params["embeddings.tok_embeddings.weight"]
    plain = ModernBERT(
        drawn.config.replace(type_vocab_size=0),
        {n: x for n, x in model.params.items() if "token_type" not in n},
    )
    summed = np.empty((*IDS.shape, 16))
    for at in np.ndindex(IDS.shape):
        summed[at] = words[IDS[at]] + table[types[at]]
    np.testing.assert_array_equal(got, plain({"inputs_embeds": summed})["last_hidden_state"])
    left_out = model(IDS)["last_hidden_state"]
    zeros = model({"input_ids": IDS, "token_type_ids": np.zeros_like(IDS)})["last_hidden_state"]
    np.testing.assert_array_equal(left_out, zeros)
    assert not np.array_equal(left_out, got)
    with pytest.raises(ValueError, match=r"token_type_ids\[0, 0\] is 3; it must be in 0 .. 2"):
        model({"input_ids": IDS, "token_type_ids": np.full_like(IDS, 3)})


def test_model_wants_exactly_its_tensors_in_one_dtype(model):
    config, params = model.config, model.params
    with pytest.raises(ValueError, match=r"params lack \['final_norm.weight'\]"):
        ModernBERT(config, {n: x for n, x in params.items() if n != "final_norm.weight"})
    with pytest.raises(ValueError, match=r"have \['x'\] too many"):
        ModernBERT(config, {**params, "x": np.ones(3)})
    with pytest.raises(ValueError, match=r"params\['final_norm.weight'\] has shape \(3,\), not"):
        ModernBERT(config, {**params, "final_norm.weight": np.ones(3)})
    with pytest.raises(ValueError, match=r"dtypes \['float32', 'float64'\]"):
        ModernBERT(config, {**params, "final_norm.weight": np.ones(16, np.float32)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(backend="tpu"), "backend 'tpu' is not available; available: .*numpy"),
        (dict(dtype="float16"), "dtype 'float16' is not available; available: float32, .*float64"),
        (dict(weights_dataset="squad"), "weights_dataset is 'squad'"),
        (dict(seed=-1), "seed is -1; it must be an int of at least 0"),
        (dict(seed=True), "seed is True"),
        (dict(seed=None), "seed is None"),
    ],
    ids=str,
)
def test_model_option_that_is_not_there_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ModernBERT.from_variant("tiny", **SIZES, **options)


def test_model_for_a_task_comes_with_its_head_or_not_at_all(model, tmp_path):
    with_head(model, "token_classification").save_pretrained(tmp_path / "head")
    read = ModernBERTForTask.from_pretrained(tmp_path / "head", dtype="float64")
    assert type(read) is ModernBERTForTask and read.head == HEADS["token_classification"]
    model.save_pretrained(tmp_path / "bare")
    with pytest.raises(ModelFormatError, match=r"\['ModernBertModel'\] names no head; .*ForMask"):
        ModernBERTForTask.from_pretrained(tmp_path / "bare")
    with pytest.raises(TypeError, match="create_modern_bert_with_head .*from_pretrained"):
        ModernBERTForTask.from_variant("tiny")


def test_model_variant_is_the_same_for_a_seed_and_another_for_another():
    one, two, other = (
        ModernBERT.from_variant("tiny", seed=s, dtype=d, **SIZES).params
        for s, d in ((1, "float32"), (1, "float64"), (2, "float32"))
    )
    name = "layers.1.attn.Wqkv.weight"
    assert all(np.array_equal(one[n], two[n]) for n in one)
    assert not np.array_equal(one[name], other[name])


def test_model_variants_are_listed_and_others_refused():
    assert list(ModernBERT.MODEL_VARIANTS) == ["tiny", "base", "large"]
    with pytest.raises(TypeError):
        ModernBERT.MODEL_VARIANTS["tiny"]["hidden_size"] = 3  # a table, not a setting
    with pytest.raises(TypeError):
        ModernBERT.MODEL_VARIANTS["mine"] = {}
    with pytest.raises(ValueError, match="variant 'huge' is unknown; known: tiny, base, large"):
        ModernBERT.from_variant("huge")
    with pytest.raises(TypeError, match="unknown config override 'depth'"):
        ModernBERT.from_variant("tiny", depth=2)


def test_model_pretrained_tiny_is_the_bundled_one_with_overrides_on_top():
    plain = ModernBERT.from_variant("tiny", pretrained=True)
    moved = ModernBERT.from_variant("tiny", pretrained=True, global_rope_theta=5.0)
    assert moved.config.rope_theta(0) == 5.0 and plain.config.rope_theta(0) != 5.0
    for name, x in plain.params.items():
        np.testing.assert_array_equal(moved.params[name], x)
    here, there = (m(IDS)["last_hidden_state"] for m in (plain, moved))
    assert not np.array_equal(here, there)


@pytest.mark.parametrize(
    ("override", "field"),
    [
        (dict(vocab_size=99), "vocab_size"),
        (dict(num_layers=9), "num_hidden_layers"),
        (dict(num_hidden_layers=1), "num_hidden_layers"),
        (dict(hidden_size=8, num_heads=2), "hidden_size"),
        (dict(intermediate_size=3), "intermediate_size"),
        (dict(type_vocab_size=2), "type_vocab_size"),
        (dict(attention_bias=True), "attention_bias"),
        (dict(mlp_bias=True), "mlp_bias"),
        (dict(norm_bias=True), "norm_bias"),
    ],
    ids=str,
)
def test_model_override_that_the_checkpoint_does_not_fit_is_named(override, field):
    (name, value), *_ = override.items()
    own = getattr(ModernBERT.from_variant("tiny", pretrained=True).config, field)
    message = f"{name} is {value}, but the checkpoint .* has {field} {own};"
    with pytest.raises(ValueError, match=message):
        ModernBERT.from_variant("tiny", pretrained=True, **override)


@pytest.mark.parametrize("pretrained", [None, 1, b"folder"])
def test_model_pretrained_is_a_bool_or_a_place(pretrained):
    with pytest.raises(TypeError, match=f"pretrained is {pretrained!r}; it must be a bool"):
        ModernBERT.from_variant("tiny", pretrained=pretrained)
