"""The engine's steps: unfused it gives every step of MODEL.md, fused those that it brings into
being, both with the bits of the plain forward pass; every step against float64.
"""

from __future__ import annotations

import numpy as np
import pytest
from support.budget import FACTOR
from support.cases import CASES, Case
from support.native import engine_of, extension, tiers

from refimpl.reference.config import ModernBertConfig
from refimpl.reference.encoder import encode
from refimpl.reference.taps import record

native = extension()
every_tier = pytest.mark.parametrize("tier", tiers())
LENGTHS = (1, 7, 66, 40)
CU_SEQLENS = np.cumsum([0, *LENGTHS])
# What only the unfused run holds: the rest never leaves registers, or stands in packed panels.
NOT_OBSERVABLE = ("q", "k", "v", "q_rot", "k_rot", "attn_out", "wi", "mlp_out")


def trace(case: Case, tier: str, ids: np.ndarray, fused: bool) -> dict[str, np.ndarray]:
    store: dict[str, list[np.ndarray]] = {}

    def tap(step, layer, first_row, rows):
        pieces = store.setdefault(step if layer is None else f"layers.{layer}.{step}", [])
        assert first_row == sum(map(len, pieces))
        pieces.append(rows)

    engine = engine_of(case, tier)._native
    store["last"] = [engine.trace(ids, None, CU_SEQLENS, threads=2, fused=fused, tap=tap)]
    return {name: np.concatenate(pieces) for name, pieces in store.items()}


def ids_of(case: Case) -> np.ndarray:
    return np.random.default_rng(case.seed).integers(0, case.vocab, sum(LENGTHS))


@every_tier
@pytest.mark.parametrize("case", CASES[:4], ids=lambda case: case.name)
def test_unfused_run_gives_every_step_and_the_bits_of_the_fused(case: Case, tier: str):
    ids = ids_of(case)
    truth: dict[str, np.ndarray] = {}
    config = ModernBertConfig.from_dict(case.config())
    encode(case.params(dtype=np.float64), config, ids, cu_seqlens=CU_SEQLENS, tap=record(truth))
    plain = engine_of(case, tier).packed(ids, CU_SEQLENS)
    every = trace(case, tier, ids, fused=False)
    np.testing.assert_array_equal(every["last"], plain)
    np.testing.assert_array_equal(every.pop("final_norm"), every.pop("last"))
    assert set(every) == set(truth) - {"final_norm"}
    # numpy's float32 is one honest evaluation; a step is held to FACTOR times its largest error.
    numpy32: dict[str, np.ndarray] = {}
    encode(case.params(dtype=np.float32), config, ids, cu_seqlens=CU_SEQLENS, tap=record(numpy32))
    for name, got in every.items():
        exact = truth[name].reshape(got.shape)
        size = np.linalg.norm(exact)
        off = np.linalg.norm(got - exact) / size
        honest = np.linalg.norm(numpy32[name].reshape(got.shape) - exact) / size
        assert off <= FACTOR * max(honest, np.finfo(np.float32).eps), (name, off, honest)


@every_tier
@pytest.mark.parametrize("case", CASES[:4], ids=lambda case: case.name)
def test_fused_run_gives_the_observable_steps_of_the_same_bits(case: Case, tier: str):
    ids = ids_of(case)
    every, observable = (trace(case, tier, ids, fused) for fused in (False, True))
    hidden = {n for n in every if n.split(".")[-1] in NOT_OBSERVABLE and n.startswith("layers.")}
    assert set(observable) == set(every) - hidden
    for name, got in observable.items():
        np.testing.assert_array_equal(got, every[name])


def test_what_a_tap_raises_comes_out():
    def tap(*_):
        raise KeyError("enough")

    engine = engine_of(CASES[0], "scalar")._native
    with pytest.raises(KeyError, match="enough"):
        engine.trace([1, 2], None, [0, 2], tap=tap)
    assert engine.trace([1, 2], None, [0, 2], tap=lambda *_: None).shape[0] == 2
