"""What must hold for every model and input: packing, padding, windows, shifts, empty rows, NaN.

Two float64 evaluations of one thing may differ by `budget.float64_budget`: the spread of the
float32 family, in float64's eps. Where the arithmetic of a token is the same, so are its bits.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support import parity
from support.budget import float64_budget, quantities, ratios, relative_l2
from support.cases import Batch, Case, single, unit
from support.strategies import WINDOWS, batches, lengths, models

from refimpl.reference.config import ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.reference.params import encoder_shapes


@st.composite
def runs(draw: st.DrawFn) -> tuple[Case, Batch]:
    case = draw(models())
    return case, draw(batches(case.half_window))


def config_of(case: Case) -> ModernBertConfig:
    return ModernBertConfig.from_dict(case.config())


def assert_close(got: np.ndarray, truth: np.ndarray, bound: float, what: str) -> None:
    """Per token, [n, hidden]."""
    errors = relative_l2(got, truth)
    i = int(errors.argmax())
    message = f"{what}: row {i} differs by {errors[i]:.3g}, bound {bound:.3g}"
    assert errors[i] <= bound, f"{message}; expected {truth[i, :4]}, got {got[i, :4]}"


def visible_anywhere(mask: np.ndarray, window: int | None) -> np.ndarray:
    """bool [batch, seq]: the query sees at least one key. Written out, one query at a time."""
    seq = mask.shape[1]
    reach = seq if window is None else window
    return np.array(
        [[row[max(i - reach, 0) : i + reach + 1].any() for i in range(seq)] for row in mask]
    )


@given(runs())
def test_float32_stays_within_its_budget_of_float64(run: tuple[Case, Batch]) -> None:
    case, batch = run
    inputs = case.inputs(batch)
    truth, found = parity.run(case, inputs), parity.run(case, inputs, np.float32)
    assert all(np.isfinite(x).all() for x in found.values())
    ratios(found, truth, inputs.mask, case, batch)


@given(runs())
def test_packed_equals_padded_equals_one_by_one(run: tuple[Case, Batch]) -> None:
    case, batch = run
    rows = [row for row in batch.rows if row.padding in ("none", "right")]
    batch = Batch(batch.seq, tuple(rows))
    inputs, config, params = case.inputs(batch), config_of(case), case.params()
    sequences = [ids[: row.length] for ids, row in zip(inputs.input_ids, rows, strict=True)]
    cu_seqlens = np.cumsum([0, *(row.length for row in rows)])

    padded = encode(params, config, inputs.input_ids, attention_mask=inputs.mask)
    packed = encode(params, config, np.concatenate(sequences), cu_seqlens=cu_seqlens)
    bound = float64_budget(case, batch, f"hidden[{case.layers + 1}]")
    assert packed.shape == (cu_seqlens[-1], case.hidden)
    for b, ids in enumerate(sequences):
        alone = encode(params, config, ids[None])[0]
        assert_close(packed[cu_seqlens[b] : cu_seqlens[b + 1]], alone, bound, "packed")
        assert_close(padded[b, : len(ids)], alone, bound, "padded")


@given(models(), st.data())
def test_amount_of_right_padding_changes_nothing(case: Case, data: st.DataObject) -> None:
    length = data.draw(lengths(case.half_window, 70))
    padding = data.draw(st.sampled_from([1, 7, case.half_window + 1, 65]))
    config, params = config_of(case), case.params()
    batch = single(length)
    ids = case.inputs(batch).input_ids
    alone = encode(params, config, ids)[0]
    padded_ids = np.pad(ids, ((0, 0), (0, padding)), constant_values=3)
    mask = (np.arange(length + padding) < length)[None].astype(np.int64)
    padded = encode(params, config, padded_ids, attention_mask=mask)
    bound = float64_budget(case, batch, f"hidden[{case.layers + 1}]")
    assert_close(padded[0, :length], alone, bound, f"{padding} pads")
    assert np.isfinite(padded).all()


@given(models(pattern="s"), st.sampled_from((*WINDOWS, 130)), st.data())
def test_one_local_layer_passes_a_change_as_far_as_its_window(
    case: Case, window: int, data: st.DataObject
) -> None:
    """At distance 64 of window 128 a change arrives, at 65 it does not: not one bit moves."""
    reach = window // 2
    config = ModernBertConfig.from_dict({**case.config(), "local_attention": window})
    seq = data.draw(st.integers(reach + 2, 2 * reach + 20))
    moved = data.draw(st.integers(0, seq - 1))
    assert_change_arrives_within(reach, case, config, seq, moved)


@given(models(pattern="f"), lengths(1), st.data())
def test_one_full_layer_passes_a_change_everywhere(
    case: Case, seq: int, data: st.DataObject
) -> None:
    moved = data.draw(st.integers(0, seq - 1))
    assert_change_arrives_within(seq, case, config_of(case), seq, moved)


@given(models(pattern="ss"), st.sampled_from((2, 6, 16)), st.data())
def test_two_local_layers_pass_a_change_twice_as_far(
    case: Case, window: int, data: st.DataObject
) -> None:
    config = ModernBertConfig.from_dict({**case.config(), "local_attention": window})
    seq = data.draw(st.integers(window + 2, 4 * window))
    moved = data.draw(st.integers(0, seq - 1))
    assert_change_arrives_within(2 * (window // 2), case, config, seq, moved)


def assert_change_arrives_within(
    reach: int, case: Case, config: ModernBertConfig, seq: int, moved: int
) -> None:
    params = case.params()
    before = unit((1, seq, case.hidden), case.seed, "embeds")
    after = before.copy()
    after[0, moved] = unit((case.hidden,), case.seed, "moved")
    states = [encode(params, config, inputs_embeds=x)[0] for x in (before, after)]
    changed = (states[0] != states[1]).any(axis=-1)
    distance = np.abs(np.arange(seq) - moved)
    np.testing.assert_array_equal(changed, distance <= reach)


@given(models(), st.data())
def test_shifting_all_positions_changes_nothing(case: Case, data: st.DataObject) -> None:
    seq = data.draw(lengths(case.half_window, 70))
    shift = data.draw(st.sampled_from([1, 5, 64, 1000]))
    config, params, batch = config_of(case), case.params(), single(seq)
    ids, positions = case.inputs(batch).input_ids, np.arange(seq)[None]
    usual = encode(params, config, ids)[0]
    same = encode(params, config, ids, position_ids=positions)[0]
    np.testing.assert_array_equal(same, usual)
    shifted = encode(params, config, ids, position_ids=positions + shift)[0]
    # An angle is position * frequency, frequency <= 1, rounded relative to itself: its error, and
    # with it that of every q and k, is up to `position` times the eps that the budget allows.
    bound = float64_budget(case, batch, f"hidden[{case.layers + 1}]") * (shift + seq)
    assert_close(shifted, usual, bound, f"shifted by {shift}")


@given(models(), st.data())
def test_stretching_positions_changes_the_result(case: Case, data: st.DataObject) -> None:
    """position_ids reach the rotation: distances twice as long are another input."""
    seq = data.draw(st.integers(4, 40))
    batch = single(seq)
    ids = case.inputs(batch).input_ids
    config = ModernBertConfig.from_dict({**case.config(), "local_attention": 128})
    usual = encode(case.params(), config, ids)[0]
    far = encode(case.params(), config, ids, position_ids=2 * np.arange(seq)[None])[0]
    bound = float64_budget(case, batch, f"hidden[{case.layers + 1}]") * 2 * seq
    assert relative_l2(far, usual).max() > bound


@given(runs())
def test_rows_without_a_visible_key_are_zero_and_all_is_finite(run: tuple[Case, Batch]) -> None:
    case, batch = run
    inputs, config = case.inputs(batch), config_of(case)
    taps: dict[str, np.ndarray] = {}

    def tap(name: str, x: np.ndarray) -> np.ndarray:
        taps[name] = x
        return x

    encode(case.params(), config, inputs.input_ids, attention_mask=inputs.mask, tap=tap)
    assert all(np.isfinite(x).all() for x in taps.values())
    for i in range(case.layers):
        sees = visible_anywhere(inputs.mask, config.window(i))
        attention = taps[f"layers.{i}.attention"]
        assert (attention[~sees] == 0).all()
        assert (attention[sees] != 0).any(axis=-1).all()


@given(runs(), st.sampled_from([np.float32, np.float64]))
def test_nan_in_padded_embeddings_never_reaches_a_real_row(
    run: tuple[Case, Batch], dtype: type
) -> None:
    case, batch = run
    inputs, config, params = case.inputs(batch), config_of(case), case.params(dtype=dtype)
    real = inputs.mask != 0
    embeds = unit((*real.shape, case.hidden), case.seed, "embeds").astype(dtype)
    poisoned = np.where(real[..., None], embeds, dtype(np.nan))
    clean, found = (
        parity.states_of(params, config, inputs_embeds=x, attention_mask=inputs.mask)
        for x in (embeds, poisoned)
    )
    for name, (a, b) in enumerate(zip(clean, found, strict=True)):
        np.testing.assert_array_equal(a[real], b[real], err_msg=f"hidden[{name}]")


@given(runs())
def test_ids_under_the_padding_change_no_bit_of_a_real_row(run: tuple[Case, Batch]) -> None:
    case, batch = run
    inputs, config, params = case.inputs(batch), config_of(case), case.params()
    other = np.where(inputs.mask == 0, (inputs.input_ids + 1) % case.vocab, inputs.input_ids)
    a, b = (
        encode(params, config, ids, attention_mask=inputs.mask) for ids in (inputs.input_ids, other)
    )
    np.testing.assert_array_equal(a[inputs.mask != 0], b[inputs.mask != 0])


@given(runs(), st.sampled_from([np.float32, np.float64]))
def test_every_step_keeps_the_dtype(run: tuple[Case, Batch], dtype: type) -> None:
    case, batch = run
    inputs, config = case.inputs(batch), config_of(case)

    def tap(name: str, x: np.ndarray) -> np.ndarray:
        assert x.dtype == dtype, name
        return x

    params = case.params(dtype=dtype)
    assert {name: x.shape for name, x in params.items()} == encoder_shapes(config)
    encode(params, config, inputs.input_ids, attention_mask=inputs.mask, tap=tap)


@given(runs())
def test_reference_equals_the_plain_second_writing(run: tuple[Case, Batch]) -> None:
    """`naive.py`, in float64: dense masks, complex rotations, no shared line."""
    from support import naive

    case, batch = run
    inputs = case.inputs(batch)
    theirs = naive.run(case, inputs, naive.Arithmetic())
    for q in quantities(parity.run(case, inputs), theirs, inputs.mask):
        assert_close(q.got, q.truth, float64_budget(case, batch, q.name), q.name)
