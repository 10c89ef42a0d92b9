"""Training through the C interface: the gradients of the Python engine, and every refusal.

What was stopped, or found no memory, leaves no way back from what is not there, and the next step
has the right bits. In a child, where memory is taken away.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.c_interface import (
    INTERRUPTED,
    INVALID,
    OK,
    Failed,
    check,
    config_of,
    data_of,
    ffi,
    input_of,
    last_error,
    lib,
    struct,
)
from support.cases import CASES, unit
from support.heavy import heavy_but_first

from refimpl.backends.training import TrainingEngine
from refimpl.reference.config import ModernBertConfig
from refimpl.train import AdamW, StableAdamW

CASE = CASES[0]
CU = np.cumsum([0, 1, 7, 0, 66, 40])
TOTAL = int(CU[-1])
LONG = np.arange(0, 20_001, 50)  # long enough that a pass asks whether to stop, every 20 ms
IDS = np.random.default_rng(CASE.seed).integers(0, CASE.vocab, TOTAL)
D = unit((TOTAL, CASE.hidden), 1, "d").astype(np.float32)


class Training:
    """A handle that closes itself, over parameters and gradients of its own."""

    def __init__(self, wanted: bool = True, **changes: Any) -> None:
        self.config = ModernBertConfig.from_dict(CASE.config())
        self.params = CASE.params(dtype=np.float32)
        self.gradients = {n: np.zeros_like(x) for n, x in self.params.items()} if wanted else {}
        self.given, self.kept = parameters_of(self.params, self.gradients)
        self.out = ffi.new("modernbert_training **")
        self.handle = ffi.NULL
        self.create(config_of(self.config, **changes))

    def create(self, config: Any, dtype: bytes = b"float32", tier: bytes = b"scalar") -> None:
        n = len(self.params)
        check(lib.modernbert_training_create(config, self.given, n, tier, dtype, self.out))
        self.handle = ffi.gc(self.out[0], lib.modernbert_training_close)

    def forward(self, input: Any = None, recomputed: int = 0, run: Any = ffi.NULL) -> np.ndarray:
        out = np.full((TOTAL, CASE.hidden), np.nan, np.float32)
        given = input_of(CU, ids=IDS) if input is None else input
        status = lib.modernbert_training_forward(
            self.handle, given, recomputed, run, data_of(out), out.size
        )
        check(status)
        return out

    def back(self, part: int, run: Any = ffi.NULL) -> None:
        first = part == CASE.layers
        d, size = (data_of(D), D.size) if first else (ffi.NULL, 0)
        check(lib.modernbert_training_backward(self.handle, part, d, size, run))

    def step(self, recomputed: int = 0) -> dict[str, bytes]:
        for x in self.gradients.values():
            x.fill(0)
        self.forward(recomputed=recomputed)
        for part in range(CASE.layers, -2, -1):
            self.back(part)
        check(lib.modernbert_training_finish(self.handle, 1))
        return {name: x.tobytes() for name, x in self.gradients.items()}


def parameters_of(params: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> Any:
    """modernbert_parameter [n], and what must live as long."""
    made, kept = ffi.new("modernbert_parameter[]", len(params)), []
    for p, (name, x) in zip(made, params.items(), strict=True):
        kept += [ffi.new("char[]", name.encode()), ffi.new("int64_t[]", x.shape)]
        p.name, p.shape, p.rank = kept[-2], kept[-1], x.ndim
        p.weight, p.gradient = data_of(x), data_of(gradients.get(name))
    return made, kept


@pytest.fixture
def training() -> Training:
    return Training()


def test_a_step_has_the_bits_of_the_python_engine(training: Training) -> None:
    mine = {name: np.zeros_like(x) for name, x in training.params.items()}
    engine = TrainingEngine(training.config, training.params, mine, tier="scalar", num_threads=2)
    hidden = engine.forward(IDS, CU)
    assert training.forward().tobytes() == hidden.tobytes()
    for _ in engine.backward(D):
        pass
    engine.finish()
    for recomputed in (0, 1, CASE.layers, CASE.layers + 1, 2**64 - 1):
        assert training.step(recomputed) == {name: x.tobytes() for name, x in mine.items()}
    assert ffi.string(lib.modernbert_training_tier(training.handle)) == b"scalar"
    assert ffi.string(lib.modernbert_training_tier(ffi.NULL)) == b""
    lib.modernbert_training_close(ffi.NULL)


@pytest.mark.parametrize("stable", [False, True])
def test_updates_have_the_bits_of_python(stable: bool) -> None:
    p, g = unit((333,), 1, "p").astype(np.float32), unit((333,), 1, "g").astype(np.float32)
    m, v, mine = np.zeros_like(p), np.zeros_like(p), p.copy()
    rule = StableAdamW(1e-3, (0.9, 0.98), 1e-6) if stable else AdamW((0.9, 0.98), 1e-6)
    how = struct("update", lr=1e-3, eps=1e-6, beta1=0.9, beta2=0.98, peak=1e-3, step=1)
    f = lib.modernbert_stable_adamw if stable else lib.modernbert_adamw
    check(f(b"scalar", 2, how, p.size, *map(data_of, (mine, g, m, v))))
    rule.update({"p": p}, {"p": g}, 1e-3)
    np.testing.assert_allclose(mine, p, rtol=1e-6)
    assert stable or mine.tobytes() == p.tobytes()


# -- what does not end ----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["forward", *range(CASE.layers, -2, -1)])
@pytest.mark.parametrize("recomputed", heavy_but_first([CASE.layers, 0]))
def test_a_step_that_was_stopped_can_be_begun_anew(
    training: Training, where: str | int, recomputed: int
) -> None:
    expected, asked = training.step(recomputed), []

    @ffi.callback("int(void *)")
    def stop(user: Any) -> int:
        asked.append(1)
        return 1

    run = struct("run", threads=2, interrupt=stop)
    ids, big = np.zeros(LONG[-1], np.int64), np.zeros((LONG[-1], CASE.hidden), np.float32)
    given = input_of(LONG, ids=ids)
    for part in ("forward", *range(CASE.layers, -2, -1)):
        how = run if part == where else ffi.NULL
        if part == "forward":
            status = lib.modernbert_training_forward(
                training.handle, given, recomputed, how, data_of(big), big.size
            )
        else:
            d, size = (data_of(big), big.size) if part == CASE.layers else (ffi.NULL, 0)
            status = lib.modernbert_training_backward(training.handle, part, d, size, how)
        if part == where:
            break
    if status == OK:  # it was done before it was asked
        assert not asked
    else:
        assert status == INTERRUPTED and asked
        for part in range(CASE.layers, -2, -1):
            with pytest.raises(Failed, match="there was no forward pass since"):
                training.back(part)
    check(lib.modernbert_training_finish(training.handle, 1))
    assert training.step(recomputed) == expected


def test_a_callback_cannot_use_the_training_that_asks_it(training: Training) -> None:
    said: list[str] = []

    @ffi.callback("int(void *)")
    def ask(user: Any) -> int:
        if lib.modernbert_training_finish(training.handle, 1) == INVALID:
            said.append(last_error())
        return 0

    ids, run = np.zeros(LONG[-1], np.int64), struct("run", threads=1, interrupt=ask)
    out = np.zeros((LONG[-1], CASE.hidden), np.float32)
    args = input_of(LONG, ids=ids), 0, run, data_of(out), out.size
    check(lib.modernbert_training_forward(training.handle, *args))
    assert said and set(said) == {"training is in use by another call"}


OUT_OF_ROOM = """
import resource, sys
sys.path[:0] = [{tests!r}, {here!r}]
from support.c_interface import OUT_OF_MEMORY
from test_c_training import *
training = Training()
expected = training.step()
total = 2**18
ids, out = np.zeros(total, np.int64), np.zeros((total, CASE.hidden), np.float32)
pages = int(open("/proc/self/statm").read().split()[0])
room = pages * resource.getpagesize() + 2**24
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (room, before[1]))
input = input_of(np.arange(0, total + 1, 64), ids=ids)
given = training.handle, input, 0, ffi.NULL, data_of(out), out.size
status = lib.modernbert_training_forward(*given)
assert status == OUT_OF_MEMORY, (status, last_error())
given = training.handle, CASE.layers, data_of(out), out.size, ffi.NULL
status = lib.modernbert_training_backward(*given)
assert status == INVALID and "no forward pass" in last_error(), (status, last_error())
resource.setrlimit(resource.RLIMIT_AS, before)
assert training.step() == expected
"""


def test_memory_that_is_not_there_leaves_no_way_back(tmp_path: Path) -> None:
    here = Path(__file__)
    script = OUT_OF_ROOM.format(tests=str(here.parents[1]), here=str(here.parent))
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, (run.returncode, run.stderr)


# -- refusals of a training -----------------------------------------------------------------------

CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "size": ({"struct_size": 3}, "struct_size is 3"),
    "vocab": ({"vocab": CASE.vocab + 1}, "has another shape than"),
    "huge vocab": ({"vocab": 2**62}, "vocab is"),
    "huge hidden": ({"hidden": 2**31}, "any memory"),
    "inter": ({"inter": 7}, "has another shape than"),
    "heads": ({"heads": 0}, "heads is 0"),
    "types": ({"types": 2}, "token_type_embeddings.weight' is missing"),
    "layers": ({"layers": CASE.layers - 1}, "belongs to no part"),
    "windows": ({"windows": ffi.NULL}, "windows is NULL"),
    "activation": ({"activation": "mish"}, "activation is 'mish'"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_bad_config_is_refused(what: str) -> None:
    changes, words = CONFIGS[what]
    with pytest.raises(Failed, match=words) as caught:
        Training(**changes)
    assert caught.value.status == INVALID


def moved(pointer: Any) -> Any:
    return ffi.cast("float *", ffi.cast("char *", pointer) + 1)


PARAMETERS: dict[str, tuple[Callable[[Any], object], str]] = {
    "no name": (lambda p: setattr(p, "name", ffi.NULL), "name is NULL"),
    "no weight": (lambda p: setattr(p, "weight", ffi.NULL), "has no weight"),
    "no shape": (lambda p: setattr(p, "shape", ffi.NULL), "another shape"),
    "rank": (lambda p: setattr(p, "rank", -1), "another shape"),
    "huge rank": (lambda p: setattr(p, "rank", 2**31 - 1), "another shape"),
    "weight": (lambda p: setattr(p, "weight", moved(p.weight)), "is not aligned"),
    "gradient": (lambda p: setattr(p, "gradient", moved(p.gradient)), "is not aligned"),
    "twice": (
        lambda p: [setattr(p, n, getattr(p[1], n)) for n in ("name", "shape", "rank")],
        "given twice",
    ),
}


@pytest.mark.parametrize("what", PARAMETERS)
def test_bad_parameter_is_refused(training: Training, what: str) -> None:
    change, words = PARAMETERS[what]
    change(training.given + 0)
    with pytest.raises(Failed, match=words) as caught:
        training.create(config_of(training.config))
    assert caught.value.status == INVALID


def test_bad_choices_are_refused(training: Training) -> None:
    config = config_of(training.config)
    for words, choice in {
        "dtype is 'int8'; training computes": {"dtype": b"int8"},
        "dtype 'float64' is unknown": {"dtype": b"float64"},
        "tier 'mmx' is unknown": {"tier": b"mmx"},
    }.items():
        with pytest.raises(Failed, match=words):
            training.create(config, **choice)
    n, null = len(training.params), ffi.NULL
    create = lib.modernbert_training_create
    assert create(null, training.given, n, null, null, training.out) == INVALID
    assert create(config, null, n, null, null, training.out) == INVALID
    assert create(config, training.given, n, null, null, null) == INVALID
    assert create(config, training.given, n - 1, null, null, training.out) == INVALID
    assert "is missing" in last_error()


# -- refusals of a step ---------------------------------------------------------------------------

FALLING = np.array([0, 5, 3], np.int64)
INPUTS: dict[str, tuple[Callable[[], Any], str]] = {
    "no ids": (lambda: input_of(CU), "exactly one of"),
    "embeddings": (lambda: input_of(CU, embeddings=D), "training reads its embeddings itself"),
    "id": (lambda: input_of(CU, ids=np.full(TOTAL, CASE.vocab)), rf"ids\[0\] is {CASE.vocab}"),
    "negative id": (lambda: input_of(CU, ids=np.full(TOTAL, -1)), r"ids\[0\] is -1"),
    "falling": (lambda: input_of(FALLING, ids=IDS), "falls from 5 to 3"),
    "count": (lambda: input_of(CU[:-1], ids=IDS), "out_count is"),
    "types": (lambda: input_of(CU, ids=IDS, token_types=IDS), "has no token types"),
    "positions": (lambda: input_of(CU, ids=IDS, positions=IDS - CASE.vocab), "not be negative"),
    "size": (lambda: struct("input", struct_size=7), "struct_size is 7"),
}


@pytest.mark.parametrize("what", INPUTS)
def test_bad_input_is_refused_and_the_pass_before_it_stands(training: Training, what: str) -> None:
    expected = training.step()
    for x in training.gradients.values():
        x.fill(0)
    training.forward()
    make, words = INPUTS[what]
    with pytest.raises(Failed, match=words) as caught:
        training.forward(make())
    assert caught.value.status == INVALID
    for part in range(CASE.layers, -2, -1):
        training.back(part)
    check(lib.modernbert_training_finish(training.handle, 1))
    assert {name: x.tobytes() for name, x in training.gradients.items()} == expected


def test_parts_out_of_order_are_refused(training: Training) -> None:
    back, null, last = lib.modernbert_training_backward, ffi.NULL, CASE.layers
    with pytest.raises(Failed, match="there was no forward pass"):
        training.back(last)
    training.forward()
    for part in (last - 1, -1, -2, 2**62, -(2**63)):
        with pytest.raises(Failed, match=f"part is {part}; the next one is {last}"):
            training.back(part)
    assert back(training.handle, last, null, D.size, null) == INVALID
    assert "d is NULL" in last_error()
    assert back(training.handle, last, data_of(D), D.size - 1, null) == INVALID
    assert f"d_count is {D.size - 1}; it must be {D.size}" in last_error()
    training.back(last)
    with pytest.raises(Failed, match=f"part is {last}; the next one is {last - 1}"):
        training.back(last)
    assert back(training.handle, last - 1, data_of(D), D.size, null) == INVALID
    for part in range(last - 1, -2, -1):
        training.back(part)
    with pytest.raises(Failed, match="there was no forward pass"):
        training.back(-1)
    for call in (
        lambda: back(null, 0, null, 0, null),
        lambda: lib.modernbert_training_finish(null, 1),
        lambda: lib.modernbert_training_forward(null, input_of(CU, ids=IDS), 0, null, null, 0),
    ):
        assert call() == INVALID and "training is NULL" in last_error()
    with pytest.raises(Failed, match="threads is -1"):
        training.forward(run=struct("run", threads=-1))


def test_a_step_without_tokens_has_its_parts_and_changes_nothing(training: Training) -> None:
    empty = input_of([0, 0, 0], ids=IDS)
    check(lib.modernbert_training_forward(training.handle, empty, 0, ffi.NULL, ffi.NULL, 0))
    for part in range(CASE.layers, -2, -1):
        check(lib.modernbert_training_backward(training.handle, part, ffi.NULL, 0, ffi.NULL))
    check(lib.modernbert_training_finish(training.handle, 1))
    assert not any(x.any() for x in training.gradients.values())


# -- refusals of rows -----------------------------------------------------------------------------

ROOM = np.ones(64, np.float32)
P, N, S, F = data_of(ROOM), ffi.NULL, b"scalar", b"float32"
ENDS = ffi.new("int64_t[]", [1, 2])
LABELS = ffi.new("int64_t[]", [0, 2])
MANY = 2**40


def linear(m: int = 2, n: int = 2, k: int = 2, ends: Any = ENDS, x: Any = P, w: Any = P) -> int:
    f = lib.modernbert_rows_linear_adjoint
    return f(S, F, 1, ends, 2, m, n, k, P, x, w, P, P, P)


def loss(labels: Any = LABELS, smoothing: float = 0.0, n: int = 2, losses: Any = None) -> int:
    f, of_rows = lib.modernbert_rows_cross_entropy, ffi.new("double[2]")
    of_rows = of_rows if losses is None else losses
    return f(S, F, 1, ENDS, 2, 2, n, 2, P, P, N, labels, smoothing, 1.0, of_rows, P, N, N)


def update(stable: bool = False, n: int = 4, g: Any = P, **changes: Any) -> int:
    given = {"lr": 1e-3, "eps": 1e-6, "beta1": 0.9, "beta2": 0.98, "peak": 1e-3, "step": 1}
    how = struct("update", **{**given, **changes})
    f = lib.modernbert_stable_adamw if stable else lib.modernbert_adamw
    return f(S, 1, how, n, P, g, P, P)


def norm(eps: float = 1e-5, n: int = 2, dw: Any = P, ends: Any = ENDS) -> int:
    return lib.modernbert_rows_layer_norm_adjoint(S, ends, 2, 2, n, P, P, P, eps, P, dw, N)


def glu(activation: Any = b"gelu", rows: int = 1, inter: int = 1, tier: Any = S) -> int:
    return lib.modernbert_rows_glu_adjoint(tier, activation, rows, inter, P, P, P)


def attention(seq: int = 1, heads: int = 1, width: int = 2, v: Any = P) -> int:
    f = lib.modernbert_rows_attention_adjoint
    return f(S, F, seq, heads, width, -1, P, P, P, v, N, P, P, P)


def product(threads: int = 1, m: int = 1, k: int = 1, w: Any = P, dtype: Any = F) -> int:
    return lib.modernbert_rows_linear(S, dtype, threads, m, 1, k, P, w, N, P)


NAN, INF = float("nan"), float("inf")
ROWS: dict[str, tuple[Callable[[], int], str]] = {
    "threads": (lambda: product(threads=0), "threads is 0"),
    "depth": (lambda: product(k=0), "is 0"),
    "huge": (lambda: product(m=MANY, k=MANY), "any memory"),
    "overflow": (lambda: product(m=2**63, k=2), "any memory"),
    "no weight": (lambda: product(w=N), "an array is NULL"),
    "dtype": (lambda: product(dtype=b"int4"), "'int4' is unknown"),
    "short": (lambda: linear(m=3), "ends stop at 2; there are 3 rows"),
    "falling": (
        lambda: linear(ends=ffi.new("int64_t[]", [2, 1])), r"ends[1] is 1; it must be at least 2"
    ),
    "negative": (
        lambda: linear(ends=ffi.new("int64_t[]", [-1, 2])), r"ends[0] is -1; it must be at least 0"
    ),
    "no ends": (lambda: linear(ends=N), "ends is NULL"),
    "no x": (lambda: linear(x=N), "an array is NULL"),
    "no rows of W": (lambda: linear(n=0), "is 0"),
    "label": (lambda: loss(), "labels[1] is 2; it must be in 0 .. 1"),
    "negative label": (
        lambda: loss(ffi.new("int64_t[]", [-100, 0])), "labels[0] is -100; it must be in 0 .. 1"
    ),
    "no labels": (lambda: loss(N), "an array is NULL"),
    "no losses": (lambda: loss(losses=N, n=3), "an array is NULL"),
    "smoothing": (lambda: loss(smoothing=1.0, n=3), "smoothing is 1"),
    "smoothing nan": (lambda: loss(smoothing=NAN, n=3), "smoothing is nan"),
    "norm of 0": (lambda: norm(n=0), "is 0"),
    "no dw": (lambda: norm(dw=N), "an array is NULL"),
    "norm's ends": (lambda: norm(ends=N), "ends is NULL"),
    "activation": (lambda: glu(b"mish"), "'mish' is unknown"),
    "no activation": (lambda: glu(N), "activation is NULL"),
    "no tier": (lambda: glu(tier=N), "tier is NULL"),
    "gates": (lambda: glu(rows=MANY, inter=2**10), "any memory"),
    "gate of 0": (lambda: glu(inter=0), "is 0"),
    "head of 0": (lambda: attention(width=0), "is 0"),
    "long": (lambda: attention(seq=2**62, heads=4), "any memory"),
    "no values": (lambda: attention(v=N), "an array is NULL"),
    "lr": (lambda: update(lr=-1.0), "lr is -1"),
    "lr nan": (lambda: update(lr=NAN), "lr is nan"),
    "eps": (lambda: update(eps=0.0), "eps is 0"),
    "weight_decay": (lambda: update(weight_decay=INF), "weight_decay is inf"),
    "beta1": (lambda: update(beta1=1.0), "beta1 is 1"),
    "beta2": (lambda: update(beta2=-0.1), "beta2 is -0.1"),
    "step": (lambda: update(step=0), "step is 0"),
    "peak": (lambda: update(True, peak=0.0), "peak is 0"),
    "numbers": (lambda: update(n=2**45), "any memory"),
    "no gradient": (lambda: update(g=N), "an array is NULL"),
    "size": (lambda: update(struct_size=1), "struct_size is 1"),
    "all of none": (lambda: lib.modernbert_all_finite(1, 2, N, ffi.new("int *")), "is NULL"),
    "all on no thread": (lambda: lib.modernbert_clear(0, 2, P), "threads is 0"),
    "nothing to clear": (lambda: lib.modernbert_clear(1, 2, N), "an array is NULL"),
    "all of too many": (lambda: lib.modernbert_clear(1, 2**45, P), "any memory"),
}  # fmt: skip


@pytest.mark.parametrize("what", ROWS)
def test_bad_argument_of_rows_is_refused(what: str) -> None:
    call, words = ROWS[what]
    assert call() == INVALID and words in last_error(), last_error()
