"""The kit's cases do what they are there for: they make mistakes visible, and they never change.

If one of these fails the kit may still pass every right port, and no longer find the wrong ones.
"""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from refimpl.reference import ops
from refimpl.reference.config import FULL, SLIDING, ModernBertConfig
from refimpl.reference.heads import HEADS
from refimpl.verify.truth.cases import BY_NAME, CASES, case
from refimpl.verify.truth.fixtures import FIXTURES, PAD_ID, hf_names
from refimpl.verify.truth.passes import config_of, trace

IDS = [c.name for c in CASES]
# Regenerating gives the same bytes everywhere: a change here is a new version of the kit.
DIGEST = "74dc28824c6048e5e5aad1c119a517642ab1e952d3b35606d7f6a0639e7f4986"


def moved(case, **changes):
    """Largest relative change of any tap over the real tokens when the config is changed."""
    p = case.model()
    right = trace(p)
    wrong = trace(replace(p, config=replace(p.config, **changes)))
    name = "final_norm"
    a, b = right[name][case.real], wrong[name][case.real]
    return float((np.linalg.norm(a - b, axis=-1) / np.linalg.norm(a, axis=-1)).max())


def digest():
    h = hashlib.sha256()
    for fixture in FIXTURES.values():
        for name, x in fixture.params().items():
            h.update(name.encode() + x.astype("<f4").tobytes())
    for c in CASES:
        h.update(c.name.encode())
        for name, x in c.inputs.items():
            h.update(name.encode() + x.astype("<i8").tobytes())
    return h.hexdigest()


def test_bytes_are_the_committed_ones():
    assert digest() == DIGEST


def test_parameters_are_float32_numbers_in_float64():
    for c in CASES:
        for name, x in c.params().items():
            assert x.dtype == np.float64 and (x == x.astype(np.float32)).all(), name


def test_names_are_unique_and_an_unknown_one_is_refused():
    assert len(BY_NAME) == len(CASES) and {c.fixture.name for c in CASES} == set(FIXTURES)
    assert case("window-66") is BY_NAME["window-66"]
    with pytest.raises(ValueError, match="'nope' is unknown; known: plain-short"):
        case("nope")


@pytest.mark.parametrize("c", CASES, ids=IDS)
def test_every_case_runs_finite_and_says_why_it_is_there(c):
    taps = trace(c.model())
    assert all(np.isfinite(x).all() for x in taps.values())
    assert all(x.dtype == np.float64 for x in taps.values())
    assert len(c.why) > 40
    if c.real.any():
        assert max(np.abs(x).max() for x in taps.values()) < np.finfo(np.float16).max


@pytest.mark.parametrize("f", FIXTURES.values(), ids=FIXTURES)
def test_every_fixture_has_both_layer_types_and_two_thetas(f):
    config = config_of(f.config())
    assert set(config.layer_types) == {FULL, SLIDING}
    assert config.global_rope_theta != config.local_rope_theta
    assert config.local_rope_theta != ModernBertConfig.local_rope_theta
    half = config.local_attention // 2
    assert len({half // 2, half, config.local_attention}) == 3, "halved or doubled, it differs"


def test_both_spellings_odd_windows_and_other_eps_are_there():
    configs = [f.config() for f in FIXTURES.values()]
    old, new = ("global_rope_theta" in c for c in configs), ("layer_types" in c for c in configs)
    assert {(True, False), (False, True), (True, True)} == set(zip(old, new, strict=True))
    assert all(c["layer_norm_eps"] == c["norm_eps"] for c in configs)
    assert any(c["local_attention"] % 2 for c in configs)
    assert len({c["norm_eps"] for c in configs}) > 3
    assert {c["hidden_activation"] for c in configs} == {"gelu", "silu"}
    assert {True, False} == {c["tie_word_embeddings"] for c in configs}
    kinds = {f.head for f in FIXTURES.values()}
    assert kinds == {None, *HEADS} - {"multiple_choice"}, "a pass holds [batch, seq] alone"


def test_lengths_straddle_tiles_windows_and_tables():
    lengths = {int(row.sum()) for c in CASES for row in np.atleast_2d(c.real)}
    widths = {c.inputs["input_ids"].shape[-1] for c in CASES}
    assert {1, 2, 8, 64, 65, 66, 127, 128, 129, 130, 255, 256, 257, 512} <= lengths
    assert {1, 2, 8, 64, 65, 66, 130, 192, 257, 512} <= widths


@pytest.mark.parametrize("c", CASES, ids=IDS)
def test_window_and_thetas_bite_wherever_there_is_a_window_to_leave(c):
    if c.name in ("one-token", "plain-short"):
        assert moved(c, local_attention=2048) == 0
    if c.name == "one-token":
        return
    config = c.model().config
    swapped = {"local_rope_theta": config.global_rope_theta}
    # Rounding would move it by 2**-52: what is asked is that no port can call this noise.
    visible = np.sqrt(np.finfo(np.float32).eps)
    if c.name != "hard-rows":  # there the swelling drowns it on purpose
        assert moved(c, **swapped) > visible
    longest = c.inputs["input_ids"].shape[-1]
    if longest > config.local_attention:
        assert moved(c, local_attention=4 * longest) > visible


def keyless(c):
    """bool: the queries without a visible key in a sliding layer."""
    if "cu_seqlens" in c.inputs:
        return np.zeros(c.real.shape, bool)
    axis = np.arange(c.real.shape[1])
    reach = ops.visible(axis, axis, c.model().config.local_attention // 2)
    return ~(reach[None] & c.real[:, None, :]).any(-1)


def test_there_are_rows_and_queries_without_a_key_and_never_real_ones():
    assert any((~c.real).all(axis=-1).any() for c in CASES)
    assert keyless(case("many-pads-192")).sum() > 64
    assert case("many-pads-192").inputs["input_ids"].shape[1] % 32 == 0
    assert not any((keyless(c) & c.real).any() for c in CASES)


def test_padding_stands_on_either_side_and_inside():
    sides = set()
    for c in CASES:
        for row in np.atleast_2d(c.real):
            real = np.flatnonzero(row)
            if real.size and not row.all():
                sides |= {"left"} if not row[0] else set()
                sides |= {"right"} if not row[-1] else set()
                sides |= {"holes"} if not row[real[0] : real[-1]].all() else set()
    assert sides == {"left", "right", "holes"}


def test_the_padding_id_is_no_sign_of_padding():
    c = case("pad-id-is-a-word")
    is_pad_id = c.inputs["input_ids"] == PAD_ID
    assert (is_pad_id & c.real).sum() >= 2 and (~is_pad_id & ~c.real).any()


def test_positions_reach_the_end_of_the_config_and_are_not_the_index():
    far = case("positions-far")
    assert far.inputs["position_ids"].max() == far.config["max_position_embeddings"] - 1
    left = case("positions-left")
    index = np.arange(left.real.shape[1])
    assert (left.inputs["position_ids"][0] != index)[left.real[0]].all()


def test_hard_rows_reach_the_norms():
    c = case("hard-rows")
    table = c.params()["embeddings.tok_embeddings.weight"]
    rows = table[c.inputs["input_ids"][0]]
    assert (rows.var(-1) < c.config["norm_eps"]).sum() >= 2
    assert (np.abs(rows.mean(-1)) > 500 * rows.std(-1)).sum() >= 2
    assert (np.abs(rows).max(-1) == 2.5e4).sum() >= 2
    assert np.abs(trace(c.model())["layers.2.residual_2"]).max() > 1e4


@pytest.mark.parametrize("f", FIXTURES.values(), ids=FIXTURES)
def test_every_weight_is_used(f):
    c = next(c for c in CASES if c.fixture is f and c.inputs["input_ids"].size > 1)
    p = c.model()
    right = trace(p)
    for name, x in p.params.items():
        taps = trace(replace(p, params={**p.params, name: x * 1.5}))
        assert any((taps[t] != right[t]).any() for t in right), f"{name} changes nothing"


def test_hugging_face_names_have_the_prefix_under_a_head_only():
    bare, headed = case("hard-rows"), case("spans")
    assert "final_norm.weight" in hf_names(bare.params(), bare.head)
    names = hf_names(headed.params(), headed.head)
    assert {"model.layers.0.attn.Wqkv.weight", "head.dense.weight", "classifier.bias"} <= set(names)
    assert len(names) == len(headed.params())
